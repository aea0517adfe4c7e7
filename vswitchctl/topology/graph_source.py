"""A graph with attributes to a topology's data: shared by networkx, GraphML and node-link JSON.

A vertex is a node; an edge is a link. What has no vertex (tenants, ...) is an attribute of the graph.
Attributes may be the model's own (`interfaces`, ...) or the short form for drawings: a namespace with
`network`, `ip`, `mac`, `mtu` and `interface` (eth0 where absent) has one interface.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from vswitchctl.topology.json_source import read_json
from vswitchctl.topology.nearest import one_of
from vswitchctl.topology.source import MarkedDict, MarkedList, Path, Place, Source, mark, shown

NESTED: Final = frozenset(
    (
        "interfaces",
        "routes",
        "trunk",
        "tenants",
        "networks",
        "qos",
        "expect",
        "subnets",
        "ip",
        "ends",
        "acls",
        "groups",
        "storm",
        "routers",
    )
)
"""Attributes that hold lists or mappings; as a text (GraphML has scalars only) they are JSON."""

SECTIONS: Final = ("name", "description", "tenants", "networks", "qos", "groups", "acls", "routers", "expect")
"""Keys of a topology that are attributes of the graph."""

ORDER: Final = "order"
"""Edge attribute: the link's place in the list of links, which a graph does not keep."""

DRAWING: Final = frozenset(
    (
        "label",
        "labels",
        "x",
        "y",
        "z",
        "r",
        "g",
        "b",
        "color",
        "size",
        "shape",
        "width",
        "height",
        "weight",
        "url",
        "pos",
    )
)
"""Attributes that drawing programs (yEd, Gephi) add, and that say nothing about the network."""

_EDGE_KEYS: Final = ("links", "edges")
_NODE_LINK_KEYS: Final = ("directed", "multigraph", "graph", "nodes", *_EDGE_KEYS)

_SHORT: Final = ("network", "ip", "mac", "mtu")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class Edge(NamedTuple):
    source: str
    target: str
    attributes: MarkedDict


@dataclass(slots=True)
class AttributedGraph:
    """A graph as read: attributes of its own, of each vertex, and of each edge."""

    attributes: MarkedDict
    vertices: MarkedDict = field(default_factory=lambda: MarkedDict(Place("graph")))
    edges: list[Edge] = field(default_factory=list)


def topology_data(graph: AttributedGraph, source: Source) -> MarkedDict:
    """The data of the topology that a graph stands for; adds to the source's findings."""
    data = MarkedDict(graph.attributes.place)
    for key, value in graph.attributes.items():
        if key not in DRAWING:
            _put(data, key, value, graph.attributes.places[key], source, (key,))
    if "name" not in data:
        _name_from_file(data, source.place)
    nodes = MarkedDict(data.place)
    for name, attributes in graph.vertices.items():
        nodes.put(name, _node(attributes, source, ("nodes", name)), graph.vertices.places[name])
    data.put("nodes", nodes, data.place)
    _declare_drawn(data, nodes)
    data.put("links", _links(graph, nodes, source), data.place)
    return data


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
"""Of XML Schema, which GraphML rests on; networkx writes them with a capital."""


def _name_from_file(data: MarkedDict, place: Place) -> None:
    stem = PurePath(place.file).stem
    if _NAME.fullmatch(stem):
        data.put("name", stem, data.place)


def _put(data: MarkedDict, key: str, value: Any, place: Place, source: Source, path: Path) -> None:
    """One attribute: a text that holds a list or a mapping is decoded; an empty one is left out."""
    if isinstance(value, str):
        if not value.strip() and key != "description":
            return
        if key in NESTED and value.lstrip()[:1] in ("[", "{"):
            value = _decoded(value, place, source, path)
            if value is None:
                return
        elif key == "external" and value.strip().lower() in _BOOLEANS:
            value = _BOOLEANS[value.strip().lower()]
        elif key in ("ip", "subnets") and re.search(r"[,\s]", value.strip()):
            value = mark(re.split(r"[,\s]+", value.strip()), place)
    data.put(key, value, place)


def _decoded(text: str, place: Place, source: Source, path: Path) -> Any:
    read = read_json(text, place.file)
    for finding in read.findings:
        source.error(place.line, path, finding.message, finding.remedy)
    return None if read.data is None else mark(read.data, place)


def _node(attributes: Any, source: Source, path: Path) -> Any:
    if not isinstance(attributes, MarkedDict):
        return attributes
    node = MarkedDict(attributes.place)
    for key, value in attributes.items():
        if key not in DRAWING:
            _put(node, key, value, attributes.places[key], source, (*path, key))
    short = [key for key in _SHORT if key in node]
    if node.get("kind") != "namespace" or "interfaces" in node or not short:
        return node
    interface = MarkedDict(node.place)
    for key in short:
        interface.put(key, node[key], node.places[key])
    full = MarkedDict(node.place)
    for key, value in node.items():
        if key not in (*_SHORT, "interface"):
            full.put(key, value, node.places[key])
    interfaces = MarkedDict(node.place)
    interfaces.put(str(node.get("interface", "eth0")), interface, node.place)
    full.put("interfaces", interfaces, node.place)
    return full


