"""The command line against a real API on a socket: what each command prints and how it exits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from command_line import CommandLine, plain
from served_api import Served, served_api, topology

from vswitchctl import __version__
from vswitchctl.model.views import (
    AclLogLine,
    AclRuleView,
    BridgeView,
    FlowView,
    HostView,
    LinkView,
    OperationView,
    PlanView,
    PortView,
    TenantView,
    TopologyDetail,
    TopologyView,
    View,
)

LISTS: dict[str, type[View]] = {
    "topologies": TopologyView,
    "hosts": HostView,
    "bridges": BridgeView,
    "ports": PortView,
    "links": LinkView,
    "tenants": TenantView,
}


@pytest.fixture
def api() -> Iterator[Served]:
    with served_api() as served:
        yield served


@pytest.fixture
def cli(api: Served, tmp_path: Path) -> CommandLine:
    return CommandLine(api.socket, tmp_path)


def test_plan_tells_changes_from_none_by_its_exit_code(cli: CommandLine) -> None:
    file = cli.write_topology()
    result = cli.run("plan", file)
    assert (result.code, result.err) == (2, "")
    assert result.out.splitlines()[-1] == "Plan: 5 to add, 0 to change, 0 to remove, 1 flow"
    assert cli.run("apply", "--yes", file).code == 0
    result = cli.run("plan", file)
    assert (result.code, result.out) == (0, "Plan: 0 to add, 0 to change, 0 to remove, 0 flows\n")


def test_plan_groups_changes_by_kind_with_reason_and_source(cli: CommandLine) -> None:
    lines = cli.run("plan", cli.write_topology()).out.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:3] == ["bridge", "namespace", "veth"]
    web1 = next(line for line in lines if line.lstrip().startswith("+  web1"))
    assert "nodes/web1 is declared" in web1
    assert "(pair.yaml:" in web1


def test_plan_shows_additions_changes_and_removals(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology(bridges=("br-a", "br-b")))
    changed = topology(bridges=("br-a", "br-c"))
    changed["nodes"]["web1"]["interfaces"]["eth0"]["ip"] = "10.1.0.9/24"
    result = cli.run("plan", cli.write("pair.yaml", yaml.safe_dump(changed)))
    assert result.out.splitlines()[-1] == "Plan: 2 to add, 1 to change, 2 to remove, 2 flows"
    coloured = cli.on_terminal("plan", "pair.yaml").out
    for mark, colour in (("+", 32), ("~", 33), ("-", 31)):
        assert f"\x1b[{colour}m  {mark}" in coloured


def test_plan_lists_flows_where_asked(cli: CommandLine) -> None:
    file = cli.write_topology()
    assert "\nflow\n" not in cli.run("plan", file).out
    result = cli.run("plan", "--flows", file)
    assert "\nflow\n" in result.out
    assert result.out.splitlines()[-1] == "Plan: 5 to add, 0 to change, 0 to remove, 1 flow"


def test_apply_waits_until_in_sync(cli: CommandLine, api: Served) -> None:
    result = cli.run("apply", "--yes", cli.write_topology())
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1].startswith("pair: in sync (generation 1, 5 changes, ")
    assert api.service.topology("pair").document.name == "pair"


def test_apply_without_waiting_names_the_operation(cli: CommandLine, api: Served) -> None:
    api.service.gate.clear()
    result = cli.run("apply", "--yes", "--no-wait", cli.write_topology())
    assert result.code == 0
    assert result.out.splitlines()[-1] == "pair: apply started as op-1; see vswitchctl show topology pair"


def test_apply_without_changes_asks_nobody_and_stores_the_document(cli: CommandLine, api: Served) -> None:
    """A new description changes nothing on the host, and is stored all the same."""
    cli.run("apply", "--yes", cli.write_topology())
    described = yaml.safe_dump({**topology(), "description": "two of them"})
    assert cli.run("apply", cli.write("pair.yaml", described)).code == 0
    assert api.service.topology("pair").document.description == "two of them"


def test_a_failed_apply_names_every_error(cli: CommandLine, api: Served) -> None:
    api.service.failing = {"nodes/web1": "EBUSY", "nodes/web2": "ENOSPC"}
    result = cli.run("apply", "--yes", cli.write_topology())
    assert result.code == 1
    assert result.err == "error: nodes/web1: EBUSY\nerror: nodes/web2: ENOSPC\n"


@pytest.mark.parametrize("answer, code, stored", [("y\n", 0, 1), ("n\n", 1, 0)])
def test_apply_asks_on_a_terminal(cli: CommandLine, api: Served, answer: str, code: int, stored: int) -> None:
    result = cli.on_terminal("apply", cli.write_topology(), typed=answer)
    assert result.code == code, result.out
    assert "Apply 'pair'? [y/N]" in plain(result.out)
    assert len(api.service.topologies()) == stored


def test_an_answer_to_an_outdated_plan_is_refused(
    cli: CommandLine, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else applies between the plan and the answer: what was agreed to is not what would happen."""
    cli.run("apply", "--yes", cli.write_topology())
    plan = api.service.plan

    def planned_earlier(*args: Any, **kwargs: Any) -> PlanView:
        return plan(*args, **kwargs).model_copy(update={"generation": 0})

    monkeypatch.setattr(api.service, "plan", planned_earlier)
    result = cli.on_terminal("apply", cli.write_topology(bridges=("br-a", "br-b")), typed="y\n")
    assert result.code == 1
    assert "'pair' is at generation 1 by now" in plain(result.out)


