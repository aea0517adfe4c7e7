"""What declared endpoints may send, and which addresses are theirs alone. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface, ip_network

from vswitchctl.model.state import Owner
from vswitchctl.model.switch import AllowedSource, PortSecurity, Prefix
from vswitchctl.model.topology import Interface, Topology

AnyNetwork = IPv4Network | IPv6Network


def mac_number(text: str) -> int:
    """'02:00:00:00:00:01' -> its 48 bits."""
    return int(text.replace(":", ""), 16)


def link_local(mac: int) -> IPv6Network:
    """The link-local address that a host makes of its MAC: RFC 4291, 2.5.6 and appendix A (EUI-64)."""
    identifier = (mac >> 24 << 40 | 0xFFFE << 24 | mac & 0xFFFFFF) ^ 1 << 57
    return IPv6Network((0xFE80 << 112 | identifier, 128))


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


def _sources(interface: Interface, own_mac: int) -> Mapping[int, list[AnyNetwork] | None]:
    """MAC -> addresses that go with it; None for any, as where an interface declares none."""
    own = [ip_network(ip_interface(text).ip) for text in interface.ip] or None
    sources: dict[int, list[AnyNetwork] | None] = {own_mac: own}
    for pair in interface.allowed:
        mac = own_mac if pair.mac is None else mac_number(pair.mac)
        more = own if pair.ip is None else [ip_network(pair.ip)]
        known = sources.get(mac, [])
        sources[mac] = None if known is None or more is None else [*known, *more]
    return sources


def _source(mac: int, addresses: list[AnyNetwork] | None) -> AllowedSource:
    if addresses is None:
        return AllowedSource(mac, (), (), any_address=True)
    ipv4 = collapse_addresses(a for a in addresses if isinstance(a, IPv4Network))
    ipv6 = collapse_addresses([link_local(mac), *(a for a in addresses if isinstance(a, IPv6Network))])
    return AllowedSource(mac, _prefixes(ipv4), _prefixes(ipv6), any_address=False)


def _prefixes(networks: Iterable[AnyNetwork]) -> tuple[Prefix, ...]:
    return tuple(sorted((int(network.network_address), network.prefixlen) for network in networks))


def has_strangers(topology: Topology, end: str) -> bool:
    """Whether MACs that nobody declared may send from behind the endpoint."""
    interface = topology.interface(end)
    if interface is None:
        return False
    own = topology.endpoint_mac(end)
    return not interface.port_security or any(pair.mac not in (None, own) for pair in interface.allowed)


def networks_with_strangers(topology: Topology) -> frozenset[str]:
    """Networks that an endpoint with such MACs is in."""
    return frozenset(
        interface.network for end, interface in topology.endpoints().items() if has_strangers(topology, end)
    )


def own_addresses(topology: Topology) -> dict[str, tuple[tuple[int, int], ...]]:
    """End -> (version, address) of what it alone may use: what another is allowed, too, may move."""
    shared: dict[str, list[tuple[str, AnyNetwork]]] = defaultdict(list)
    for end, interface in topology.endpoints().items():
        shared[interface.network] += [(end, ip_network(pair.ip)) for pair in interface.allowed if pair.ip]
    return {
        end: tuple(
            (address.version, int(address))
            for address in (ip_interface(text).ip for text in interface.ip)
            if not any(other != end and address in allowed for other, allowed in shared[interface.network])
        )
        for end, interface in topology.endpoints().items()
    }
