"""Port security: an endpoint sends as itself, and does not play a DHCP server or a router.

Tables port_security and source_address; only checked ports' frames come here. MACs, ARP and neighbour
discovery in the first, IP sources in the second, so flows grow with MACs plus addresses. Cheap by shape: what
all checked ports have in common (what is refused, what a host without an address may send) is one flow each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vswitchctl.model.flow import Flow
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import AllowedSource, PortSecurity, Prefix, Switch
from vswitchctl.pipeline.app import Part
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import Match, Template, Var
from vswitchctl.pipeline.fields import (
    ARP_SHA,
    ARP_SPA,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    ICMPV6_CODE,
    ICMPV6_MLD2_REPORT,
    ICMPV6_MLD_DONE,
    ICMPV6_MLD_REPORT,
    ICMPV6_NA,
    ICMPV6_NS,
    ICMPV6_RA,
    ICMPV6_REDIRECT,
    ICMPV6_RS,
    ICMPV6_TYPE,
    IN_PORT,
    IP_PROTO,
    IPV4_SRC,
    IPV6_SRC,
    ND_SLL,
    ND_TARGET,
    ND_TLL,
    PROTO_ICMPV6,
    PROTO_UDP,
    UDP_DST,
    UDP_SRC,
    Field,
)
from vswitchctl.pipeline.tables import ARP_ND, PORT_SECURITY, SOURCE_ADDRESS, Table

DHCP_SERVER, DHCP_CLIENT = 67, 68
"""UDP ports, RFC 2131 section 4.1."""
DHCPV6_CLIENT, DHCPV6_SERVER = 546, 547
"""UDP ports, RFC 8415 section 7.2."""

EXEMPT, GUARDED, CHECKED, REFUSED, KNOWN, NO_ADDRESS, SPOOFED, DEFAULT = 130, 120, 110, 105, 100, 90, 50, 0
"""Priorities. port_security: a server's own messages, everybody else's, good ARP and ND, any other, the MAC.
source_address: an address of the endpoint, no address yet, any other, what has none."""

_ARP: Match = {ETH_TYPE: ETH_TYPE_ARP}
_ICMPV6: Match = {ETH_TYPE: ETH_TYPE_IPV6, IP_PROTO: PROTO_ICMPV6}
_NS: Match = {**_ICMPV6, ICMPV6_TYPE: ICMPV6_NS, ICMPV6_CODE: 0}
_NA: Match = {**_ICMPV6, ICMPV6_TYPE: ICMPV6_NA, ICMPV6_CODE: 0}
_UDP4: Match = {ETH_TYPE: ETH_TYPE_IPV4, IP_PROTO: PROTO_UDP}
_UDP6: Match = {ETH_TYPE: ETH_TYPE_IPV6, IP_PROTO: PROTO_UDP}
_SENDER: Match = {IN_PORT: Var("port"), ETH_SRC: Var("mac")}

# A server answers from its port, to a client's: each alone is enough to deceive a client. The second number
# makes a frame that is both match one flow only.
_DHCP: tuple[tuple[Match, int], ...] = (
    ({**_UDP4, UDP_SRC: DHCP_SERVER}, 0),
    ({**_UDP4, UDP_DST: DHCP_CLIENT}, 1),
    ({**_UDP6, UDP_SRC: DHCPV6_SERVER}, 0),
    ({**_UDP6, UDP_DST: DHCPV6_CLIENT}, 1),
)
_ROUTER: tuple[tuple[Match, int], ...] = (
    ({**_ICMPV6, ICMPV6_TYPE: ICMPV6_RA}, 0),
    ({**_ICMPV6, ICMPV6_TYPE: ICMPV6_REDIRECT}, 0),
)
_GUARDS = [Template(PORT_SECURITY, GUARDED + more, match) for match, more in (*_DHCP, *_ROUTER)]
# Open vSwitch shows a solicitation whose options it cannot read with no target and no source option.
_UNREADABLE = Template(PORT_SECURITY, GUARDED, {**_NS, ND_TARGET: 0})
_REFUSED = [
    Template(PORT_SECURITY, REFUSED, match)
    for match in (
        _ARP,
        {**_ICMPV6, ICMPV6_TYPE: ICMPV6_NS},
        {**_ICMPV6, ICMPV6_TYPE: ICMPV6_NA},
    )
]
_SPOOFED = [
    Template(SOURCE_ADDRESS, SPOOFED, {ETH_TYPE: ethertype}) for ethertype in (ETH_TYPE_IPV4, ETH_TYPE_IPV6)
]
# From 0.0.0.0 a host asks for a lease; from :: it looks whether an address is free, and joins groups.
_UNADDRESSED: tuple[Match, ...] = (
    {**_UDP4, IPV4_SRC: 0, UDP_SRC: DHCP_CLIENT, UDP_DST: DHCP_SERVER},
    *(
        {**_ICMPV6, IPV6_SRC: 0, ICMPV6_TYPE: kind}
        for kind in (ICMPV6_MLD_REPORT, ICMPV6_MLD_DONE, ICMPV6_RS, ICMPV6_NS, ICMPV6_MLD2_REPORT)
    ),
)
_NO_ADDRESS = [Template(SOURCE_ADDRESS, NO_ADDRESS, match, goto=ARP_ND) for match in _UNADDRESSED]
_NOT_IP = Template(SOURCE_ADDRESS, DEFAULT, {}, goto=ARP_ND)

_SHARED = (*_GUARDS, _UNREADABLE, *_REFUSED)
_SHARED_ADDRESSES = (*_SPOOFED, *_NO_ADDRESS, _NOT_IP)

PROBE: Prefix = (0, 32)
"""The sender address of an ARP probe, RFC 5227 section 1.1."""


@dataclass(frozen=True)
class _Way:
    """The shapes of a source's flows that do not depend on its addresses. after: where its frames go on."""

    mac: Template
    arp: Template
    solicitations: tuple[Template, Template]
    advertisement: Template
    dhcp: tuple[Template, ...]
    router: tuple[Template, ...]