def test_a_terminal_shows_a_bar_while_an_apply_goes_on(cli: CommandLine) -> None:
    out = cli.on_terminal("apply", "--yes", cli.write_topology()).out
    assert "5/5" in plain(out)
    assert "━" in out


def test_destroy_removes_the_topology(cli: CommandLine, api: Served) -> None:
    cli.run("apply", "--yes", cli.write_topology())
    assert cli.run("destroy", "pair").code == 1
    result = cli.run("destroy", "pair", "--yes")
    assert result.code == 0
    assert "Plan: 0 to add, 0 to change, 5 to remove" in result.out
    assert result.out.splitlines()[-1].startswith("pair: destroyed")
    assert api.service.topologies() == ()


@pytest.mark.parametrize("noun", LISTS)
def test_show_lists_on_a_terminal_of_80_columns(cli: CommandLine, api: Served, noun: str) -> None:
    name = "a-topology-with-a-long-name-that-does-not-leave-room"
    api.service.failing = {"nodes/web1": "the kernel refused to make the namespace: " + "reasons " * 30}
    cli.run("apply", "--yes", cli.write_topology(name, bridges=("br-a", "br-with-a-long1")))
    for columns in (80, 40, 200):
        result = cli.on_terminal("show", noun, columns=columns)
        lines = plain(result.out).splitlines()
        assert result.code == 0
        assert max(map(len, lines)) <= columns, lines
    assert noun == "hosts" or name in plain(result.out)


def test_show_gives_the_reason_of_what_is_not_in_sync(cli: CommandLine, api: Served) -> None:
    api.service.failing = {"links/br-a--web1:eth0": "no ofport yet"}
    cli.run("apply", "--yes", cli.write_topology())
    out = cli.run("show", "links").out
    assert out.splitlines()[-1] == "br-a--web1:eth0 is failed: no ofport yet"
    assert out.count("no ofport yet") == 1
    detail = cli.run("show", "topology", "pair")
    assert "links/br-a--web1:eth0 is failed: no ofport yet" in detail.out
    coloured = cli.on_terminal("show", "links").out
    assert "\x1b[31mfailed" in coloured
    assert "\x1b[32min-sync" in coloured


def test_a_pipe_gets_one_plain_line_per_row(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology("a" * 60, bridges=("br-a", "br-b")))
    lines = cli.run("show", "links").out.splitlines()
    assert len(lines) == 1 + 3
    assert not any("\x1b" in line for line in lines)
    assert lines[1].split()[:4] == ["web1:eth0", "br-a", "in-sync", "auto"]


def test_no_color_is_respected(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology())
    quiet = CommandLine(cli.socket, cli.directory, {"NO_COLOR": "1"})
    out = quiet.on_terminal("show").out
    assert "\x1b[3" not in out
    assert "in-sync" in out


def test_nothing_to_show_says_so(cli: CommandLine) -> None:
    result = cli.run("show", "bridges")
    assert (result.code, result.out, result.err) == (0, "", "no bridges\n")
    assert cli.run("show", "bridges", "--json").out == "[]\n"


def test_json_is_one_document_of_the_views(cli: CommandLine, api: Served) -> None:
    file = cli.write_topology()
    plan = cli.run("plan", file, "--json")
    assert (plan.code, PlanView.model_validate_json(plan.out).topology) == (2, "pair")
    applied = cli.run("apply", file, "--yes", "--json")
    assert OperationView.model_validate_json(applied.out).state == "done"
    for noun, view in LISTS.items():
        items = json.loads(cli.run("show", noun, "--json").out)
        assert items
        for item in items:
            view.model_validate(item)
    detail = cli.run("show", "topology", "pair", "--json").out
    assert TopologyDetail.model_validate_json(detail).view.name == "pair"
    destroyed = cli.run("destroy", "pair", "--yes", "--json")
    assert OperationView.model_validate_json(destroyed.out).kind == "destroy"