def _declare_drawn(data: MarkedDict, nodes: MarkedDict) -> None:
    """A drawing that declares no tenants or no networks has those that its namespaces name."""
    tenants, networks = MarkedDict(data.place), MarkedDict(data.place)
    for node in nodes.values():
        tenant = node.get("tenant") if isinstance(node, MarkedDict) else None
        if not isinstance(tenant, str):
            continue
        tenants.put(tenant, MarkedDict(node.place), node.places["tenant"])
        interfaces = node.get("interfaces")
        for interface in interfaces.values() if isinstance(interfaces, MarkedDict) else ():
            network = interface.get("network") if isinstance(interface, MarkedDict) else None
            if isinstance(network, str) and network not in networks:
                drawn = MarkedDict(interface.place)
                drawn.put("tenant", tenant, node.places["tenant"])
                networks.put(network, drawn, interface.places["network"])
    for key, declared in (("tenants", tenants), ("networks", networks)):
        if key not in data and declared:
            data.put(key, declared, data.place)


def _links(graph: AttributedGraph, nodes: MarkedDict, source: Source) -> MarkedList:
    ordered: list[tuple[int, MarkedDict]] = []
    for number, edge in enumerate(graph.edges):
        link = _link(edge, nodes, source, ("links", number))
        order = edge.attributes.get(ORDER)
        ordered.append((_integer(order, len(graph.edges) + number), link))
    links = MarkedList(graph.attributes.place)
    for _, link in sorted(ordered, key=lambda item: item[0]):
        links.put(link, link.place)
    return links


def _integer(value: Any, otherwise: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else otherwise


def _link(edge: Edge, nodes: MarkedDict, source: Source, path: Path) -> MarkedDict:
    link = MarkedDict(edge.attributes.place)
    for key, value in edge.attributes.items():
        if key not in DRAWING and key not in (ORDER, "interface"):
            _put(link, key, value, edge.attributes.places[key], source, (*path, key))
    if "ends" not in link:
        interface = edge.attributes.get("interface")
        ends = [_end(name, nodes.get(name), interface) for name in (edge.source, edge.target)]
        link.put("ends", mark(ends, link.place), link.place)
    return link


def _end(name: str, node: Any, interface: Any) -> str:
    """An end where there are interfaces names one: the one that the edge names, else the only one."""
    has_some = isinstance(node, MarkedDict) and node.get("kind") in ("namespace", "tun", "vm")
    interfaces = node.get("interfaces") if has_some else None
    if not isinstance(interfaces, MarkedDict):
        return name
    if interface is not None:
        return f"{name}:{interface}"
    return f"{name}:{next(iter(interfaces))}" if len(interfaces) == 1 else name


def is_node_link(data: Any) -> bool:
    """Lists of nodes and edges are networkx's node-link form; the nodes of a topology are a mapping."""
    if not isinstance(data, MarkedDict) or not isinstance(data.get("nodes"), MarkedList):
        return False
    return any(isinstance(data.get(key), MarkedList) for key in _EDGE_KEYS)


def node_link_data(source: Source) -> None:
    """Replaces node-link data by the data of the topology it stands for."""
    data: MarkedDict = source.data
    attributes = data.get("graph", MarkedDict(data.place))
    if not isinstance(attributes, MarkedDict):
        message = "the attributes of the graph are not a mapping"
        source.error(data.places["graph"].line, ("graph",), message, 'write "graph": {"name": "my-network"}')
        attributes = MarkedDict(data.place)
    for key in data:
        if key not in _NODE_LINK_KEYS:
            remedy = one_of(key, _NODE_LINK_KEYS, "the keys here are")
            if key in SECTIONS:
                remedy = f'write it inside of \'graph\': {{"graph": {{"{key}": ...}}}}'
            source.error(
                data.places[key].line, (key,), f"unknown key {shown(key)} of a node-link graph", remedy
            )
    graph = AttributedGraph(attributes)
    for number, vertex in enumerate(data["nodes"]):
        _vertex(graph, vertex, source, ("nodes", number), data["nodes"].places[number])
    for key in _EDGE_KEYS:
        edges = data.get(key)
        for number, edge in enumerate(edges if isinstance(edges, MarkedList) else MarkedList(data.place)):
            _edge(graph, edge, source, (key, number), data[key].places[number])
    source.data = topology_data(graph, source)


def _vertex(graph: AttributedGraph, vertex: Any, source: Source, path: Path, place: Place) -> None:
    name = vertex.get("id") if isinstance(vertex, MarkedDict) else None
    if isinstance(name, bool) or not isinstance(name, str | int):
        source.error(
            place.line, path, "a node without an 'id'", 'write it as {"id": "br-a", "kind": "bridge"}'
        )
    elif str(name) in graph.vertices:
        first = graph.vertices.places[str(name)].line
        source.error(
            place.line, path, f"node {shown(str(name))} stands twice, first in line {first}", "remove one"
        )
    else:
        graph.vertices.put(str(name), vertex.without("id"), place)


def _edge(graph: AttributedGraph, edge: Any, source: Source, path: Path, place: Place) -> None:
    ends = [edge.get(key) if isinstance(edge, MarkedDict) else None for key in ("source", "target")]
    if any(isinstance(end, bool) or not isinstance(end, str | int) for end in ends):
        remedy = 'write it as {"source": "web1", "target": "br-a"}'
        source.error(place.line, path, "an edge without 'source' and 'target'", remedy)
        return
    graph.edges.append(
        Edge(str(ends[0]), str(ends[1]), edge.without("source").without("target").without("key"))
    )
