"""Every format gives back an equal topology, and no input makes the loader raise."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.strategies import topologies
from vswitchctl.model.topology import Topology
from vswitchctl.topology import (
    Document,
    dump_graphml,
    dump_json,
    dump_node_link,
    dump_yaml,
    from_networkx,
    load,
    load_text,
    to_networkx,
    validate,
)
from vswitchctl.topology.load import FORMATS, Format

COMMON = settings(deadline=None, max_examples=150)
formats = st.sampled_from(sorted(set(FORMATS.values())))


@COMMON
@given(topologies(acls=True, routers=True))
def test_the_strategy_gives_valid_and_whole_topologies(topology: Topology) -> None:
    findings = validate(topology)
    assert [f for f in findings if f.severity == "error" or "falls into" in f.message] == []


@COMMON
@given(topologies(acls=True, routers=True))
def test_text_formats_give_the_topology_back(topology: Topology) -> None:
    assert load_text(dump_yaml(topology), "yaml").require() == topology
    assert load_text(dump_json(topology), "json").require() == topology
    assert load_text(dump_node_link(topology), "json").require() == topology
    assert load_text(dump_graphml(topology), "graphml").require() == topology


@COMMON
@given(topologies(acls=True, routers=True))
def test_networkx_gives_the_topology_back(topology: Topology) -> None:
    assert from_networkx(to_networkx(topology)) == topology


@COMMON
@given(topologies(acls=True, routers=True))
def test_networkx_itself_reads_what_is_saved(topology: Topology) -> None:
    graphml = nx.read_graphml(BytesIO(dump_graphml(topology).encode()), force_multigraph=True)
    assert from_networkx(graphml) == topology
    node_link = nx.node_link_graph(json.loads(dump_node_link(topology)), edges="links")
    assert from_networkx(node_link) == topology


@COMMON
@given(topologies(acls=True, routers=True))
def test_other_yaml_readers_see_the_same_document(topology: Topology) -> None:
    """PyYAML's own loader speaks YAML 1.1: what it reads differently would be a trap we wrote ourselves."""
    assert yaml.safe_load(dump_yaml(topology)) == json.loads(dump_json(topology))


@COMMON
@given(topologies(acls=True, routers=True))
def test_every_entity_has_a_source(topology: Topology) -> None:
    document = load_text(dump_yaml(topology), "yaml", "file.yaml")
    expected = {"topology", *(f"interfaces/{end}" for end in topology.endpoints())}
    for section in ("tenants", "networks", "nodes", "acls", "routers"):
        expected |= {f"{section}/{name}" for name in getattr(topology, section)}
    assert {entity for entity in document.sources if not entity.startswith("links/")} == expected
    assert sum(entity.startswith("links/") for entity in document.sources) == len(topology.links)
    assert all(source.startswith("file.yaml:") for source in document.sources.values())


def _is_told(document: Document) -> None:
    """Either a topology without errors, or errors and no topology."""
    assert (document.topology is None) == bool(document.errors)
    for finding in document.findings:
        assert finding.message
        assert str(finding).isprintable()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytes")


@settings(COMMON, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from(sorted(FORMATS)))
def test_any_bytes_give_a_document(directory: Path, content: bytes, suffix: str) -> None:
    path = directory / f"any{suffix}"
    path.write_bytes(content)
    _is_told(load(path))


@settings(COMMON, max_examples=400)
@given(st.text(max_size=200), formats)
def test_any_text_gives_a_document(text: str, format: Format) -> None:
    _is_told(load_text(text, format))


structure = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
KEYS = (
    "name",
    "tenants",
    "networks",
    "nodes",
    "links",
    "qos",
    "groups",
    "acls",
    "routers",
    "expect",
    "description",
    "graph",
    "edges",
)


@settings(COMMON, max_examples=400)
@given(st.dictionaries(st.sampled_from(KEYS), structure))
def test_any_structure_gives_a_document(data: dict[str, Any]) -> None:
    _is_told(load_text(json.dumps(data, allow_nan=False, default=str) if _finite(data) else "[]", "json"))
    _is_told(load_text(yaml.safe_dump(data), "yaml"))


def _finite(data: Any) -> bool:
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        return False
    return True


@COMMON
@given(topologies(max_bridges=3, max_endpoints=4, acls=True, routers=True), st.data())
def test_a_damaged_document_is_told(topology: Topology, data: st.DataObject) -> None:
    """One piece of a good document replaced: shape and meaning are both checked, and nothing raises."""
    document = json.loads(dump_json(topology))
    place: Any = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(structure.filter(_finite))
            break
        place = place[key]
    _is_told(load_text(json.dumps(document), "json"))
    _is_told(load_text(yaml.safe_dump(document), "yaml"))


@COMMON
@given(topologies(max_bridges=3, max_endpoints=4, acls=True, routers=True), st.data())
def test_a_damaged_text_is_told(topology: Topology, data: st.DataObject) -> None:
    dump, format = data.draw(
        st.sampled_from(
            [(dump_yaml, "yaml"), (dump_json, "json"), (dump_graphml, "graphml"), (dump_node_link, "json")]
        )
    )
    text = dump(topology)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    _is_told(load_text(text[:start] + data.draw(st.text(max_size=5)) + text[end:], format))