def test_a_failed_apply_is_one_json_document_too(cli: CommandLine, api: Served) -> None:
    api.service.failing = {"nodes/web1": "EBUSY"}
    result = cli.run("apply", "--yes", "--json", cli.write_topology())
    assert result.code == 1
    assert OperationView.model_validate_json(result.out).errors == ("nodes/web1: EBUSY",)


def test_flows_by_table_with_their_entities(cli: CommandLine, api: Served) -> None:
    cli.run("apply", "--yes", cli.write_topology())
    flow = {"bridge": "br-a", "priority": 10, "words": "in by web1:eth0 → then l2", "cookie": "0x1"}
    views = (
        FlowView(table="classify", entity="pair/acls/web", rule=2, source="pair.yaml:7", packets=3, **flow),
        FlowView(table="l2", **{**flow, "priority": 0, "words": "anything → drop", "drift": "stale"}),
    )
    api.service.flow_views["br-a"] = views
    assert cli.run("flows", "br-a").out.splitlines() == [
        "br-a classify",
        "     10 in by web1:eth0 → then l2  # 3 packets, pair/acls/web rule 2 (pair.yaml:7)",
        "br-a l2",
        "      0 stale: anything → drop  # 0 packets, 0x1",
    ]
    rows = cli.run("flows", "--fields", "table,rule", "--limit", "1").out.splitlines()
    assert [row.split() for row in rows] == [["TABLE", "RULE"], ["classify", "2"]]
    assert "n_packets=3" in cli.run("flows", "--format", "ofctl").out
    assert "did you mean 'table'?" in cli.run("flows", "--fields", "tabel").err
    items = json.loads(cli.run("flows", "br-a", "--json", "--source", "desired").out)
    assert [FlowView.model_validate(item) for item in items] == list(views)


def test_validate_says_what_acls_cost(cli: CommandLine) -> None:
    data = topology("pair", ("br-a",))
    data["groups"] = {"many": {"addresses": [f"10.1.{n >> 8}.{n & 255}" for n in range(10001)]}}
    rule = {"direction": "in", "action": "allow", "protocol": "tcp", "ports": [80, 443]}
    data["acls"] = {"web": [rule, {"direction": "in", "action": "deny"}]}
    file = cli.write("pair.yaml", yaml.safe_dump(data, sort_keys=False))
    result = cli.run("validate", file)
    assert (result.code, result.out.splitlines()[1:]) == (0, ["acl web: 2 rules, 5 flows"])
    costs = [{"acl": "web", "rules": 2, "flows": 5}]
    assert json.loads(cli.run("validate", "--json", file).out)["acls"] == costs
    data["acls"]["web"].append({"direction": "out", "action": "allow", "to": {"group": "many"}})
    result = cli.run("validate", cli.write("pair.yaml", yaml.safe_dump(data, sort_keys=False)))
    assert result.code == 1
    assert result.err.endswith(
        "error: acls.web: 10006 flows, and 10000 are the most; rule 3 costs the most of them, 10001; name "
        "subnets in place of their addresses, and ranges in place of ports; or split the ACL\n"
    )
    assert result.err.startswith("pair.yaml:"), result.err


def test_acls_with_what_hit_them(cli: CommandLine, api: Served) -> None:
    rule = {"topology": "pair", "number": 1, "direction": "in", "action": "reject", "words": "tcp 80"}
    views = (
        AclRuleView(acl="web", packets=3, bytes=180, description="why", source="pair.yaml:9", **rule),
        AclRuleView(acl="db", **rule),
    )
    api.service.rule_views = views
    first, web, db = (line.split() for line in cli.run("acls").out.splitlines())
    assert first == [
        "ACL",
        "RULE",
        "DIRECTION",
        "ACTION",
        "MATCH",
        "PACKETS",
        "BYTES",
        "DESCRIPTION",
        "SOURCE",
    ]
    assert web == ["pair/web", "1", "in", "reject", "tcp", "80", "3", "180", "why", "pair.yaml:9"]
    assert db == ["pair/db", "1", "in", "reject", "tcp", "80", "0", "0"]
    for name in ("db", "pair/db"):
        items = json.loads(cli.run("acls", name, "--json").out)
        assert [AclRuleView.model_validate(item) for item in items] == [views[1]]
    result = cli.run("acls", "wbe")
    assert (result.code, result.err) == (1, "error: no ACL 'wbe'; did you mean 'web'?\n")


