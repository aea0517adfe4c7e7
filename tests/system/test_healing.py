"""What is deleted or altered by hand is noticed and made good; what is not ours survives everything."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import TOPOLOGIES, Stack, run, until
from vswitchctl.drivers.probe import probe
from vswitchctl.model.topology import device_name
from vswitchctl.topology.load import load
from vswitchctl.topology.reachability import difference, expected_pairs

FILE = TOPOLOGIES / "two-tenants.yaml"


def port_towards(stack: Stack, bridge: str, start: str) -> str:
    """The port on a bridge whose name starts so."""
    return next(name for name in stack.vsctl("list-ports", bridge).split() if name.startswith(start))


def delete_port(stack: Stack) -> None:
    stack.vsctl("del-port", "br-a", port_towards(stack, "br-a", "redweb1"))


def delete_bridge(stack: Stack) -> None:
    stack.vsctl("del-br", "br-b")


def delete_link(stack: Stack) -> None:
    run("ip", "link", "del", port_towards(stack, "br-a", "redweb1"))


def delete_inner_end(stack: Stack) -> None:
    run("ip", "-n", "red-web1", "link", "del", "eth0")


def delete_namespace(stack: Stack) -> None:
    run("ip", "netns", "del", "red-web1")


def delete_linux_bridge(stack: Stack) -> None:
    run("ip", "link", "del", "lan0")


def delete_address(stack: Stack) -> None:
    run("ip", "-n", "red-web1", "addr", "del", "10.1.0.11/24", "dev", "eth0")


def take_down(stack: Stack) -> None:
    run("ip", "-n", "red-web1", "link", "set", "eth0", "down")


def delete_route(stack: Stack) -> None:
    run("ip", "-n", "red-web1", "route", "del", "10.2.0.15/32")


def delete_all_flows(stack: Stack) -> None:
    stack.ofctl("del-flows", "br-a")


def delete_one_flow(stack: Stack) -> None:
    stack.ofctl("--strict", "del-flows", "br-a", "table=82,priority=0")


def alter_a_flow(stack: Stack) -> None:
    stack.ofctl("mod-flows", "br-a", "table=120,actions=drop")


def open_fail_mode(stack: Stack) -> None:
    stack.vsctl("set-fail-mode", "br-a", "standalone")


def tag_a_port(stack: Stack) -> None:
    stack.vsctl("set", "port", port_towards(stack, "br-a", "redweb1"), "tag=7")


DAMAGES = [
    delete_port, delete_bridge, delete_link, delete_inner_end, delete_namespace, delete_linux_bridge,
    delete_address, take_down, delete_route, delete_all_flows, delete_one_flow, alter_a_flow,
    open_fail_mode, tag_a_port,
]  # fmt: skip


def flows(stack: Stack, bridge: str) -> list[str]:
    """A bridge's flows as the witness prints them, without what counts or ages; learned ones aside."""
    text = stack.ofctl("--no-stats", "dump-flows", bridge)
    return sorted(line.strip() for line in text.splitlines() if "table=81" not in line and "cookie" in line)


@pytest.fixture
def applied(stack: Stack) -> Stack:
    stack.apply(FILE)
    return stack


def test_every_damage_by_hand_is_made_good(applied: Stack) -> None:
    topology = load(FILE).require()
    for damage in DAMAGES:
        heal(applied, damage)
        found = difference(probe(topology), expected_pairs(topology))
        assert not found, (damage.__name__, found, applied.log())


def heal(stack: Stack, damage: Callable[[Stack], None]) -> None:
    damage(stack)
    until(
        lambda: stack.call("plan", str(FILE)).returncode == 0, f"{damage.__name__} is healed\n{stack.log()}"
    )


def test_what_is_not_ours_survives_everything(applied: Stack) -> None:
    applied.vsctl("add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev")
    run("ip", "link", "add", "theirs0", "type", "veth", "peer", "name", "theirs1")
    run("ip", "netns", "add", "theirs-ns")
    try:
        applied.ofctl("add-flow", "theirs", "priority=5,actions=drop")
        applied.ofctl("add-flow", "br-a", "cookie=0x1234,table=200,priority=7,actions=drop")
        run("ip", "-n", "red-web1", "addr", "add", "192.0.2.9/32", "dev", "eth0")
        applied.vsctl("add-port", "br-c", "theirs0")
        plan = applied.json("plan", str(FILE))
        assert plan["changes"] == [] and plan["flows"] == []
        assert any("theirs0" in text for text in plan["foreign"])
        bridges = {view["name"]: view for view in applied.json("show", "bridges")}
        assert bridges["br-a"]["foreign_flows"] == 1
        applied.apply(FILE)
        assert "cookie=0x1234" in applied.ofctl("dump-flows", "br-a")
        assert "192.0.2.9" in run("ip", "-n", "red-web1", "addr")
        # A bridge with somebody's port is not pulled from under it: destroy says so, and the rest goes.
        said = applied.call("destroy", "two-tenants", "--yes")
        assert said.returncode == 1
        assert "theirs0" in said.stdout + said.stderr
        assert set(applied.vsctl("list-br").split()) == {"theirs", "br-c"}
        applied.vsctl("del-port", "br-c", "theirs0")
        until(lambda: applied.vsctl("list-br").split() == ["theirs"], "the last bridge goes once it is free")
        assert "priority=5" in applied.ofctl("dump-flows", "theirs")
        run("ip", "link", "show", "theirs0")
        assert "theirs-ns" in run("ip", "netns")
    finally:
        applied.vsctl("--if-exists", "del-br", "theirs")
        run("ip", "link", "del", "theirs0", check=False)
        run("ip", "netns", "del", "theirs-ns", check=False)


