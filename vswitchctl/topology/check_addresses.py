"""Checks of addresses: MACs, IPs, subnets, routes and MTUs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache

from vswitchctl.model.topology import Namespace
from vswitchctl.topology.source import Path
from vswitchctl.topology.subject import Issue, Placed, Subject

IPV6_MIN_MTU = 1280
"""RFC 8200 section 5: every link of IPv6 carries 1280 octets."""

AnyInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
AnyNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
AnyAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def _network(text: str) -> AnyNetwork:
    return ipaddress.ip_network(text)


def _addresses(placed: Placed) -> Iterator[tuple[AnyInterface, Path]]:
    """Each address of an interface; its number is named only where there are several."""
    several = len(placed.interface.ip) > 1
    for number, text in enumerate(placed.interface.ip):
        path = (*placed.path, "ip", number) if several else (*placed.path, "ip")
        yield ipaddress.ip_interface(text), path


def _subnets(subject: Subject, placed: Placed) -> tuple[AnyNetwork, ...]:
    network = subject.network(placed.interface.network)
    return tuple(_network(text) for text in network.subnets) if network else ()


def unique_macs(subject: Subject) -> Iterator[Issue]:
    seen: dict[tuple[str, str], str] = {}
    for placed in subject.interfaces:
        mac = subject.topology.endpoint_mac(placed.end)
        key = (placed.interface.network, mac)
        if key in seen:
            message = f"MAC address {mac} is that of '{seen[key]}' in network '{key[0]}' already"
            path = (*placed.path, "mac") if placed.interface.mac else placed.path
            yield Issue(path, message, "choose another, or leave 'mac' out and one is derived")
        seen.setdefault(key, placed.end)


def unique_ips(subject: Subject) -> Iterator[Issue]:
    seen: dict[tuple[str, AnyAddress], str] = {}
    for placed in subject.interfaces:
        for address, path in _addresses(placed):
            key = (placed.interface.network, address.ip)
            if key in seen:
                message = f"address {address.ip} is that of '{seen[key]}' in network '{key[0]}' already"
                yield Issue(path, message, "choose another address")
            seen.setdefault(key, placed.end)


def subnets_disjoint(subject: Subject) -> Iterator[Issue]:
    """Inside a tenant. Two tenants may use the same addresses: nothing of them ever meets."""
    tenants: dict[tuple[str, int], list[tuple[int, int, str, int]]] = {}
    for name, network in subject.topology.networks.items():
        for number, text in enumerate(network.subnets):
            subnet = _network(text)
            first, last = int(subnet.network_address), int(subnet.broadcast_address)
            tenants.setdefault((network.tenant, subnet.version), []).append((first, -last, name, number))
    order = {name: at for at, name in enumerate(subject.topology.networks)}
    for (tenant, _), subnets in tenants.items():
        widest: tuple[int, int, str, int] | None = None
        for subnet_ in sorted(subnets):
            if widest is None or subnet_[0] > -widest[1]:
                widest = subnet_
                continue
            earlier, later = sorted((widest, subnet_), key=lambda s: (order[s[2]], s[3]))
            yield _overlap(subject, tenant, earlier[2:], later[2:])


def _overlap(subject: Subject, tenant: str, earlier: tuple[str, int], later: tuple[str, int]) -> Issue:
    networks = subject.topology.networks
    ours, theirs = networks[later[0]].subnets[later[1]], networks[earlier[0]].subnets[earlier[1]]
    message = f"subnet {ours} overlaps {theirs} of network '{earlier[0]}', of the same tenant '{tenant}'"
    return Issue(("networks", later[0], "subnets", later[1]), message, "choose a subnet apart from it")


def subnets_usable(subject: Subject) -> Iterator[Issue]:
    for name, network in subject.topology.networks.items():
        for number, text in enumerate(network.subnets):
            subnet = _network(text)
            if subnet.is_multicast or subnet.is_loopback:
                what = "multicast" if subnet.is_multicast else "loopback"
                yield Issue(
                    ("networks", name, "subnets", number),
                    f"{text} is a {what} range",
                    "choose a unicast subnet",
                )


def host_addresses(subject: Subject) -> Iterator[Issue]:
    """An address a host can have: unicast, and neither the subnet's own nor its broadcast address."""
    for placed in subject.interfaces:
        for address, path in _addresses(placed):
            ip = address.ip
            if _is_special(ip):
                what = "multicast" if ip.is_multicast else "loopback" if ip.is_loopback else "unspecified"
                yield Issue(path, f"{ip} is no address of a host: it is {what}", "choose a unicast address")
                continue
            declared = [subnet for subnet in _subnets(subject, placed) if ip in subnet]
            yield from _edge_of_subnet(address, declared[0] if declared else address.network, path)


def _is_special(ip: AnyAddress) -> bool:
    return ip.is_multicast or ip.is_unspecified or ip.is_loopback


