"""Behind which ports MACs that nobody declared are learned, and how many. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from vswitchctl.compiler.endpoints import has_strangers
from vswitchctl.model.topology import EndpointNode, LinuxBridge, Topology, Uplink


def learn_limit(topology: Topology, towards: str) -> int:
    """Most MACs of one network that are learned from what a port leads to; 0 where none is.

    towards: an interface, an uplink or a Linux bridge.
    """
    node = topology.nodes.get(towards)
    if isinstance(node, Uplink | LinuxBridge):
        return node.learn_limit
    interface = topology.interface(towards)
    return interface.learn_limit if interface is not None and has_strangers(topology, towards) else 0


def network_limits(topology: Topology) -> Mapping[str, int]:
    """Network -> most MACs that all of its ports together learn: as many as may come over a link."""
    limits: dict[str, int] = defaultdict(int)
    for network, limit in _shares(topology):
        limits[network] += limit
    return limits


def _shares(topology: Topology) -> Iterator[tuple[str, int]]:
    for name, node in topology.nodes.items():
        if isinstance(node, LinuxBridge):
            yield node.network, node.learn_limit
        elif isinstance(node, Uplink):
            for network in {*node.trunk, *([node.network] if node.network else [])}:
                yield network, node.learn_limit
        elif isinstance(node, EndpointNode):
            for interface_name, interface in node.interfaces.items():
                yield interface.network, learn_limit(topology, f"{name}:{interface_name}")
