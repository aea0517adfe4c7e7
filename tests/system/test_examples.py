"""Every example: applied, proven by real packets, unchanged on a second look, and gone without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.conftest import TOPOLOGIES, Stack, machine, run, until
from vswitchctl.drivers.probe import probe
from vswitchctl.topology.load import load
from vswitchctl.topology.reachability import difference, expected_pairs

EXAMPLES = sorted(path for path in TOPOLOGIES.iterdir() if path.suffix in {".yaml", ".graphml", ".py"})


def test_all_four_formats_are_among_the_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {
        "two-tenants.yaml",
        "leaf-spine.yaml",
        "campus.graphml",
        "ring.py",
    }


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.name)
def test_an_example_does_what_it_says_and_leaves_nothing(stack: Stack, file: Path) -> None:
    before = machine()
    topology = load(file, run_python=True).require()
    assert topology.expect is not None
    stack.cli("plan", str(file), code=2)
    stack.apply(file)
    assert stack.in_sync(topology.name)
    found = difference(probe(topology), expected_pairs(topology))
    assert not found, found
    plan = stack.json("plan", str(file))
    assert plan["changes"] == [] and plan["flows"] == []
    stack.cli("destroy", topology.name, "--yes")
    until(lambda: machine() == before, f"as before: {before}, now {machine()}")
    assert stack.vsctl("list-br") == ""


def test_all_examples_live_side_by_side(stack: Stack) -> None:
    for file in EXAMPLES:
        stack.apply(file)
    for file in EXAMPLES:
        topology = load(file, run_python=True).require()
        found = difference(probe(topology), expected_pairs(topology))
        assert not found, (file.name, found)
    first = load(EXAMPLES[0], run_python=True).require().name
    stack.cli("destroy", first, "--yes")
    for file in EXAMPLES[1:]:
        stack.cli("plan", str(file))


def test_what_the_kernel_holds_is_what_the_file_says(stack: Stack) -> None:
    stack.apply(TOPOLOGIES / "two-tenants.yaml")
    assert stack.vsctl("get", "bridge", "br-a", "fail_mode") == "secure"
    assert "mtu 1400" in run("ip", "-n", "blue-web1", "link", "show", "eth0")
    addresses = run("ip", "-n", "red-web1", "addr", "show", "eth0")
    assert "10.1.0.11/24" in addresses and "2001:db8:1::11/64" in addresses
    assert "10.2.0.15 via 10.1.0.15" in run("ip", "-n", "red-web1", "route")
    assert "LOOPBACK,UP" in run("ip", "-n", "red-web1", "link", "show", "lo")
    offload = run("ip", "netns", "exec", "red-web1", "ethtool", "-k", "eth0")
    assert "tx-checksumming: off" in offload
    assert {"br-a", "br-b", "br-c"} == set(stack.vsctl("list-br").split())
