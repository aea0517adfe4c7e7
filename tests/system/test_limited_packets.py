"""Limits with real packets, of the README's example: rates, packets, marks and floods, as they arrive."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.frames import BROADCAST, EXPERIMENT, ethernet
from tests.system.conftest import ROOT, Stack, run, until

SERVER, CLIENT, OTHER = ("10.1.0.11", "fd00:1::11"), ("10.1.0.21", "fd00:1::21"), ("10.1.0.22", "fd00:1::22")
SECONDS = 6
"""Of a measurement, after two that are left out: with them the burst."""

ETHERNET, IPV4, IPV6, UDP, TCP = 14, 20, 40, 8, 32
"""Octets of headers; TCP with timestamps, RFC 7323. Meters count all of them."""

BURST_PART = 0.25


def example() -> str:
    (found,) = re.findall(r"```yaml\n(name: limits\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    return str(found)


def enter(namespace: str, *argv: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *argv]


@pytest.fixture
def limited(stack: Stack, tmp_path: Path) -> tuple[Stack, Path]:
    file = tmp_path / "limits.yaml"
    file.write_text(example())
    stack.apply(file)
    return stack, file


def iperf(sender: str, receiver: str, address: str, *options: str) -> Any:
    """What arrived, as the receiver counted it by its own clock."""
    argv = enter(receiver, "iperf3", "--server", "--one-off", "--forceflush", "--bind", address)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            while "Server listening" not in (line := server.stdout.readline()):
                assert line or server.poll() is None, "iperf3 --server ended"
            argv = enter(sender, "iperf3", "-J", "-O2", f"-t{SECONDS}", "--client", address, *options)
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            answer = json.loads(done.stdout)
            assert "error" not in answer, answer["error"]
            return answer["end"]["sum_received"]
        finally:
            server.kill()


def mbit(sender: str, receiver: str, address: str, protocol: str) -> float:
    """Megabits per second on the wire."""
    ip = IPV6 if ":" in address else IPV4
    if protocol == "udp":
        payload, headers = 1400, ETHERNET + ip + UDP
        got = iperf(sender, receiver, address, "--udp", "--bitrate", "40M", "--length", str(payload))
    else:
        payload, headers = 1500 - ip - TCP, ETHERNET + ip + TCP
        got = iperf(sender, receiver, address)
    return float(got["bytes"] * (payload + headers) / payload * 8 / got["seconds"] / 1e6)


@pytest.mark.timeout(180)
def test_what_an_interface_sends_is_within_a_tenth_of_its_rate(limited: tuple[Stack, Path]) -> None:
    for address, protocol in ((OTHER[0], "udp"), (OTHER[1], "udp"), (OTHER[0], "tcp"), (OTHER[1], "tcp")):
        assert mbit("server", "other", address, protocol) == pytest.approx(20, rel=0.1), (address, protocol)


@pytest.mark.timeout(180)
def test_what_goes_to_an_interface_is_within_a_tenth_of_its_rate(limited: tuple[Stack, Path]) -> None:
    for address, protocol in ((SERVER[0], "udp"), (SERVER[1], "udp"), (SERVER[0], "tcp"), (SERVER[1], "tcp")):
        assert mbit("other", "server", address, protocol) == pytest.approx(10, rel=0.1), (address, protocol)


def packets_per_second(sender: str, receiver: str, address: str) -> float:
    got = iperf(sender, receiver, address, "--udp", "--bitrate", "3M", "--length", "125")
    return float(got["bytes"] / 125 / got["seconds"])


@pytest.mark.timeout(180)
def test_packets_are_counted_in_each_direction(limited: tuple[Stack, Path]) -> None:
    stack, file = limited
    assert packets_per_second("client", "other", OTHER[0]) == pytest.approx(500, rel=0.1)
    both = example().replace("max_pps: {out: 500}", "max_pps: {in: 300, out: 500}, max_rate: 50mbit")
    file.write_text(both)
    stack.apply(file)
    assert packets_per_second("other", "client", CLIENT[1]) == pytest.approx(300, rel=0.1)
    assert packets_per_second("client", "other", OTHER[1]) == pytest.approx(500, rel=0.1)


@contextlib.contextmanager
def heard(namespace: str) -> Iterator[list[bytes]]:
    """Every frame that arrives at eth0 meanwhile, and a second longer than the last of them."""
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n"
        "s.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)\n"  # SO_RCVBUFFORCE
        "s.bind(('eth0', 0))\n"
        "s.setsockopt(263, 1, socket.if_nametoindex('eth0').to_bytes(4, 'little') + b'\\1' + bytes(11))\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    data, (_, _, kind, _, _) = s.recvfrom(2000)\n"
        "    if kind != 4: print(data.hex(), flush=True)\n"  # PACKET_OUTGOING
    )
    frames: list[bytes] = []
    with subprocess.Popen(
        enter(namespace, sys.executable, "-c", program), stdout=subprocess.PIPE
    ) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == b"ready\n"
            yield frames
            rest = b""
            while select.select([listener.stdout], [], [], 1)[0]:
                rest += os.read(listener.stdout.fileno(), 1 << 20)
            frames += [bytes.fromhex(line.decode()) for line in rest.splitlines()]
        finally:
            listener.kill()


SEND = """
import socket, sys, time
frame, per_second, seconds = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
start, sent = time.monotonic(), 0
while (now := time.monotonic() - start) < seconds:
    while sent < now * per_second:
        s.send(frame)
        sent += 1
    time.sleep(0.001)
