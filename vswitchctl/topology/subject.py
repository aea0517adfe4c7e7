"""What the semantic checks look at, and what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from vswitchctl.model.topology import (
    EndpointNode,
    Interface,
    Link,
    LinuxBridge,
    Namespace,
    Network,
    Node,
    Topology,
    Vm,
    split_end,
)
from vswitchctl.topology.document import Severity
from vswitchctl.topology.nearest import one_of
from vswitchctl.topology.source import Path, shown

MOST_GUESSES = 200
"""Suggestions per document: a document of errors alone must not cost minutes."""


class Issue(NamedTuple):
    """A finding before its place is known. path: in the topology checked ('links', 3, 'ends', 0)."""

    path: Path
    message: str
    remedy: str = ""
    severity: Severity = "error"


class WiredLink(NamedTuple):
    """A link whose two ends exist. number: its place among the links."""

    number: int
    link: Link
    a: Node
    b: Node

    @property
    def path(self) -> Path:
        return ("links", self.number)

    @property
    def nodes(self) -> tuple[tuple[str, Node, str], tuple[str, Node, str]]:
        """(end, its node, the other end) for both ends."""
        first, second = self.link.ends
        return (first, self.a, second), (second, self.b, first)


class Placed(NamedTuple):
    """An interface and where it stands."""

    end: str
    path: Path
    node: Namespace | Vm
    interface: Interface

    @property
    def what(self) -> str:
        """What its node is, in words."""
        return "virtual machine" if isinstance(self.node, Vm) else "namespace"


def placed_interfaces(nodes: Mapping[str, Node]) -> Iterator[Placed]:
    """Every interface of every namespace and virtual machine."""
    return (
        Placed(f"{name}:{interface_name}", ("nodes", name, "interfaces", interface_name), node, interface)
        for name, node in nodes.items()
        if isinstance(node, EndpointNode)
        for interface_name, interface in node.interfaces.items()
    )


@dataclass
class Subject:
    """A topology under check. broken: entities left out as malformed, so never called unknown."""

    topology: Topology
    broken: frozenset[str] = frozenset()
    _guesses: int = field(default=0, init=False)

    def is_broken(self, section: str, name: str) -> bool:
        return f"{section}/{name}" in self.broken or f"{section}/*" in self.broken

    def lacks(self, section: str) -> bool:
        """Whether anything of the section was left out."""
        return any(entity.startswith(f"{section}/") for entity in self.broken)

    def suggestion(self, name: str, known: Collection[str], introduction: str) -> str:
        self._guesses += 1
        return one_of(name, known, introduction) if self._guesses <= MOST_GUESSES else ""

    def unknown(self, section: str, name: str, path: Path) -> Iterator[Issue]:
        """The issue of a reference to a tenant or network that is not there."""
        known: Collection[str] = getattr(self.topology, section)
        if name in known or self.is_broken(section, name):
            return
        remedy = self.suggestion(name, known, f"the {section} are") or f"declare it under '{section}'"
        yield Issue(path, f"unknown {section[:-1]} {shown(name)}", remedy)

    def network(self, name: str) -> Network | None:
        return self.topology.networks.get(name)

    @cached_property
    def interfaces(self) -> tuple[Placed, ...]:
        return tuple(placed_interfaces(self.topology.nodes))

    @cached_property
    def wired(self) -> tuple[WiredLink, ...]:
        """The links whose ends all exist."""
        wired = []
        for number, link in enumerate(self.topology.links):
            a, b = (self.node_of(end) for end in link.ends)
            if a is not None and b is not None:
                wired.append(WiredLink(number, link, a, b))
        return tuple(wired)

    @cached_property
    def behind_linux_bridges(self) -> tuple[tuple[str, str], ...]:
        """(end, Linux bridge) of every link to one."""
        return tuple(
            (end, other)
            for link in self.wired
            for end, _, other in link.nodes
            if isinstance(self.node_of(other), LinuxBridge)
        )

    def node_of(self, end: str) -> Node | None:
        """The node of a well-formed end that exists, else None."""
        name, interface = split_end(end)
        node = self.topology.nodes.get(name)
        if isinstance(node, EndpointNode):
            return node if interface in node.interfaces else None
        return node if node is not None and ":" not in end else None
