"""Any topology compiles, no frame runs in a circle, and exactly the pairs that should talk do: on paper."""

from __future__ import annotations

from itertools import permutations

import networkx as nx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation import BROADCAST, Fabric, Frame
from tests.strategies import topologies
from vswitchctl.model.topology import Topology, Uplink
from vswitchctl.topology.graph import attachments, segment

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def members(topology: Topology) -> dict[str, list[frozenset[str]]]:
    """Network -> the sets of ends that links join."""
    found: dict[str, list[frozenset[str]]] = {}
    for network in topology.networks:
        attached = attachments(topology, network)
        graph = segment(topology, network)
        found[network] = [
            frozenset(end for end, switch in attached.items() if switch in component)
            for component in nx.connected_components(graph)
        ]
    return found


def endpoints_of(topology: Topology, network: str) -> list[str]:
    attached = attachments(topology, network)
    return [end for end in attached if not isinstance(topology.nodes[end.partition(":")[0]], Uplink)]


@SLOW
@given(topologies())
def test_a_broadcast_reaches_every_member_once_and_nobody_else(topology: Topology) -> None:
    fabric = Fabric(topology)
    for network, groups in members(topology).items():
        for end in endpoints_of(topology, network):
            group = next(group for group in groups if end in group)
            got = fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
            assert got == {other: 1 for other in group if other != end}


@SLOW
@given(topologies())
def test_a_known_mac_is_reached_once_and_by_its_network_alone(topology: Topology) -> None:
    fabric = Fabric(topology)
    for network, groups in members(topology).items():
        ends = endpoints_of(topology, network)
        for end in ends:  # a Linux bridge floods what it has not heard yet, so let it hear everyone
            fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
        for a, b in permutations(ends, 2):
            together = any(a in group and b in group for group in groups)
            got = fabric.send(a, Frame(topology.endpoint_mac(a), topology.endpoint_mac(b)))
            if together:
                assert got == {b: 1}
            else:
                assert b not in got


@SLOW
@given(topologies(), st.data())
def test_unknown_sources_and_destinations_never_loop_nor_leave_their_network(
    topology: Topology, data: st.DataObject
) -> None:
    fabric = Fabric(topology)
    ends = [(end, net) for net in topology.networks for end in attachments(topology, net)]
    ends = [(end, net) for end, net in ends if not isinstance(topology.nodes[end.partition(":")[0]], Uplink)]
    if not ends:
        return
    strangers = [f"0a:00:00:00:00:{n:02x}" for n in range(3)]
    known = [topology.endpoint_mac(end) for end, _ in ends]
    for _ in range(12):
        end, network = data.draw(st.sampled_from(ends))
        frame = Frame(
            data.draw(st.sampled_from(strangers + known)),
            data.draw(st.sampled_from([*strangers, *known, BROADCAST])),
        )
        allowed = set(attachments(topology, network))
        got = fabric.send(end, frame)
        assert got.keys() <= allowed
        assert all(copies == 1 for copies in got.values())
