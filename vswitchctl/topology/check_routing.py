"""Checks of gateways and routers: what could not be routed, or joins tenants by chance, is refused."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from itertools import combinations

import networkx as nx

from vswitchctl.model.topology import Bridge, Network, Router, RouterRoute, Topology
from vswitchctl.topology.graph import attachments, joins_by_linux_bridges, segment
from vswitchctl.topology.routing import (
    AnyNetwork,
    entry_bridges,
    is_routed,
    routed_subnets,
    router_of,
    uplinks_of,
)
from vswitchctl.topology.source import Path
from vswitchctl.topology.subject import Issue, Subject

HOLDS = "a next hop is the 'ip' of an endpoint, or behind the only uplink of its network"


def gateways(subject: Subject) -> Iterator[Issue]:
    """A gateway is a host address of its own in one of the network's subnets, and some router's."""
    routers = router_of(subject.topology)
    owners = {
        (placed.interface.network, ip_interface(text).ip): placed.end
        for placed in subject.interfaces
        for text in placed.interface.ip
    }
    for name, network in subject.topology.networks.items():
        if network.gateway and name not in routers and not subject.lacks("routers"):
            yield Issue(
                ("networks", name, "gateway"),
                "no router has this network, so nobody answers for its gateway",
                f"name it in one: 'routers: {{r1: {{tenant: {network.tenant}, networks: [{name}]}}}}'",
            )
        seen: dict[AnyNetwork, str] = {}
        for number, text in enumerate(network.gateway):
            path: Path = ("networks", name, "gateway", *([number] if len(network.gateway) > 1 else []))
            owner = owners.get((name, ip_address(text)))
            if owner is not None:
                yield Issue(path, f"{text} is the address of '{owner}'", "choose another for one of the two")
            yield from _in_subnet(network, text, path, seen)


def _in_subnet(network: Network, text: str, path: Path, seen: dict[AnyNetwork, str]) -> Iterator[Issue]:
    address = ip_address(text)
    subnets = [ip_network(subnet) for subnet in network.subnets]
    around = next((subnet for subnet in subnets if address in subnet), None)
    if around is None:
        listed = ", ".join(map(str, subnets))
        remedy = f"choose an address of {listed}" if listed else f"declare its subnet, e.g. {_around(text)}"
        yield Issue(path, f"{text} is in no subnet of this network", remedy)
        return
    if around in seen:
        message = f"subnet {around} has gateway {seen[around]} already"
        yield Issue(path, message, "a subnet has one gateway")
    seen.setdefault(around, text)
    edge = address == around.network_address or (address.version == 4 and address == around.broadcast_address)
    if edge and around.prefixlen < around.max_prefixlen - 1:
        yield Issue(
            path,
            f"{text} is no address of a host in {around}",
            f"choose one, e.g. {around.network_address + 1}",
        )
    if around.is_link_local:
        yield Issue(
            path, f"{around} is link-local, which is never routed", "choose another subnet, or no gateway"
        )


def _around(text: str) -> str:
    length = 24 if "." in text else 64
    return str(ip_interface(f"{text}/{length}").network)


def routers(subject: Subject) -> Iterator[Issue]:
    """A router has networks with gateways, of its own tenant or of those that it says it connects."""
    taken: dict[str, str] = {}
    for name, router in subject.topology.routers.items():
        path: Path = ("routers", name)
        yield from subject.unknown("tenants", router.tenant, (*path, "tenant"))
        if not router.networks:
            yield Issue((*path, "networks"), "a router without a network", "name the networks it routes")
        for number, network in enumerate(router.networks):
            where: Path = (*path, "networks", number)
            yield from subject.unknown("networks", network, where)
            if network in taken:
                message = f"network '{network}' is in router '{taken[network]}' already"
                yield Issue(where, message, "a gateway is one router's: put networks to be joined into it")
            taken.setdefault(network, name)
            yield from _member(subject, router, network, where)
        yield from _connects(subject, router, path)


def _member(subject: Subject, router: Router, name: str, path: Path) -> Iterator[Issue]:
    network = subject.network(name)
    if network is None:
        return
    if not network.gateway:
        subnet = network.subnets[0] if network.subnets else "10.1.0.0/24"
        example = ip_network(subnet).network_address + 1
        yield Issue(
            path, f"network '{name}' has no gateway", f"give it one, e.g. 'gateway: {_quoted(str(example))}'"
        )
    if router.tenant in subject.topology.tenants and network.tenant not in (router.tenant, *router.connects):
        yield Issue(
            path,
            f"network '{name}' belongs to tenant '{network.tenant}', and this router to '{router.tenant}'",
            f"only with 'connects: [{network.tenant}]' at the router the two exchange packets",
        )


def _quoted(address: str) -> str:
    return f'"{address}"' if ":" in address else address


def _connects(subject: Subject, router: Router, path: Path) -> Iterator[Issue]:
    found = (subject.network(name) for name in router.networks)
    tenants = {network.tenant for network in found if network is not None}
    for number, tenant in enumerate(router.connects):
        where: Path = (*path, "connects", number)
        yield from subject.unknown("tenants", tenant, where)
        if tenant == router.tenant:
            yield Issue(where, f"'{tenant}' is the router's own tenant", "name other tenants here")
        elif tenant not in tenants and tenant in subject.topology.tenants and not subject.lacks("networks"):
            message = f"none of the router's networks belongs to '{tenant}'"
            yield Issue(where, message, "name one of its networks, or remove the tenant here")


def apart(subject: Subject) -> Iterator[Issue]:
    """Networks of different tenants in one router do not overlap; those of one tenant never do."""
    for name, router in subject.topology.routers.items():
        found = [
            (network, subnet, number)
            for number, network in enumerate(router.networks)
            if network in subject.topology.networks
            for subnet in routed_subnets(subject.topology.networks[network])
        ]
        for (ours, a, _), (theirs, b, number) in combinations(found, 2):
            tenants = {subject.topology.networks[network].tenant for network in (ours, theirs)}
            if len(tenants) > 1 and a.overlaps(b):
                message = f"subnet {b} of network '{theirs}' overlaps {a} of '{ours}'"
                yield Issue(
                    ("routers", name, "networks", number), message, "one router tells networks by address"
                )


def routes(subject: Subject) -> Iterator[Issue]:
    for name, router in subject.topology.routers.items():
        seen: set[str] = set()
        macs: dict[str, str] = {}
        for number, route in enumerate(router.routes):
            path: Path = ("routers", name, "routes", number)
            if route.to in seen:
                yield Issue((*path, "to"), f"a second route to {route.to}", "remove one of them")
            seen.add(route.to)
            yield from _hidden(subject.topology, router, route, path)
            yield from _next_hop(subject, router, route, path)
            if route.mac is not None and macs.setdefault(route.via, route.mac) != route.mac:
                message = f"{route.via} has MAC address {macs[route.via]} in another route"
                yield Issue((*path, "mac"), message, "a next hop has one")


def _hidden(topology: Topology, router: Router, route: RouterRoute, path: Path) -> Iterator[Issue]:
    to = ip_network(route.to)
    for name in router.networks:
        network = topology.networks.get(name)
        for subnet in routed_subnets(network) if network is not None else ():
            if to.version == subnet.version and _inside(to, subnet):
                message = f"a route to {to} hides hosts of network '{name}', which has {subnet}"
                yield Issue((*path, "to"), message, "networks of the router need no route")


def _inside(inner: AnyNetwork, outer: AnyNetwork) -> bool:
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _next_hop(subject: Subject, router: Router, route: RouterRoute, path: Path) -> Iterator[Issue]:
    """The next hop is in a network of the router, and it is known where."""
    topology, via = subject.topology, ip_address(route.via)
    where: Path = (*path, "via")
    if via.version != ip_network(route.to).version:
        message = f"{via} is IPv{via.version}, and the route to {route.to} is not"
        yield Issue(where, message, "use one IP version for both; '::/0' is the default route of IPv6")
        return
    known = {name: topology.networks[name] for name in router.networks if name in topology.networks}
    found = next((name for name, network in known.items() if is_routed(network, route.via)), None)
    if found is None:
        if len(known) == len(router.networks):
            subnets = [str(subnet) for network in known.values() for subnet in routed_subnets(network)]
            yield Issue(
                where, f"{via} is in no network of this router", f"choose one of {', '.join(subnets)}"
            )
    elif route.via in known[found].gateway:
        yield Issue(where, f"{via} is this router's own address", "name the next router's")
    else:
        yield from _located(subject, route, found, path)


def _located(subject: Subject, route: RouterRoute, network: str, path: Path) -> Iterator[Issue]:
    owner = next(
        (
            placed.end
            for placed in subject.interfaces
            if placed.interface.network == network
            and any(ip_interface(text).ip == ip_address(route.via) for text in placed.interface.ip)
        ),
        None,
    )
    if owner is not None:
        if route.mac is not None:
            yield Issue((*path, "mac"), f"'{owner}' is declared, so its MAC address is known", "remove it")
        yield from _forwards(subject, route, owner, path)
        return
    uplinks = uplinks_of(subject.topology, network)
    if len(uplinks) != 1:
        what = f"{len(uplinks)} uplinks" if uplinks else "no uplink"
        message = (
            f"{route.via} is nobody's declared address, and network '{network}' has {what} to look for it"
        )
        yield Issue((*path, "via"), message, HOLDS)
    if route.mac is None:
        return
    owners = {
        subject.topology.endpoint_mac(placed.end): placed.end
        for placed in subject.interfaces
        if placed.interface.network == network
    }
    if route.mac in owners:
        message = f"{route.mac} is the MAC address of '{owners[route.mac]}', not of {route.via}"
        yield Issue((*path, "mac"), message, "correct one of the two")


def _forwards(subject: Subject, route: RouterRoute, end: str, path: Path) -> Iterator[Issue]:
    """What comes back through an endpoint carries addresses that are not its own."""
    interface = subject.topology.interface(end)
    if interface is None or not interface.port_security:
        return
    to = ip_network(route.to)
    allowed = [ip_network(pair.ip) for pair in interface.allowed if pair.ip is not None]
    if not any(net.version == to.version and _inside(to, net) for net in allowed):
        message = f"'{end}' may not send from {to}, so answers that come through it are dropped"
        remedy = f"add '{{ip: {_quoted(str(to))}}}' to its 'allowed'"
        yield Issue((*path, "via"), message, remedy, "warning")


def whole(subject: Subject) -> Iterator[Issue]:
    """Every network of a router can be carried from wherever a packet enters one of them."""
    for name, router in subject.topology.routers.items():
        entries = entry_bridges(subject.topology, set(router.networks))
        for number, network in enumerate(router.networks):
            if network in subject.topology.networks:
                path: Path = ("routers", name, "networks", number)
                yield from _carried(subject.topology, network, entries, path)


def _carried(topology: Topology, network: str, entries: frozenset[str], path: Path) -> Iterator[Issue]:
    graph = segment(topology, network)
    own = attachments(topology, network)
    parts = [part for part in nx.connected_components(graph) if entries & part]
    away = next((part for part in parts if not part >= entries), None)
    if away is not None and own:
        a, b = min(entries & away), min(entries - away)
        message = f"no links lead from '{b}' to '{a}' for network '{network}', which the router joins"
        yield Issue(path, message, "link the bridges of a router's networks")
    elif joins_by_linux_bridges(topology, network):
        message = f"network '{network}' runs through Linux bridges, which cannot tell routed frames apart"
        bridges = [n for n, node in topology.nodes.items() if isinstance(node, Bridge)]
        yield Issue(path, message, f"link its Open vSwitch bridges directly ({', '.join(bridges[:4])})")


def macs(subject: Subject) -> Iterator[Issue]:
    """A gateway's MAC is its own; another with the same would get its packets."""
    routed = router_of(subject.topology)
    for placed in subject.interfaces:
        network = placed.interface.network
        if network not in routed or network not in subject.topology.networks:
            continue
        gateway = subject.topology.gateway_mac(network)
        pairs = [pair.mac for pair in placed.interface.allowed]
        if gateway in (subject.topology.endpoint_mac(placed.end), *pairs):
            message = f"MAC address {gateway} is that of the gateway of network '{network}'"
            yield Issue(placed.path, message, "choose another")
