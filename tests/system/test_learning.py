"""Endpoints nobody declared, behind a Linux bridge and behind an uplink: learned by the switch itself."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import frames
from tests.frames import BROADCAST, EXPERIMENT
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


AGEING = 3
NESTED = """
name: nested
tenants: {red: {}}
networks: {lan: {tenant: red}}
nodes:
  ne-a: {kind: bridge}
  ne-b: {kind: bridge}
  ne-one:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, port_security: false, learn_limit: 3}}
  ne-two: {kind: namespace, tenant: red, interfaces: {eth0: {network: lan, port_security: false}}}
  ne-plain: {kind: namespace, tenant: red, interfaces: {eth0: {network: lan, mac: "02:00:00:00:0e:03"}}}
links:
  - {ends: ["ne-one:eth0", ne-a]}
  - {ends: ["ne-two:eth0", ne-a]}
  - {ends: ["ne-plain:eth0", ne-b]}
  - {ends: [ne-a, ne-b]}
"""
PLAIN = "02:00:00:00:0e:03"
_numbers = itertools.count(1)


def stranger(number: int) -> str:
    return f"0a:00:00:00:00:{number:02x}"


def send(namespace: str, *sources: str, to: str = BROADCAST) -> None:
    with frames.packet_socket(namespace, "eth0") as mouth:
        for source in sources:
            mouth.send(frames.ethernet(source, to, EXPERIMENT, b"frame %d" % next(_numbers)))


def who_hears(namespace: str, to: str, *ears: str) -> set[str]:
    """Which namespaces a frame to that MAC reaches: broadcasts behind it show that no other is on its way.

    Two of them, the second once the first was heard: within one batch Open vSwitch does not keep the order of
    frames of different flows.
    """
    frame = frames.ethernet(PLAIN, to, EXPERIMENT, b"frame %d" % next(_numbers))
    fences = [frames.ethernet(PLAIN, BROADCAST, EXPERIMENT, b"fence %d" % next(_numbers)) for _ in "ab"]
    heard = set()
    with contextlib.ExitStack() as open_sockets:
        mouth = open_sockets.enter_context(frames.packet_socket(namespace, "eth0"))
        sockets = {name: open_sockets.enter_context(frames.packet_socket(name, "eth0")) for name in ears}
        mouth.send(frame)
        for fence in fences:
            mouth.send(fence)
            heard |= {name for name, sock in sockets.items() if frame in frames.heard_until(sock, fence)}
    return heard


def learned(stack: Stack, bridge: str = "ne-a") -> dict[str, tuple[int, float]]:
    """MAC -> the port it was learned behind, and the seconds for which it has been known there."""
    dump = stack.ofctl("dump-flows", bridge, "table=81")
    found = re.findall(r"duration=([\d.]+)s.*dl_dst=(\S+) actions=load:(0x\w+)", dump)
    return {mac: (int(port, 16), float(age)) for age, mac, port in found}


@pytest.fixture
def nested(stack: Stack, tmp_path: Path) -> Stack:
    file = tmp_path / "nested.yaml"
    file.write_text(NESTED)
    stack.apply(file)
    return stack


def test_a_port_s_share_of_learned_macs_is_bounded(nested: Stack) -> None:
    send("ne-one", *map(stranger, range(1, 10)))
    send("ne-two", *map(stranger, range(0x20, 0x30)))
    until(lambda: len(learned(nested)) == 3 + 16, "both are learned from")
    places = {mac: port for mac, (port, _) in learned(nested).items()}
    assert {mac for mac in places if mac < stranger(0x20)} == {stranger(number) for number in (1, 2, 3)}
    assert learned(nested, "ne-b").keys() <= {stranger(n) for n in (*range(1, 10), *range(0x20, 0x30))}
    # Above the bound: what it sends arrives, what is sent to it is flooded.
    with frames.packet_socket("ne-plain", "eth0") as ears:
        fence = frames.ethernet(stranger(9), PLAIN, EXPERIMENT, b"from above the bound")
        with frames.packet_socket("ne-one", "eth0") as mouth:
            mouth.send(fence)
        assert fence in frames.heard_until(ears, fence)
    assert who_hears("ne-plain", stranger(9), "ne-one", "ne-two") == {"ne-one", "ne-two"}
    assert who_hears("ne-plain", stranger(0x21), "ne-one", "ne-two") == {"ne-two"}


def test_a_mac_that_moves_is_found_at_once_although_its_old_port_is_full(nested: Stack) -> None:
    send("ne-one", *map(stranger, range(1, 6)))
    until(lambda: stranger(1) in learned(nested, "ne-b"), "learned on both bridges")
    ports = set()
    for here in ("ne-two", "ne-one", "ne-two"):
        send(here, stranger(1))
        # The frame that it sends there is what moves it; what is cached of the old way goes a moment later.
        until(lambda here=here: who_hears("ne-plain", stranger(1), "ne-one", "ne-two") == {here}, "found")
        ports.add(learned(nested)[stranger(1)][0])
    assert len(ports) == 2


def test_a_declared_mac_is_taken_over_by_nobody(nested: Stack) -> None:
    send("ne-one", PLAIN, stranger(1))
    until(lambda: stranger(1) in learned(nested), "what came behind it is learned")
    assert PLAIN not in learned(nested)
    assert who_hears("ne-two", PLAIN, "ne-plain", "ne-one") == {"ne-plain"}
    nested.ofctl(
        *("add-flow", "ne-a", "table=81,priority=10,reg0=1/0xffff,dl_dst=" + PLAIN + ",actions=load:9->reg1"),
    )
    assert who_hears("ne-two", PLAIN, "ne-plain", "ne-one") == {"ne-plain"}, (
        "were it learned, it was not asked"
    )


def test_a_mac_is_forgotten_when_it_is_silent_and_not_while_it_sends(nested: Stack, tmp_path: Path) -> None:
    """At the bound, where a new one is not learned, those that are there go on."""
    file = tmp_path / "nested.yaml"
    file.write_text(NESTED.replace("lan: {tenant: red}", f"lan: {{tenant: red, mac_ageing: {AGEING}}}"))
    nested.apply(file)
    speaker, silent, third = map(stranger, (1, 2, 3))
    send("ne-one", speaker, silent, third, stranger(4))
    until(lambda: learned(nested).keys() == {speaker, silent, third}, "the port is full")

    def goes_on() -> tuple[int, float] | None:
        send("ne-one", speaker, third)
        send("ne-plain", PLAIN, to=silent)
        return learned(nested).get(silent)

    before = time.monotonic()
    until(lambda: goes_on() is None, "it is silent, although others send to it")
    until(lambda: goes_on() is None and time.monotonic() > before + 3 * AGEING, "the others go on meanwhile")
    known = learned(nested)
    assert known.keys() >= {speaker, third}
    assert min(known[mac][1] for mac in (speaker, third)) > 2 * AGEING, "neither was forgotten in between"
    assert who_hears("ne-plain", silent, "ne-one", "ne-two") == {"ne-one", "ne-two"}


def test_another_bound_or_ageing_forgets_nothing(nested: Stack, tmp_path: Path) -> None:
    send("ne-one", *map(stranger, range(1, 4)))
    until(lambda: len(learned(nested)) == 3, "learned")
    file = tmp_path / "nested.yaml"
    edited = NESTED.replace("learn_limit: 3", "learn_limit: 5")
    file.write_text(edited.replace("lan: {tenant: red}", "lan: {tenant: red, mac_ageing: 60}"))
    nested.apply(file)
    ages = {mac: age for mac, (_, age) in learned(nested).items()}
    assert ages.keys() == {stranger(number) for number in range(1, 4)}
    send("ne-one", *map(stranger, range(4, 10)))
    until(lambda: len(learned(nested)) == 5, "the new bound holds")