print(sent, time.monotonic() - start)
"""


def flood(namespace: str, dst: str, per_second: int, seconds: float) -> tuple[int, float]:
    """Send frames of its own MAC: how many, and in how many seconds."""
    own = json.loads(run(*enter(namespace, "ip", "-j", "link", "show", "eth0")))[0]["address"]
    frame = ethernet(own, dst, EXPERIMENT, b"flood")
    said = run(*enter(namespace, sys.executable, "-c", SEND, frame.hex(), str(per_second), str(seconds)))
    sent, took = said.split()
    return int(sent), float(took)


def floods(frames: list[bytes]) -> int:
    return sum(frame[12:14] == EXPERIMENT.to_bytes(2, "big") for frame in frames)


@pytest.mark.timeout(180)
def test_floods_are_bounded_by_kind(limited: tuple[Stack, Path]) -> None:
    stack, file = limited
    text = example().replace(
        "qos: voice}", "qos: voice, port_security: false, storm: {unknown_unicast: 50pps}}"
    )
    text = text.replace("max_pps: {out: 500}, ", "")
    file.write_text(text)
    stack.apply(file)
    for dst, limit in ((BROADCAST, 100), ("01:00:5e:00:00:42", 200), ("02:77:00:00:00:01", 50)):
        with heard("other") as frames:
            sent, seconds = flood("client", dst, 1000, 4)
        assert sent > 3000
        # What the bucket held, and what came in meanwhile.
        assert floods(frames) == pytest.approx(limit * (seconds + BURST_PART), rel=0.1), dst
    with heard("other") as frames:
        flood("client", BROADCAST, 60, 3)
    assert floods(frames) >= 175, "what is below the limit passes"


@pytest.mark.timeout(120)
def test_a_port_over_its_limit_does_not_silence_the_others_of_a_flood(
    limited: tuple[Stack, Path],
) -> None:
    """In the datapath, what a meter drops is gone for all that comes after it, unless it is a copy."""
    stack, file = limited
    text = example().replace("gold: {max_rate: {in: 10mbit, out: 20mbit}}", "gold: {max_pps: {in: 20}}")
    file.write_text(text.replace(", storm: {broadcast: 100pps, multicast: 200pps}", ""))
    stack.apply(file)
    with heard("other") as by_other, heard("server") as by_server:
        sent, seconds = flood("client", BROADCAST, 300, 4)
    assert floods(by_server) == pytest.approx(20 * (seconds + BURST_PART), rel=0.1)
    assert floods(by_other) == sent


@pytest.mark.timeout(120)
def test_dscp_is_on_the_wire(limited: tuple[Stack, Path]) -> None:
    with heard("other") as frames:
        for address in OTHER:
            run(*enter("client", "ping", "-c", "2", "-i", "0.2", address))
        for address in CLIENT:
            run(*enter("other", "ping", "-c", "2", "-i", "0.2", address))
    own = json.loads(run(*enter("client", "ip", "-j", "link", "show", "eth0")))[0]["address"]
    mine = [frame for frame in frames if frame[6:12] == bytes.fromhex(own.replace(":", ""))]
    # Echoes alone: answers of neighbour discovery come from the switch, in the name of the client.
    mine = [frame for frame in mine if frame[23] == 1 or (frame[20] == 58 and frame[54] in (128, 129))]
    v4 = {frame[15] >> 2 for frame in mine if frame[12:14] == b"\x08\x00"}
    v6 = {int.from_bytes(frame[14:16], "big") >> 6 & 63 for frame in mine if frame[12:14] == b"\x86\xdd"}
    assert (v4, v6) == ({46}, {46})


def flows(stack: Stack) -> dict[str, tuple[float, int]]:
    """Cookie, match and actions of each flow -> its age in seconds, and packets."""
    found = {}
    for line in stack.ofctl("dump-flows", "br-fast").splitlines():
        times = re.search(r"duration=([\d.]+)s.*n_packets=(\d+)", line)
        if times is not None:
            key = re.sub(r" (duration|n_packets|n_bytes|idle_age)=[^ ]*", "", line)
            found[key] = (float(times[1]), int(times[2]))
    return found


def meters(stack: Stack) -> dict[int, str]:
    text = stack.ofctl("dump-meters", "br-fast").replace("\n", " ")
    found = re.findall(r"meter=(\d+) (.*?)(?= meter=|$)", text)
    return {int(number): " ".join(value.split()) for number, value in found}


@pytest.mark.timeout(120)
def test_a_rate_that_changes_is_one_meter_and_no_flow(limited: tuple[Stack, Path]) -> None:
    stack, file = limited
    before, limits = flows(stack), meters(stack)
    assert len(limits) == 3 + 2 * 3
    file.write_text(example().replace("out: 20mbit", "out: 30mbit"))
    (change,) = stack.json("plan", str(file), code=2)["changes"]
    assert (change["kind"], change["action"], change["entity"]) == (
        "meter",
        "change",
        "interfaces/server:eth0",
    )
    assert "rate=20000,burst_size=5000 -> " in change["detail"]
    stack.apply(file)
    after = flows(stack)
    assert after.keys() == before.keys()
    assert all(after[key][0] >= before[key][0] and after[key][1] >= before[key][1] for key in before)
    now = meters(stack)
    assert [one for one in now if now[one] != limits.get(one)] == [
        one for one, text in limits.items() if "rate=20000 " in text
    ]
    assert now.keys() == limits.keys()


@pytest.mark.timeout(120)
def test_meters_come_back_with_open_vswitch_and_those_of_others_are_left(
    limited: tuple[Stack, Path],
) -> None:
    stack, file = limited
    stack.ofctl("add-meter", "br-fast", "meter=7,kbps,bands=type=drop,rate=5")
    ours = {one: text for one, text in meters(stack).items() if one != 7}
    victim = next(one for one in ours)
    stack.ofctl("del-meter", "br-fast", f"meter={victim}")
    until(
        lambda: {o: t for o, t in meters(stack).items() if o != 7} == ours, "the meter and its flows are back"
    )
    assert 7 in meters(stack)
    assert "meter br-fast:7" in stack.json("plan", str(file))["foreign"]
    assert "controller" in stack.ofctl("dump-meters", "br-fast")
    pid = int((stack.rundir / "ovs-vswitchd.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    stack.cli("up")
    until(
        lambda: (stack.rundir / "ovs-vswitchd.pid").exists() and meters_now(stack) == ours, "meters are back"
    )
    until(lambda: stack.in_sync("limits"), "everything is back")
    assert stack.json("plan", str(file))["changes"] == []
    file.write_text(re.sub(r", qos: \w+|, storm: \{[^}]*\}", "", example()))
    stack.apply(file)
    assert meters(stack) == {}


def meters_now(stack: Stack) -> dict[int, str]:
    """None while Open vSwitch is away."""
    try:
        return meters(stack)
    except AssertionError:
        return {}


@pytest.mark.timeout(60)
def test_what_is_not_enforced_is_refused_at_plan_and_at_apply(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(example().replace("out: 20mbit}", "out: 20mbit}, min_rate: 5mbit"))
    for command in (("plan", str(file)), ("apply", str(file), "--yes")):
        done = stack.call(*command)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert "min_rate of profile 'gold' is not enforced" in said
        assert "remove min_rate, and give max_rate to those it is to be kept from" in said
    assert stack.json("show", "topologies") == []


CONNECT = """
import errno, socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET) as end:
    end.settimeout(10)
    print(errno.errorcode.get(end.connect_ex((sys.argv[1], int(sys.argv[2])))))
