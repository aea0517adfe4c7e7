"""Traces agree with real packets: every pair of the examples, ACLs, connections under way, and lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.conftest import TOPOLOGIES, Stack, run
from tests.system.test_acl import (
    CLIENT,
    OTHER,
    RULE_80,
    TALK,
    WEB,
    apply_lan,
    ask,
    example,
    pings,
    process,
    say,
    server,
)
from tests.system.test_reject import example as rejecting
from vswitchctl.topology.load import load


@pytest.fixture
def web(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, Path]]:
    file = tmp_path / "web-acl.yaml"
    apply_lan(stack, file, example())
    yield stack, file


def traced(stack: Stack, source: str, to: str, **asked: object) -> dict[str, Any]:
    """By REST, as `curl --unix-socket` would."""
    transport = httpx.HTTPTransport(uds=str(stack.run_dir / "api.sock"))
    with httpx.Client(transport=transport, base_url="http://vswitchctl/api/v1", timeout=60) as http:
        answer = http.post("/trace", json={"source": source, "to": to, **asked})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.mark.parametrize("file", ["two-tenants.yaml", "routed.yaml"])
def test_every_pair_of_an_example_is_traced_as_packets_go(stack: Stack, file: str) -> None:
    stack.apply(TOPOLOGIES / file)
    stack.cli("probe", str(TOPOLOGIES / file))  # packets go where the file expects, and nowhere else
    topology = load(TOPOLOGIES / file).topology
    assert topology is not None and topology.expect is not None
    groups = [frozenset(group) for group in topology.expect.reachable]
    wrong = []
    for source, to in permutations(topology.endpoints(), 2):
        expected = any({source, to} <= group for group in groups)
        found = traced(stack, source, to)
        if found["delivered"] != expected:
            wrong.append((source, to, found["sentence"]))
    assert wrong == []


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_acls_are_traced_as_packets_meet_them(web: tuple[Stack, Path], version: int) -> None:
    stack, _ = web
    ip = (4, 6)[version]
    with server("web", 80, 8050, 8200), server("client", 80), server("other", 80):
        for source, to, address, port in (
            ("client", "web", WEB, 80), ("client", "web", WEB, 8050), ("client", "web", WEB, 8200),
            ("other", "web", WEB, 80), ("web", "client", CLIENT, 80), ("other", "client", CLIENT, 80),
            ("client", "other", OTHER, 80),
        ):  # fmt: skip
            heard = ask(source, address[version], port, patience=8 if to != "client" else 1.5)
            found = traced(stack, source, to, protocol="tcp", port=port, version=ip)
            assert found["delivered"] == (heard == "question"), found["sentence"]
    for source, to, address in (
        ("other", "web", WEB),
        ("other", "client", CLIENT),
        ("client", "other", OTHER),
    ):
        assert traced(stack, source, to, version=ip)["delivered"] == pings(source, address[version])


def test_the_verdict_names_the_rule_and_its_line(web: tuple[Stack, Path]) -> None:
    stack, file = web
    acls = {
        name: f"{file}:{file.read_text().splitlines().index(f'  {name}:', 18) + 1}"
        for name in ("web", "closed")
    }
    found = traced(stack, "other", "client")
    assert found["sentence"] == f"blocked by acl closed rule 1 ({acls['closed']})"
    hop = found["forth"]["hops"][found["forth"]["decided"]]
    assert (hop["table"], hop["entity"], hop["rule"]) == ("acl_to", "web-acl/acls/closed", 1)
    assert hop["source"] == acls["closed"]
    found = traced(stack, "client", "web", protocol="tcp", port=8050)
    assert found["sentence"] == (
        f"client:eth0 reaches web:eth0, allowed by acl web rule 3 ({acls['web']}); its answer comes back"
    )
    said = stack.call("trace", "other", "web", "--tcp", "80")
    assert said.returncode == 2
    assert said.stdout.startswith("blocked by the acls of web:eth0: no rule allows what it takes")
    assert [line.split()[2] for line in said.stdout.splitlines() if line.startswith("►")] == ["acl_to"]


def test_a_connection_under_way_is_traced_as_conntrack_knows_it(web: tuple[Stack, Path]) -> None:
    """Its rule is taken away: it ends, and its answers end, which a new connection's state would not show."""
    stack, file = web
    with server("web", 80), process("client", TALK, WEB[0], "80") as talking:
        assert say(talking, "one") == "one"
        peers = run("ip", "netns", "exec", "client", "ss", "-Htn", "dst", f"{WEB[0]}:80")
        (port,) = {int(found) for found in re.findall(r"10\.1\.0\.21:(\d+)", peers)}
        found = traced(stack, "client", "web", protocol="tcp", port=80, source_port=port)
        assert found["delivered"]
        assert [state.partition(": ")[2] for state in found["forth"]["states"]] == ["est|trk (as it is)"] * 2
        file.write_text(example().replace(RULE_80, ""))
        stack.apply(file)
        assert say(talking, "two") == "silence"
        found = traced(stack, "client", "web", protocol="tcp", port=80, source_port=port)
        assert found["forth"]["verdict"] == "blocked" and "no rule allows" in found["sentence"]
        answer = {"protocol": "tcp", "port": port, "source_port": 80}
        assert traced(stack, "web", "client", **answer)["forth"]["verdict"] == "blocked"


