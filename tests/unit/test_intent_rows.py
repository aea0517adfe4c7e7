"""The mapping between the model and the rows of the intent database: complete, reversible, and sparing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.strategies import topologies
from vswitchctl.errors import InvalidTopology
from vswitchctl.intent.operations import operations
from vswitchctl.intent.rows import Part, positions, to_part, to_stored
from vswitchctl.intent.server import DATABASE, schema_path
from vswitchctl.intent.tables import CLAIM, CLAIMS, STATUS_COLUMNS, STATUS_TABLES, TOPOLOGY, Table
from vswitchctl.model.intent import allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.topology import Topology, entities

SCHEMA = json.loads(schema_path().read_text())

RICH: dict[str, Any] = {
    "name": "rich",
    "description": 'äöü \U0001f310 "quoted" \\ and a\nline',
    "tenants": {"red": {"description": "first"}, "blue": {}, "amber": {}},
    "networks": {
        "web": {
            "tenant": "red",
            "subnets": ["10.9.0.0/24", "10.1.0.0/24", "2001:db8::/64"],
            "gateway": ["10.9.0.1", "2001:db8::1"],
            "mtu": 9000,
        },
        "lan": {"tenant": "red", "vlan": 4094, "description": "tagged", "storm": {"broadcast": "1kpps"}},
        "blue-web": {"tenant": "blue", "subnets": ["10.9.0.0/24"], "vlan": 1, "mtu": 68},
    },
    "nodes": {
        "zz": {"kind": "bridge", "datapath": "netdev", "description": "comes first"},
        "lan0": {"kind": "linux-bridge", "network": "lan"},
        "web1": {
            "kind": "namespace",
            "tenant": "red",
            "interfaces": {
                "eth1": {
                    "network": "web",
                    "ip": ["10.9.0.2/24", "10.1.0.2/24"],
                    "mac": "02:00:00:00:00:01",
                    "mtu": 1400,
                    "allowed": [
                        {"mac": "00:00:5e:00:01:07", "ip": "10.9.0.100/32", "description": "VRRP"},
                        {"ip": "2001:db8:1::/64"},
                        {"mac": "02:00:00:00:00:09"},
                    ],
                    "dhcp_server": True,
                    "router": True,
                    "description": "two addresses, in this order",
                    "acls": ["web", "closed"],
                    "qos": "gold",
                    "storm": {"multicast": 7, "unknown_unicast": 8},
                },
                "eth0": {"network": "lan", "port_security": False},
            },
            "routes": [
                {"to": "default", "via": "10.9.0.1", "description": "out"},
                {"to": "192.0.2.0/24", "via": "10.9.0.3"},
                {"to": "default", "via": "10.9.0.4"},
            ],
            "default_route": False,
        },
        "vpn": {
            "kind": "tun",
            "tenant": "red",
            "device": "tun3",
            "ip": "10.8.0.1/24",
            "mtu": 1400,
            "user": 7,
            "default_route": False,
        },
        "guest": {"kind": "vm", "tenant": "red", "domain": "gäst 1"},
        "wan0": {"kind": "uplink", "interface": "eth8", "network": "web"},
        "wan1": {
            "kind": "uplink",
            "interface": "eth9",
            "trunk": {"web": 7, "lan": 4094},
            "storm": {"broadcast": 9},
        },
        "aa": {"kind": "bridge"},
    },
    "links": [
        {"ends": ["zz", "aa"], "kind": "patch", "cost": 65535, "description": "one"},
        {"ends": ["web1:eth1", "zz"]},
        {"ends": ["aa", "zz"], "kind": "veth"},
        {"ends": ["zz", "aa"]},
    ],
    "qos": {
        "gold": {"max_rate": "100mbit", "burst": "10mbit", "min_rate": "20mbit", "dscp": 10, "max_pps": 5},
        "bare": {"mechanism": "police"},
        "ways": {
            "max_rate": {"in": "1.5 Gbit", "out": "1 gbit"},
            "burst": {"out": "64 kbyte"},
            "dscp": "AF41",
        },
        "pps": {"max_pps": {"in": "2kpps"}},
    },
    "groups": {
        "ends": {"members": ["web1:eth1", "web1:eth0"]},
        "nets": {"addresses": ["10.0.0.0/8", "::/0"]},
    },
    "acls": {
        "web": [
            {"direction": "in", "action": "allow", "protocol": "tcp", "ports": [443, "80-90", 22]},
            {
                "direction": "out",
                "action": "deny",
                "protocol": 47,
                "to": {"group": "nets"},
                "stateful": False,
            },
            {"direction": "in", "action": "deny", "from": "10.1.0.7", "description": "one"},
        ],
        "closed": [{"direction": "in", "action": "deny", "protocol": "icmpv6", "icmp_type": 128}],
    },
    "routers": {
        "r1": {
            "tenant": "red",
            "networks": ["web", "blue-web", "lan"],
            "connects": ["blue", "amber"],
            "routes": [
                {"to": "default", "via": "10.9.0.3", "mac": "02:00:00:00:00:fe", "description": "out"},
                {"to": "192.0.2.0/24", "via": "10.9.0.2"},
            ],
            "description": "joins",
        },
        "r0": {"tenant": "amber", "networks": []},
    },
    "expect": {"reachable": [["web1:eth1", "wan0"], ["web1:eth0"]], "description": "proof"},
}


def rows(topology: Topology, sources: dict[str, str] | None = None, stored: Part | None = None) -> Part:
    """The rows as a writer makes them."""
    zones = allocate_zones(topology, {}, (1, 2))
    meters = allocate_meters(topology, {})
    part = to_part(topology, sources or {}, allocate_tags(topology, {}), "hv1", stored, zones, meters)
    part.columns |= {"generation": 1, "revision": 1}
    return part


def as_stored(part: Part) -> Part:
    """The same rows with UUIDs, as they would be read back."""
    parts = {
        column: {key: as_stored(child) for key, child in held.items()} for column, held in part.parts.items()
    }
    return replace(part, columns=dict(part.columns), parts=parts, row=uuid4(), decoded=None)


def tables(root: Table = TOPOLOGY) -> Iterator[Table]:
    yield root
    for held in root.holds:
        yield from tables(held.table)


def names_in_order(topology: Topology) -> list[list[str]]:
    """What equality of models leaves out: the order of names."""
    groups: list[dict[str, Any]] = [topology.tenants, topology.networks, topology.nodes, topology.qos]
    groups += [topology.groups, topology.acls, topology.routers]
    groups += [getattr(node, "interfaces", {}) for node in topology.nodes.values()]
    return [list(group) for group in groups]


def test_schema_is_the_database() -> None:
    assert SCHEMA["name"] == DATABASE
    assert [name for name, table in SCHEMA["tables"].items() if table.get("isRoot")] == ["Topology", "Host"]
    assert ["host", "device"] in SCHEMA["tables"]["Claim"]["indexes"]


@pytest.mark.parametrize("table", list(tables()), ids=lambda table: table.name)
def test_model_mapping_and_schema_agree(table: Table) -> None:
    """A field added to the model, or a column added to the schema, has to be mapped."""
    held = {held.column for held in table.holds}
    derived = {CLAIMS, *STATUS_COLUMNS} if table is TOPOLOGY else set()
    assert {*table.every_column, *held, *derived} == set(SCHEMA["tables"][table.name]["columns"])
    if table.model is not None:
        attributes = {*table.columns, *table.constant, *(held.attribute for held in table.holds)}
        named = {"name"} & set(table.model.model_fields)
        assert attributes | named == set(table.model.model_fields)


def test_every_table_of_the_schema_is_known() -> None:
    assert {table.name for table in tables()} | {CLAIM.name} | STATUS_TABLES == set(SCHEMA["tables"])


def test_everything_a_topology_says_survives() -> None:
    topology = Topology.model_validate(RICH)
    sources = {entity: f"rich.yaml:{line}" for line, entity in enumerate(("topology", *entities(topology)))}
    sources |= {"qos/gold": "rich.yaml:90", "expect": "rich.yaml:91"}
    stored = to_stored(rows(topology, sources))
    assert stored.topology == topology
    assert names_in_order(stored.topology) == names_in_order(topology)
    assert stored.sources == sources
    assert stored.tags == {"web": 2, "lan": 4094, "blue-web": 1}
    assert stored.zones == {"web1:eth1": 3}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(topologies(max_bridges=3, max_endpoints=6, acls=True, routers=True))
def test_any_topology_survives(topology: Topology) -> None:
    stored = to_stored(rows(topology))
    assert stored.topology == topology
    assert names_in_order(stored.topology) == names_in_order(topology)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    topologies(max_bridges=3, max_endpoints=4, acls=True, routers=True),
    topologies(max_bridges=3, max_endpoints=4, acls=True, routers=True),
)
def test_a_topology_written_over_another_survives(before: Topology, after: Topology) -> None:
    stored = to_stored(rows(after, stored=as_stored(rows(before))))
    assert stored.topology == after
    assert names_in_order(stored.topology) == names_in_order(after)


def test_no_operation_but_the_check_for_what_is_stored_already() -> None:
    stored = as_stored(rows(Topology.model_validate(RICH)))
    desired = rows(Topology.model_validate(RICH), stored=stored)
    assert desired == stored
    assert [operation["op"] for operation in operations(desired, stored)] == ["wait"]


def test_only_the_row_that_changed_is_written() -> None:
    stored = as_stored(rows(Topology.model_validate(RICH)))
    nodes = RICH["nodes"] | {"aa": RICH["nodes"]["aa"] | {"description": "new"}}
    desired = rows(Topology.model_validate(RICH | {"nodes": nodes}), stored=stored)
    wait, update = operations(desired, stored)
    assert wait["op"] == "wait"
    assert wait["rows"] == [{"revision": 1}]
    assert (update["op"], update["table"], update["row"]) == ("update", "Bridge", {"description": "new"})


def test_a_row_added_in_the_middle_moves_no_other() -> None:
    stored = as_stored(rows(Topology.model_validate(RICH)))
    nodes = {"zz": RICH["nodes"]["zz"], "new": {"kind": "bridge"}} | RICH["nodes"]
    desired = rows(Topology.model_validate(RICH | {"nodes": nodes}), stored=stored)
    written = [(operation["op"], operation["table"]) for operation in operations(desired, stored)]
    assert written == [
        ("wait", "Topology"),
        ("insert", "Bridge"),
        ("insert", "Claim"),
        ("mutate", "Topology"),
    ]
    assert list(to_stored(desired).topology.nodes) == list(nodes)


def test_a_row_that_is_gone_is_let_go() -> None:
    stored = as_stored(rows(Topology.model_validate(RICH)))
    desired = rows(Topology.model_validate(RICH | {"qos": {}}), stored=stored)
    _, mutate = operations(desired, stored)
    gone = [["uuid", str(part.row)] for part in stored.parts["qos"].values()]
    assert mutate["mutations"] == [["qos", "delete", ["set", gone]]]


def test_a_node_of_another_kind_is_another_row() -> None:
    stored = as_stored(rows(Topology.model_validate(RICH)))
    nodes = RICH["nodes"] | {"aa": {"kind": "linux-bridge", "network": "lan"}}
    after = Topology.model_validate(RICH | {"nodes": nodes})
    desired = rows(after, stored=stored)
    mutations = operations(desired, stored)[-1]["mutations"]
    assert [mutation[:2] for mutation in mutations] == [["bridges", "delete"], ["linux_bridges", "insert"]]
    assert to_stored(desired).topology == after


def test_rows_broken_by_another_hand_are_named() -> None:
    part = rows(Topology.model_validate(RICH))
    part.parts["networks"]["web", 0].columns["mtu"] = 5
    with pytest.raises(
        InvalidTopology, match=r"mtu of network 'web' as stored is not valid: .*apply its topology again"
    ):
        to_stored(part)


@given(
    st.lists(st.integers(0, 30), unique=True),
    st.dictionaries(st.integers(0, 30), st.integers(-5, 60)),
)
def test_positions_follow_the_order(order: list[int], stored: dict[int, int]) -> None:
    assert all(low < high for low, high in pairwise(positions(order, stored)))
    assert len(positions(order, stored)) == len(order)


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(31, 60), unique=True), st.randoms())
def test_positions_stay_where_rows_are_added_or_removed(old: list[int], new: list[int], random: Any) -> None:
    stored = dict(zip(old, positions(old, {}), strict=True))
    order = [key for key in old if random.random() < 0.7]
    for key in new[:8]:
        order.insert(random.randint(0, len(order)), key)
    placed = dict(zip(order, positions(order, stored), strict=True))
    assert all(placed[key] == stored[key] for key in order if key in stored)
