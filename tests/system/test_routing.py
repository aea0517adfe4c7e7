"""Routing with real packets: the README's example, with a site's router behind its uplink."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.system.conftest import ROOT, Stack, run, until
from tests.system.test_acl import ask, server
from tests.system.test_learning import inside, outsider

WEB, DB, NEAR = ("10.1.0.11", "fd00:1::11"), ("10.2.0.11", "fd00:2::11"), ("10.2.0.12", "fd00:2::12")
GATEWAY, DB_GATEWAY = ("10.1.0.1", "fd00:1::1"), ("10.2.0.1", "fd00:2::1")
VERSIONS = (0, 1)
"""Where the addresses of IPv4 and IPv6 stand in these."""
INTERNET = "198.51.100.1"
SITE = "02:00:00:00:00:fe"


def example() -> str:
    (found,) = re.findall(r"```yaml\n(name: routing\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    return str(found)


@contextlib.contextmanager
def site_router() -> Iterator[None]:
    """What is behind the uplink: a router of its own MAC, with the routes back and an address far away."""
    with outsider("site", "wan-out", "192.0.2.1/24"):
        inside("ip", "link", "set", "eth0", "address", SITE, namespace="site")
        inside("ip", "link", "set", "lo", "up", namespace="site")
        inside("ip", "address", "add", f"{INTERNET}/32", "dev", "lo", namespace="site")
        inside("ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.254", namespace="site")
        yield


@contextlib.contextmanager
def behind_vpn() -> Iterator[None]:
    """A network that only `vpn` leads to: it forwards, as any Linux host does."""
    run("ip", "netns", "add", "branch")
    try:
        run(
            "ip", "-n", "vpn", "link", "add", "far", "type", "veth", "peer", "name", "eth0", "netns", "branch"
        )
        for namespace, device, address in (("vpn", "far", "10.9.0.1/24"), ("branch", "eth0", "10.9.0.2/24")):
            inside("ethtool", "-K", device, "tx", "off", namespace=namespace)
            inside("ip", "address", "add", address, "dev", device, namespace=namespace)
            inside("ip", "link", "set", device, "up", namespace=namespace)
        inside("ip", "route", "add", "default", "via", "10.9.0.1", namespace="branch")
        inside("sysctl", "-qw", "net.ipv4.ip_forward=1", namespace="vpn")
        yield
    finally:
        run("ip", "netns", "del", "branch")


@pytest.fixture
def routed(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, Path]]:
    file = tmp_path / "routing.yaml"
    file.write_text(example())
    with site_router():
        stack.apply(file)
        until(lambda: pings("web", DB[1]), "IPv6 addresses are usable (RFC 4862)")
        yield stack, file
        stack.cli("destroy", "routing", "--yes")


def ping(namespace: str, address: str, *options: str) -> str:
    return inside("ping", "-c", "1", "-W", "2", *options, address, namespace=namespace, check=False)


def pings(namespace: str, address: str, *options: str) -> bool:
    return " 0% packet loss" in ping(namespace, address, *options)


def test_networks_of_a_router_reach_each_other_and_their_gateways(routed: tuple[Stack, Path]) -> None:
    for version in VERSIONS:
        assert all(pings("web", address[version]) for address in (DB, NEAR, GATEWAY))
        assert all(pings(namespace, WEB[version]) for namespace in ("db", "near"))
        assert pings("web", DB_GATEWAY[version]), "the gateway of another network, at its own"
        assert pings("db", GATEWAY[version]), "and one that has ACLs"
        assert "ttl=63" in ping("web", DB[version]), "one hop"


def test_acls_hold_behind_the_gateway(routed: tuple[Stack, Path]) -> None:
    """`db` is on another bridge than `web`, `near` on the same."""
    for version in VERSIONS:
        for namespace, address, other in (("db", DB[version], "near"), ("near", NEAR[version], "db")):
            with server(namespace, 5432, 8080), server("web", 80):
                assert ask("web", address, 5432, patience=8) == "question"
                assert ask("web", address, 8080) == "silence"
                assert ask(other, address, 5432) == "silence", "not of red-web"
                assert ask(namespace, WEB[version], 80, patience=8) == "question"


def test_the_gateway_shows_in_a_trace_and_says_what_it_cannot_route(routed: tuple[Stack, Path]) -> None:
    for version in VERSIONS:
        said = ping("web", DB[version], "-t", "1")
        assert f"From {GATEWAY[version]}" in said
        assert re.search("time to live exceeded|hop limit", said, re.IGNORECASE), said
        assert f"From {DB_GATEWAY[version]}" in ping("db", WEB[version], "-t", "1"), "it passes ACLs"
    assert f"From {GATEWAY[1]}" in ping("web", "2001:db8::1"), "IPv6 has no default route"
    answer = "From 10.1.0.1 icmp_seq=1 Time to live exceeded"
    assert answer in ping("web", DB[0], "-t", "1")
    assert f"# {answer}\n" in (ROOT / "README.md").read_text()


def test_rules_that_reject_tell_senders_in_other_networks(routed: tuple[Stack, Path]) -> None:
    """Rules at both ends: what opens a connection is held against them, and what belongs to it passes."""
    stack, file = routed
    data = yaml.safe_load(example())
    closed = {"direction": "in", "action": "allow", "protocol": "udp", "ports": [9999]}
    data["acls"]["db"][-1:-1] = [closed, {"direction": "in", "action": "reject"}]
    data["acls"]["web"] = [
        {
            "direction": "out",
            "action": "reject",
            "protocol": "tcp",
            "ports": [25],
            "to": {"network": "red-db"},
        },
        {"direction": "out", "action": "allow"},
        {"direction": "in", "action": "deny"},
    ]
    data["nodes"]["web"]["interfaces"]["eth0"]["acls"] = "web"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    stack.apply(file)
    with server("db", 5432, 25), server("near", 5432), server("web", 80):
        for version in VERSIONS:
            for address in (DB[version], NEAR[version]):
                assert ask("web", address, 5432, patience=8) == "question"
                assert ask("web", address, 8080, patience=8) == "refused", "by the receiver"
                assert ask("web", address, 53, "udp", patience=8) == "refused"
                assert ask("web", address, 25, patience=8) == "refused", "by its own rule"
                assert ask("web", address, 9999, "udp", patience=8) == "refused", "by its kernel: related"
            assert ask("db", WEB[version], 80, patience=8) == "silence", "web's rules let nobody in"


def test_the_way_out_leads_by_the_uplink_and_back(routed: tuple[Stack, Path]) -> None:
    until(lambda: pings("web", INTERNET), "the site's router has said its MAC")
    assert pings("db", INTERNET)
    assert pings("web", "192.0.2.1"), "the next hop itself"
    assert pings("site", WEB[0]) and pings("site", DB[0]), "its questions for the gateway are answered"
    assert pings("site", "192.0.2.254")
    with server("site", 80):
        assert ask("web", INTERNET, 80) == "question"


def test_a_namespace_that_forwards_is_a_next_hop(routed: tuple[Stack, Path]) -> None:
    with behind_vpn(), server("branch", 80):
        assert pings("web", "10.9.0.2")
        assert ask("web", "10.9.0.2", 80) == "question"
        assert pings("branch", WEB[0])


def test_packets_are_routed_without_the_daemon(routed: tuple[Stack, Path]) -> None:
    stack, _ = routed
    until(lambda: pings("web", INTERNET), "the site's router has said its MAC")
    stack.kill_daemon()
    assert pings("web", DB[0]) and pings("web", GATEWAY[1]) and pings("web", INTERNET)
    assert "From" not in ping("web", DB[0], "-t", "1"), "dropped, and nobody says so"
    stack.cli("up")


def test_a_next_hop_whose_mac_is_declared_needs_no_daemon(stack: Stack, tmp_path: Path) -> None:
    data = yaml.safe_load(example())
    data["routers"]["red"]["routes"][0]["mac"] = SITE
    file = tmp_path / "routing.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    with site_router():
        stack.apply(file)
        stack.kill_daemon()
        assert pings("web", INTERNET)
        stack.cli("up")
        stack.cli("destroy", "routing", "--yes")


def test_a_change_of_routes_changes_their_flows_alone(routed: tuple[Stack, Path]) -> None:
    stack, file = routed
    data = yaml.safe_load(example())
    del data["routers"]["red"]["routes"][1]
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    plan = stack.json("plan", str(file), "--flows", code=2)
    assert {(change["action"], change["entity"]) for change in plan["changes"]} == {
        ("remove", "routing/routers/red")
    }
    stack.apply(file)
    assert pings("web", DB[0])
    assert stack.json("plan", str(file))["changes"] == []


def test_the_file_can_keep_the_default_route_out(stack: Stack, tmp_path: Path) -> None:
    data = yaml.safe_load(example())
    data["nodes"]["web"]["default_route"] = False
    file = tmp_path / "routing.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    with site_router():
        stack.apply(file)
        routes = {
            name: {route["dst"] for route in json.loads(run("ip", "-n", name, "-j", *version, "route"))}
            for name, version in (("web", ("-4",)), ("db", ("-4",)))
        }
        assert "default" not in routes["web"] and "default" in routes["db"]
        stack.cli("destroy", "routing", "--yes")
