"""Paths and trees: where a network's frames go between its switches. Pure; networkx does the algorithms.

A *switch* is an Open vSwitch bridge or a Linux bridge. Unicast to a declared endpoint takes the cheapest
path; broadcast and everything undeclared takes one spanning tree per network, so loops are allowed.

Linux bridges learn by themselves and see no tags, so two rules keep them sane: only links of the tree reach
them, and a tree enters a group of them by one link where it can. Where it cannot (the group joins two parts
that nothing else joins) the network's unicast follows the tree too, or the Linux bridge would see one
source on two ports.

A routed packet changes its network on the bridge where it enters. So the networks of a router have paths
from every bridge where one of them has an entry; only unicast takes these, and the trees stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx

from vswitchctl.model.topology import Bridge, EndpointNode, LinuxBridge, Topology, Uplink, split_end
from vswitchctl.topology.routing import router_entries

Hop = tuple[str, str]
"""A link between two switches: their names in order."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """How one network's frames travel.

    attached: end ('web1:eth0', 'wan0') -> its switch.
    next_hop: (at switch, destination switch) -> next switch, for every switch that frames may cross.
    tree: links of the broadcast tree. carried: links that frames of the network cross. Both as ordered pairs.
    switches: every switch that carries the network.
    """

    attached: Mapping[str, str]
    next_hop: Mapping[tuple[str, str], str]
    tree: frozenset[Hop]
    carried: frozenset[Hop]
    switches: frozenset[str]


def pair(a: str, b: str) -> Hop:
    """The two ends of a link between switches, in order."""
    return (a, b) if a < b else (b, a)


@dataclass(frozen=True, slots=True)
class Wires:
    """What a topology's links join, read once for all of its networks.

    attached: network -> end -> switch, for every linked endpoint and uplink. switches: in order.
    trunks: (switch, switch, cost) of every link between two, in order.
    """

    attached: Mapping[str, Mapping[str, str]]
    switches: tuple[str, ...]
    trunks: tuple[tuple[str, str, int], ...]


def wires(topology: Topology) -> Wires:
    """Costs one look at each link, however many networks there are."""
    nodes = topology.nodes
    attached: dict[str, dict[str, str]] = {network: {} for network in topology.networks}
    switches = sorted(name for name, node in nodes.items() if isinstance(node, Bridge | LinuxBridge))
    known = frozenset(switches)
    trunks = []
    for link in topology.links:
        a, b = link.ends
        if a in known and b in known:
            trunks.append((*pair(a, b), link.cost))
        for end, other in ((a, b), (b, a)):
            if other in known:
                for network in _networks(topology, end):
                    attached.setdefault(network, {})[end] = other
    return Wires(attached, tuple(switches), tuple(sorted(trunks)))


def _networks(topology: Topology, end: str) -> Iterable[str]:
    """The networks that an endpoint or uplink takes part in."""
    name, _, interface_name = end.partition(":")
    node = topology.nodes.get(name)
    if isinstance(node, EndpointNode):
        interface = node.interfaces.get(interface_name)
        return () if interface is None else (interface.network,)
    if isinstance(node, Uplink):
        return dict.fromkeys((*([node.network] if node.network else []), *node.trunk))
    return ()


def attachments(topology: Topology, network: str) -> Mapping[str, str]:
    """End -> switch, for every linked endpoint and uplink of the network."""
    return wires(topology).attached.get(network, {})


def segment(topology: Topology, network: str, links: Wires | None = None) -> nx.Graph:
    """The switches that may carry the network and the links between them; edges carry `cost`."""
    links = links or wires(topology)
    graph = nx.Graph()
    for name in links.switches:
        node = topology.nodes[name]
        if isinstance(node, Bridge) or (isinstance(node, LinuxBridge) and node.network == network):
            graph.add_node(name, linux=isinstance(node, LinuxBridge))
    for a, b, cost in links.trunks:
        if a in graph and b in graph and a != b:
            graph.add_edge(a, b, cost=cost)
    return graph


def partitions(topology: Topology, network: str, links: Wires | None = None) -> tuple[frozenset[str], ...]:
    """The network's parts that no link joins: sets of node names (endpoints' nodes and their switches).

    One set, or none, where the network is whole. Switches without anything of the network do not count.
    """
    links = links or wires(topology)
    attached = links.attached.get(network, {})
    graph = segment(topology, network, links)
    parts = []
    for component in nx.connected_components(graph):
        nodes = {split_end(end)[0] for end, switch in attached.items() if switch in component}
        linux = {name for name in component if graph.nodes[name]["linux"]}
        if nodes or linux:
            parts.append(
                frozenset(nodes | linux | {attached[e] for e in attached if attached[e] in component})
            )
    return tuple(sorted(parts, key=sorted))


def forwarding(topology: Topology, network: str, links: Wires | None = None) -> Forwarding:
    """Paths and tree of one network. Deterministic: equal topologies give equal answers.

    links: `wires(topology)`, for a caller that asks about several networks.
    """
    links = links or wires(topology)
    attached = links.attached.get(network, {})
    graph = segment(topology, network, links)
    entries = router_entries(topology, network)
    forest = _spanning_forest(graph)
    tree = _prune(forest, {*attached.values(), *(_gateways_of_linux(forest) if entries else ())})
    paths = tree if _linux_transit(tree, graph) else _unicast_graph(graph, tree)
    next_hop = _next_hops(paths, {*tree, *entries}, sorted({*attached.values(), *_linux(graph, tree)}))
    switches = set(tree) | {at for at, _ in next_hop} | set(next_hop.values())
    flooded = frozenset(pair(a, b) for a, b in tree.edges)
    return Forwarding(
        attached=attached,
        next_hop=next_hop,
        tree=flooded,
        carried=flooded | {pair(at, to) for (at, _), to in next_hop.items()},
        switches=frozenset(switches),
    )


def _linux(graph: nx.Graph, among: nx.Graph) -> set[str]:
    return {name for name in among if graph.nodes[name]["linux"]}


def _gateways_of_linux(forest: nx.Graph) -> set[str]:
    """The Open vSwitch bridges beside Linux bridges: hosts behind these have their gateway there."""
    return {other for name in _linux(forest, forest) for other in forest.neighbors(name)}


def _spanning_forest(graph: nx.Graph) -> nx.Graph:
    """Cheapest spanning forest in which a link to a Linux bridge is the last choice."""
    penalty = 1 + sum(cost for _, _, cost in graph.edges(data="cost"))
    weighted = nx.Graph()
    weighted.add_nodes_from(graph.nodes(data=True))
    for a, b, cost in graph.edges(data="cost"):
        linux = graph.nodes[a]["linux"] or graph.nodes[b]["linux"]
        weighted.add_edge(a, b, cost=cost, weight=cost + penalty * linux)
    return nx.minimum_spanning_tree(weighted, algorithm="kruskal")


def _prune(forest: nx.Graph, attached: set[str]) -> nx.Graph:
    """Without the branches that lead to nobody: a frame is not flooded where no one can hear it."""
    tree = nx.Graph(forest)
    stale = [n for n in tree if tree.degree(n) <= 1]
    while stale:
        name = stale.pop()
        if name not in tree or name in attached or tree.nodes[name]["linux"] or tree.degree(name) > 1:
            continue
        stale.extend(tree.neighbors(name))
        tree.remove_node(name)
    return tree


def joins_by_linux_bridges(topology: Topology, network: str) -> bool:
    """Whether the network's tree runs through Linux bridges, which then are not at its edge."""
    graph = segment(topology, network)
    tree = _prune(_spanning_forest(graph), set(attachments(topology, network).values()))
    return _linux_transit(tree, graph)


