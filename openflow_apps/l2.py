"""Switching: which network a frame belongs to, where a known MAC is, where a flood goes, how it leaves.

Tables classify, l2_lookup, flood and output. A frame that no flow names is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from vswitchctl.model.flow import Flow
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import KnownMac, NextHop, Switch, SwitchNetwork, SwitchPort
from vswitchctl.pipeline.actions import (
    VID_PRESENT,
    Action,
    apart,
    load,
    output,
    pop_vlan,
    push_vlan,
    resubmit,
    set_vlan,
)
from vswitchctl.pipeline.app import Part
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import MatchValue, Template, Var, flow
from vswitchctl.pipeline.fields import ETH_DST, GROUP_BIT, IN_PORT, VLAN_VID, Field
from vswitchctl.pipeline.registers import FLOOD_PART, LEARN, NETWORK, NO_FLOOD, OUT_PORT, Bits
from vswitchctl.pipeline.registers import FLOODED as COPIED
from vswitchctl.pipeline.tables import (
    ARP_ND,
    CLASSIFY,
    CT_FROM,
    CT_TO,
    FLOOD,
    L2_LEARNED,
    L2_LOOKUP,
    NEXT_HOP,
    OUTPUT,
    PORT_SECURITY,
    QOS_FROM,
    QOS_TO,
    UNKNOWN_STORM,
    Table,
)

KNOWN, FLOODED, UNKNOWN, DEFAULT = 100, 90, 10, 0
"""Priorities: what was declared, what goes to all, what was not declared, everything else.

FLOODED + 1 is a further part of a flood."""

FLOOD_PORTS = 900
"""Ports in one flow of a flood: 40 to 72 bytes each, and a flow has 64 kB (ofp_header.length). Open vSwitch
ends a packet's way after 4,096 resubmits (ofproto-dpif-xlate.c), so no more than that can be flooded to."""

COPIES_KEPT = 1 << 14
"""A flood is made anew whenever a port comes or goes, and but for that port of the same copies."""


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
    for shape in product(
        (False, True), (False, True), (False, True), (PORT_SECURITY, ARP_ND, QOS_FROM, CT_FROM)
    )
}

_LOOKUP = Template(
    L2_LOOKUP,
    KNOWN,
    {NETWORK: Var("network"), ETH_DST: Var("mac")},
    [load(OUT_PORT, Var("port"))],
    goto=CT_TO,
)
_LOOKUP_NEXT_HOP = Template(
    L2_LOOKUP,
    KNOWN,
    {NETWORK: Var("network"), ETH_DST: Var("mac")},
    [load(OUT_PORT, Var("port"))],
    goto=NEXT_HOP,
)
_LOOKUP_GROUP = Template(L2_LOOKUP, FLOODED, {ETH_DST: (GROUP_BIT, GROUP_BIT)}, goto=FLOOD)
_LOOKUP_UNKNOWN = Template(L2_LOOKUP, UNKNOWN, {NETWORK: Var("network")}, [resubmit(L2_LEARNED)], goto=FLOOD)
_LOOKUP_LIMITED = Template(
    L2_LOOKUP,
    UNKNOWN + 1,
    {NETWORK: Var("network"), IN_PORT: Var("port")},
    [resubmit(L2_LEARNED)],
    goto=UNKNOWN_STORM,
)
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
    if port.endpoint:
        return ARP_ND
    return CT_FROM if port.limits is None else QOS_FROM


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


def _unknown(port: SwitchPort, learning: Collection[int]) -> tuple[int, ...]:
    """Tags of networks in which what the port sends to nobody knows whom is counted before it is flooded."""
    if port.limits is None or port.limits.unknown_unicast is None:
        return ()
    return tuple(part.tag for part in port.memberships if part.tag in learning)


def _of_port(port: SwitchPort, counted: Sequence[int]) -> Iterator[Flow]:
    yield from _port(port)
    for tag in counted:
        if port.limits is not None:
            yield _LOOKUP_LIMITED(cookie(port.limits.owner), network=tag, port=port.ofport)


def _of_mac(known: KnownMac) -> Iterator[Flow]:
    yield _LOOKUP(cookie(known.owner), network=known.tag, mac=known.mac, port=known.ofport)