def test_lies_and_strangers(stack: Stack) -> None:
    stack.apply(TOPOLOGIES / "two-tenants.yaml")
    lie = "10.1.0.66"
    run("ip", "netns", "exec", "red-web1", "ip", "address", "add", f"{lie}/32", "dev", "eth0")
    heard = run(
        "ip", "netns", "exec", "red-web1", "ping", "-c", "1", "-W", "1", "-I", lie, "10.1.0.12", check=False
    )
    assert "100% packet loss" in heard
    found = traced(stack, "red-web1", "red-web2", packet=f"ip_src={lie}")
    assert found["sentence"].startswith(
        "dropped by port security: red-web1:eth0 may not send from this address ("
    )
    found = traced(stack, "red-web1", "red-web2", packet="dl_src=02:00:00:00:00:99")
    assert found["forth"]["hops"][-1]["table"] == "port_security"
    unknown = traced(stack, "red-web1", "red-web2", packet="dl_dst=02:00:00:00:00:99")
    assert set(unknown["forth"]["reached"]) == {"lan0", "red-web2:eth0", "red-app:eth0"}, "it is flooded"
    assert stack.call("trace", "red-web1", "blue-web9").stderr.startswith(
        "error: no end 'blue-web9'; did you mean 'blue-web"
    )
    assert "is no field=value" in stack.call("trace", "red-web1", "red-web2", "--packet", "nonsense").stderr
    refused = stack.call("trace", "red-web1", "red-web2", "--packet", "nw_scr=1")
    assert refused.returncode == 1 and "ovs-vswitchd refuses ofproto/trace" in refused.stderr


def test_a_trace_changes_nothing(web: tuple[Stack, Path]) -> None:
    stack, _ = web

    def zones() -> str:
        control = next(stack.rundir.glob("ovs-vswitchd.*.ctl"))
        return run("ovs-appctl", "--target", str(control), "dpctl/dump-conntrack")

    before = zones()
    views = stack.json("flows", "br-web", "--table", "acl_to", "--acl", "web")
    traced(stack, "client", "web", protocol="tcp", port=80)
    assert zones() == before
    assert [
        view["packets"] for view in stack.json("flows", "br-web", "--table", "acl_to", "--acl", "web")
    ] == [view["packets"] for view in views]


def test_rules_that_reject_across_bridges(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "web-told.yaml"
    apply_lan(stack, file, rejecting())
    sentences = {}
    for port in (80, 81, 25):
        found = traced(stack, "client", "web", protocol="tcp", port=port)
        sentences[port] = found["sentence"].partition(" (")[0]
        bridges = {hop["bridge"] for hop in found["forth"]["hops"]}
        assert bridges == ({"br-a"} if port == 25 else {"br-a", "br-b"})
    assert sentences == {
        80: "client:eth0 reaches web:eth0, allowed by acl web rule 1",
        81: "rejected by acl web rule 2",
        25: "rejected by acl client rule 2",
    }
    with server("web", 80, 81, 25):
        assert ask("client", WEB[0], 80, patience=8) == "question"
        assert ask("client", WEB[0], 81, patience=8) == ask("client", WEB[0], 25, patience=8) == "refused"
    silent = traced(stack, "other", "client")
    assert silent["forth"]["verdict"] == "blocked", "a rule that denies tells nobody"


def test_a_rule_of_several_peers_and_ports_is_named(stack: Stack, tmp_path: Path) -> None:
    """Its flows are a conjunction, of which a trace shows the verdict alone."""
    text = example().replace('members: ["client:eth0"]', 'members: ["client:eth0", "other:eth0"]')
    text = text.replace("ports: [443, 8000-8100]", "ports: [443, 8080, 9090]")
    apply_lan(stack, tmp_path / "web-acl.yaml", text)
    with server("web", 9090):
        for source in ("client", "other"):
            assert ask(source, WEB[0], 9090, patience=8) == "question"
            found = traced(stack, source, "web", protocol="tcp", port=9090)
            assert "allowed by acl web rule 3" in found["sentence"]
        assert ask("other", WEB[0], 9091) == "silence"
    assert traced(stack, "other", "web", protocol="tcp", port=9091)["forth"]["verdict"] == "blocked"