"""


def connect(namespace: str, address: str, port: int) -> str:
    return run(*enter(namespace, sys.executable, "-c", CONNECT, address, str(port))).strip()


@pytest.mark.timeout(120)
def test_answers_of_rules_that_reject_reach_limited_interfaces(limited: tuple[Stack, Path]) -> None:
    """They enter half way: for the sender before qos_to, from the receiver behind qos_from."""
    stack, file = limited
    text = example().replace("qos: gold}", "qos: gold, acls: server, storm: {unknown_unicast: 10pps}}")
    text = text.replace("qos: voice}", "qos: limited, acls: client}")
    text = text.replace("qos:\n", "qos:\n  limited: {max_rate: 1mbit, max_pps: 500, dscp: ef}\n")
    file.write_text(
        text
        + """
acls:
  server: [{direction: in, action: reject}, {direction: out, action: allow}]
  client: [{direction: out, action: reject, protocol: tcp, ports: [25]}, {direction: out, action: allow}]
"""
    )
    stack.apply(file)
    for address in SERVER:
        assert connect("client", address, 80) == "ECONNREFUSED", "denied before its receiver"
        assert connect("client", address, 25) == "ECONNREFUSED", "denied where it entered"
        assert connect("other", address, 80) == "ECONNREFUSED"


UPLINKED = """
name: kept
tenants: {red: {}}
networks: {lan: {tenant: red, subnets: [10.1.0.0/24]}}
nodes:
  br-kept: {kind: bridge}
  wan: {kind: uplink, interface: up0, network: lan}
  host:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, ip: 10.1.0.1/24}}
