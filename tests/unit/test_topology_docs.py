"""The reference of the file format: its examples load, and no key or kind is missing from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vswitchctl.model.policy import Log, Peer, Rule
from vswitchctl.model.topology import Expect, Group, Interface, Link, Network, Qos, Route, Topology
from vswitchctl.topology import load, load_text
from vswitchctl.topology.graph_source import DRAWING, ORDER
from vswitchctl.topology.shape_words import NODES
from vswitchctl.topology.source import MAX_BYTES, MAX_DEPTH, MAX_NODES
from vswitchctl.topology.yaml_source import trap

REFERENCE = (Path(__file__).parents[2] / "docs" / "topology.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)


def test_its_yaml_is_a_topology() -> None:
    (example,) = blocks("yaml")
    assert load_text(example).findings == ()


def test_its_python_is_a_topology(tmp_path: Path) -> None:
    (program,) = blocks("python")
    path = tmp_path / "pair.py"
    path.write_text(program)
    document = load(path, run_python=True)
    assert document.findings == ()
    assert len(document.require().links) == 3


@pytest.mark.parametrize(
    "model", [Topology, Network, *NODES.values(), Interface, Route, Link, Qos, Group, Rule, Log, Peer, Expect]
)
def test_every_key_is_explained(model: type[Topology]) -> None:
    missing = [key for key in model.model_fields if not re.search(rf"`{key}`|`{key}: |\b{key}: ", REFERENCE)]
    assert missing == []


def test_every_kind_is_explained() -> None:
    assert [kind for kind in NODES if f"| `{kind}` |" not in REFERENCE] == []


def test_traps_it_names_are_traps() -> None:
    (paragraph,) = re.findall(r"^YAML 1\.1 reads .*?^$", REFERENCE, re.MULTILINE | re.DOTALL)
    named = re.findall(r"`([^`]+)`", paragraph.partition("Tags,")[0])
    assert len(named) == 9
    assert [text for text in named if trap(text) is None] == []


def test_its_limits_are_the_code_s() -> None:
    assert (MAX_BYTES, MAX_DEPTH, MAX_NODES) == (16 * 2**20, 32, 10**6)
    assert "more than 16 MiB, 32 levels or a million\nvalues" in REFERENCE
    assert f"`{ORDER}`" in REFERENCE
    assert {"label", "x", "y", "color", "weight"} <= DRAWING
