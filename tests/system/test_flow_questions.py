"""Queries of flows on a real switch, held against ovs-ofctl as an independent witness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import TOPOLOGIES, Stack, run, until
from tests.system.test_acl import WEB, apply_lan, ask, example, pings, server


@pytest.fixture
def web(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    apply_lan(stack, tmp_path / "web-acl.yaml", example())
    yield stack


def client(stack: Stack) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(stack.run_dir / "api.sock"))
    return httpx.Client(transport=transport, base_url="http://vswitchctl/api/v1", timeout=60)


def test_the_switch_has_what_is_told_and_ovs_ofctl_reads_it(web: Stack, tmp_path: Path) -> None:
    text = web.cli("flows", "br-web", "--format", "ofctl")
    dumped = re.findall(r"cookie=(0x\w+).*?table=(\d+).*?priority=(\d+)", web.ofctl("dump-flows", "br-web"))
    told = re.findall(r"cookie=(0x\w+).*?table=(\d+).*?priority=(\d+)", text)
    assert sorted((int(c, 16), t, p) for c, t, p in told) == sorted((int(c, 16), t, p) for c, t, p in dumped)
    file = tmp_path / "flows.txt"
    # ovs-ofctl has no word for "any fragment but the first", not even in its own dumps.
    told = [line for line in text.splitlines() if "ip_frag=0x2/0x2" not in line]
    file.write_text("\n".join(told))
    parsed = web.ofctl("parse-flows", str(file))
    assert parsed.count("ADD") == len(told)


def test_counters_are_those_of_real_packets(web: Stack) -> None:
    with server("web", 80):
        assert ask("client", WEB[0], 80, patience=8) == "question"

    def hits(rule: int) -> int:
        views = web.json("flows", "--acl", "web", "--rule", str(rule), "--table", "acl_to")
        return sum(view["packets"] for view in views)

    assert pings("other", WEB[0])
    # Open vSwitch credits flows with what its datapath counted within its revalidators' half second.
    until(lambda: hits(4) > 0 and hits(1) > 0, "the flows of both rules were hit")
    assert hits(2) == 0
    views = web.json(
        "flows", "--packet", f"icmp,ip_src=10.1.0.22,ip_dst={WEB[0]},icmp_type=8", "--acl", "web"
    )
    assert {view["rule"] for view in views if view["table"] == "acl_to"} == {1}


def test_rates_are_measured_over_a_window(web: Stack) -> None:
    assert pings("other", WEB[0])
    (view,) = web.json("flows", "--acl", "web", "--rule", "1", "--table", "acl_to", "--window", "0.2")
    assert view["packets_per_second"] >= 0 and view["age"] > 0
    views = web.json("flows", "br-web", "--sort", "rate", "--limit", "5", "--window", "0.2")
    rates = [view["packets_per_second"] or 0 for view in views]
    assert rates == sorted(rates, reverse=True)


def test_nothing_differs_from_what_is_declared_and_foreign_flows_are_no_drift(web: Stack) -> None:
    assert web.json("flows", "--source", "diff") == []
    web.ofctl("add-flow", "br-web", "cookie=0x5,table=81,priority=7,actions=drop")
    (foreign,) = web.json("flows", "br-web", "--cookie", "0x5")
    assert (foreign["table"], foreign["entity"]) == ("l2_learned", "")
    assert web.json("flows", "--source", "diff") == []
    desired = web.json("flows", "br-web", "--source", "desired")
    observed = web.json("flows", "br-web", "--cookie", "0x7600000000000000/0xff00000000000000")
    assert [view["match"] for view in desired] == [view["match"] for view in observed]


def test_parallel_queries_and_streams_agree(web: Stack) -> None:
    with client(web) as http, ThreadPoolExecutor(20) as pool:
        bodies = pool.map(lambda _: http.get("/flows", params={"fields": "table,match"}).json(), range(40))
        assert len({str(body) for body in bodies}) == 1
        lines = http.get("/flows", params={"format": "ndjson"}).text.splitlines()
        assert len(lines) == len(http.get("/flows").json())
        with http.stream("GET", "/flows", params={"format": "ndjson"}) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            assert next(answer.iter_lines()).startswith('{"bridge":"br-web"')


def test_what_was_learned_names_its_port(stack: Stack) -> None:
    stack.apply(TOPOLOGIES / "two-tenants.yaml")
    run("ip", "link", "add", "stray", "link", "lan0", "type", "macvlan")
    run("ip", "link", "set", "stray", "up")
    try:
        run("ip", "address", "add", "10.1.0.99/24", "dev", "stray")
        run("ping", "-c", "1", "-W", "1", "-I", "stray", "10.1.0.12", check=False)

        def learned() -> list[str]:
            return [view["entity"] for view in stack.json("flows", "br-b", "--table", "l2_learned")]

        until(lambda: "two-tenants/links/br-b--lan0" in learned(), "the stray was learned behind lan0")
    finally:
        run("ip", "link", "del", "stray")
