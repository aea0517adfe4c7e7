"""ACLs on paper: how many flows a policy costs, what ranges and groups become, and zones."""

from __future__ import annotations

from collections import Counter
from itertools import starmap
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openflow_apps.acl import rule_flows
from tests.policies import document
from vswitchctl.compiler.budget import MOST_FLOWS, acl_costs, over_budget
from vswitchctl.compiler.compile import compile_topology, provisional
from vswitchctl.compiler.policy import acl_rules, acl_sets, distinct, port_masks
from vswitchctl.errors import Conflict
from vswitchctl.intent.commands import zones_taken
from vswitchctl.intent.rows import to_part
from vswitchctl.model.flow import Flow, FlowTable, table_id
from vswitchctl.model.flow import cookie as flow_cookie
from vswitchctl.model.intent import ZONES, Stored, allocate_tags, allocate_zones
from vswitchctl.model.state import Facts, Owner
from vswitchctl.model.switch import AclSet, AddressTerm
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.cookies import cookie, resolve
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.tables import CT_FROM, CT_TO
from vswitchctl.pipeline.zones import zone_uses
from vswitchctl.reconcile.zones import Handover, Zones, one_of_each
from vswitchctl.topology.source import Path, Place

ALLOW = {"direction": "in", "action": "allow"}


def lan(acls: dict[str, Any], count: int = 3, using: int = 3, **more: Any) -> Topology:
    """Endpoints e0.. on one bridge; the first `using` of them have all the ACLs."""
    nodes: dict[str, Any] = {"br": {"kind": "bridge"}}
    for number in range(count):
        interface = {"network": "n", "ip": f"10.0.{number >> 8}.{number & 255}/16"}
        used = {"acls": list(acls)} if number < using else {}
        nodes[f"e{number}"] = {"kind": "namespace", "tenant": "t", "interfaces": {"i": interface | used}}
    links = [{"ends": [f"e{number}:i", "br"]} for number in range(count)]
    data = {"name": "lan", "tenants": {"t": {}}, "networks": {"n": {"tenant": "t"}}, "nodes": nodes}
    return Topology.model_validate({**data, "links": links, "acls": acls, **more})


def flows(topology: Topology) -> FlowTable:
    stored = Stored(topology, 1, allocate_tags(topology, {}), zones=allocate_zones(topology, {}, ()))
    facts = provisional(compile_topology(stored, Facts(), load_apps()), Facts())
    return compile_topology(stored, facts, load_apps()).flows["br"]


def rule_count(topology: Topology) -> int:
    return sum(len(rule_flows(acl_set)) for acl_set in acl_sets(topology).values())


@pytest.mark.parametrize(("peers", "ports"), [(2, 2), (10, 10), (200, 50), (1000, 3)])
def test_peers_and_ports_cost_their_sum(peers: int, ports: int) -> None:
    group = {"g": {"addresses": [f"172.16.{n >> 8}.{n & 255}" for n in range(peers)]}}
    numbers = [1000 + 2 * n for n in range(ports)]
    acls = {"a": [{**ALLOW, "protocol": "tcp", "ports": numbers, "from": {"group": "g"}}]}
    unused_direction = 2
    assert rule_count(lan(acls, groups=group)) == peers + ports + 1 + unused_direction


@given(st.integers(0, 2**32))
def test_what_an_acl_costs_is_known_before_it_is_compiled(seed: int) -> None:
    """Rule by rule, the count is that of the flows."""
    topology = document(Random(seed))
    for cost in acl_costs(topology):
        rules = tuple(acl_rules(topology, cost.name, (cost.name,), 0))
        acl_set = AclSet(1, Owner("random", f"acls/{cost.name}"), rules)
        compiled = Counter(flow_cookie(flow.value) & 0xFFFF for flow in rule_flows(acl_set))
        assert cost.rules == tuple(compiled[number] for number in range(1, len(rules) + 1))


