"""The examples in topologies/: each is valid, says what it expects, and all can be applied side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from vswitchctl.model.topology import Bridge, LinuxBridge, Namespace, Topology, Vm, split_end
from vswitchctl.topology.load import load
from vswitchctl.topology.reachability import Matrix, difference, expected_pairs

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "topologies").iterdir())
FILES = [path for path in EXAMPLES if path.is_file()]


def read(path: Path) -> Topology:
    return load(path, run_python=True).require()


def test_the_four_promised_ones_are_here() -> None:
    names = {path.name for path in FILES}
    assert names >= {"two-tenants.yaml", "leaf-spine.yaml", "campus.graphml", "ring.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_is_valid_without_a_warning(path: Path) -> None:
    document = load(path, run_python=True)
    assert not document.findings, "\n".join(map(str, document.findings))
    assert document.require().name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_expects_what_its_networks_allow(path: Path) -> None:
    """Every endpoint stands in one group, and the groups are the networks: no policy says otherwise yet."""
    topology = read(path)
    assert topology.expect is not None
    stated = expected_pairs(topology)
    by_network = expected_pairs(topology.model_copy(update={"expect": None}))
    assert not difference(Matrix(tuple(topology.endpoints()), by_network), stated)
    asked = {end for end in topology.endpoints() if not isinstance(topology.nodes[split_end(end)[0]], Vm)}
    assert {end for pair in stated for end in pair} == asked


def test_all_examples_can_be_applied_side_by_side() -> None:
    """Bridges and namespaces are named after their nodes, so no two examples may share such a name."""
    owner: dict[tuple[str, str], str] = {}
    for path in FILES:
        topology = read(path)
        for name, node in topology.nodes.items():
            if isinstance(node, Bridge | LinuxBridge):
                place = ("device", name)
            elif isinstance(node, Namespace):
                place = ("namespace", name)
            else:
                continue
            assert owner.setdefault(place, topology.name) == topology.name, f"{name} is in two examples"


def test_two_tenants_overlap_on_purpose() -> None:
    topology = read(ROOT / "topologies/two-tenants.yaml")
    endpoints = topology.endpoints()
    seen: dict[tuple[str, str], set[str]] = {}
    for end, interface in endpoints.items():
        tenant = topology.networks[interface.network].tenant
        seen.setdefault(("mac", topology.endpoint_mac(end)), set()).add(tenant)
        for address in interface.ip:
            seen.setdefault(("ip", address), set()).add(tenant)
    shared = {kind for (kind, _), tenants in seen.items() if len(tenants) == 2}
    assert shared == {"ip", "mac"}
    assert len(endpoints) >= 8
