"""Topology in, devices, OVSDB rows and flows out: every example against the text that was reviewed.

After a change that is meant, write them anew (GOLDEN=write scripts/test tests/golden) and read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation import all_running
from vswitchctl.compiler.compile import compile_topology, provisional
from vswitchctl.model.flow import Flow, priority, table_id
from vswitchctl.model.intent import Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.state import DesiredState, Facts, VethEnd
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.cookies import resolve
from vswitchctl.pipeline.decode import describe
from vswitchctl.topology.load import load

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(p for p in (ROOT / "topologies").iterdir() if p.suffix in {".yaml", ".graphml", ".py"})


def compiled(topology: Topology) -> DesiredState:
    stored = Stored(
        topology,
        1,
        allocate_tags(topology, {}),
        zones=allocate_zones(topology, {}, ()),
        meters=allocate_meters(topology, {}),
    )
    running = Facts(vms=all_running(topology))
    facts = provisional(compile_topology(stored, running, load_apps()), running)
    return compile_topology(stored, facts, load_apps())


def text(desired: DesiredState) -> str:
    """The desired state for a person: a line for each resource and flow, each with its owner."""
    lines = []
    for name, namespace in desired.netlink.namespaces.items():
        routes = "".join(f" route {r.to} via {r.via}" for r in sorted(namespace.routes, key=str))
        lines.append(f"namespace {name} [{namespace.owner.entity}]{routes}")
    for name, linux in desired.netlink.linux_bridges.items():
        lines.append(f"linux-bridge {name} [{linux.owner.entity}] mtu {linux.mtu}")
    for veth in desired.netlink.veths.values():
        lines.append(f"veth [{veth.owner.entity}]")
        lines += [f"    {end_text(end)}" for end in (veth.a, veth.b)]
    for name, tap in desired.netlink.taps.items():
        lines.append(f"tap {name} [{tap.owner.entity}]")
    for name, bridge in desired.ovs.bridges.items():
        lines.append(f"bridge {name} [{bridge.owner.entity}] {bridge.datapath_type}")
    for key, port in desired.ovs.ports.items():
        peer = f" peer {port.peer}" if port.peer else ""
        vif = f" of {port.vif.domain} {port.vif.attached_mac}" if port.vif else ""
        lines.append(f"port {key.bridge} {key.name} [{port.owner.entity}] {port.type or 'system'}{peer}{vif}")
    for name, table in desired.flows.items():
        lines.append(f"flows of {name}")
        for key, value in sorted(table.items(), key=lambda kv: (table_id(kv[0]), -priority(kv[0]), kv[0])):
            said = describe(Flow(key, value))
            found = resolve(said.cookie, desired.cookies)
            assert found is not None, f"a flow that nobody asked for: {said}"
            match = f",{said.match_text}" if said.match_text else ""
            lines.append(
                f"    {said.table_name} {said.priority}{match} -> {said.actions_text} [{found[0].entity}]"
            )
    return "\n".join(lines) + "\n"


def end_text(end: VethEnd) -> str:
    parts = [f"{end.namespace or 'host'}:{end.name}", f"mtu {end.mtu}"]
    parts += [f"mac {end.mac}"] if end.mac else []
    parts += [f"master {end.master}"] if end.master else []
    parts += sorted(end.addresses)
    parts += [] if end.tx_checksum else ["tx-checksum off"]
    return " ".join(parts)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.name)
def test_an_example_compiles_to_what_was_reviewed(file: Path) -> None:
    golden = Path(__file__).with_name("compile") / f"{file.stem}.txt"
    found = text(compiled(load(file, run_python=True).require()))
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.name)
def test_the_same_input_gives_the_same_bytes(file: Path) -> None:
    topology = load(file, run_python=True).require()
    assert compiled(topology).flows == compiled(topology).flows
    assert text(compiled(topology)) == text(compiled(load(file, run_python=True).require()))


def test_a_description_is_not_compiled() -> None:
    topology = load(ROOT / "topologies" / "two-tenants.yaml").require()
    edited = topology.model_copy(update={"description": "something else"})
    assert compiled(edited) == compiled(topology)


def test_without_port_numbers_there_are_devices_and_reasons_but_no_port_flows() -> None:
    topology = load(ROOT / "topologies" / "two-tenants.yaml").require()
    desired = compile_topology(
        Stored(
            topology,
            1,
            allocate_tags(topology, {}),
            zones=allocate_zones(topology, {}, ()),
            meters=allocate_meters(topology, {}),
        ),
        Facts(),
        load_apps(),
    )
    assert set(desired.pending) == {port.owner for port in desired.ovs.ports.values()}
    tables = {table_id(key) for flows in desired.flows.values() for key in flows}
    assert 0 not in tables and 120 not in tables
