"""What every drawing of a topology shares: colours that mean a tenant, links in loops, marks of a status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Final, NamedTuple

import networkx as nx

from vswitchctl.model.topology import (
    Bridge,
    EndpointNode,
    Link,
    LinuxBridge,
    Node,
    Topology,
    Uplink,
    link_name,
    split_end,
)

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#56B4E9", "#882255", "#6A7B00")
"""Told apart by colour-blind eyes too: after Okabe and Ito, https://jfly.uni-koeln.de/color/."""

NAMED_COLOURS: Final[Mapping[str, str]] = {
    "red": "#C0392B",
    "blue": "#0072B2",
    "green": "#009E73",
    "orange": "#D55E00",
    "purple": "#AA4499",
    "yellow": "#B8860B",
    "black": "#212121",
    "gray": "#757575",
    "grey": "#757575",
    "white": "#90A4AE",
}

NEUTRAL: Final = "#455A64"
"""What belongs to no one tenant: bridges, and uplinks with a trunk."""

STATUS_COLOURS: Final[Mapping[str, str]] = {
    "in-sync": "#2E7D32",
    "applying": "#1565C0",
    "pending": "#B26A00",
    "failed": "#C62828",
    "stale": "#757575",
}

STATUS_MARKS: Final[Mapping[str, str]] = {
    "in-sync": "✔",
    "applying": "…",
    "pending": "○",
    "failed": "✘",
    "stale": "?",
}

Status = Mapping[str, str]
"""Entity ('nodes/br-a', 'interfaces/web1:eth0', 'links/br-a--br-b') -> status ('in-sync', 'failed', ...)."""


class Attached(NamedTuple):
    """What hangs on a switch by one link. interface: '' for an uplink."""

    link: Link
    node: str
    interface: str


@dataclass(frozen=True)
class Drawing:
    """A topology sorted for the eye. status: per entity, where known."""

    topology: Topology
    status: Status

    @cached_property
    def _tenants(self) -> Mapping[str, str]:
        """A tenant called by a colour has that one: a blue 'red' would mislead."""
        taken = {NAMED_COLOURS[name] for name in self.topology.tenants if name in NAMED_COLOURS}
        free = cycle([colour for colour in PALETTE if colour not in taken] or PALETTE)
        return {name: NAMED_COLOURS.get(name) or next(free) for name in self.topology.tenants}

    def tenant_colour(self, tenant: str) -> str:
        return self._tenants.get(tenant, NEUTRAL)

    def network_colour(self, network: str | None) -> str:
        found = self.topology.networks.get(network or "")
        return self.tenant_colour(found.tenant) if found else NEUTRAL

    def node_colour(self, node: Node) -> str:
        if isinstance(node, EndpointNode):
            return self.tenant_colour(node.tenant)
        if isinstance(node, LinuxBridge | Uplink):
            return self.network_colour(node.network)
        return NEUTRAL

    def switches(self) -> dict[str, Bridge | LinuxBridge]:
        return {n: node for n, node in self.topology.nodes.items() if isinstance(node, Bridge | LinuxBridge)}

    def trunks(self) -> tuple[Link, ...]:
        """Links between two switches."""
        switches = self.switches()
        return tuple(link for link in self.topology.links if all(end in switches for end in link.ends))

    def attached(self, switch: str) -> tuple[Attached, ...]:
        """Endpoints and uplinks on a switch, in the document's order of nodes."""
        switches, found = self.switches(), []
        for link in self.topology.links:
            for end, other in (link.ends, link.ends[::-1]):
                if other == switch and end not in switches:
                    found.append(Attached(link, *split_end(end)))
        order = {name: number for number, name in enumerate(self.topology.nodes)}
        return tuple(sorted(found, key=lambda a: (order.get(a.node, 0), a.interface)))

    def loop_links(self) -> frozenset[str]:
        """Names of links between switches that are part of a loop: none of them is the only way."""
        graph = nx.Graph()
        graph.add_nodes_from(self.switches())
        graph.add_edges_from(link.ends for link in self.trunks())
        only_ways = {frozenset(edge) for edge in nx.bridges(graph)}
        return frozenset(link_name(link) for link in self.trunks() if frozenset(link.ends) not in only_ways)

    def of(self, entity: str) -> str:
        """The status of an entity, '' where not known."""
        return self.status.get(entity, "")


def link_words(link: Link) -> str:
    """Kind and cost of a link, as far as they were chosen: 'veth, cost 10'."""
    words = [link.kind] if link.kind != "auto" else []
    return ", ".join([*words, *([f"cost {link.cost}"] if link.cost != 1 else [])])
