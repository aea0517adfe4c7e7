"""A topology's routers as the bridges need them: gateways, routes and neighbours by number. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import NamedTuple

from vswitchctl.compiler.endpoints import mac_number
from vswitchctl.compiler.policy import Numbers
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import Neighbour, RoutedNetwork, SwitchRoute, SwitchRouter
from vswitchctl.model.topology import Router, RouterRoute, Topology
from vswitchctl.topology.routing import (
    AnyAddress,
    entry_bridges,
    is_routed,
    routed_subnets,
    router_of,
    uplinks_of,
)

Entries = frozenset[str]
"""Bridges where packets enter the networks of a router."""


def switch_routers(topology: Topology, tags: Mapping[str, int]) -> tuple[tuple[Entries, SwitchRouter], ...]:
    """Every router, with the bridges that need it."""
    return tuple(
        (
            entry_bridges(topology, set(topology.routers[name].networks)),
            _router(topology, tags, name, number),
        )
        for name, number in router_numbers(topology).items()
    )


def router_numbers(topology: Topology) -> dict[str, int]:
    """A number for every router: made of its name, so that it stays."""
    numbers = Numbers()
    return {name: numbers.of(name) for name in sorted(topology.routers)}


class OutsideHop(NamedTuple):
    """A next hop behind an uplink. mac: its own where the file declares it, else one that stands for it.

    asked: (version, address of the hop, of the gateway that asks) where nobody declared its MAC.
    """

    mac: int
    uplink: str
    owner: Owner
    asked: tuple[int, int, int] | None


def outside_hops(topology: Topology, network: str) -> Iterator[OutsideHop]:
    """Next hops that no endpoint of the network is, once each."""
    seen: set[int] = set()
    name = router_of(topology).get(network)
    router = topology.routers.get(name or "")
    if router is None or not router.routes:
        return
    owners, macs = _declared(topology, network), _declared_macs(router)
    for route in router.routes:
        via = ip_address(route.via)
        if via in owners or connected(topology, router, route) != network:
            continue
        mac = mac_number(macs.get(route.via) or topology.next_hop_mac(network, route.via))
        if mac not in seen:
            seen.add(mac)
            asks = via.version, int(via), int(_gateway_of(topology, network, via))
            asked = None if route.via in macs else asks
            for uplink in uplinks_of(topology, network):
                yield OutsideHop(mac, uplink, Owner(topology.name, f"routers/{name}"), asked)


def _declared_macs(router: Router) -> dict[str, str]:
    """Next hop -> its MAC, where one of the routes has it."""
    return {route.via: route.mac for route in router.routes if route.mac is not None}


def _declared(topology: Topology, network: str) -> frozenset[AnyAddress]:
    return frozenset(
        ip_interface(text).ip
        for interface in topology.endpoints().values()
        if interface.network == network
        for text in interface.ip
    )


def _gateway_of(topology: Topology, network: str, via: AnyAddress) -> AnyAddress:
    subnets = routed_subnets(topology.networks[network])
    return next(gateway for subnet, gateway in subnets.items() if via in subnet)


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
    known, macs = {(one.tag, one.address) for one in found}, _declared_macs(router)
    for route in router.routes:
        network, via = connected(topology, router, route), ip_address(route.via)
        if network is not None and (tags[network], int(via)) not in known:
            known.add((tags[network], int(via)))
            mac = mac_number(macs.get(route.via) or topology.next_hop_mac(network, route.via))
            found.append(_neighbour(tags[network], via, mac, owner))
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