def test_a_flow_of_somebody_else_in_place_of_ours_is_told_and_left_alone(applied: Stack) -> None:
    theirs = "table=82,priority=0"
    applied.ofctl("add-flow", "br-a", f"cookie=0x1234,{theirs},actions=drop")

    def failed() -> list[str]:
        entities = applied.json("show", "topology", "two-tenants")["entities"]
        return [entity["reason"] for entity in entities if entity["status"] == "failed"]

    until(lambda: any("somebody else" in reason for reason in failed()), "it is told")
    found = applied.ofctl("dump-flows", "br-a", "table=82")
    assert "cookie=0x1234" in found and found.count("priority=0") == 1
    (bridge,) = [view for view in applied.json("show", "bridges") if view["name"] == "br-a"]
    assert bridge["foreign_flows"] == 1
    applied.ofctl("--strict", "del-flows", "br-a", theirs)
    until(lambda: applied.in_sync("two-tenants"), f"ours is back once theirs is gone\n{applied.log()}")
    assert "cookie=0x76" in applied.ofctl("dump-flows", "br-a", "table=82")


def test_learned_flows_are_neither_drift_nor_foreign(applied: Stack) -> None:
    """Not even one that goes: nothing is read, and nothing is put back."""
    learned = "table=81,priority=10,cookie=0x761122334455ffff,reg0=1/0xffff,dl_dst=0a:00:00:00:00:01"
    applied.ofctl("add-flow", "br-a", f"{learned},actions=load:1->reg1")
    (bridge,) = [view for view in applied.json("show", "bridges") if view["name"] == "br-a"]
    assert bridge["foreign_flows"] == 0
    applied.cli("plan", str(FILE))
    applied.apply(FILE)
    assert "cookie=0x761122334455ffff" in applied.ofctl("dump-flows", "br-a", "table=81")


def test_a_description_changes_nothing_on_the_host(applied: Stack, tmp_path: Path) -> None:
    edited = tmp_path / "two-tenants.yaml"
    edited.write_text(FILE.read_text().replace("the first customer", "the very first customer"))
    then = {bridge: ages(applied, bridge) for bridge in ("br-a", "br-b", "br-c")}
    plan = applied.json("plan", str(edited))
    assert plan["changes"] == [] and plan["flows"] == []
    applied.apply(edited)
    (view,) = applied.json("show", "topologies")
    assert (view["generation"], view["status"]) == (2, "in-sync")
    for bridge, before in then.items():
        now = ages(applied, bridge)
        assert len(now) == len(before) and min(now) > min(before), "a flow was made anew"


def ages(stack: Stack, bridge: str) -> list[float]:
    """Seconds since each declared flow was added; what the switch learned comes and goes by itself."""
    lines = stack.ofctl("dump-flows", bridge).splitlines()
    found = (re.search(r"duration=([\d.]+)s, table=(?!81)", line) for line in lines)
    return [float(match[1]) for match in found if match is not None]


def test_an_edit_leaves_unchanged_flows_their_counters(applied: Stack, tmp_path: Path) -> None:
    run("ip", "netns", "exec", "red-web1", "ping", "-c", "3", "-i", "0.05", "-W", "2", "10.1.0.12")
    counted = packets(applied, "br-a")
    edited = tmp_path / "two-tenants.yaml"
    interface = "{eth0: {network: red-web, ip: 10.1.0.99/24}}"
    node = f"  red-new: {{kind: namespace, tenant: red, interfaces: {interface}}}\n"
    link = '  - {ends: ["red-new:eth0", br-c]}\n'
    text = FILE.read_text().replace("\nlinks:\n", f"\nlinks:\n{link}")
    edited.write_text(text.replace("  red-db1: {kind", f"{node}  red-db1: {{kind"))
    applied.apply(edited)
    after = packets(applied, "br-a")
    lost = {
        flow
        for flow, count in counted.items()
        if count and after.get(flow, 0) < count and "table=82" not in flow
    }
    assert not lost
    run("ip", "netns", "exec", "red-web1", "ping", "-c", "1", "-W", "2", "10.1.0.99")


def packets(stack: Stack, bridge: str) -> dict[str, int]:
    found = {}
    for line in stack.ofctl("dump-flows", bridge).splitlines():
        match = re.search(r"(table=\d+).*n_packets=(\d+).*?(priority=\S+|actions=\S+)", line)
        if match:
            found[f"{match[1]} {match[3]}"] = int(match[2])
    return found


def test_what_cannot_be_made_fails_alone_and_comes_once_it_can(stack: Stack) -> None:
    taken = device_name("two-tenants", "red-web1:eth0", "br-a")
    run("ip", "link", "add", taken, "type", "bridge")
    try:
        said = stack.call("apply", str(FILE), "--yes")
        assert said.returncode == 1
        assert taken in said.stderr and "not ours" in said.stderr
        for _ in range(3):  # also while the next try is awaited, and although the rest is right
            detail = stack.json("show", "topology", "two-tenants")
            failed = {entity["entity"] for entity in detail["entities"] if entity["status"] == "failed"}
            # The namespace has a route over that link.
            assert failed == {"links/br-a--red-web1:eth0", "nodes/red-web1"}
            stack.vsctl("set", "bridge", "br-b", "external_ids:theirs=1")  # an event, so a pass
        run("ip", "netns", "exec", "red-web2", "ping", "-c", "1", "-W", "5", "10.1.0.13")
        run("ip", "link", "show", taken)
    finally:
        run("ip", "link", "del", taken)
    until(lambda: stack.in_sync("two-tenants"), f"in sync once the name is free\n{stack.log()}")
