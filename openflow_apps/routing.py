"""Routing, where a packet enters: gateways that answer, the longest prefix, the neighbour's MAC.

Tables gateway, gateway_nd, route and neighbour. A gateway has the same MAC on every bridge. A routed packet
goes on as a frame of the next network, from that network's gateway, and is not seen by any router again.
What ends at a gateway, for lack of hops or of a route, is dropped; the daemon, if there, tells the sender.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from openflow_apps.answers import NO_ROUTE, TIME_EXCEEDED, icmp_error
from openflow_apps.arp_nd import SOLICITED_OVERRIDE, TARGET_LINK_LAYER
from openflow_apps.next_hop import noting, noting_questions
from vswitchctl.model.flow import Flow
from vswitchctl.model.switch import RoutedNetwork, Switch, SwitchRouter
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.actions import Action, ct_clear, dec_ttl, load, move, set_field
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import Match, Template, Var, flow
from vswitchctl.pipeline.ip import version_of
from vswitchctl.pipeline.punt import Answer, Opcode, PacketIn, PacketOut, continue_in, punt
from vswitchctl.pipeline.registers import GATEWAY_WORDS, NETWORK, OUT_PORT, ROUTER, SCRATCH, Bits
from vswitchctl.pipeline.tables import (
    CT_TO,
    GATEWAY,
    GATEWAY_ND,
    L2_LEARNING,
    L2_LOOKUP,
    NEIGHBOUR,
    OUTPUT,
    ROUTE,
    Table,
)

FOR_US, OTHER, DEFAULT = 100, 90, 0
"""Priorities of gateway and neighbour: what is answered or known, what else has a gateway's MAC, the rest."""

ECHO, OWN, TO_MARTIAN, FROM_MARTIAN, EXPIRED, PREFIX, NO_WAY = 400, 390, 380, 379, 370, 100, 50
"""Priorities of route. A prefix has its length more: 100 to 228, so that the longest one decides."""

TTL = 64
"""Of what a gateway answers: IANA, IP Option Numbers, the recommended default."""

ROUTER_FLAG = 0x80000000
"""Flag R of an advertisement, RFC 4861 section 4.4."""

MARTIANS = (
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
    *("::/127", "fe80::/10", "ff00::/8"),
)
"""Never routed, neither to nor from: RFC 1812 5.3.7, RFC 3927 2.7, RFC 4291 2.5.2, 2.5.3, 2.5.6 and 2.7."""

_INGRESS = Bits(f.IN_PORT, 0, 32, "in_port")
_IP = {4: f.ETH_TYPE_IPV4, 6: f.ETH_TYPE_IPV6}
_SRC = {4: f.IPV4_SRC, 6: f.IPV6_SRC}
_DST = {4: f.IPV4_DST, 6: f.IPV6_DST}
_BITS = {4: 32, 6: 128}
_ND: Match = {f.ETH_TYPE: f.ETH_TYPE_IPV6, f.IP_PROTO: f.PROTO_ICMPV6, f.ICMPV6_CODE: 0}

# Open vSwitch never sends to the port a packet came from. What is turned around comes from nowhere.
_FROM_NOWHERE = load(_INGRESS, 0)
_BACK = [move(f.IN_PORT, OUT_PORT), _FROM_NOWHERE]

_ARP_ANSWER = [
    move(f.ETH_SRC, f.ETH_DST),
    set_field(f.ETH_SRC, Var("gateway_mac")),
    set_field(f.ARP_OP, f.ARP_REPLY),
    move(f.ARP_SHA, f.ARP_THA),
    set_field(f.ARP_SHA, Var("gateway_mac")),
    move(f.ARP_SPA, f.ARP_TPA),
    set_field(f.ARP_SPA, Var("gateway")),
    *_BACK,
]
_ARP_QUESTION: Match = {
    NETWORK: Var("network"),
    f.ETH_TYPE: f.ETH_TYPE_ARP,
    f.ARP_OP: f.ARP_REQUEST,
    f.ARP_TPA: Var("gateway"),
}
_ARP = Template(GATEWAY, FOR_US, _ARP_QUESTION, _ARP_ANSWER, goto=OUTPUT)
_ARP_OF_NEXT_HOP = noting_questions(_ARP_ANSWER)
_SOLICITATION: Match = {
    NETWORK: Var("network"),
    **_ND,
    f.ICMPV6_TYPE: f.ICMPV6_NS,
    f.ND_TARGET: Var("address"),
}
_SOLICITED = Template(
    GATEWAY,
    FOR_US,
    _SOLICITATION,
    [
        move(f.ETH_SRC, f.ETH_DST),
        set_field(f.ETH_SRC, Var("mac")),
        move(f.IPV6_SRC, f.IPV6_DST),
        set_field(f.IPV6_SRC, Var("address")),
        set_field(f.ICMPV6_TYPE, f.ICMPV6_NA),
        set_field(f.ND_RESERVED, ROUTER_FLAG | SOLICITED_OVERRIDE),
        set_field(f.ND_OPTIONS_TYPE, TARGET_LINK_LAYER),
    ],
    goto=GATEWAY_ND,
)
# Without a source option there is no room for the answer's: it detects duplicates (RFC 4862 section 5.4.2).
_NO_SOURCE = Template(GATEWAY, FOR_US + 1, {**_SOLICITATION, f.ND_SLL: 0})
_ADVERTISE = Template(
    GATEWAY_ND,
    FOR_US,
    {**_ND, f.ICMPV6_TYPE: f.ICMPV6_NA},
    [move(f.ETH_SRC, f.ND_TLL), *_BACK],
    goto=OUTPUT,
)
_TO_ROUTER = {
    version: Template(
        GATEWAY,
        OTHER + 1,
        {NETWORK: Var("network"), f.ETH_DST: Var("mac"), f.ETH_TYPE: ip},
        [load(ROUTER, Var("router"))],
        goto=ROUTE,
    )
    for version, ip in _IP.items()
}
_NOT_ROUTED = Template(GATEWAY, OTHER, {NETWORK: Var("network"), f.ETH_DST: Var("mac")})
_NOT_FOR_US = Template(GATEWAY, DEFAULT, {}, goto=L2_LEARNING)