def _of_hop(hop: NextHop) -> Iterator[Flow]:
    yield _LOOKUP_NEXT_HOP(cookie(hop.owner), network=hop.tag, mac=hop.mac, port=hop.ofport)


def _shared(owner: Owner) -> Iterator[Flow]:
    mark = cookie(owner)
    yield _LOOKUP_GROUP(mark)
    yield _FLOOD_FOUND(mark)


@dataclass(frozen=True, slots=True)
class _Copies:
    """What a flood must know of ports. ways: where a copy goes, if not to output."""

    ways: Mapping[int, Table]
    limited: frozenset[int]
    rejecting: frozenset[int]

    def of(self, ports: Collection[int]) -> _Copies:
        """What the flood to these must know."""
        ways = {port: self.ways[port] for port in ports if port in self.ways}
        return _Copies(ways, self.limited.intersection(ports), self.rejecting.intersection(ports))


def _copies(ports: Sequence[SwitchPort]) -> _Copies:
    return _Copies(
        {port.ofport: _way(port) for port in ports},
        frozenset(port.ofport for port in ports if port.limits is not None and port.limits.limits_to),
        frozenset(port.ofport for port in ports if port.acl is not None and port.acl.coverage.rejects_in),
    )


def _way(port: SwitchPort) -> Table:
    """Where a copy for the port goes."""
    if port.acl is not None:
        return CT_TO
    return QOS_TO if port.limits is not None and port.limits.limits_to else OUTPUT


@lru_cache(maxsize=COPIES_KEPT)
def _copy(port: int, by: Table, limited: bool) -> Sequence[Action]:
    """Limited: by a meter, at once or on the next bridge."""
    copy = (load(OUT_PORT, port), resubmit(by))
    return [apart(*copy)] if limited else copy


def _network(network: SwitchNetwork, copies: _Copies) -> Iterator[Flow]:
    mark = cookie(network.owner)
    if network.learns:
        yield _LOOKUP_UNKNOWN(mark, network=network.tag)
    for part, start in enumerate(range(0, len(network.flood), FLOOD_PORTS)):
        ports = network.flood[start : start + FLOOD_PORTS]
        actions = [load(COPIED, 1)] if not copies.rejecting.isdisjoint(ports) else []
        for port in ports:
            limited = port in copies.limited or port in network.apart
            actions += _copy(port, copies.ways.get(port, OUTPUT), limited)
        yield _flood(network, part, actions)


def _flood(network: SwitchNetwork, part: int, copies: Sequence[Action]) -> Flow:
    """A copy for each port; then on to the next part where there is one."""
    actions = list(copies)
    if part < (len(network.flood) - 1) // FLOOD_PORTS:
        actions += [load(OUT_PORT, 0), load(FLOOD_PART, part + 1), resubmit(FLOOD)]
    match: dict[Field | Bits, MatchValue] = {NETWORK: network.tag, OUT_PORT: 0, NO_FLOOD: 0}
    if part:
        match[FLOOD_PART] = part
    return flow(FLOOD, FLOODED + bool(part), match, actions, cookie=cookie(network.owner))


@dataclass(frozen=True)
class L2:
    """The app. Unicast to a MAC nobody declared is flooded only where the network has such MACs at all."""

    name: str = "l2"
    tables: tuple[Table, ...] = (CLASSIFY, L2_LOOKUP, FLOOD, OUTPUT)
    reads: tuple[str, ...] = ("owner", "ports", "macs", "networks", "next_hops")

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """Every flow of one bridge's switching."""
        return (flow for part in self.parts(switch) for flow in part.make(*part.inputs))

    def parts(self, switch: Switch) -> Iterator[Part]:
        """One for each port, network and MAC: a port that comes changes its own flows and its floods."""
        if switch.networks:
            yield Part("shared", (switch.owner,), _shared)
        learning = {network.tag for network in switch.networks if network.learns}
        for port in switch.ports:
            yield Part(("port", port.ofport), (port, _unknown(port, learning)), _of_port)
        copies = _copies(switch.ports)
        for network in switch.networks:
            yield Part(("network", network.tag), (network, copies.of(network.flood)), _network)
        for known in switch.macs:
            yield Part((known.tag, known.mac), (known,), _of_mac)
        for hop in switch.next_hops:
            yield Part(("hop", hop.tag, hop.version, hop.address), (hop,), _of_hop)


APP = L2()