def _linux_transit(tree: nx.Graph, graph: nx.Graph) -> bool:
    """Whether some group of Linux bridges joins Open vSwitch bridges by more than one link of the tree."""
    linux = _linux(graph, tree)
    groups = nx.connected_components(tree.subgraph(linux))
    return any(sum(n not in linux for name in group for n in tree.neighbors(name)) > 1 for group in groups)


def _unicast_graph(graph: nx.Graph, tree: nx.Graph) -> nx.Graph:
    """Every link between Open vSwitch bridges, and of the links to Linux bridges those of the tree."""
    linux = {name for name, is_linux in graph.nodes(data="linux") if is_linux}
    paths = nx.Graph()
    paths.add_nodes_from(graph)
    paths.add_edges_from(
        (a, b, {"cost": cost})
        for a, b, cost in graph.edges(data="cost")
        if tree.has_edge(a, b) or not (a in linux or b in linux)
    )
    return paths


def _next_hops(
    paths: nx.Graph, sources: Iterable[str], destinations: list[str]
) -> dict[tuple[str, str], str]:
    """From every source towards every destination, along cheapest paths, ties by name."""
    hops: dict[tuple[str, str], str] = {}
    for destination in destinations:
        before, _ = nx.dijkstra_predecessor_and_distance(paths, destination, weight="cost")
        walk = [name for name in sorted(sources) if name in before and name != destination]
        while walk:
            at = walk.pop()
            if at == destination or (at, destination) in hops:
                continue
            hops[at, destination] = min(before[at])
            walk.append(hops[at, destination])
    return hops