def _echo(version: int) -> Template:
    """The request becomes the reply. A part of a fragmented one cannot be answered by itself."""
    icmp: Match = {f.IP_PROTO: f.PROTO_ICMP, f.ICMP_TYPE: 8, f.ICMP_CODE: 0}
    answered = set_field(f.ICMP_TYPE, 0)
    if version == 6:
        icmp = {f.IP_PROTO: f.PROTO_ICMPV6, f.ICMPV6_TYPE: 128, f.ICMPV6_CODE: 0}
        answered = set_field(f.ICMPV6_TYPE, 129)
    match: Match = {
        ROUTER: Var("router"),
        f.ETH_TYPE: _IP[version],
        f.IP_FRAG: 0,
        _DST[version]: Var("address"),
        **icmp,
    }
    actions = [
        ct_clear(),
        move(f.ETH_SRC, SCRATCH),
        move(f.ETH_DST, f.ETH_SRC),
        move(SCRATCH, f.ETH_DST),
        move(_SRC[version], _DST[version]),
        set_field(_SRC[version], Var("address")),
        answered,
        set_field(f.IP_TTL, TTL),
        *_BACK,
    ]
    return Template(ROUTE, ECHO, match, actions, goto=CT_TO)


_ECHO = {version: _echo(version) for version in _IP}
_OWN = {
    version: Template(ROUTE, OWN, {ROUTER: Var("router"), f.ETH_TYPE: ip, _DST[version]: Var("address")})
    for version, ip in _IP.items()
}
_NEIGHBOUR = {
    version: Template(
        NEIGHBOUR,
        FOR_US,
        {NETWORK: Var("network"), f.ETH_TYPE: ip, _DST[version]: Var("address")},
        [set_field(f.ETH_DST, Var("mac"))],
        goto=L2_LOOKUP,
    )
    for version, ip in _IP.items()
}


def _never() -> Iterator[Template]:
    """What no router sends on."""
    for text in MARTIANS:
        net = ip_network(text)
        prefix = int(net.network_address), int(net.netmask)
        family: Match = {f.ETH_TYPE: _IP[net.version]}
        yield Template(ROUTE, TO_MARTIAN, {**family, _DST[net.version]: prefix})
        yield Template(ROUTE, FROM_MARTIAN, {**family, _SRC[net.version]: prefix})
    for ip in _IP.values():
        yield Template(ROUTE, EXPIRED, {f.ETH_TYPE: ip, f.IP_TTL: 0})


_NEVER = tuple(_never())


