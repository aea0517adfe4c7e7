"""Paths and trees: loops, costs, partitions, and the rules for Linux bridges."""

from __future__ import annotations

from typing import Any

import networkx as nx

from vswitchctl.model.topology import Topology
from vswitchctl.topology.graph import attachments, forwarding, partitions


def topology(bridges: str, links: list[Any], at: dict[str, str], linux: str = "") -> Topology:
    """One network 'n'. links: (a, b) or (a, b, cost). at: namespace -> switch."""
    nodes: dict[str, Any] = {name: {"kind": "bridge"} for name in bridges.split()}
    nodes |= {name: {"kind": "linux-bridge", "network": "n"} for name in linux.split()}
    nodes |= {
        name: {"kind": "namespace", "tenant": "t", "interfaces": {"eth0": {"network": "n"}}} for name in at
    }
    edges = [{"ends": [f"{name}:eth0", switch]} for name, switch in at.items()]
    edges += [{"ends": [a, b], "cost": cost[0] if cost else 1} for a, b, *cost in links]
    return Topology.model_validate(
        {
            "name": "g",
            "tenants": {"t": {}},
            "networks": {"n": {"tenant": "t"}},
            "nodes": nodes,
            "links": edges,
        }
    )


RING = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]


def test_a_ring_is_cut_once_for_broadcast_and_not_for_unicast() -> None:
    paths = forwarding(topology("a b c d", RING, {"w": "a", "x": "b", "y": "c", "z": "d"}), "n")
    assert len(paths.tree) == 3
    assert nx.is_tree(nx.Graph(paths.tree))
    assert paths.carried == {("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")}


def test_cost_decides_the_path() -> None:
    dear = [("a", "b", 10), ("b", "c"), ("a", "c")]
    paths = forwarding(topology("a b c", dear, {"x": "a", "y": "b"}), "n")
    assert paths.next_hop["a", "b"] == "c"
    assert paths.tree == {("a", "c"), ("b", "c")}


def test_equal_costs_are_decided_by_name_every_time() -> None:
    links = [("a", "m1"), ("a", "m2"), ("m1", "z"), ("m2", "z")]
    at = {"x": "a", "y": "z"}
    hops = {
        forwarding(topology("a z m1 m2", order, at), "n").next_hop["a", "z"] for order in (links, links[::-1])
    }
    assert hops == {"m1"}


def test_nothing_is_flooded_where_nobody_listens() -> None:
    paths = forwarding(topology("a b c d e", [*RING, ("d", "e")], {"x": "a", "y": "b"}), "n")
    assert paths.tree == {("a", "b")}
    assert paths.switches == {"a", "b"}


def test_a_network_with_one_switch_has_no_links() -> None:
    paths = forwarding(topology("a b", [("a", "b")], {"x": "a", "y": "a"}), "n")
    assert (paths.tree, paths.carried, paths.switches) == (frozenset(), frozenset(), {"a"})


def test_partitions_name_the_parts_and_not_idle_switches() -> None:
    split = topology("a b c", [("b", "c")], {"x": "a", "y": "b"})
    assert partitions(split, "n") == (frozenset({"a", "x"}), frozenset({"b", "y"}))
    whole = topology("a b c", [("a", "b")], {"x": "a", "y": "b"})
    assert len(partitions(whole, "n")) == 1


def test_a_linux_bridge_with_two_links_is_entered_by_one() -> None:
    links = [("a", "b", 50), ("lan", "a"), ("lan", "b")]
    paths = forwarding(topology("a b", links, {"x": "a", "y": "b", "z": "lan"}, linux="lan"), "n")
    entries = [pair for pair in paths.carried if "lan" in pair]
    assert len(entries) == 1
    assert ("a", "b") in paths.tree
    assert paths.next_hop["a", "b"] == "b"


def test_a_linux_bridge_that_alone_joins_two_parts_is_crossed() -> None:
    links = [("lan", "a"), ("lan", "b")]
    paths = forwarding(topology("a b", links, {"x": "a", "y": "b"}, linux="lan"), "n")
    assert paths.next_hop["a", "b"] == "lan"
    assert paths.carried == paths.tree == {("a", "lan"), ("b", "lan")}


def test_where_a_linux_bridge_is_crossed_unicast_follows_the_tree() -> None:
    """Else the Linux bridge would see one source on two ports."""
    links = [("a", "b"), ("b", "c"), ("a", "c"), ("lan", "c"), ("lan", "d")]
    paths = forwarding(topology("a b c d", links, {"w": "a", "x": "b", "y": "c", "z": "d"}, linux="lan"), "n")
    assert paths.carried == paths.tree


def test_attachments_are_switch_ends_only() -> None:
    assert attachments(topology("a", [], {"x": "a"}), "n") == {"x:eth0": "a"}
