"""ARP requests and neighbour solicitations for declared addresses, answered by the switch where they enter.

Tables arp_nd and nd_answer. Only requests of declared endpoints come here, and only those to a group address:
a unicast request asks whether one neighbour is still there, which that neighbour alone can say. What is not
answered is flooded as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vswitchctl.model.flow import Flow
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import KnownAddress, Switch
from vswitchctl.pipeline.actions import in_port, move, set_field
from vswitchctl.pipeline.app import Part
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import Match, Template, Var
from vswitchctl.pipeline.fields import (
    ARP_OP,
    ARP_REPLY,
    ARP_REQUEST,
    ARP_SHA,
    ARP_SPA,
    ARP_THA,
    ARP_TPA,
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV6,
    GROUP_BIT,
    ICMPV6_CODE,
    ICMPV6_NA,
    ICMPV6_NS,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV6_DST,
    IPV6_SRC,
    ND_OPTIONS_TYPE,
    ND_RESERVED,
    ND_SLL,
    ND_TARGET,
    ND_TLL,
    PROTO_ICMPV6,
)
from vswitchctl.pipeline.registers import NETWORK
from vswitchctl.pipeline.tables import ARP_ND, ND_ANSWER, QOS_FROM, Table

BROADCAST = 0xFFFFFFFFFFFF

SOLICITED_OVERRIDE = 0x60000000
"""Flags S and O of an advertisement, RFC 4861 section 4.4."""

TARGET_LINK_LAYER = 2
"""The option that names the target's MAC, RFC 4861 section 4.6.1."""

NOT_FOR_US, KNOWN, DEFAULT = 110, 100, 0
"""Priorities: what must reach the others, what is answered, everything else."""

_REQUEST: Match = {ETH_TYPE: ETH_TYPE_ARP, ARP_OP: ARP_REQUEST}
_ND: Match = {ETH_TYPE: ETH_TYPE_IPV6, IP_PROTO: PROTO_ICMPV6, ICMPV6_CODE: 0}
_SOLICITATION: Match = {**_ND, ICMPV6_TYPE: ICMPV6_NS}

# Who asks for its own address announces it, or wants to know who else has it (RFC 5227): all must hear that.
_OWN = Template(
    ARP_ND, NOT_FOR_US, {IN_PORT: Var("port"), **_REQUEST, ARP_TPA: Var("address")}, goto=QOS_FROM
)
_ARP = Template(
    ARP_ND,
    KNOWN,
    {NETWORK: Var("network"), ETH_DST: BROADCAST, **_REQUEST, ARP_TPA: Var("address")},
    [
        move(ETH_SRC, ETH_DST),
        set_field(ETH_SRC, Var("mac")),
        set_field(ARP_OP, ARP_REPLY),
        move(ARP_SHA, ARP_THA),
        set_field(ARP_SHA, Var("mac")),
        move(ARP_SPA, ARP_TPA),
        set_field(ARP_SPA, Var("address")),
        in_port(),
    ],
)
# Without a source option it detects duplicates (RFC 4862 section 5.4.2), or has no room for ours.
_NO_SOURCE = Template(ARP_ND, NOT_FOR_US, {**_SOLICITATION, ND_SLL: 0}, goto=QOS_FROM)
_SOLICITED = Template(
    ARP_ND,
    KNOWN,
    {NETWORK: Var("network"), ETH_DST: (GROUP_BIT, GROUP_BIT), **_SOLICITATION, ND_TARGET: Var("address")},
    [
        move(ETH_SRC, ETH_DST),
        set_field(ETH_SRC, Var("mac")),
        move(IPV6_SRC, IPV6_DST),
        set_field(IPV6_SRC, Var("address")),
        set_field(ICMPV6_TYPE, ICMPV6_NA),
        set_field(ND_RESERVED, SOLICITED_OVERRIDE),
        set_field(ND_OPTIONS_TYPE, TARGET_LINK_LAYER),
    ],
    goto=ND_ANSWER,
)
# The target's option is a field of advertisements only, and the frame is one only from the next table on.
_ADVERTISE = Template(ND_ANSWER, KNOWN, {**_ND, ICMPV6_TYPE: ICMPV6_NA}, [move(ETH_SRC, ND_TLL), in_port()])
_PASS = Template(ARP_ND, DEFAULT, {}, goto=QOS_FROM)


def _known(known: KnownAddress) -> Iterator[Flow]:
    answer = _ARP if known.version == 4 else _SOLICITED
    mark = cookie(known.owner)
    yield answer(mark, network=known.tag, address=known.address, mac=known.mac)
    if known.version == 4 and known.ofport is not None:
        yield _OWN(mark, port=known.ofport, address=known.address)


def _shared(owner: Owner, asked: bool, advertises: bool) -> Iterator[Flow]:
    mark = cookie(owner)
    if asked:
        yield _PASS(mark)
    if advertises:
        yield _NO_SOURCE(mark)
        yield _ADVERTISE(mark)


@dataclass(frozen=True)
class ArpNd:
    """The app. An address that several endpoints may use is not answered for: it may move."""

    name: str = "arp-nd"
    tables: tuple[Table, ...] = (ARP_ND, ND_ANSWER)
    reads: tuple[str, ...] = ("owner", "ports", "addresses")

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """The answers of one bridge; none where it has no endpoint that could ask."""
        return (flow for part in self.parts(switch) for flow in part.make(*part.inputs))

    def parts(self, switch: Switch) -> Iterator[Part]:
        """One for each address, and one that they share."""
        asked = any(port.endpoint for port in switch.ports)
        yield Part("shared", (switch.owner, asked, any(k.version == 6 for k in switch.addresses)), _shared)
        for known in switch.addresses:
            yield Part((known.tag, known.version, known.address), (known,), _known)


APP = ArpNd()
