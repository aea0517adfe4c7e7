"""Changes and restarts at a packet a millisecond: what should not change loses none, nor its counters."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stream import End, Result, streaming
from tests.system.conftest import ROOT, Stack, run, stack, until

__all__ = ["stack"]

NAME = "hitless"
HITLESS = """
name: hitless
tenants: {red: {}, blue: {}}
networks:
  lan: {tenant: red, subnets: [10.6.0.0/24, "fd00:6::/64"]}
  dmz: {tenant: blue, subnets: [10.6.0.0/24]}
nodes:
  hl-a: {kind: bridge}
  hl-b: {kind: bridge}
  hl-one:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, ip: [10.6.0.1/24, "fd00:6::1/64"], acls: [peers]}}
  hl-two:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, ip: [10.6.0.2/24, "fd00:6::2/64"], acls: [peers]}}
  hl-three:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, ip: [10.6.0.3/24, "fd00:6::3/64"], acls: [others]}}
  hl-four: {kind: namespace, tenant: blue, interfaces: {eth0: {network: dmz, ip: 10.6.0.1/24}}}
links:
  - {ends: [hl-a, hl-b], kind: veth}
  - {ends: ["hl-one:eth0", hl-a]}
  - {ends: ["hl-two:eth0", hl-b]}
  - {ends: ["hl-three:eth0", hl-a]}
  - {ends: ["hl-four:eth0", hl-b]}
acls:
  peers:
    - {direction: in, action: allow, protocol: udp, ports: [7000]}
    - {direction: in, action: allow, protocol: tcp, ports: [80, 443]}
    - {direction: out, action: allow, to: {network: lan}}
  others:
    - {direction: in, action: allow, protocol: tcp, ports: [22]}
"""
ONE = End("hl-one", "10.6.0.1", "fd00:6::1")
TWO = End("hl-two", "10.6.0.2", "fd00:6::2")
BRIDGES = ("hl-a", "hl-b")

Event = Callable[[Stack, Path], None]


@pytest.fixture
def applied(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, Path]]:
    file = tmp_path / "hitless.yaml"
    file.write_text(HITLESS)
    stack.apply(file)
    for end in (ONE, TWO):
        inside = ("ip", "-n", end.namespace, "-6", "address", "show", "tentative")
        until(lambda inside=inside: not run(*inside), "duplicate address detection is over")
    yield stack, file


def edited(stack: Stack, file: Path, *changes: tuple[str, str]) -> None:
    text = HITLESS
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)
    stack.apply(file)


def rule_of_another_port(stack: Stack, file: Path) -> None:
    edited(stack, file, ("ports: [22]}", "ports: [22, 2222]}"))


def another_rule_of_this_port(stack: Stack, file: Path) -> None:
    edited(stack, file, ("ports: [80, 443]}", "ports: [80, 443, 8080]}"))


def a_rule_before_those_of_this_port(stack: Stack, file: Path) -> None:
    deny = "    - {direction: in, action: deny, protocol: udp, ports: [9]}\n"
    edited(stack, file, ("  peers:\n", f"  peers:\n{deny}"))


def another_acl_at_this_port(stack: Stack, file: Path) -> None:
    two = 'ip: [10.6.0.2/24, "fd00:6::2/64"], acls: '
    edited(stack, file, (f"{two}[peers]", f"{two}[peers, others]"))


def the_same_file(stack: Stack, file: Path) -> None:
    stack.apply(file)


def another_topology(stack: Stack, file: Path) -> None:
    """An endpoint and a bridge more, another endpoint less."""
    four = "  hl-four: {kind: namespace, tenant: blue, interfaces: {eth0: {network: dmz, ip: 10.6.0.1/24}}}\n"
    five = "  hl-five: {kind: namespace, tenant: red, interfaces: {eth0: {network: lan, ip: 10.6.0.5/24}}}\n"
    linked = '  - {ends: ["hl-five:eth0", hl-c]}\n  - {ends: [hl-b, hl-c]}\n'
    edited(
        stack,
        file,
        ("  hl-b: {kind: bridge}\n", "  hl-b: {kind: bridge}\n  hl-c: {kind: bridge}\n"),
        (four, five),
        ('  - {ends: ["hl-four:eth0", hl-b]}\n', linked),
    )


def restart(stack: Stack, file: Path) -> None:
    stack.kill_daemon()
    stack.cli("up")


def upgrade(stack: Stack, file: Path) -> None:
    """The daemon is stopped, and one of another version takes over."""
    elsewhere = file.parent / "upgraded"
    for package in ("vswitchctl", "openflow_apps"):
        shutil.copytree(ROOT / package, elsewhere / package, ignore=shutil.ignore_patterns("__pycache__"))
    for metadata in ROOT.glob("*.egg-info"):
        shutil.copytree(metadata, elsewhere / metadata.name)
    version = elsewhere / "vswitchctl" / "__init__.py"
    version.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0.0"', version.read_text()))
    pid = stack.daemon_pid()
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    until(lambda: ended(handle), "the old daemon has ended")
    os.close(handle)
    argv = [sys.executable, "-m", "vswitchctl.cli.main", "up"]
    subprocess.run(
        argv, cwd=elsewhere, env={**stack.env, "PYTHONPATH": str(elsewhere)}, check=True, timeout=120
    )
    environment = Path(f"/proc/{stack.daemon_pid()}/environ").read_bytes()
    assert str(elsewhere).encode() in environment, "it is the other one that runs"


def ended(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


PIDFD_GETFD = 438
"""Linux, all architectures: a copy of another process's descriptor."""