def _edge_of_subnet(address: AnyInterface, subnet: AnyNetwork, path: Path) -> Iterator[Issue]:
    """RFC 1122 3.2.1.3; RFC 3021 (a /31 has neither); RFC 4291 2.6.1 (the subnet-router anycast address)."""
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return
    if address.ip == subnet.network_address:
        message = f"{address.ip} is the address of subnet {subnet} itself"
        yield Issue(path, message, f"choose a host address, e.g. {subnet.network_address + 1}")
    elif subnet.version == 4 and address.ip == subnet.broadcast_address:
        message = f"{address.ip} is the broadcast address of subnet {subnet}"
        yield Issue(path, message, f"choose a host address, e.g. {subnet.network_address + 1}")


def inside_subnets(subject: Subject) -> Iterator[Issue]:
    """Where a network declares subnets, its interfaces have addresses of them (or link-local ones)."""
    for placed in subject.interfaces:
        subnets = _subnets(subject, placed)
        if not subnets:
            continue
        listed = ", ".join(str(subnet) for subnet in subnets)
        for address, path in _addresses(placed):
            if address.ip.is_link_local or _is_special(address.ip):
                continue
            around = [subnet for subnet in subnets if address.ip in subnet]
            if not around:
                message = f"{address.ip} is outside the subnets of network '{placed.interface.network}'"
                yield Issue(path, message, f"choose an address of {listed}")
            elif address.network.prefixlen not in (around[0].prefixlen, address.max_prefixlen):
                message = f"prefix length /{address.network.prefixlen} is not that of subnet {around[0]}"
                yield Issue(path, message, f"write {address.ip}/{around[0].prefixlen}", "warning")


def routes(subject: Subject) -> Iterator[Issue]:
    for name, node in subject.topology.nodes.items():
        if isinstance(node, Namespace):
            yield from _routes_of(name, node)


def _routes_of(name: str, node: Namespace) -> Iterator[Issue]:
    own = [ipaddress.ip_interface(text) for interface in node.interfaces.values() for text in interface.ip]
    seen: set[str] = set()
    for number, route in enumerate(node.routes):
        path: Path = ("nodes", name, "routes", number)
        if route.to in seen:
            yield Issue(
                (*path, "to"), f"a second route to {route.to}", "the kernel takes one; remove the other"
            )
        seen.add(route.to)
        via, to = ipaddress.ip_address(route.via), _network(route.to)
        if via.version != to.version:
            remedy = (
                "write '::/0' for the default route of IPv6"
                if to.prefixlen == 0
                else "use one IP version for both"
            )
            yield Issue(
                (*path, "via"),
                f"{route.via} is IPv{via.version}, and the route to {to} is IPv{to.version}",
                remedy,
            )
        elif any(via == address.ip for address in own):
            yield Issue(
                (*path, "via"),
                f"{route.via} is an address of this namespace itself",
                "name the router's address",
            )
        elif not any(via in address.network for address in own):
            yield Issue(
                (*path, "via"),
                f"{route.via} is in no subnet of an interface of '{name}'",
                _reachable(own, via.version),
            )


def _reachable(own: list[AnyInterface], version: int) -> str:
    reached = [str(address.network) for address in own if address.version == version]
    return (
        f"choose a router in {', '.join(reached)}"
        if reached
        else f"give an interface an IPv{version} address first"
    )


def mtus(subject: Subject) -> Iterator[Issue]:
    for placed in subject.interfaces:
        name, mtu = placed.interface.network, placed.interface.mtu
        network = subject.network(name)
        if network is None or mtu is None:
            continue
        path = (*placed.path, "mtu")
        if mtu > network.mtu:
            message = f"MTU {mtu} is above that of network '{name}', {network.mtu}"
            yield Issue(path, message, f"at most {network.mtu}, or raise the network's 'mtu'")
        elif mtu < network.mtu:
            message = f"MTU {mtu} is below that of network '{name}', {network.mtu}: longer frames get lost"
            yield Issue(path, message, "use one MTU in a network", "warning")


def ipv6_mtus(subject: Subject) -> Iterator[Issue]:
    """Below 1280 the kernel turns IPv6 off on the device, and its addresses vanish."""
    for name, network in subject.topology.networks.items():
        if network.mtu < IPV6_MIN_MTU and any(":" in subnet for subnet in network.subnets):
            message = f"MTU {network.mtu} is too small for the IPv6 subnets of this network"
            yield Issue(("networks", name, "mtu"), message, f"at least {IPV6_MIN_MTU} (RFC 8200)")
    for placed in subject.interfaces:
        if (
            not any(":" in text for text in placed.interface.ip)
            or subject.network(placed.interface.network) is None
        ):
            continue
        mtu = subject.topology.endpoint_mtu(placed.end)
        if mtu < IPV6_MIN_MTU:
            path = (*placed.path, "mtu") if placed.interface.mtu else (*placed.path, "ip")
            message = f"MTU {mtu} of '{placed.end}' is too small for its IPv6 address"
            yield Issue(path, message, f"at least {IPV6_MIN_MTU} (RFC 8200)")
