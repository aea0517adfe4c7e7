"""Files: what is read, what is refused before it costs anything, and where things stand."""

from __future__ import annotations

import os
from pathlib import Path

import networkx as nx
import pytest

from vswitchctl.errors import InvalidTopology
from vswitchctl.model.topology import Topology
from vswitchctl.topology import (
    Document,
    Finding,
    dump_yaml,
    from_networkx,
    load,
    load_networkx,
    load_text,
    to_networkx,
)
from vswitchctl.topology.source import MAX_BYTES

WEB = """\
name: web
tenants:
  red:
networks:
  lan:
    tenant: red
    subnets: [10.1.0.0/24]
nodes:
  br-a: {kind: bridge}
  web1:
    kind: namespace
    tenant: red
    interfaces:
      eth0:
        network: lan
        ip: 10.1.0.11/24
links:
  - ends: ["web1:eth0", br-a]
"""


def the_error(document: Document) -> str:
    (finding,) = document.errors
    return str(finding)


def test_sources_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    lines = {entity: source.removeprefix(f"{path}:") for entity, source in load(path).sources.items()}
    assert lines == {
        "topology": "1",
        "tenants/red": "3",
        "networks/lan": "5",
        "nodes/br-a": "9",
        "nodes/web1": "10",
        "interfaces/web1:eth0": "14",
        "links/br-a--web1:eth0": "18",
    }


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + WEB.replace("\n", "\r\n").encode())
    document = load(path)
    assert document.require() == load_text(WEB).require()
    assert document.sources["nodes/web1"].endswith(":10")


def test_merge_keys_and_aliases_are_read() -> None:
    text = """\
name: web
tenants: {red: {}}
networks: {lan: &lan {tenant: red, mtu: 1400}, other: {<<: *lan, mtu: 1300}, third: *lan}
"""
    networks = load_text(text).require().networks
    assert {name: network.mtu for name, network in networks.items()} == {
        "lan": 1400,
        "other": 1300,
        "third": 1400,
    }


def test_missing_file_and_directory_are_findings(tmp_path: Path) -> None:
    assert "No such file or directory" in the_error(load(tmp_path / "none.yaml"))
    (tmp_path / "directory.yaml").mkdir()
    assert "Is a directory" in the_error(load(tmp_path / "directory.yaml"))


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".graphml"])
def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"huge{suffix}"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES * 100)
    assert "at most 16 MiB are read" in the_error(load(path))
    assert "at most 16 MiB are read" in the_error(load_text(" " * (MAX_BYTES + 1)))


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    assert "at most 16 MiB are read" in the_error(load(tmp_path / "endless.yaml"))


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("[" * 200_000, "yaml"),
        ("{a: " * 200_000, "yaml"),
        ("- " * 200_000, "yaml"),
        ("[" * 200_000, "json"),
        ('{"a":' * 200_000, "json"),
        ("<graphml>" * 200_000, "graphml"),
    ],
    ids=["yaml-flow", "yaml-maps", "yaml-block", "json-lists", "json-maps", "graphml"],
)
def test_deep_nesting_is_a_finding(text: str, format: str) -> None:
    assert load_text(text, format).errors


def test_a_pair_of_aliases_nested_too_deep_is_a_finding() -> None:
    text = "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20 + "\n"
    assert "aliases nest more than 32 levels deep" in the_error(load_text(text))


def test_a_document_full_of_errors_reports_them_all_without_losing_time() -> None:
    """Each unknown node asks for the nearest of thousands: guessing must stop, reporting must not."""
    nodes = "".join(f"  node-{number}: {{kind: bridge}}\n" for number in range(3000))
    links = "".join(f"  - {{ends: [node-{number}, nodee-{number}]}}\n" for number in range(3000))
    document = load_text(f"name: many\nnodes:\n{nodes}links:\n{links}")
    assert len(document.errors) == 3000
    assert sum("did you mean" in finding.remedy for finding in document.errors) == 200


