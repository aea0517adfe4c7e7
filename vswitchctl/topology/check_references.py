"""Checks of references between tenants, networks, nodes and expectations, and of rate profiles."""

from __future__ import annotations

from collections.abc import Iterator

from vswitchctl.model.topology import (
    VLAN_MAX,
    EndpointNode,
    LinuxBridge,
    Uplink,
    split_end,
)
from vswitchctl.topology.routing import router_of
from vswitchctl.topology.source import Path, shown
from vswitchctl.topology.subject import Issue, Subject


def tenants_exist(subject: Subject) -> Iterator[Issue]:
    for name, network in subject.topology.networks.items():
        yield from subject.unknown("tenants", network.tenant, ("networks", name, "tenant"))
    for name, node in subject.topology.nodes.items():
        if isinstance(node, EndpointNode):
            yield from subject.unknown("tenants", node.tenant, ("nodes", name, "tenant"))


def networks_exist(subject: Subject) -> Iterator[Issue]:
    for placed in subject.interfaces:
        yield from subject.unknown("networks", placed.interface.network, (*placed.path, "network"))
    for name, node in subject.topology.nodes.items():
        path: Path = ("nodes", name)
        if isinstance(node, LinuxBridge):
            yield from subject.unknown("networks", node.network, (*path, "network"))
        elif isinstance(node, Uplink):
            if node.network is not None:
                yield from subject.unknown("networks", node.network, (*path, "network"))
            for network in node.trunk:
                yield from subject.unknown("networks", network, (*path, "trunk", network))


def tenants_match(subject: Subject) -> Iterator[Issue]:
    """A namespace is in networks of its own tenant only: that is what keeps tenants apart."""
    for placed in subject.interfaces:
        network = subject.network(placed.interface.network)
        tenants = subject.topology.tenants
        if network is None or network.tenant == placed.node.tenant:
            continue
        if network.tenant in tenants and placed.node.tenant in tenants:
            yield Issue(
                (*placed.path, "network"),
                f"network '{placed.interface.network}' belongs to tenant '{network.tenant}', "
                f"and this {placed.what} to '{placed.node.tenant}'",
                f"use a network of tenant '{placed.node.tenant}'{_own_networks(subject, placed.node.tenant)}",
            )


def _own_networks(subject: Subject, tenant: str) -> str:
    own = [name for name, network in subject.topology.networks.items() if network.tenant == tenant]
    return f": {', '.join(own[:8])}" if own else ""


def vlan_tags(subject: Subject) -> Iterator[Issue]:
    """On links between bridges the tag alone tells networks apart."""
    seen: dict[int, str] = {}
    networks = subject.topology.networks
    for name, network in networks.items():
        if network.vlan is None:
            continue
        if network.vlan in seen:
            message = f"VLAN {network.vlan} is the tag of network '{seen[network.vlan]}' already"
            yield Issue(
                ("networks", name, "vlan"), message, "choose another tag, or leave it out and one is chosen"
            )
        seen.setdefault(network.vlan, name)
    if len(networks) > VLAN_MAX:
        yield Issue(
            ("networks",),
            f"{len(networks)} networks need more than the {VLAN_MAX} VLAN tags",
            "split the topology",
        )


def uplink_networks(subject: Subject) -> Iterator[Issue]:
    """An uplink is untagged in one network, or tagged in several."""
    for name, node in subject.topology.nodes.items():
        if not isinstance(node, Uplink):
            continue
        path: Path = ("nodes", name)
        if node.network is not None and node.trunk:
            yield Issue(path, "an uplink has 'network' or 'trunk', this one has both", "remove one of them")
        elif node.network is None and not node.trunk:
            remedy = "add 'network: NAME' for untagged frames, or 'trunk: {NAME: VLAN}' for tagged ones"
            yield Issue(path, "an uplink that leads to no network", remedy)
        seen: dict[int, str] = {}
        for network, vlan in node.trunk.items():
            if vlan in seen:
                message = f"VLAN {vlan} stands for network '{seen[vlan]}' already"
                yield Issue(
                    (*path, "trunk", network), message, "each network of a trunk has a VLAN of its own"
                )
            seen.setdefault(vlan, network)


def uplinks_share(subject: Subject) -> Iterator[Issue]:
    """Two ways out of one network are a loop where both lead to the same LAN, and nothing here can see it."""
    seen: dict[str, str] = {}
    for name, node in subject.topology.nodes.items():
        if not isinstance(node, Uplink):
            continue
        for network in node.trunk if node.network is None else (node.network,):
            if network in seen:
                message = f"network '{network}' leads out by uplink '{seen[network]}' too"
                yield Issue(
                    ("nodes", name), message, "a loop, if both lead to one LAN: use one of them", "warning"
                )
            seen.setdefault(network, name)


def expectations(subject: Subject) -> Iterator[Issue]:
    """Every endpoint that is expected exists and stands in one group."""
    expect = subject.topology.expect
    if expect is None:
        return
    seen: dict[str, int] = {}
    for number, group in enumerate(expect.reachable):
        path: Path = ("expect", "reachable", number)
        if not group:
            yield Issue(path, "an empty group expects nothing", "list endpoints, or remove it")
        for at, end in enumerate(group):
            yield from _expected_end(subject, end, (*path, at))
            if end in seen:
                where = "twice in this group" if seen[end] == number else f"in group {seen[end]} too"
                message = f"endpoint {shown(end)} stands {where}"
                remedy = (
                    "remove one"
                    if seen[end] == number
                    else "join the two groups if all of both reach each other"
                )
                yield Issue((*path, at), message, remedy)
            seen.setdefault(end, number)
        yield from _one_network(subject, group, path)


def _expected_end(subject: Subject, end: str, path: Path) -> Iterator[Issue]:
    node_name, interface_name = split_end(end)
    if subject.topology.interface(end) is not None or subject.is_broken("nodes", node_name):
        return
    known = [placed.end for placed in subject.interfaces]
    node = subject.topology.nodes.get(node_name)
    if isinstance(node, EndpointNode) and not interface_name and node.interfaces:
        remedy = f"write '{node_name}:{next(iter(node.interfaces))}'"
    elif node is not None and not isinstance(node, EndpointNode):
        yield Issue(
            path,
            f"'{end}' is a {node.kind}, not an endpoint",
            "list interfaces of namespaces, 'node:interface'",
        )
        return
    else:
        remedy = subject.suggestion(end, known, "the endpoints are")
    yield Issue(path, f"unknown endpoint {shown(end)}", remedy)


def _one_network(subject: Subject, group: tuple[str, ...], path: Path) -> Iterator[Issue]:
    """Only a router leads from one network to another."""
    routers = router_of(subject.topology)
    networks: dict[str, str] = {}
    for end in group:
        interface = subject.topology.interface(end)
        if interface is not None and interface.network in subject.topology.networks:
            router = routers.get(interface.network)
            networks.setdefault(f"router {router}" if router else interface.network, end)
    if len(networks) > 1:
        a, b = list(networks.values())[:2]
        first, second = (subject.topology.endpoints()[end].network for end in (a, b))
        message = f"'{a}' is in network '{first}' and '{b}' in '{second}', and no router has both networks"
        yield Issue(path, message, "expect endpoints of one network, or of one router's, in one group")
