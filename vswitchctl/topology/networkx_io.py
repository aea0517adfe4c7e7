"""A topology as a networkx graph and back, and saved as GraphML, node-link JSON, JSON and YAML."""

from __future__ import annotations

import json
from typing import Any

import networkx as nx
import yaml

from vswitchctl.model.topology import Topology, split_end
from vswitchctl.topology.assemble import assemble
from vswitchctl.topology.document import Document
from vswitchctl.topology.graph_source import ORDER, AttributedGraph, Edge, topology_data
from vswitchctl.topology.source import MarkedDict, Place, Source, mark
from vswitchctl.topology.yaml_source import trap


def plain(topology: Topology) -> dict[str, Any]:
    """The document as plain data, without what is as by default."""
    data: dict[str, Any] = topology.model_dump(mode="json", exclude_defaults=True)
    return data


def to_networkx(topology: Topology) -> nx.MultiGraph:
    """A MultiGraph: a vertex per node, an edge per link (two interfaces may lead to one bridge).

    Attributes are those of the model. The graph's own: all of the document but nodes and links.
    An edge has `ends` ('node:interface'), `kind`, `cost` and `order`, its place among the links.
    """
    data = plain(topology)
    nodes, links = data.pop("nodes", {}), data.pop("links", [])
    graph = nx.MultiGraph(**data)
    for name, attributes in nodes.items():
        graph.add_node(name, **attributes)
    for number, link in enumerate(links):
        a, b = (split_end(end)[0] for end in link["ends"])
        graph.add_edge(a, b, key=number, **link, **{ORDER: number})
    return graph


def load_networkx(graph: nx.Graph, name: str = "graph") -> Document:
    """The document that a graph of networkx stands for (any class of it); `name` stands for the file."""
    source = Source(Place(name))
    try:
        source.data = topology_data(_attributed(graph, source.place), source)
    except ValueError as error:
        source.error(0, (), f"an attribute of the graph is {error}", "use plain lists and mappings")
    return assemble(source)


def from_networkx(graph: nx.Graph, name: str = "graph") -> Topology:
    """The inverse of `to_networkx`. Raises InvalidTopology with every error."""
    return load_networkx(graph, name).require()


def _attributed(graph: nx.Graph, place: Place) -> AttributedGraph:
    attributes = mark({key: value for key, value in graph.graph.items() if value != ""}, place)
    vertices = MarkedDict(place)
    for vertex, data in graph.nodes(data=True):
        vertices.put(str(vertex), mark(data, place), place)
    edges = [Edge(str(a), str(b), mark(data, place)) for a, b, data in graph.edges(data=True)]
    # GraphML as networkx reads it leaves its own settings among the attributes.
    for key in ("node_default", "edge_default"):
        attributes = attributes.without(key)
    return AttributedGraph(attributes, vertices, edges)


def dump_yaml(topology: Topology) -> str:
    """A YAML document without defaults, in the order of the model; loads to an equal topology."""
    return yaml.dump(
        plain(topology),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )


def dump_json(topology: Topology) -> str:
    return json.dumps(plain(topology), indent=2, ensure_ascii=False) + "\n"


def dump_node_link(topology: Topology) -> str:
    """networkx's node-link JSON (`nx.node_link_graph` reads it back)."""
    data = nx.node_link_data(to_networkx(topology), edges="links")
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def dump_graphml(topology: Topology) -> str:
    """GraphML (`nx.read_graphml` reads it back); lists and mappings are JSON texts in it."""
    graph = to_networkx(topology)
    flat = nx.MultiGraph(**{key: _scalar(value) for key, value in graph.graph.items()})
    flat.add_nodes_from((name, _scalars(data)) for name, data in graph.nodes(data=True))
    flat.add_edges_from((a, b, key, _scalars(data)) for a, b, key, data in graph.edges(keys=True, data=True))
    return "\n".join(nx.generate_graphml(flat)) + "\n"


def _scalars(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _scalar(value) for key, value in data.items()}


def _scalar(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some YAML reader would take for something else; never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if trap(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