def _way(after: Table) -> _Way:
    def exempt(matches: tuple[tuple[Match, int], ...]) -> tuple[Template, ...]:
        return tuple(
            Template(PORT_SECURITY, EXEMPT + more, {**_SENDER, **match}, goto=after)
            for match, more in matches
        )

    return _Way(
        mac=Template(PORT_SECURITY, KNOWN, _SENDER, goto=after),
        arp=Template(PORT_SECURITY, CHECKED, {**_SENDER, **_ARP, ARP_SHA: Var("mac")}, goto=ARP_ND),
        solicitations=(
            Template(PORT_SECURITY, CHECKED, {**_SENDER, **_NS, ND_SLL: Var("mac")}, goto=after),
            Template(PORT_SECURITY, CHECKED, {**_SENDER, **_NS, ND_SLL: 0}, goto=after),
        ),
        advertisement=Template(PORT_SECURITY, CHECKED, {**_SENDER, **_NA, ND_TLL: Var("mac")}, goto=after),
        dhcp=exempt(_DHCP),
        router=exempt(_ROUTER),
    )


_BY_ADDRESS, _BY_MAC = _way(SOURCE_ADDRESS), _way(ARP_ND)


def _leading(field: Field, length: int) -> Match:
    """The first `length` bits of an address."""
    return (
        {field: (Var("address"), field.full >> field.bits - length << field.bits - length)} if length else {}
    )


@cache
def _arp(length: int) -> Template:
    match: Match = {**_SENDER, **_ARP, ARP_SHA: Var("mac"), **_leading(ARP_SPA, length)}
    return Template(PORT_SECURITY, CHECKED, match, goto=ARP_ND)


@cache
def _advertisement(length: int) -> Template:
    match: Match = {**_SENDER, **_NA, ND_TLL: Var("mac"), **_leading(ND_TARGET, length)}
    return Template(PORT_SECURITY, CHECKED, match, goto=SOURCE_ADDRESS)


@cache
def _address(field: Field, ethertype: int, length: int) -> Template:
    match: Match = {**_SENDER, ETH_TYPE: ethertype, **_leading(field, length)}
    return Template(SOURCE_ADDRESS, KNOWN, match, goto=ARP_ND)


def _fill(shape: Template, mark: int, port: int, mac: int, prefix: Prefix) -> Flow:
    return shape(mark, port=port, mac=mac, **({"address": prefix[0]} if prefix[1] else {}))


def _addresses(mark: int, port: int, source: AllowedSource) -> Iterator[Flow]:
    for prefix in source.ipv4:
        yield _fill(_arp(prefix[1]), mark, port, source.mac, prefix)
        yield _fill(_address(IPV4_SRC, ETH_TYPE_IPV4, prefix[1]), mark, port, source.mac, prefix)
    if (0, 0) not in source.ipv4 and PROBE not in source.ipv4:
        yield _fill(_arp(PROBE[1]), mark, port, source.mac, PROBE)
    for prefix in source.ipv6:
        yield _fill(_advertisement(prefix[1]), mark, port, source.mac, prefix)
        yield _fill(_address(IPV6_SRC, ETH_TYPE_IPV6, prefix[1]), mark, port, source.mac, prefix)


def _shared(owner: Owner, by_address: bool) -> Iterator[Flow]:
    mark = cookie(owner)
    yield from (shape(mark) for shape in _SHARED)
    if by_address:
        yield from (shape(mark) for shape in _SHARED_ADDRESSES)


def _port(port: int, security: PortSecurity) -> Iterator[Flow]:
    mark = cookie(security.owner)
    for source in security.sources:
        way = _BY_MAC if source.any_address else _BY_ADDRESS
        shapes = [way.mac, *way.solicitations]
        shapes += [way.arp, way.advertisement] if source.any_address else []
        shapes += way.dhcp if security.dhcp_server else ()
        shapes += way.router if security.router else ()
        for shape in shapes:
            yield shape(mark, port=port, mac=source.mac)
        yield from _addresses(mark, port, source)


@dataclass(frozen=True)
class PortSecurityApp:
    """The app. Ports that are not checked have no flow here."""

    name: str = "port-security"
    tables: tuple[Table, ...] = (PORT_SECURITY, SOURCE_ADDRESS)
    reads: tuple[str, ...] = ("owner", "ports")

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """What each checked port may send, and what none may."""
        return (flow for part in self.parts(switch) for flow in part.make(*part.inputs))

    def parts(self, switch: Switch) -> Iterator[Part]:
        """One for each checked port, and one that they share."""
        checked = [(port.ofport, port.security) for port in switch.ports if port.security is not None]
        if checked:
            by_address = any(not source.any_address for _, security in checked for source in security.sources)
            yield Part("shared", (switch.owner, by_address), _shared)
        for inputs in checked:
            yield Part(inputs[0], inputs, _port)


APP = PortSecurityApp()