def _told(version: int, priority: int, match: Match, opcode: Opcode) -> Template:
    """Dropped, and its sender told by the gateway that it was sent to."""
    words = GATEWAY_WORDS[: _BITS[version] // 32]
    loads = [load(word, Var(word.name)) for word in words]
    whole: Match = {NETWORK: Var("network"), f.ETH_TYPE: _IP[version], **match}
    return Template(ROUTE, priority, whole, [*loads, punt(opcode)])


_EXPIRED = {version: _told(version, EXPIRED, {f.IP_TTL: 1}, Opcode.TIME_EXCEEDED) for version in _IP}
_NO_WAY = {version: _told(version, NO_WAY, {}, Opcode.NO_ROUTE) for version in _IP}


def _words(version: int, address: int) -> dict[str, int]:
    """An address by the registers that hold it."""
    words = GATEWAY_WORDS[: _BITS[version] // 32]
    return {word.name: address >> 32 * (len(words) - 1 - at) & 0xFFFFFFFF for at, word in enumerate(words)}


def _answer(packet: PacketIn, kinds: Mapping[int, tuple[int, int]]) -> Iterator[PacketOut]:
    """An ICMP error from the gateway, back by the port that the packet came from."""
    version = version_of(packet.data)
    if version is None:
        return
    words = GATEWAY_WORDS[: _BITS[version] // 32]
    source = b"".join(packet.register(word).to_bytes(4, "big") for word in words)
    told = icmp_error(packet.data, *kinds[version], packet.data[:6], source)
    if told is not None:
        yield continue_in(OUTPUT, told, {NETWORK: packet.register(NETWORK), OUT_PORT: packet.in_port})


def time_exceeded(packet: PacketIn) -> Iterator[PacketOut]:
    """For the sender of a packet that has no hop left."""
    return _answer(packet, TIME_EXCEEDED)


def no_route(packet: PacketIn) -> Iterator[PacketOut]:
    """For the sender of a packet that no route leads on."""
    return _answer(packet, NO_ROUTE)


def _network(network: RoutedNetwork, router: int) -> Iterator[Flow]:
    mark = cookie(network.owner)
    for version, address in network.gateways:
        if version == 4:
            yield _ARP(mark, network=network.tag, gateway=address, gateway_mac=network.mac)
        else:
            yield _SOLICITED(mark, network=network.tag, address=address, mac=network.mac)
            yield _NO_SOURCE(mark, network=network.tag, address=address)
        yield _ECHO[version](mark, router=router, address=address)
        yield _OWN[version](mark, router=router, address=address)
    for version, address in dict(reversed(network.gateways)).items():  # the first of each version
        words = _words(version, address)
        yield _TO_ROUTER[version](mark, network=network.tag, mac=network.mac, router=router)
        yield _EXPIRED[version](mark, network=network.tag, **words)
        yield _NO_WAY[version](mark, network=network.tag, **words)
    yield _NOT_ROUTED(mark, network=network.tag, mac=network.mac)


def _prefix(router: int, version: int, prefix: tuple[int, int]) -> tuple[int, Match]:
    address, length = prefix
    bits = _BITS[version]
    mask = (1 << bits) - (1 << bits - length)
    match: Match = {ROUTER: router, f.ETH_TYPE: _IP[version]}
    return PREFIX + length, {**match, _DST[version]: (address, mask)} if length else match


def _onto(tag: int, gateway: int) -> list[Action]:
    """One hop: the packet is now in the next network, from its gateway."""
    return [dec_ttl(), load(NETWORK, tag), set_field(f.ETH_SRC, gateway), _FROM_NOWHERE]


def _routes(router: SwitchRouter) -> Iterator[Flow]:
    for network in router.networks:
        for version, prefix in network.subnets:
            priority, match = _prefix(router.number, version, prefix)
            onto = _onto(network.tag, network.mac)
            yield flow(ROUTE, priority, match, onto, NEIGHBOUR, cookie=cookie(network.owner))
    for route in router.routes:
        priority, match = _prefix(router.number, route.version, route.prefix)
        onto = [*_onto(route.tag, route.gateway), set_field(f.ETH_DST, route.mac)]
        yield flow(ROUTE, priority, match, onto, L2_LOOKUP, cookie=cookie(router.owner, route.number))


@dataclass(frozen=True)
class Routing:
    """The app. A bridge without routers costs one flow; a router one flow for each address it can reach."""

    name: str = "routing"
    tables: tuple[Table, ...] = (GATEWAY, GATEWAY_ND, ROUTE, NEIGHBOUR)
    reads: tuple[str, ...] = ("owner", "networks", "routers", "next_hops")
    answers: Mapping[int, Answer] = field(
        default_factory=lambda: {Opcode.TIME_EXCEEDED: time_exceeded, Opcode.NO_ROUTE: no_route}
    )

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """Every flow of one bridge's routers."""
        mark = cookie(switch.owner)
        if switch.networks or switch.routers:
            yield _NOT_FOR_US(mark)
        if switch.routers:
            yield _ADVERTISE(mark)
            for template in _NEVER:
                yield template(mark)
        for hop in switch.next_hops:
            yield from noting(hop, _ARP_OF_NEXT_HOP)
        for router in switch.routers:
            for network in router.networks:
                yield from _network(network, router.number)
            yield from _routes(router)
            for known in router.neighbours:
                yield _NEIGHBOUR[known.version](
                    cookie(known.owner), network=known.tag, address=known.address, mac=known.mac
                )


APP = Routing()