def cut_sessions(stack: Stack, file: Path) -> None:
    """Every OpenFlow session of the daemon ends under it, and it takes them up again."""
    cut = sessions(stack)
    assert {name for name, _ in cut} == set(BRIDGES)
    for _, session in cut:
        session.shutdown(socket.SHUT_RDWR)
        session.close()
    until(lambda: {name for name, _ in sessions(stack)} == set(BRIDGES), "both sessions are back")


def sessions(stack: Stack) -> list[tuple[str, socket.socket]]:
    """The daemon's own sockets that lead to a bridge's management socket."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = stack.daemon_pid()
    handle = os.pidfd_open(pid)
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            copy = libc.syscall(PIDFD_GETFD, handle, int(descriptor.name), 0)
            copied = socket.socket(fileno=copy)
            peer = copied.getpeername()
        except (OSError, FileNotFoundError):
            continue
        if str(peer).endswith(".mgmt"):
            found.append((Path(str(peer)).stem, copied))
    os.close(handle)
    return found


QUIET = [
    rule_of_another_port, another_rule_of_this_port, a_rule_before_those_of_this_port,
    another_acl_at_this_port, the_same_file, another_topology, restart, cut_sessions, upgrade,
]  # fmt: skip


def under_stream(stack: Stack, file: Path, event: Event) -> Result:
    with streaming(ONE, TWO) as result:
        event(stack, file)
        until(lambda: stack.in_sync(NAME), f"in sync\n{stack.log()}")
        time.sleep(1)  # what the change left behind in caches is revalidated within 500 ms (max-revalidator)
    print(f"\n{event.__name__}:\n{result}")
    return result


@pytest.mark.parametrize("event", QUIET, ids=lambda event: event.__name__)
def test_nothing_is_lost(applied: tuple[Stack, Path], event: Event) -> None:
    stack, file = applied
    result = under_stream(stack, file, event)
    assert (result.lost, result.duplicated) == (0, 0), f"{result}\n{stack.log()}"
    assert all(int(str(flow["received"])) > 500 for flow in result.flows.values())


def test_what_a_change_denies_is_seen_to_be_lost(applied: tuple[Stack, Path]) -> None:
    """Which is what shows that the test before it is one."""
    stack, file = applied
    with streaming(ONE, TWO) as result:
        # In both directions: the ends begin at once, so either may be the one that opened the connection.
        edited(
            stack,
            file,
            ("ports: [7000]}", "ports: [7001]}"),
            ("action: allow, to:", "action: allow, protocol: tcp, to:"),
        )
        time.sleep(1)
    assert result.lost > 100


COUNTERS = re.compile(r"duration=([\d.]+)s, table=(\d+), n_packets=(\d+), n_bytes=\d+, ")


def counters(stack: Stack) -> dict[str, tuple[float, int]]:
    """Bridge and flow -> its age in seconds and its packets."""
    found = {}
    for bridge in BRIDGES:
        for line in stack.ofctl("dump-flows", bridge).splitlines():
            match = COUNTERS.search(line)
            if match is not None and match[2] != "81":
                name = f"{bridge} table={match[2]} {COUNTERS.sub('', line).strip()}"
                found[name] = (float(match[1]), int(match[3]))
    return found


@pytest.mark.parametrize(
    "event", [rule_of_another_port, another_rule_of_this_port, another_topology], ids=lambda e: e.__name__
)
def test_flows_that_stay_keep_their_counters(applied: tuple[Stack, Path], event: Event) -> None:
    stack, file = applied
    with streaming(ONE, TWO):
        time.sleep(1)

    def busy() -> set[str]:
        return {name.split()[0] for name, (_, packets) in counters(stack).items() if packets > 500}

    until(lambda: busy() == set(BRIDGES), "the packets are counted")
    then, at = counters(stack), time.monotonic()
    event(stack, file)
    now, passed = counters(stack), time.monotonic() - at
    stayed = then.keys() & now.keys()
    reset = {name for name in stayed if now[name][0] < passed or now[name][1] < then[name][1]}
    assert not reset
    gone = then.keys() - now.keys()
    assert len(gone) < len(then) / 3, "most flows have nothing to do with the change"
    used = {name for name, (_, packets) in then.items() if packets > 500}
    assert used and not {name for name in used & gone if "table=82" not in name}, "none of the stream's went"


def test_open_vswitch_killed_comes_back_by_itself(applied: tuple[Stack, Path]) -> None:
    """Its flows go with it: how long forwarding is away is told, not asserted."""
    stack, _ = applied
    with streaming(ONE, TWO) as result:
        os.kill(int((stack.rundir / "ovs-vswitchd.pid").read_text()), signal.SIGKILL)
        stack.cli("up")
        until(lambda: stack.in_sync(NAME), f"in sync\n{stack.log()}")
        time.sleep(1)
    print(f"\novs-vswitchd killed and started:\n{result}")
    with streaming(ONE, TWO) as after:
        time.sleep(1)
    assert (after.lost, after.duplicated) == (0, 0), after