def test_require_raises_every_error_and_no_warning() -> None:
    text = WEB.replace("web1:eth0", "web2:eth0") + "    costs: 3\n"
    document = load_text(text)
    with pytest.raises(InvalidTopology) as caught:
        document.require()
    assert caught.value.findings == document.errors
    assert [finding.path for finding in document.errors] == ["links[0].ends[0]", "links[0].costs"]
    assert [finding.severity for finding in document.warnings] == ["warning"]


def test_a_warning_does_not_stop_anything() -> None:
    document = load_text(WEB.partition("links:")[0])
    assert [finding.path for finding in document.warnings] == ["nodes.web1.interfaces.eth0"]
    assert document.require().name == "web"


def test_a_finding_as_text() -> None:
    finding = Finding("error", "web.yaml", 7, "networks.lan", "what is wrong", "what is right")
    assert str(finding) == "web.yaml:7: error: networks.lan: what is wrong; what is right"
    assert str(Finding("warning", "web.yaml", 0, "", "what is wrong")) == "web.yaml: warning: what is wrong"


def test_yaml_that_is_saved_is_what_a_person_would_write() -> None:
    assert (
        dump_yaml(load_text(WEB).require())
        == """\
name: web
tenants:
  red: {}
networks:
  lan:
    tenant: red
    subnets: [10.1.0.0/24]
nodes:
  br-a: {kind: bridge}
  web1:
    kind: namespace
    tenant: red
    interfaces:
      eth0:
        network: lan
        ip: [10.1.0.11/24]
links:
- ends: ['web1:eth0', br-a]
"""
    )


# -- Python files


def written(directory: Path, program: str) -> Path:
    path = directory / "program.py"
    path.write_text(program)
    return path


def test_a_python_file_is_run_only_where_it_may(tmp_path: Path) -> None:
    path = written(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "a Python file is a program, which is not run here" in the_error(load(path))
    assert not (tmp_path / "ran").exists()
    assert "defines no 'topology'" in the_error(load(path, run_python=True))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "program",
    [
        "from vswitchctl.topology import TopologyBuilder\ntopology = TopologyBuilder('ring').bridge('br-a')",
        "from vswitchctl.model.topology import Topology\n"
        "topology = Topology(name='ring', nodes={'br-a': {'kind': 'bridge'}})\n",
        "import networkx\ntopology = networkx.Graph(name='ring')\ntopology.add_node('br-a', kind='bridge')\n",
    ],
    ids=["builder", "model", "networkx"],
)
def test_what_a_python_file_may_define(tmp_path: Path, program: str) -> None:
    document = load(written(tmp_path, program), run_python=True)
    assert document.require() == Topology.model_validate(
        {"name": "ring", "nodes": {"br-a": {"kind": "bridge"}}}
    )


@pytest.mark.parametrize(
    ("program", "line", "message"),
    [
        ("def f():\n    return 1 / 0\nf()\n", 2, "the program failed: ZeroDivisionError: division by zero"),
        ("x = 1\nx = (\n", 2, "the program failed: SyntaxError"),
        ("import sys\nsys.exit('enough')\n", 2, "the program failed: SystemExit: enough"),
        ("topology = 5\n", 0, "'topology' is 'int'"),
    ],
)
def test_a_failing_program_is_a_finding_at_its_line(
    tmp_path: Path, program: str, line: int, message: str
) -> None:
    (finding,) = load(written(tmp_path, program), run_python=True).errors
    assert (finding.line, message in finding.message) == (line, True), finding


# -- graphs


def drawn() -> nx.Graph:
    graph = nx.Graph(name="drawn")
    graph.add_node("br-a", kind="bridge", x=1.5, color="blue")
    graph.add_node("web1", kind="namespace", tenant="red", network="lan", ip="10.1.0.11/24, fd00::11/64")
    graph.add_node(
        "web2", kind="namespace", tenant="red", network="lan", interface="ens3", ip=("10.1.0.12/24",)
    )
    graph.add_edge("br-a", "web1", weight=2.0)
    graph.add_edge("web2", "br-a")
    return graph


