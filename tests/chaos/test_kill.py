"""kill -9 at any moment, then a restart: the same end, and flows that were right are not touched."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.conftest import TOPOLOGIES, Stack, machine, run, stack, until
from vswitchctl.drivers.probe import probe
from vswitchctl.topology.load import load
from vswitchctl.topology.reachability import difference, expected_pairs

__all__ = ["stack"]

FILE = TOPOLOGIES / "two-tenants.yaml"
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(2**32)))


def converged(stack: Stack) -> None:
    topology = load(FILE).require()
    until(lambda: stack.in_sync("two-tenants"), f"in sync\n{stack.log()}")
    stack.cli("plan", str(FILE))
    found = difference(probe(topology), expected_pairs(topology))
    assert not found, found


def start(stack: Stack, *arguments: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "vswitchctl.cli.main", *arguments]
    return subprocess.Popen(argv, env=stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("round_", range(6))
def test_killed_during_an_apply(stack: Stack, round_: int) -> None:
    delay = random.Random(SEED + round_).uniform(0.2, 1.2)
    print(f"CHAOS_SEED={SEED} delay {delay:.3f} s")
    client = start(stack, "apply", str(FILE), "--yes")
    time.sleep(delay)  # the random moment itself: no event stands for it
    stack.kill_daemon()
    client.wait(60)
    stack.cli("up")
    # The document may not have been stored yet when the daemon died; asking again must be harmless.
    stack.apply(FILE)
    converged(stack)


@pytest.mark.parametrize("round_", range(4))
def test_killed_during_a_destroy(stack: Stack, round_: int) -> None:
    before = machine()
    stack.apply(FILE)
    delay = random.Random(SEED - round_).uniform(0.2, 0.8)
    print(f"CHAOS_SEED={SEED} delay {delay:.3f} s")
    client = start(stack, "destroy", "two-tenants", "--yes")
    time.sleep(delay)  # the random moment itself
    stack.kill_daemon()
    client.wait(60)
    stack.cli("up")
    if stack.json("show", "topologies"):
        stack.cli("destroy", "two-tenants", "--yes")

    def as_before() -> bool:
        now = machine()
        return (now["links"], now["namespaces"]) == (before["links"], before["namespaces"])

    until(as_before, f"all is gone\n{stack.log()}")


def test_a_restarted_daemon_touches_no_flow_and_loses_no_packet(stack: Stack) -> None:
    stack.apply(FILE)
    ages = durations(stack)
    ping = subprocess.Popen(
        ["ip", "netns", "exec", "red-web1", "ping", "-i", "0.01", "-c", "600", "-W", "1", "10.1.0.13"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.kill_daemon()
    stack.cli("up")
    until(lambda: stack.in_sync("two-tenants"), "in sync")
    said, _ = ping.communicate(timeout=60)
    assert "600 received" in said, said
    after = durations(stack)
    assert len(after) == len(ages)
    assert min(after) >= min(ages)


def durations(stack: Stack) -> list[float]:
    text = "".join(stack.ofctl("dump-flows", bridge) for bridge in ("br-a", "br-b", "br-c"))
    lines = [line for line in text.splitlines() if "table=81" not in line]
    return [float(age) for line in lines for age in re.findall(r"duration=([\d.]+)s", line)]


@pytest.mark.parametrize("program", ["ovs-vswitchd", "ovsdb-server", "intent"])
def test_a_killed_part_comes_back_and_all_converges(stack: Stack, program: str) -> None:
    stack.apply(FILE)
    pidfile = pidfile_of(stack, program)
    os.kill(int(pidfile.read_text()), signal.SIGKILL)
    stack.cli("up")
    converged(stack)


def pidfile_of(stack: Stack, program: str) -> Path:
    if program == "intent":
        return next(path for path in stack.run_dir.glob("*.pid") if "intent" in path.name)
    return stack.rundir / f"{program}.pid"


def test_the_daemon_started_before_its_switch_waits_for_it(stack: Stack) -> None:
    stack.apply(FILE)
    os.kill(int(pidfile_of(stack, "ovs-vswitchd").read_text()), signal.SIGKILL)
    os.kill(int(pidfile_of(stack, "ovsdb-server").read_text()), signal.SIGKILL)
    until(
        lambda: any(view["status"] == "stale" for view in stack.json("show", "hosts")),
        "the daemon says that it cannot see Open vSwitch",
    )
    stack.cli("up")
    converged(stack)
    assert "netdev" in run(
        "ovs-vsctl", f"--db=unix:{stack.rundir}/db.sock", "get", "bridge", "br-a", "datapath_type"
    )


def test_a_stop_and_a_start_bring_the_same_networks_back(stack: Stack) -> None:
    stack.apply(FILE)
    stack.cli("down")
    assert "red-web1" in run("ip", "netns"), "devices and namespaces stay for the next start"
    stack.cli("up")
    converged(stack)