def test_the_log_of_acls(cli: CommandLine, api: Served) -> None:
    rule = {"topology": "pair", "direction": "in", "action": "deny", "words": "any", "number": 2}
    api.service.rule_views = (AclRuleView(acl="web", **rule), AclRuleView(acl="db", **rule))
    said = {"topology": "pair", "rule": 2, "verdict": "deny", "direction": "in", "interface": "web1:eth0"}
    when = datetime(2026, 1, 31, 12, tzinfo=UTC)
    lines = (
        AclLogLine(number=1, time=when, acl="web", bridge="br-a", packet="arp", **said),
        AclLogLine(
            number=2, time=when, acl="db", bridge="br-a", packet="tcp 1 > 2", description="no\nmail",
            left_out=3, **said,
        ),
    )  # fmt: skip
    api.service.log_lines = lines
    web = "2026-01-31T12:00:00Z pair/web 2 deny in web1:eth0: arp"
    db = "2026-01-31T12:00:00Z pair/db 2 deny in web1:eth0: tcp 1 > 2 (no mail) [3 more left out before]"
    result = cli.run("acls", "--log")
    assert (result.code, result.err, result.out.splitlines()) == (0, "", [web, db])
    assert cli.run("acls", "web", "--log").out.splitlines() == [web]
    (item,) = json.loads(cli.run("acls", "pair/db", "--log", "--json").out)
    assert AclLogLine.model_validate(item) == lines[1]
    assert cli.run("acls", "wbe", "--log").err == "error: no ACL 'wbe'; did you mean 'web'?\n"
    result = cli.run("acls", "--follow")
    assert (result.code, result.err) == (1, "error: --follow follows the log; add --log\n")


def test_validate(cli: CommandLine) -> None:
    result = cli.run("validate", cli.write_topology())
    assert (result.code, result.err) == (0, "")
    assert result.out == "pair.yaml: topology 'pair' is valid: 1 network, 3 nodes, 2 links\n"
    assert json.loads(cli.run("validate", "--json", "pair.yaml").out) == {
        "file": "pair.yaml",
        "valid": True,
        "findings": [],
        "acls": [],
    }


def test_validate_json_has_every_finding(cli: CommandLine) -> None:
    text = (cli.directory / cli.write_topology()).read_text().replace("network: lan", "network: wan")
    result = cli.run("validate", "--json", cli.write("wrong.yaml", text))
    report = json.loads(result.out)
    assert (result.code, report["valid"]) == (1, False)
    assert {finding["severity"] for finding in report["findings"]} == {"error"}
    assert all(finding["line"] > 0 for finding in report["findings"])


def test_a_python_file_is_run_here_and_the_daemon_gets_the_document(cli: CommandLine, api: Served) -> None:
    result = cli.run("apply", "--yes", cli.write("built.py", PROGRAM))
    assert result.code == 0, result.err
    assert list(api.service.topology("built").document.nodes) == ["br-a"]


PROGRAM = """
from vswitchctl.topology import TopologyBuilder

topology = TopologyBuilder("built").bridge("br-a").build()
"""


@pytest.mark.parametrize("to, name", [("yaml", "t.yaml"), ("json", "t.json"), ("graphml", "t.graphml")])
def test_convert_gives_the_same_topology(cli: CommandLine, to: str, name: str) -> None:
    file = cli.write_topology()
    assert cli.run("convert", file, "--to", to, "-o", name).code == 0
    cli.run("apply", "--yes", file)
    assert cli.run("plan", name).code == 0
    assert cli.run("convert", file, "--to", to).out == (cli.directory / name).read_text()


@pytest.mark.parametrize(
    "name, starts",
    [
        ("t.svg", b"<?xml"),
        ("t.png", b"\x89PNG\r\n\x1a\n"),
        ("t.dot", b"graph "),
        ("t.graphml", b"<graphml"),
        ("t.json", b"{"),
    ],
)
def test_graph_writes_pictures_by_suffix(cli: CommandLine, name: str, starts: bytes) -> None:
    result = cli.run("graph", cli.write_topology(), "-o", name)
    assert (result.code, result.out, result.err) == (0, "", "")
    written = (cli.directory / name).read_bytes()
    assert written.startswith(starts)
    if name != "t.png":
        to_output = cli.run("graph", "pair.yaml", "--format", name.partition(".")[2])
        assert to_output.out.encode() == written