def test_the_short_form_of_a_drawing() -> None:
    topology = from_networkx(drawn())
    assert list(topology.tenants) == ["red"]
    assert topology.networks["lan"].tenant == "red"
    assert {end: interface.ip for end, interface in topology.endpoints().items()} == {
        "web1:eth0": ("10.1.0.11/24", "fd00::11/64"),
        "web2:ens3": ("10.1.0.12/24",),
    }
    assert [set(link.ends) for link in topology.links] == [{"br-a", "web1:eth0"}, {"br-a", "web2:ens3"}]


def test_a_drawing_with_networks_of_its_own_declares_no_others() -> None:
    graph = drawn()
    graph.graph["networks"] = {"web": {"tenant": "red"}}
    errors = load_networkx(graph).errors
    assert {finding.message for finding in errors} == {"unknown network 'lan'"}


def test_an_edge_names_one_of_several_interfaces() -> None:
    graph = nx.MultiGraph(name="drawn", tenants={"red": {}}, networks={"lan": {"tenant": "red"}})
    graph.add_node("br-a", kind="bridge")
    interfaces = {"eth0": {"network": "lan"}, "eth1": {"network": "lan"}}
    graph.add_node("web1", kind="namespace", tenant="red", interfaces=interfaces)
    graph.add_edge("br-a", "web1", interface="eth1")
    graph.add_edge("br-a", "web1", interface="eth0")
    assert [link.ends[1] for link in from_networkx(graph).links] == ["web1:eth1", "web1:eth0"]
    graph.add_edge("br-a", "web1")
    assert "so its end names an interface" in load_networkx(graph).errors[0].message


def test_vertices_need_not_be_texts() -> None:
    graph = nx.DiGraph(name="numbers")
    graph.add_nodes_from([1, 2], kind="bridge")
    graph.add_edge(1, 2)
    assert from_networkx(graph).links[0].ends == ("1", "2")


def test_a_graph_that_contains_itself_is_a_finding() -> None:
    endless: list[object] = []
    endless.append(endless)
    graph = nx.Graph(name="endless")
    graph.add_node("br-a", kind=endless)
    assert "nested more than 32 levels deep" in the_error(load_networkx(graph))


def test_networkx_attributes_are_those_of_the_model() -> None:
    graph = to_networkx(load_text(WEB).require())
    assert graph.nodes["br-a"] == {"kind": "bridge"}
    assert graph.nodes["web1"]["interfaces"] == {"eth0": {"network": "lan", "ip": ["10.1.0.11/24"]}}
    assert list(graph.edges(keys=True, data="ends")) == [("br-a", "web1", 0, ["web1:eth0", "br-a"])]
    assert graph.graph["networks"] == {"lan": {"tenant": "red", "subnets": ["10.1.0.0/24"]}}


def test_a_graphml_is_called_by_its_name_else_by_its_file(tmp_path: Path) -> None:
    text = '<graphml><key id="n" attr.name="name" for="graph"/><graph id="G">{}</graph></graphml>'
    path = tmp_path / "campus.graphml"
    path.write_text(text.format(""))
    assert load(path).require().name == "campus"
    path.write_text(text.format('<data key="n">told</data>'))
    assert load(path).require().name == "told"


def test_a_graphml_node_is_called_by_its_name_too() -> None:
    """Drawing programs number the nodes, and keep names as an attribute."""
    text = """\
<graphml><key id="k" attr.name="kind" for="node"><default>bridge</default></key>
<key id="n" attr.name="name" for="node"/><graph>
<edge source="n1" target="n0"/>
<node id="n0"><data key="n">br-a</data></node>
<node id="n1"><data key="n">br-b</data></node>
</graph></graphml>"""
    topology = load_text(text, "graphml", "drawn.graphml").require()
    assert list(topology.nodes) == ["br-a", "br-b"]
    assert topology.links[0].ends == ("br-b", "br-a")


def test_loading_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the number is what is asked
    for _ in range(20):
        load(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
