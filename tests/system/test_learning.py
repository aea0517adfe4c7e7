"""Endpoints nobody declared, behind a Linux bridge and behind an uplink: learned by the switch itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.conftest import TOPOLOGIES, Stack, run, until

UPLINKS = """
name: uplinks
tenants: {red: {}, blue: {}}
networks:
  office: {tenant: red, subnets: [10.9.0.0/24]}
  lab: {tenant: blue, subnets: [10.9.0.0/24], vlan: 33}
nodes:
  up-a: {kind: bridge}
  up-b: {kind: bridge}
  up-c: {kind: bridge}
  wan: {kind: uplink, interface: wan0, network: office}
  trunk: {kind: uplink, interface: trunk0, trunk: {office: 100, lab: 200}}
  desk: {kind: namespace, tenant: red, interfaces: {eth0: {network: office, ip: 10.9.0.1/24}}}
  bench: {kind: namespace, tenant: blue, interfaces: {eth0: {network: lab, ip: 10.9.0.1/24}}}
links:
  - {ends: [up-a, up-b]}
  - {ends: [up-b, up-c]}
  - {ends: [up-c, up-a]}
  - {ends: [wan, up-a]}
  - {ends: [trunk, up-c]}
  - {ends: ["desk:eth0", up-b]}
  - {ends: ["bench:eth0", up-b]}
"""


@contextmanager
def outsider(name: str, device: str, address: str, master: str | None = None) -> Iterator[None]:
    """A machine of somebody else's: a namespace whose other end is `device` on this host."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", device, "up", *(["master", master] if master else []))
        inside("ethtool", "-K", "eth0", "tx", "off", namespace=name)
        inside("ip", "addr", "add", address, "dev", "eth0", namespace=name)
        inside("ip", "link", "set", "eth0", "up", namespace=name)
        yield
    finally:
        run("ip", "link", "del", device, check=False)
        run("ip", "netns", "del", name)


def inside(*argv: str, namespace: str, check: bool = True) -> str:
    return run("ip", "netns", "exec", namespace, *argv, check=check)


def reaches(namespace: str, address: str) -> bool:
    said = inside("ping", "-c", "2", "-i", "0.2", "-W", "1", address, namespace=namespace, check=False)
    return " 0% packet loss" in said or " 50% packet loss" in said


@pytest.fixture
def uplinks(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    file = tmp_path / "uplinks.yaml"
    file.write_text(UPLINKS)
    with outsider("office-gw", "wan0", "10.9.0.254/24"), outsider("tagged-gw", "trunk0", "10.9.7.254/24"):
        stack.apply(file)
        yield stack
        stack.cli("destroy", "uplinks", "--yes")


def test_a_stranger_behind_an_uplink_is_learned_by_the_switch(uplinks: Stack) -> None:
    assert reaches("desk", "10.9.0.254")
    learned = uplinks.ofctl("dump-flows", "up-b", "table=81")
    assert "dl_dst=" in learned
    assert not reaches("bench", "10.9.0.254"), "another tenant does not see it"


def test_learned_macs_survive_a_restart_of_the_daemon(uplinks: Stack) -> None:
    assert reaches("desk", "10.9.0.254")
    before = uplinks.ofctl("--no-stats", "dump-flows", "up-b", "table=81").count("dl_dst=")
    assert before
    uplinks.kill_daemon()
    uplinks.cli("up")
    until(lambda: uplinks.in_sync("uplinks"), "in sync again")
    assert uplinks.ofctl("--no-stats", "dump-flows", "up-b", "table=81").count("dl_dst=") == before
    assert reaches("desk", "10.9.0.254")


def test_an_uplink_that_is_not_there_is_pending_and_works_once_it_comes(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "uplinks.yaml"
    file.write_text(UPLINKS)
    plan = stack.json("plan", str(file), code=2)
    assert any("wan0" in warning for warning in plan["warnings"])
    stack.cli("apply", str(file), "--yes", "--no-wait")
    until(lambda: any(v["status"] == "pending" for v in stack.json("show", "topologies")), "pending")
    (wan,) = [v for v in stack.json("show", "ports") if v["name"] == "wan0"]
    assert wan["status"] == "pending" and "wan0" in wan["reason"]
    with outsider("office-gw", "wan0", "10.9.0.254/24"), outsider("tagged-gw", "trunk0", "10.9.7.254/24"):
        until(lambda: stack.in_sync("uplinks"), f"in sync once the devices are there\n{stack.log()}")
        assert reaches("desk", "10.9.0.254")
        stack.cli("destroy", "uplinks", "--yes")
        run("ip", "link", "show", "wan0")


def test_a_stranger_behind_a_linux_bridge_is_learned_on_every_bridge(stack: Stack) -> None:
    stack.apply(TOPOLOGIES / "two-tenants.yaml")
    with outsider("stranger", "strange0", "10.1.0.77/24", master="lan0"):
        assert reaches("stranger", "10.1.0.11")
        assert reaches("red-web2", "10.1.0.77")
        assert not reaches("blue-web2", "10.1.0.77")
        assert "dl_dst=" in stack.ofctl("dump-flows", "br-a", "table=81")
    stack.cli("plan", str(TOPOLOGIES / "two-tenants.yaml"))