@pytest.mark.parametrize("versions", [4, 46])
def test_growth_is_by_sum_and_never_by_product(versions: int) -> None:
    """One peer more, or one port more, costs one flow more for each IP version that it is of."""

    def cost(peers: int, ports: int) -> int:
        addresses = [f"172.16.{n >> 8}.{n & 255}" for n in range(peers)]
        if versions == 46:
            addresses += [f"fd00::{n:x}" for n in range(peers)]
        rule = {
            **ALLOW,
            "protocol": "tcp",
            "ports": [1000 + 2 * n for n in range(ports)],
            "from": {"group": "g"},
        }
        (found,) = acl_costs(lan({"a": [rule]}, groups={"g": {"addresses": addresses}}))
        return found.flows

    each = 1 if versions == 4 else 2
    assert cost(300, 40) == each * (300 + 40) + 1
    assert cost(301, 40) - cost(300, 40) == cost(300, 41) - cost(300, 40) == each


def test_an_acl_that_costs_too_much_is_refused_with_the_rule_that_does() -> None:
    addresses = [f"10.{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(MOST_FLOWS)]
    groups = {"g": {"addresses": addresses}}
    rule = {**ALLOW, "from": {"group": "g"}}
    assert [str(f) for f in over_budget(acl_costs(lan({"a": [rule]}, groups=groups)), place)] == []
    topology = lan({"b": [ALLOW], "a": [ALLOW, rule]}, groups=groups)
    assert [str(finding) for finding in over_budget(acl_costs(topology), place)] == [
        "lan.yaml:9: error: acls.a: 10001 flows, and 10000 are the most; "
        "rule 2 costs the most of them, 10000; "
        "name subnets in place of their addresses, and ranges in place of ports; or split the ACL"
    ]


def place(path: Path) -> Place:
    assert path == ("acls", "a")
    return Place("lan.yaml", 9)


@pytest.mark.parametrize(
    ("rule", "logged", "more"),
    [
        ({"action": "allow"}, ["ct_state=0x1/0x1"], 1),
        ({"action": "allow", "stateful": False}, [""], 0),
        ({"action": "deny"}, [""], 0),
        ({"action": "reject"}, [""], 0),
        ({"action": "allow", "protocol": "tcp", "ports": [1, 4], "from": {"group": "g"}}, ["0x1/0x1"], 1),
    ],
)
def test_of_a_connection_that_is_allowed_what_opens_it_alone_is_logged(
    rule: dict[str, Any], logged: list[str], more: int
) -> None:
    groups = {"g": {"addresses": ["172.16.0.1", "172.16.0.9"]}}
    plain, told, often = (
        flows(lan({"a": [{"direction": "in", **rule, "log": log}]}, groups=groups))
        for log in (False, True, {"rate": 500})
    )
    assert len(told) == len(plain) + more
    assert often == told, "how many lines there are is the daemon's to know"
    sending = [
        said for said in map(describe, starmap(Flow, told.items())) if "userdata=76.10" in said.actions_text
    ]
    assert [match in said.match_text for said, match in zip(sending, logged, strict=True)] == [True]
    assert {said.cookie for said in sending} == {cookie(Owner("lan", "acls/a"), 1)}
    assert {key: told[key] for key in plain.keys() & told.keys() if plain[key] != told[key]}.keys() <= {
        key for key, value in told.items() if b"\x00\x03\x00\x06\x76\x10" in value
    }, "no other flow differs"


def test_rules_cost_the_same_for_any_number_of_ports() -> None:
    acls = {"a": [{**ALLOW, "protocol": "tcp", "ports": [80, 443]}]}
    few, many = (len(flows(lan(acls, count=200, using=using))) for using in (1, 101))
    assert few + 100 * 6 == many, "two IP versions each way, other frames, and a flood back to its sender"


def test_a_port_without_acls_costs_nothing_and_a_bridge_without_two_flows() -> None:
    plain = [key for key in flows(lan({}, count=20)) if key[0] in (40, 50, 55, 90, 100, 105)]
    assert sorted(key[0] for key in plain) == [40, 90]


def test_every_flow_names_its_rule() -> None:
    acls = {"a": [{**ALLOW, "protocol": "udp"}, {**ALLOW, "protocol": "tcp"}], "b": [ALLOW]}
    owners = {flow_cookie(v) >> 16 << 16: Owner("lan", "acls/b") for v in flows(lan({"b": [ALLOW]})).values()}
    found = {resolve(flow_cookie(value), owners) for value in flows(lan(acls)).values()}
    assert (Owner("lan", "acls/b"), 1) in found


def test_members_are_known_by_address_and_by_mac_without_one() -> None:
    groups = {"g": {"members": ["e0:i", "e1:i"]}}
    topology = lan({"a": [{**ALLOW, "from": {"group": "g"}}]}, groups=groups)
    bare = topology.nodes["e1"].model_copy(  # type: ignore[union-attr]
        update={"interfaces": {"i": topology.endpoints()["e1:i"].model_copy(update={"ip": ()})}}
    )
    topology = topology.model_copy(update={"nodes": {**topology.nodes, "e1": bare}})
    (rule,) = next(iter(acl_sets(topology).values())).rules
    assert rule.peers is not None
    assert [term.family for term in rule.peers] == [0, 4]


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 300)), min_size=1, max_size=5))
def test_masks_of_ports_are_the_ports(spans: list[tuple[int, int]]) -> None:
    ports = [f"{first}-{min(first + more, 65535)}" for first, more in spans]
    wanted = {n for first, more in spans for n in range(first, min(first + more, 65535) + 1)}
    masks = list(port_masks(ports))
    covered = [n for value, mask in masks for n in range(value, value + 0x10000 - mask)]
    assert sorted(covered) == sorted(wanted), "each once"
    assert all(value & ~mask & 0xFFFF == 0 for value, mask in masks)


