"""Switching: which network a frame belongs to, where a known MAC is, where a flood goes, how it leaves.

Tables classify, l2_lookup, flood and output. A frame that no flow names is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from vswitchctl.model.flow import Flow
from vswitchctl.model.switch import Switch, SwitchNetwork, SwitchPort
from vswitchctl.pipeline.actions import Action, load, output, pop_vlan, push_vlan, resubmit, set_vlan
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import Match, Template, Var, flow
from vswitchctl.pipeline.fields import ETH_DST, IN_PORT, VLAN_VID
from vswitchctl.pipeline.registers import LEARN, NETWORK, NO_FLOOD, OUT_PORT
from vswitchctl.pipeline.tables import (
    ARP_ND,
    CLASSIFY,
    CT_FROM,
    CT_TO,
    FLOOD,
    L2_LEARNED,
    L2_LOOKUP,
    OUTPUT,
    PORT_SECURITY,
    Table,
)

VID_PRESENT = 0x1000
"""OFPVID_PRESENT, OpenFlow 1.4.1 section 7.2.3.8: the bit of OXM_OF_VLAN_VID that says a tag is there."""

GROUP_BIT = 0x010000000000
"""IEEE 802.3: the least significant bit of the first octet marks broadcast and multicast."""

KNOWN, FLOODED, UNKNOWN, DEFAULT = 100, 90, 10, 0
"""Priorities: what was declared, what goes to all, what was not declared, everything else."""


def _classify(tagged: bool, learn: bool, flood: bool, goto: Table) -> Template:
    actions: list[Action] = [pop_vlan()] if tagged else []
    actions.append(load(NETWORK, Var("network")))
    if learn:
        actions.append(load(LEARN, 1))
    if not flood:
        actions.append(load(NO_FLOOD, 1))
    return Template(CLASSIFY, KNOWN, {IN_PORT: Var("port"), VLAN_VID: Var("vid")}, actions, goto=goto)


_CLASSIFY = {
    shape: _classify(*shape)
    for shape in product((False, True), (False, True), (False, True), (PORT_SECURITY, ARP_ND, CT_FROM))
}

_LOOKUP = Template(
    L2_LOOKUP,
    KNOWN,
    {NETWORK: Var("network"), ETH_DST: Var("mac")},
    [load(OUT_PORT, Var("port"))],
    goto=CT_TO,
)
_LOOKUP_GROUP = Template(L2_LOOKUP, FLOODED, {ETH_DST: (GROUP_BIT, GROUP_BIT)}, goto=FLOOD)
_LOOKUP_UNKNOWN = Template(L2_LOOKUP, UNKNOWN, {NETWORK: Var("network")}, [resubmit(L2_LEARNED)], goto=FLOOD)
_FLOOD_FOUND = Template(FLOOD, DEFAULT, {}, goto=CT_TO)

_OUTPUT_UNTAGGED = Template(
    OUTPUT, KNOWN, {NETWORK: Var("network"), OUT_PORT: Var("port")}, [output(Var("port"))]
)
# The tag goes on for this port alone: a flood continues with the frame as it was.
_OUTPUT_TAGGED = Template(
    OUTPUT,
    KNOWN,
    {NETWORK: Var("network"), OUT_PORT: Var("port")},
    [push_vlan(), set_vlan(Var("vid")), output(Var("port")), pop_vlan()],
)


def _after_classify(port: SwitchPort) -> Table:
    """Only endpoints are checked and answered; over a link comes what was, on the bridge where it entered."""
    if port.security is not None:
        return PORT_SECURITY
    return ARP_ND if port.endpoint else CT_FROM


def _port(port: SwitchPort) -> Iterator[Flow]:
    mark = cookie(port.owner)
    after = _after_classify(port)
    for part in port.memberships:
        tagged = part.vid is not None
        vid = VID_PRESENT | part.vid if part.vid is not None else 0
        yield _CLASSIFY[tagged, part.learn, part.flood, after](
            mark, port=port.ofport, vid=vid, network=part.tag
        )
        if part.vid is None:
            yield _OUTPUT_UNTAGGED(mark, network=part.tag, port=port.ofport)
        else:
            yield _OUTPUT_TAGGED(mark, network=part.tag, port=port.ofport, vid=vid)


def _network(network: SwitchNetwork) -> Iterator[Flow]:
    mark = cookie(network.owner)
    if network.learns:
        yield _LOOKUP_UNKNOWN(mark, network=network.tag)
    if network.flood:
        each = [action for port in network.flood for action in (load(OUT_PORT, port), resubmit(CT_TO))]
        match: Match = {NETWORK: network.tag, OUT_PORT: 0, NO_FLOOD: 0}
        yield flow(FLOOD, FLOODED, match, each, cookie=mark)


@dataclass(frozen=True)
class L2:
    """The app. Unicast to a MAC nobody declared is flooded only where the network has such MACs at all."""

    name: str = "l2"
    tables: tuple[Table, ...] = (CLASSIFY, L2_LOOKUP, FLOOD, OUTPUT)

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """Every flow of one bridge's switching."""
        if switch.networks:
            mark = cookie(switch.owner)
            yield _LOOKUP_GROUP(mark)
            yield _FLOOD_FOUND(mark)
        for port in switch.ports:
            yield from _port(port)
        for network in switch.networks:
            yield from _network(network)
        for known in switch.macs:
            yield _LOOKUP(cookie(known.owner), network=known.tag, mac=known.mac, port=known.ofport)


APP = L2()
