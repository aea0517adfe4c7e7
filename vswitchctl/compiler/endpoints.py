"""What declared endpoints may send, and which addresses are theirs alone. Pure.

Addresses are integers from the start: `ipaddress` would take most of the time of a compile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from vswitchctl.model.state import Owner
from vswitchctl.model.switch import AllowedSource, PortSecurity, Prefix
from vswitchctl.model.topology import Interface, Topology


class Range(NamedTuple):
    """The addresses that begin as `address` does. version: 4 or 6. length: bits that count."""

    version: int
    address: int
    length: int

    def covers(self, other: Range) -> bool:
        """Whether every address of the other is in this one."""
        if self.version != other.version or self.length > other.length:
            return False
        return not (self.address ^ other.address) >> _BITS[self.version] - self.length

    @property
    def mask(self) -> int:
        """The bits that count, set."""
        bits = _BITS[self.version]
        return (1 << bits) - (1 << bits - self.length)


_BITS = {4: 32, 6: 128}


def address_range(text: str) -> Range:
    """Of a subnet as the model has it, '10.1.0.0/24'."""
    address, _, length = text.partition("/")
    version, family = (6, AF_INET6) if ":" in text else (4, AF_INET)
    number = int.from_bytes(inet_pton(family, address.partition("%")[0]), "big")
    return Range(version, number, int(length or _BITS[version]))


def host_range(text: str) -> Range:
    """Of the one address of '10.1.0.11/24'."""
    return address_range(text.partition("/")[0])


def mac_number(text: str) -> int:
    """'02:00:00:00:00:01' -> its 48 bits."""
    return int(text.replace(":", ""), 16)


def link_local(mac: int) -> Range:
    """The link-local address that a host makes of its MAC: RFC 4291, 2.5.6 and appendix A (EUI-64)."""
    identifier = (mac >> 24 << 40 | 0xFFFE << 24 | mac & 0xFFFFFF) ^ 1 << 57
    return Range(6, 0xFE80 << 112 | identifier, 128)


def port_security(topology: Topology, end: str) -> PortSecurity | None:
    """What the endpoint may send. None where its port is not checked."""
    interface = topology.interface(end)
    if interface is None or not interface.port_security:
        return None
    sources = _sources(interface, mac_number(topology.endpoint_mac(end)))
    return PortSecurity(
        Owner(topology.name, f"interfaces/{end}"),
        tuple(_source(mac, sources[mac]) for mac in sorted(sources)),
        interface.dhcp_server,
        interface.router,
    )


def _sources(interface: Interface, own_mac: int) -> Mapping[int, list[Range] | None]:
    """MAC -> addresses that go with it; None for any, as where an interface declares none."""
    own = [host_range(text) for text in interface.ip] or None
    sources: dict[int, list[Range] | None] = {own_mac: own}
    for pair in interface.allowed:
        mac = own_mac if pair.mac is None else mac_number(pair.mac)
        more = own if pair.ip is None else [address_range(pair.ip)]
        known = sources.get(mac, [])
        sources[mac] = None if known is None or more is None else [*known, *more]
    return sources


def _source(mac: int, ranges: list[Range] | None) -> AllowedSource:
    if ranges is None:
        return AllowedSource(mac, (), (), any_address=True)
    apart = _apart([link_local(mac), *ranges])
    return AllowedSource(mac, _prefixes(apart, 4), _prefixes(apart, 6), any_address=False)


def _apart(ranges: Iterable[Range]) -> list[Range]:
    """Without those that others cover."""
    kept: list[Range] = []
    for one in sorted(ranges, key=lambda one: one.length):
        if not any(other.covers(one) for other in kept):
            kept.append(one)
    return kept


def _prefixes(ranges: Iterable[Range], version: int) -> tuple[Prefix, ...]:
    return tuple(sorted((one.address, one.length) for one in ranges if one.version == version))


def has_strangers(topology: Topology, end: str) -> bool:
    """Whether MACs that nobody declared may send from behind the endpoint."""
    interface = topology.interface(end)
    if interface is None:
        return False
    if not interface.port_security:
        return True
    return any(pair.mac not in (None, topology.endpoint_mac(end)) for pair in interface.allowed)


def networks_with_strangers(topology: Topology) -> frozenset[str]:
    """Networks that an endpoint with such MACs is in."""
    return frozenset(
        interface.network for end, interface in topology.endpoints().items() if has_strangers(topology, end)
    )


def own_addresses(topology: Topology) -> dict[str, tuple[tuple[int, int], ...]]:
    """End -> (version, address) of what it alone may use: what another is allowed, too, may move."""
    endpoints = topology.endpoints()
    shared: dict[str, list[tuple[str, Range]]] = defaultdict(list)
    for end, interface in endpoints.items():
        shared[interface.network] += [(end, address_range(pair.ip)) for pair in interface.allowed if pair.ip]
    return {
        end: tuple(
            (own.version, own.address)
            for own in map(host_range, interface.ip)
            if not any(other != end and allowed.covers(own) for other, allowed in shared[interface.network])
        )
        for end, interface in endpoints.items()
    }