def test_an_address_inside_another_is_left_out_and_neighbours_stay_apart() -> None:
    full = 0xFFFFFFFF
    terms = [
        AddressTerm(4, 4, full),
        AddressTerm(4, 0, full - 3),
        AddressTerm(4, 3, full),
        AddressTerm(4, 5, full),
    ]
    assert distinct(terms) == [AddressTerm(4, 0, full - 3), AddressTerm(4, 4, full), AddressTerm(4, 5, full)]


def test_zones_are_kept_and_no_other_topology_s() -> None:
    topology = lan({"a": [ALLOW]}, count=4, using=3)
    assert allocate_zones(topology, {}, ()) == {"e0:i": 1, "e1:i": 2, "e2:i": 3}
    assert allocate_zones(topology, {"e1:i": 7, "e2:i": 2}, {1, 2}) == {"e0:i": 3, "e1:i": 7, "e2:i": 4}
    with pytest.raises(Conflict, match="no conntrack zone is left for 'e0:i'"):
        allocate_zones(topology, {}, ZONES)


def test_zones_are_claimed_on_their_host() -> None:
    topology = lan({"a": [ALLOW]})
    part = to_part(topology, {}, allocate_tags(topology, {}), "hv1", None, {"e0:i": 9, "e1:i": 11})
    assert zones_taken("hv1", [part]) == {9, 11}
    assert zones_taken("hv2", [part]) == set()


def test_a_zone_that_becomes_free_is_given_out_last() -> None:
    topology = lan({"a": [ALLOW]}, count=3, using=2)
    before = {"gone:i": 1, "e0:i": 2}
    assert allocate_zones(topology, before, ()) == {"e0:i": 2, "e1:i": 3}
    assert allocate_zones(topology, before, ZONES[2:]) == {"e0:i": 2, "e1:i": 1}


def test_a_zone_that_changes_hands_is_closed_until_it_was_flushed() -> None:
    topology = lan({"a": [ALLOW]}, count=3, using=2)
    wanted = flows(topology)
    zones = Zones()
    first = Handover(zones)
    closed = first.closed("br", wanted, {})
    assert zone_uses(closed) == set() and closed.keys() == wanted.keys()
    assert {zone for zone, _ in first.uses()} == {1, 2}
    entering = {key for key in wanted if closed[key] != wanted[key]}
    assert {table_id(key) for key in entering} == {CT_FROM.id, CT_TO.id}
    assert len(entering) == 8, "both directions and IP versions of two interfaces"
    zones.flushed(first.uses())
    assert Handover(zones).closed("br", wanted, closed) is wanted


def test_zones_that_are_in_use_when_the_daemon_starts_are_left_alone() -> None:
    wanted = flows(lan({"a": [ALLOW]}, count=3, using=2))
    zones = Zones()
    zones.look("br", wanted)
    again = Handover(zones)
    assert again.closed("br", wanted, {}) is wanted and not again.waiting, "flows that somebody deleted"
    other = flows(lan({"a": [ALLOW]}, count=3, using=1))
    assert Handover(zones).closed("br", other, wanted) is other, "one has no ACLs any more"


def test_a_bridge_of_each_datapath_flushes() -> None:
    assert one_of_each({"a": "netdev", "b": "system", "c": "netdev"}) == ["a", "b"]
    assert one_of_each({}) == []
