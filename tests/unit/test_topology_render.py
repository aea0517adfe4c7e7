"""Drawings: everything is on them, colours are tenants, and graphviz takes what we write."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.strategies import topologies
from vswitchctl.errors import UserError
from vswitchctl.model.topology import Topology, link_name
from vswitchctl.topology import TopologyBuilder, load
from vswitchctl.topology.drawing import STATUS_COLOURS, Drawing
from vswitchctl.topology.render import to_dot, to_png, to_svg
from vswitchctl.topology.render_terminal import to_rich

EXAMPLES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


def campus() -> Topology:
    t = TopologyBuilder("campus", description='two <b>"tenants"</b>').tenant("staff").tenant("red")
    t.network("office", tenant="staff", subnets=["10.1.0.0/24"]).network("lab", tenant="red")
    for bridge in ("br-a", "br-b", "br-c", "br-d"):
        t.bridge(bridge)
    t.linux_bridge("lan0", network="office").uplink("wan0", interface="eth9", trunk={"office": 7, "lab": 8})
    t.namespace("desk", tenant="staff").interface("desk", "eth0", network="office", ip="10.1.0.11/24")
    t.namespace("probe", tenant="red").interface("probe", "eth0", network="lab")
    t.interface("probe", "eth1", network="lab")
    t.link("br-a", "br-b").link("br-b", "br-c", kind="veth", cost=10).link("br-c", "br-a").link(
        "br-c", "br-d"
    )
    t.link("lan0", "br-d").link("wan0", "br-a").link("desk:eth0", "lan0").link("probe:eth0", "br-a")
    return t.build()


STATUS = {"nodes/br-a": "in-sync", "interfaces/desk:eth0": "pending", "links/br-a--br-b": "failed"}


def on_terminal(topology: Topology, status: dict[str, str] | None = None) -> str:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(to_rich(topology, status))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_links_in_a_loop_are_told_from_the_only_way() -> None:
    drawing = Drawing(campus(), {})
    assert drawing.loop_links() == {"br-a--br-b", "br-b--br-c", "br-a--br-c"}
    only = {link_name(link) for link in drawing.trunks()} - drawing.loop_links()
    assert only == {"br-c--br-d", "br-d--lan0"}


def test_a_tenant_called_by_a_colour_has_it_and_no_other_has() -> None:
    drawing = Drawing(campus(), {})
    assert drawing.tenant_colour("red") == "#C0392B"
    assert drawing.tenant_colour("staff") not in ("#C0392B", drawing.tenant_colour("nobody"))


def test_the_terminal_shows_every_part() -> None:
    assert on_terminal(campus(), STATUS) == (Path(__file__).parent / "topology_terminal.txt").read_text()


def test_dot_says_what_a_shape_is() -> None:
    dot = to_dot(campus(), STATUS)
    styles = {
        name: re.search(rf'^  "{name}" \[shape="(\w+)", style="([\w,]+)"', dot, re.MULTILINE)
        for name in campus().nodes
    }
    found = {name: match.groups() for name, match in styles.items() if match}
    assert found == {
        **dict.fromkeys(("br-a", "br-b", "br-c", "br-d"), ("box", "filled")),
        "lan0": ("box", "filled,dashed"),
        "wan0": ("house", "filled"),
        **dict.fromkeys(("desk", "probe"), ("box", "filled,rounded")),
    }
    assert "veth, cost 10" in dot
    assert STATUS_COLOURS["failed"] in dot
    assert dot == to_dot(campus(), STATUS)


def test_svg_is_a_picture_with_every_node_and_link() -> None:
    topology = campus()
    root = ET.fromstring(to_svg(topology, STATUS))  # noqa: S314 - graphviz wrote it just now
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert set(topology.nodes) <= set(titles)
    assert sum("--" in (title or "") for title in titles) == len(topology.links)
    text = " ".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert 'two <b>"tenants"</b>' in text.replace("\xa0", " ")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_can_be_drawn(path: Path) -> None:
    topology = load(path).require()
    assert to_png(topology).startswith(b"\x89PNG\r\n")
    assert all(name in on_terminal(topology) for name in topology.nodes)


@settings(deadline=None, max_examples=25)
@given(topologies(), st.data())
def test_graphviz_takes_any_topology_in_any_state(topology: Topology, data: st.DataObject) -> None:
    entities = [f"nodes/{name}" for name in topology.nodes]
    entities += [f"links/{link_name(link)}" for link in topology.links]
    entities += [f"interfaces/{end}" for end in topology.endpoints()]
    states = st.sampled_from([*STATUS_COLOURS, "unheard-of"])
    status = {entity: data.draw(states) for entity in entities if data.draw(st.booleans())}
    assert "</svg>" in to_svg(topology, status)
    assert topology.name in on_terminal(topology, status)


def test_a_large_topology_is_laid_out_by_force() -> None:
    t = TopologyBuilder("large").bridge("br-0")
    for number in range(1, 400):
        t.bridge(f"br-{number}").link(f"br-{number}", f"br-{number // 3}")
    topology = t.build()
    assert "layout=sfdp" in to_dot(topology)
    assert "br&#45;399" in to_svg(topology)


def test_without_graphviz_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install graphviz"):
        to_svg(campus())


def test_a_graphviz_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "dot"
    broken.write_text("#!/bin/sh\necho no fonts today >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(UserError, match="no fonts today"):
        to_png(campus())


def test_what_is_linked_to_nothing_is_named() -> None:
    assert "linked to nothing: probe:eth1" in on_terminal(campus())
