"""PIPELINE.md shows what the code makes: its tables, and its dumps line by line."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import vswitchctl.pipeline
from vswitchctl.compiler.compile import compile_topology
from vswitchctl.model.flow import Flow, priority, table_id
from vswitchctl.model.intent import Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.state import Facts
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.registers import REGISTERS
from vswitchctl.pipeline.tables import TABLES

DOCUMENT = Path(vswitchctl.pipeline.__file__).with_name("PIPELINE.md")
SAMPLE = Path(__file__).with_name("pipeline") / "sample.yaml"


def sample_flows() -> list[tuple[str, str]]:
    """(table, line) of every flow of bridge br-a, in table and priority order."""
    topology = Topology.model_validate(yaml.safe_load(SAMPLE.read_text()))
    stored = Stored(
        topology,
        1,
        allocate_tags(topology, {}),
        zones=allocate_zones(topology, {}, ()),
        meters=allocate_meters(topology, {}),
    )
    ports = sorted(compile_topology(stored, Facts(), load_apps()).ovs.ports)
    facts = Facts({key: number for number, key in enumerate(ports, 1)})
    flows = compile_topology(stored, facts, load_apps()).flows["br-a"]
    lines = []
    for key, value in sorted(
        flows.items(), key=lambda item: (table_id(item[0]), -priority(item[0]), item[0])
    ):
        said = describe(Flow(key, value))
        match = f",{said.match_text}" if said.match_text else ""
        lines.append((said.table_name, f"priority={said.priority}{match} actions={said.actions_text}"))
    return lines


def test_every_dump_is_what_the_compiler_makes() -> None:
    blocks = re.findall(r"```flows\n(.*?)```", DOCUMENT.read_text(), re.S)
    assert [line for block in blocks for line in block.splitlines()] == [line for _, line in sample_flows()]


def test_every_table_has_its_section_in_order() -> None:
    sections = re.findall(r"^## (\d+): (\w+)$", DOCUMENT.read_text(), re.M)
    assert sections == [(str(table.id), table.name) for table in TABLES]


def test_every_line_is_explained() -> None:
    for section in DOCUMENT.read_text().split("\n## ")[1:]:
        block = re.search(r"```flows\n(.*?)```(.*)", section, re.S)
        if block is not None:
            assert len(re.findall(r"^\d+\. ", block[2], re.M)) == len(block[1].splitlines()), section


def test_every_register_is_named() -> None:
    for name in REGISTERS:
        assert f"`{name}`" in DOCUMENT.read_text()


def test_the_sample_is_the_topology_shown() -> None:
    assert SAMPLE.read_text() in DOCUMENT.read_text()
