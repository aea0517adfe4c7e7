"""The JSON Schema is the code's, takes every good document, and refuses what an editor should underline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from tests.strategies import topologies
from vswitchctl.model.topology import Topology
from vswitchctl.topology import dump_json, load, load_text
from vswitchctl.topology.schema import json_schema, json_schema_text

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "topology.schema.json"
EXAMPLES = sorted((ROOT / "topologies").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_the_published_file_is_the_code_s() -> None:
    remedy = "python -m vswitchctl.topology.schema > docs/topology.schema.json"
    assert SCHEMA.read_text() == json_schema_text(), remedy


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_keeps_to_it(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text()))
    assert load(path).findings == ()


@settings(deadline=None, max_examples=100)
@given(topologies())
def test_every_valid_topology_keeps_to_it(topology: Topology) -> None:
    VALIDATOR.validate(json.loads(dump_json(topology)))


BAD: list[tuple[str, dict[str, Any]]] = [
    ("unknown key", {"tennants": {}}),
    ("bad name", {"tenants": {"no name": {}}}),
    ("long name", {"tenants": {"n" * 64: {}}}),
    ("kind", {"nodes": {"br-a": {"kind": "brige"}}}),
    ("key of another kind", {"nodes": {"br-a": {"kind": "bridge", "tenant": "red"}}}),
    ("no prefix", {"networks": {"web": {"tenant": "red", "subnets": ["10.1.0.0"]}}}),
    ("octet", {"networks": {"web": {"tenant": "red", "subnets": ["10.1.0.256/24"]}}}),
    ("vlan", {"networks": {"web": {"tenant": "red", "vlan": 4095}}}),
    ("one end", {"links": [{"ends": ["br-a"]}]}),
    ("three ends", {"links": [{"ends": ["br-a", "br-b", "br-c"]}]}),
    ("ports", {"acls": {"web": [{"direction": "in", "action": "allow", "protocol": "tcp", "ports": ["a"]}]}}),
    ("refuse", {"acls": {"web": [{"direction": "in", "action": "refuse"}]}}),
    ("log", {"acls": {"web": [{"direction": "in", "action": "deny", "log": "often"}]}}),
    ("log's rate", {"acls": {"web": [{"direction": "in", "action": "deny", "log": {"rate": 1001}}]}}),
    ("rate", {"qos": {"gold": {"max_rate": "100"}}}),
]
GOOD: list[dict[str, Any]] = [
    {"tenants": {"red": None}},
    {"tenants": None, "nodes": None, "links": None},
    {"acls": {"web": [{"direction": "in", "action": "deny", "from": "any", "stateful": False}]}},
    {"acls": {"web": [{"direction": "in", "action": "deny", "log": True}]}},
    {"acls": {"web": [{"direction": "in", "action": "deny", "log": {"rate": 5}}]}},
    {"qos": {"gold": {"max_rate": "1.5 Gbit", "burst": None}}},
]


@pytest.mark.parametrize(("what", "part"), BAD, ids=[what for what, _ in BAD])
def test_it_refuses(what: str, part: dict[str, Any]) -> None:
    document = {"name": "bad", **part}
    assert not VALIDATOR.is_valid(document)
    assert load_text(json.dumps(document), "json").errors


@pytest.mark.parametrize("part", GOOD)
def test_it_takes(part: dict[str, Any]) -> None:
    document = {"name": "good", **part}
    VALIDATOR.validate(document)
    load_text(json.dumps(document), "json").require()