links:
  - {ends: [wan, br-kept]}
  - {ends: ["host:eth0", br-kept]}
"""


@pytest.fixture
def uplink() -> Iterator[str]:
    run("ip", "link", "add", "name", "up0", "type", "veth", "peer", "name", "up0-p")
    run(
        "tc",
        "qdisc",
        "add",
        "dev",
        "up0",
        "root",
        "tbf",
        "rate",
        "50mbit",
        "burst",
        "100k",
        "latency",
        "50ms",
    )
    yield "up0"
    run("ip", "link", "del", "dev", "up0")


def qdiscs(device: str) -> set[str]:
    return {one["kind"] for one in json.loads(run("tc", "-j", "qdisc", "show", "dev", device))}


@pytest.mark.timeout(120)
def test_tc_settings_of_an_uplink_survive(uplink: str, stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "kept.yaml"
    file.write_text(UPLINKED)
    run("tc", "qdisc", "add", "dev", uplink, "ingress")
    for command in (("plan", str(file)), ("apply", str(file), "--yes")):
        done = stack.call(*command)
        assert done.returncode != 0
        assert "nodes/wan: 'up0' has a qdisc for what comes in" in done.stdout + done.stderr
        assert "tc qdisc del dev up0 ingress" in done.stdout + done.stderr
    assert qdiscs(uplink) == {"tbf", "ingress"}
    run("tc", "qdisc", "del", "dev", uplink, "ingress")
    stack.apply(file)
    assert qdiscs(uplink) == {"tbf"}
    inside = next(one for one in stack.vsctl("list-ports", "br-kept").split() if one != uplink)
    run("tc", "qdisc", "add", "dev", inside, "root", "tbf", "rate", "9mbit", "burst", "90k", "latency", "5ms")
    pid = int((stack.rundir / "ovs-vswitchd.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    stack.cli("up")
    until((stack.rundir / "ovs-vswitchd.pid").exists, "Open vSwitch is back")
    until(lambda: stack.in_sync("kept"), "everything is back")
    assert (qdiscs(uplink), qdiscs(inside)) == ({"tbf"}, {"tbf"})
    theirs = ("--", "set", "port", inside, "qos=@q", "--", "--id=@q", "create", "qos", "type=linux-htb")
    stack.vsctl(*theirs)
    until(lambda: f"qos {inside}" in stack.json("plan", str(file))["foreign"], "it is reported")
    assert stack.in_sync("kept")
    assert qdiscs(inside) == {"htb"}
    stack.cli("destroy", "kept", "--yes")
    assert qdiscs(uplink) == {"tbf"}
    assert stack.vsctl("--bare", "--columns=type", "list", "QoS") == "linux-htb", "none of ours is left"
