"""What routers do, as the file declares it: gateways, who is reached through them, default routes. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network

from vswitchctl.model.topology import (
    Bridge,
    EndpointNode,
    LinuxBridge,
    Namespace,
    Network,
    Topology,
    Uplink,
    split_end,
)

AnyAddress = IPv4Address | IPv6Address
AnyNetwork = IPv4Network | IPv6Network


@lru_cache(maxsize=4096)
def _subnet(text: str) -> AnyNetwork:
    return ip_network(text)


def router_of(topology: Topology) -> dict[str, str]:
    """Network -> the router that it is in."""
    return {network: name for name, router in topology.routers.items() for network in router.networks}


def routed_subnets(network: Network) -> dict[AnyNetwork, AnyAddress]:
    """Subnet -> its gateway. Subnets without one are not routed."""
    gateways = [ip_address(text) for text in network.gateway]
    return {
        subnet: gateway
        for subnet in map(_subnet, network.subnets)
        for gateway in gateways
        if gateway.version == subnet.version and gateway in subnet
    }


def is_routed(network: Network, address: str) -> bool:
    """Whether a gateway stands for the address (with or without its prefix length)."""
    return any(ip_interface(address).ip in subnet for subnet in routed_subnets(network))


def entry_bridges(topology: Topology, networks: Collection[str]) -> frozenset[str]:
    """Open vSwitch bridges where frames of these networks enter: their endpoints, uplinks, Linux bridges."""
    return frozenset(
        other
        for link in topology.links
        for end, other in (link.ends, link.ends[::-1])
        if isinstance(topology.nodes.get(other), Bridge) and _leads_to(topology, end, networks)
    )


def _leads_to(topology: Topology, end: str, networks: Collection[str]) -> bool:
    node = topology.nodes.get(split_end(end)[0])
    if isinstance(node, EndpointNode):
        interface = topology.interface(end)
        return interface is not None and interface.network in networks
    if isinstance(node, Uplink):
        return node.network in networks or not node.trunk.keys().isdisjoint(networks)
    return isinstance(node, LinuxBridge) and node.network in networks


def router_entries(topology: Topology, network: str) -> frozenset[str]:
    """Bridges that may route a packet into the network: where any network of its router has an entry."""
    name = router_of(topology).get(network)
    return frozenset() if name is None else entry_bridges(topology, set(topology.routers[name].networks))


def uplinks_of(topology: Topology, network: str) -> list[str]:
    """The uplinks that carry the network."""
    return [
        name
        for name, node in topology.nodes.items()
        if isinstance(node, Uplink) and (node.network == network or network in node.trunk)
    ]


def default_gateways(topology: Topology, node: Namespace) -> Iterator[tuple[str, str, str]]:
    """(interface, '0.0.0.0/0' or '::/0', gateway): the default routes that a namespace has by itself.

    One for each IP version, by the first interface that has a gateway in its own subnet; none where the
    file declares a default route of that version, or `default_route: false`.
    """
    taken = {ip_network(route.to).version for route in node.routes if _subnet(route.to).prefixlen == 0}
    routed = router_of(topology)
    for name, interface in node.interfaces.items() if node.default_route else ():
        if interface.network not in routed:
            continue
        for subnet, gateway in routed_subnets(topology.networks[interface.network]).items():
            own = (ip_interface(text) for text in interface.ip)
            reached = any(one.ip in subnet and gateway in one.network for one in own)
            if reached and gateway.version not in taken:
                taken.add(gateway.version)
                yield name, "0.0.0.0/0" if gateway.version == 4 else "::/0", str(gateway)


def ways_out(topology: Topology) -> Mapping[str, frozenset[int]]:
    """Endpoint -> IP versions in which it sends to its gateway what is in no network of its own."""
    found: dict[str, set[int]] = defaultdict(set)
    for name, node in topology.nodes.items():
        if isinstance(node, Namespace):
            for interface, to, _ in default_gateways(topology, node):
                found[f"{name}:{interface}"].add(_subnet(to).version)
    return {end: frozenset(versions) for end, versions in found.items()}
