"""GraphML to marked data, with line numbers and without entities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from vswitchctl.topology.graph_source import AttributedGraph, Edge, topology_data
from vswitchctl.topology.source import (
    MAX_NODES,
    MarkedDict,
    Place,
    Source,
    Unreadable,
    require_text,
    shown,
)

_UNSUPPORTED: Final = {
    "hyperedge": "an edge joins two nodes here",
    "port": "write the interface as the edge's attribute 'interface'",
}


_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
"""How XML Schema writes them (part 2, section 3.2.2.1); programs written in Python begin them large."""


@dataclass(slots=True)
class _Part:
    """The graph, node or edge that is open: what its attributes go to."""

    element: str
    attributes: MarkedDict
    xml: dict[str, str] = field(default_factory=dict)


class _Reader:
    """Handlers of expat's events. http://graphml.graphdrawing.org/specification.html"""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.keys: dict[str, str] = {}
        self.booleans: set[str] = set()
        self.defaults: dict[tuple[str, str], str] = {}
        self.open: list[_Part] = []
        self.graph: AttributedGraph | None = None
        self.names: dict[str, str] = {}
        self.edges: list[tuple[str, str, MarkedDict]] = []
        self.data_key: tuple[str, str] | None = None
        self.text: list[str] = []
        self.depth = 0
        self.elements = 0

    @property
    def place(self) -> Place:
        return Place(self.source.place.file, self.parser.CurrentLineNumber)

    def _stop(self, message: str, remedy: str) -> None:
        self.source.error(self.place.line, (), message, remedy)
        raise Unreadable

    def _doctype(self, *_: object) -> None:
        self._stop("the document declares a DOCTYPE, which can hide entities", "remove the '<!DOCTYPE ...>'")

    def _start(self, name: str, xml: dict[str, str]) -> None:
        self.elements += 1
        self.depth += 1
        element = name.rpartition(" ")[2]
        if self.depth == 1 and element != "graphml":
            self._stop(f"the root element is {shown(element)}", "a GraphML document starts with '<graphml>'")
        if self.elements > MAX_NODES:
            self._stop(f"more than {MAX_NODES:,} elements", "split it into several topologies")
        if element == "key":
            self._key(xml)
        elif element == "graph":
            self._graph(xml)
        elif element in ("node", "edge") and self.open:
            self.open.append(_Part(element, MarkedDict(self.place), xml))
        elif element in ("data", "default"):
            self.text = []
            if element == "data":
                self.data_key = ("data", xml.get("key", ""))
        elif element in _UNSUPPORTED:
            self._stop(f"<{element}> is not read", _UNSUPPORTED[element])

    def _key(self, xml: dict[str, str]) -> None:
        identifier = xml.get("id", "")
        if "attr.name" in xml:
            self.keys[identifier] = xml["attr.name"]
        if xml.get("attr.type") == "boolean":
            self.booleans.add(identifier)
        self.data_key = (xml.get("for", "all"), identifier)

    def _graph(self, xml: dict[str, str]) -> None:
        if self.graph is not None:
            self._stop("a second or nested <graph>", "one document holds one graph")
        self.graph = AttributedGraph(MarkedDict(self.place))
        self.open.append(_Part("graph", self.graph.attributes, xml))

    def _text(self, text: str) -> None:
        self.text.append(text)

    def _end(self, name: str) -> None:
        self.depth -= 1
        element = name.rpartition(" ")[2]
        if element == "default" and self.data_key is not None:
            self.defaults[self.data_key] = "".join(self.text)
        elif element == "data":
            self._data()
        elif element in ("node", "edge", "graph") and self.open and self.open[-1].element == element:
            self._close(self.open.pop())

    def _data(self) -> None:
        identifier = self.data_key[1] if self.data_key else ""
        key = self.keys.get(identifier)
        if key is None or not self.open:
            return
        attributes = self.open[-1].attributes
        if key in attributes:
            first = attributes.places[key].line
            message = f"attribute {shown(key)} stands twice, first in line {first}"
            self.source.error(self.place.line, (), message, "remove one")
            return
        attributes.put(key, self._value(identifier, "".join(self.text)), self.place)

    def _value(self, identifier: str, text: str) -> str | bool:
        """A text, or what it says where its key is declared to be true or false."""
        return _BOOLEANS.get(text.strip().lower(), text) if identifier in self.booleans else text

    def _close(self, part: _Part) -> None:
        for (kind, identifier), value in self.defaults.items():
            key = self.keys.get(identifier)
            if key is not None and kind in (part.element, "all") and key not in part.attributes:
                part.attributes.put(key, self._value(identifier, value), part.attributes.place)
        if part.element == "node":
            self._node(part)
        elif part.element == "edge":
            self.edges.append((part.xml.get("source", ""), part.xml.get("target", ""), part.attributes))

    def _node(self, part: _Part) -> None:
        """A node is called by its attribute 'name', which drawing programs keep apart from their own ids."""
        assert self.graph is not None  # noqa: S101 - a node is open only inside a graph
        identifier = part.xml.get("id", "")
        name = str(part.attributes.get("name", "")).strip() or identifier
        place = part.attributes.place
        vertices = self.graph.vertices
        if name in vertices or identifier in self.names:
            first = vertices.places.get(name, place).line
            message = f"node {shown(name)} stands twice, first in line {first}"
            self.source.error(place.line, ("nodes", name), message, "remove one, or give it another name")
            return
        self.names[identifier] = name
        vertices.put(name, part.attributes.without("name"), place)

    def read(self, text: str) -> AttributedGraph | None:
        self.parser.Parse(text.encode(), True)
        if self.graph is not None:
            self.graph.edges = [
                Edge(self.names.get(a, a), self.names.get(b, b), attributes)
                for a, b, attributes in self.edges
            ]
        return self.graph


def read_graphml(text: str, file: str) -> Source:
    """Marked data of the topology that a GraphML text draws; `data` is None where it could not be read."""
    source = Source(Place(file))
    try:
        require_text(text, source)
        graph = _Reader(source).read(text)
        if graph is None:
            source.error(0, (), "no <graph> in the document", "a GraphML document holds one '<graph>'")
        else:
            source.data = topology_data(graph, source)
    except Unreadable:
        source.data = None
    except expat.ExpatError as error:
        message = f"not XML: {expat.ErrorString(error.code)}"
        source.error(error.lineno, (), message, "export it as GraphML again, or look at this line")
    return source
