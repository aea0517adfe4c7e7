"""A topology's routers as the bridges need them: gateways, routes and neighbours by number. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network

from vswitchctl.compiler.endpoints import mac_number
from vswitchctl.compiler.policy import Numbers
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import Neighbour, RoutedNetwork, SwitchRoute, SwitchRouter
from vswitchctl.model.topology import Router, RouterRoute, Topology
from vswitchctl.topology.routing import AnyAddress, entry_bridges, is_routed, routed_subnets, uplinks_of

Entries = frozenset[str]
"""Bridges where packets enter the networks of a router."""


def switch_routers(topology: Topology, tags: Mapping[str, int]) -> tuple[tuple[Entries, SwitchRouter], ...]:
    """Every router, with the bridges that need it."""
    numbers = Numbers()
    return tuple(
        (
            entry_bridges(topology, set(topology.routers[name].networks)),
            _router(topology, tags, name, numbers.of(name)),
        )
        for name in sorted(topology.routers)
    )


def next_hop_macs(topology: Topology, network: str) -> Iterator[tuple[int, str, Owner]]:
    """(MAC, uplink, owner) of next hops that routers declare behind the network's uplink, once each."""
    seen: set[int] = set()
    for name, router in topology.routers.items():
        for route in router.routes if network in router.networks else ():
            if route.mac is None or connected(topology, router, route) != network:
                continue
            mac = mac_number(route.mac)
            if mac not in seen:
                seen.add(mac)
                for uplink in uplinks_of(topology, network):
                    yield mac, uplink, Owner(topology.name, f"routers/{name}")


def connected(topology: Topology, router: Router, route: RouterRoute) -> str | None:
    """The network that the route's next hop is in."""
    found = (name for name in router.networks if is_routed(topology.networks[name], route.via))
    return next(found, None)


def _router(topology: Topology, tags: Mapping[str, int], name: str, number: int) -> SwitchRouter:
    router = topology.routers[name]
    owner = Owner(topology.name, f"routers/{name}")
    networks = tuple(
        sorted((_network(topology, network, tags[network]) for network in router.networks), key=_tag)
    )
    neighbours = _neighbours(topology, router, tags, owner)
    macs = {(one.tag, one.version, one.address): one.mac for one in neighbours}
    return SwitchRouter(
        number,
        owner,
        networks,
        tuple(_routes(topology, router, tags, macs)),
        tuple(sorted(neighbours, key=lambda one: (one.tag, one.version, one.address))),
    )


def _tag(network: RoutedNetwork) -> int:
    return network.tag


def _network(topology: Topology, name: str, tag: int) -> RoutedNetwork:
    subnets = routed_subnets(topology.networks[name])
    return RoutedNetwork(
        tag,
        Owner(topology.name, f"networks/{name}"),
        mac_number(topology.gateway_mac(name)),
        tuple(sorted((gateway.version, int(gateway)) for gateway in subnets.values())),
        tuple(sorted((net.version, (int(net.network_address), net.prefixlen)) for net in subnets)),
    )


def _neighbours(topology: Topology, router: Router, tags: Mapping[str, int], owner: Owner) -> list[Neighbour]:
    """Declared addresses of the router's networks, and next hops that the router declares."""
    found = []
    for end, interface in topology.endpoints().items():
        if interface.network in router.networks:
            mac, mark = mac_number(topology.endpoint_mac(end)), Owner(topology.name, f"interfaces/{end}")
            found += [
                _neighbour(tags[interface.network], ip_interface(text).ip, mac, mark)
                for text in interface.ip
                if is_routed(topology.networks[interface.network], text)
            ]
    hops = {route.via: route for route in router.routes if route.mac is not None}
    for via, route in hops.items():
        network = connected(topology, router, route)
        if network is not None and route.mac is not None:
            found.append(_neighbour(tags[network], ip_address(via), mac_number(route.mac), owner))
    return found


def _neighbour(tag: int, address: AnyAddress, mac: int, owner: Owner) -> Neighbour:
    return Neighbour(tag, address.version, int(address), mac, owner)


def _routes(
    topology: Topology, router: Router, tags: Mapping[str, int], macs: Mapping[tuple[int, int, int], int]
) -> Iterator[SwitchRoute]:
    for number, route in enumerate(router.routes, 1):
        network = connected(topology, router, route)
        via, to = ip_address(route.via), ip_network(route.to)
        mac = None if network is None else macs.get((tags[network], via.version, int(via)))
        if network is not None and mac is not None:
            gateway = mac_number(topology.gateway_mac(network))
            prefix = int(to.network_address), to.prefixlen
            yield SwitchRoute(number, to.version, prefix, tags[network], gateway, mac)
