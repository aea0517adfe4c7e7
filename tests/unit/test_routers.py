"""Routers as the file declares them: default routes, who is reached, and what changes in the flows."""

from __future__ import annotations

from typing import Any

import pytest

from vswitchctl.compiler.compile import compile_topology
from vswitchctl.compiler.endpoints import mac_number
from vswitchctl.compiler.switching import compile_switches, numbered_ports
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.intent import Stored, allocate_tags, allocate_zones
from vswitchctl.model.state import Facts
from vswitchctl.model.switch import Switch
from vswitchctl.model.topology import Namespace, Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.tables import FLOOD
from vswitchctl.topology.reachability import expected_pairs, routed_pairs
from vswitchctl.topology.routing import default_gateways
from vswitchctl.topology.validate import validate

BOTH = {("0.0.0.0/0", "10.1.0.254"), ("::/0", "fd00:1::fe")}


def namespace(network: str, *ip: str, **more: Any) -> dict[str, Any]:
    interface = {"network": network, "ip": list(ip)}
    return {"kind": "namespace", "tenant": "red", "interfaces": {"eth0": interface}, **more}


def topology(routes: list[dict[str, str]] | None = None, **nodes: Any) -> Topology:
    """Networks a (both IP versions) and b (IPv4) of one router, on two bridges, with b's uplink at br1."""
    kinds = {
        "br0": {"kind": "bridge"},
        "br1": {"kind": "bridge"},
        "wan": {"kind": "uplink", "interface": "eth1", "network": "b"},
        "x": namespace("a", "10.1.0.1/24", "fd00:1::1/64"),
        "y": namespace("b", "10.2.0.1/24"),
        **nodes,
    }
    ends = [(f"{name}:eth0", "br0") for name, node in kinds.items() if node["kind"] == "namespace"]
    subnets = ["10.1.0.0/24", "fd00:1::/64"]
    data = {
        "name": "t",
        "tenants": {"red": {}},
        "networks": {
            "a": {"tenant": "red", "subnets": subnets, "gateway": ["10.1.0.254", "fd00:1::fe"], "vlan": 10},
            "b": {"tenant": "red", "subnets": ["10.2.0.0/24"], "gateway": "10.2.0.254", "vlan": 20},
        },
        "routers": {"r": {"tenant": "red", "networks": ["a", "b"], "routes": routes or []}},
        "nodes": kinds,
        "links": [{"ends": pair} for pair in (*ends, ("wan", "br1"), ("br0", "br1"))],
    }
    made = Topology.model_validate(data)
    assert [finding for finding in validate(made) if finding.severity == "error"] == []
    return made


def stored(of: Topology) -> Stored:
    return Stored(of, 1, allocate_tags(of, {}), zones=allocate_zones(of, {}, ()))


def numbered(of: Topology, facts: Facts) -> Facts:
    """Facts with numbers for ports that have none yet."""
    ports = compile_topology(stored(of), facts, load_apps()).ovs.ports
    missing = [key for key in ports if key not in facts.ofports]
    return Facts({**facts.ofports, **{key: len(facts.ofports) + at for at, key in enumerate(missing, 1)}})


def flows(of: Topology, facts: Facts) -> dict[str, FlowTable]:
    return compile_topology(stored(of), facts, load_apps()).flows


def switches(of: Topology) -> dict[str, Switch]:
    facts = numbered(of, Facts())
    found = compile_switches(
        of, stored(of).tags, {}, {}, {}, numbered_ports(compile_wiring(of, facts), facts)
    )
    return {switch.name: switch for switch in found}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, BOTH),
        ({"routes": [{"to": "default", "via": "10.1.0.9"}]}, {("::/0", "fd00:1::fe")}),
        ({"routes": [{"to": "10.0.0.0/8", "via": "10.1.0.9"}]}, BOTH),
        ({"default_route": False}, set()),
    ],
    ids=["both", "one declared", "another declared", "switched off"],
)  # fmt: skip
def test_a_namespace_has_its_gateway_as_default_route(
    more: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    made = topology(z=namespace("a", "10.1.0.3/24", "fd00:1::3/64", **more))
    node = made.nodes["z"]
    assert isinstance(node, Namespace)
    assert {(to, via) for _, to, via in default_gateways(made, node)} == expected


def test_routed_pairs_need_a_common_version_and_a_way_back() -> None:
    made = topology(
        far=namespace("b", "10.2.0.2/24", default_route=False), mute=namespace("a", "fd00:1::5/64")
    )
    both = {("x:eth0", "y:eth0"), ("y:eth0", "x:eth0")}
    assert routed_pairs(made) == {pair: frozenset({4}) for pair in both}
    expected = expected_pairs(made)
    assert both <= expected
    assert ("x:eth0", "far:eth0") not in expected and ("mute:eth0", "y:eth0") not in expected
    assert ("y:eth0", "far:eth0") in expected, "within a network nothing is routed"


def test_a_next_hop_is_asked_for_where_its_uplink_is_and_there_alone() -> None:
    made = topology([{"to": "default", "via": "10.2.0.99"}, {"to": "10.9.0.0/16", "via": "10.2.0.99"}])
    found = switches(made)
    stands_for_it = mac_number(made.next_hop_mac("b", "10.2.0.99"))
    (hop,) = found["br1"].next_hops
    assert hop.mac == stands_for_it and found["br0"].next_hops == ()
    assert stands_for_it in {known.mac for known in found["br0"].macs}
    assert stands_for_it not in {known.mac for known in found["br1"].macs}
    (router,) = found["br0"].routers
    assert {route.mac for route in router.routes} == {stands_for_it}


def test_a_next_hop_whose_mac_one_route_names_is_never_asked_for() -> None:
    routes = [{"to": "10.9.0.0/16", "via": "10.2.0.99"}]
    routes.append({"to": "default", "via": "10.2.0.99", "mac": "02:00:00:00:00:fe"})
    found = switches(topology(routes))
    assert all(switch.next_hops == () for switch in found.values())
    (router,) = found["br0"].routers
    assert {route.mac for route in router.routes} == {0x0200000000FE}


def test_a_route_more_adds_its_flow_on_each_bridge_and_changes_none() -> None:
    first = {"to": "default", "via": "10.2.0.99"}
    few, more = topology([first]), topology([first, {"to": "10.9.0.0/16", "via": "10.2.0.99"}])
    facts = numbered(few, Facts())
    before, after = flows(few, facts), flows(more, facts)
    for bridge in before:
        assert before[bridge].items() <= after[bridge].items()
        assert len(after[bridge]) == len(before[bridge]) + 1


def test_an_endpoint_more_changes_no_flow_of_the_others() -> None:
    few, more = topology(), topology(z=namespace("a", "10.1.0.3/24"))
    facts = numbered(few, Facts())
    before, after = flows(few, facts), flows(more, numbered(more, facts))
    for bridge in before:
        changed = {key for key, value in before[bridge].items() if after[bridge].get(key) != value}
        assert {key[0] for key in changed} <= {FLOOD.id}