def test_graph_draws_on_the_terminal_within_its_width(cli: CommandLine) -> None:
    file = cli.write_topology(bridges=("br-a", "br-b", "br-c"))
    lines = plain(cli.on_terminal("graph", file).out).splitlines()
    assert max(map(len, lines)) <= 80
    drawn = "\n".join(lines)
    assert all(name in drawn for name in ("br-a", "br-c", "web1:eth0", "10.1.0.2/24"))


def test_graph_of_an_applied_topology_shows_statuses(cli: CommandLine, api: Served) -> None:
    api.service.failing = {"nodes/web1": "EBUSY"}
    cli.run("apply", "--yes", cli.write_topology())
    drawn = cli.run("graph", "pair").out
    assert "failed" in next(line for line in drawn.splitlines() if "web1" in line)
    assert "failed" in cli.run("graph", "pair", "--format", "dot").out


def test_schema_accepts_what_validate_accepts(cli: CommandLine) -> None:
    schema = json.loads(cli.run("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(topology(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**topology(), "colour": "red"}, schema)


def test_version_and_help(cli: CommandLine) -> None:
    assert cli.run("version").out == f"vswitchctl {__version__}\n"
    assert json.loads(cli.run("version", "--json").out) == {"version": __version__}
    for arguments in ((), ("--help",), ("-h",)):
        result = cli.run(*arguments)
        assert result.code == 0
        for command in (
            "run",
            "up",
            "down",
            "validate",
            "plan",
            "apply",
            "destroy",
            "show",
            "flows",
            "acls",
            "vm",
            "import",
            "convert",
        ):
            assert f" {command} " in result.out


@pytest.mark.parametrize("command", ["validate", "plan", "apply", "show"])
def test_client_commands_never_import_the_daemon(cli: CommandLine, command: str) -> None:
    """Drivers and servers would double the time that each command takes to start."""
    profiled = CommandLine(cli.socket, cli.directory, {"PYTHONPROFILEIMPORTTIME": "1"})
    arguments = {"validate": (cli.write_topology(),), "plan": ("pair.yaml",), "apply": ("--yes", "pair.yaml")}
    imported = profiled.run(command, *arguments.get(command, ())).err
    assert "vswitchctl.cli.main" in imported or "vswitchctl.cli.apply" in imported
    for module in ("vswitchctl.daemon", "fastapi", "uvicorn", "os_ken", "pyroute2", "ovsdbapp"):
        assert f" {module}\n" not in imported


def test_one_acl_is_set_shown_and_removed(cli: CommandLine, api: Served) -> None:
    assert cli.run("apply", "--yes", cli.write_topology()).code == 0
    rules = [{"direction": "in", "action": "allow", "protocol": "tcp", "ports": [80]}]
    file = cli.write("web.yaml", yaml.safe_dump(rules))
    result = cli.run("acl", "set", "pair", "web", file)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("pair: in sync (generation 2, ")
    assert yaml.safe_load(cli.run("acl", "show", "pair", "web").out) == rules
    assert json.loads(cli.run("acl", "show", "pair", "web", "--json").out) == {"web": rules}
    assert api.service.topology("pair").document.acls["web"][0].ports == (80,)
    assert cli.run("acl", "remove", "pair", "web", "--json").code == 0
    result = cli.run("acl", "remove", "pair", "web")
    assert (result.code, result.err) == (1, "error: topology 'pair' has no ACL 'web'\n")


def test_one_group_is_set_from_a_topology_file(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology())
    whole = {**topology(), "groups": {"clients": {"members": ["web1:eth0"]}}}
    file = cli.write("whole.yaml", yaml.safe_dump(whole))
    assert cli.run("group", "set", "pair", "clients", file, "--no-wait").code == 0
    assert cli.run("group", "show", "pair", "clients").out == "members: ['web1:eth0']\n"


def test_a_malformed_acl_is_told_with_its_line(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology())
    file = cli.write("web.yaml", "- direction: in\n  action: alow\n")
    result = cli.run("acl", "set", "pair", "web", file)
    assert result.code == 1
    assert result.err.startswith("error: web.yaml:2: acls.web[0].action") or "web.yaml:2: error" in result.err


def test_an_acl_of_an_unknown_topology_names_the_nearest(cli: CommandLine) -> None:
    cli.run("apply", "--yes", cli.write_topology())
    result = cli.run("acl", "show", "pear", "web")
    assert (result.code, result.err) == (1, "error: no topology 'pear'; did you mean 'pair'?\n")
