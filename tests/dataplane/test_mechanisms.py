"""Why limits are meters: what else Open vSwitch has for them, and what it does on the userspace datapath.

A profile with `mechanism: queue` or `police`, or with `min_rate`, is refused for what is shown here. Where
one of these fails, the datapath has learned something, and topology/check_qos.py refuses too much.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator

import pytest
from instances import HostNamespace, Ovs

KIND = 0x88B5
"""IEEE 802: for local experiments."""

FRAME = b"\2\0\0\0\0\2\2\0\0\0\0\1" + KIND.to_bytes(2, "big") + bytes(1386)
LIMIT = 100_000
"""Bits per second: 9 such frames."""

SENT = 500


@pytest.fixture
def ports(ovs: Ovs, host_ns: HostNamespace) -> Iterator[HostNamespace]:
    """a to d, whose other ends are a-p to d-p: what a sends goes to b, what c sends to d."""
    ovs.vsctl("add-br", "br", "--", "set", "bridge", "br", "datapath_type=netdev", "fail_mode=secure")
    for name in "abcd":
        host_ns.run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", f"{name}-p")
        for end in (name, f"{name}-p"):
            host_ns.run("ip", "link", "set", "dev", end, "up")
        ovs.vsctl("add-port", "br", name)
    for source, target in ("ab", "cd"):
        ovs.ofctl("add-flow", "br", f"in_port={source},dl_type={KIND:#x} actions=output:{target}")
    yield host_ns


@contextlib.contextmanager
def bound(host: HostNamespace, device: str) -> Iterator[socket.socket]:
    with host.enter(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as end:
        end.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        end.bind((device, KIND))
        yield end


def send(host: HostNamespace, source: str, count: int = SENT) -> None:
    """Slower than the switch is, so that none is lost before it."""
    with bound(host, f"{source}-p") as sender:
        for at in range(count):
            sender.send(FRAME)
            if at % 10 == 9:
                time.sleep(0.005)


def passed(host: HostNamespace, source: str, target: str, count: int = SENT) -> int:
    """How many of so many frames arrive."""
    with bound(host, f"{target}-p") as receiver:
        send(host, source, count)
        receiver.settimeout(1)
        arrived = 0
        with contextlib.suppress(TimeoutError):
            while True:
                arrived += receiver.recvfrom(2000)[1][2] != socket.PACKET_OUTGOING
        return arrived


def shape(ovs: Ovs, port: str, *queues: str) -> None:
    """A rate of LIMIT, and queues beside the default one."""
    made = [f"queues:{number}=@{number}" for number, _ in enumerate(queues)]
    rows = [part for number, rate in enumerate(queues) for part in _queue(number, rate)]
    head = ["--", "set", "port", port, "qos=@qos", "--", "--id=@qos", "create", "qos", "type=linux-htb"]
    ovs.vsctl(*head, f"other-config:max-rate={LIMIT}", *made, *rows)


def _queue(number: int, rate: str) -> list[str]:
    return ["--", f"--id=@{number}", "create", "queue", f"other-config:min-rate={rate}"]


def test_no_packet_reaches_a_queue_of_its_own(ovs: Ovs, ports: HostNamespace) -> None:
    shape(ovs, "b", "10000", "80000")
    ovs.ofctl("add-flow", "br", f"in_port=a,dl_type={KIND:#x} actions=set_queue:1,output:b")
    assert passed(ports, "a", "b", 20) == 20
    classes = ports.run("tc", "-s", "class", "show", "dev", "b")
    sent = dict(re.findall(r"class htb (1:[12]) .*\n Sent \d+ bytes (\d+) pkt", classes))
    assert int(sent["1:1"]) > 0
    assert int(sent["1:2"]) == 0, "what is for queue 1 went by the default one"


def test_a_full_queue_costs_other_ports_their_packets(ovs: Ovs, ports: HostNamespace) -> None:
    """All ports send by one socket, and frames that wait in a queue fill its buffer."""
    assert passed(ports, "c", "d", 50) == 50
    shape(ovs, "b")
    send(ports, "a")
    assert passed(ports, "c", "d", 50) < 50, "and these two have no limit at all"


def test_a_meter_costs_other_ports_nothing(ovs: Ovs, ports: HostNamespace) -> None:
    ovs.ofctl("add-meter", "br", f"meter=1,kbps,burst,bands=type=drop,rate={LIMIT // 1000},burst_size=25")
    ovs.ofctl("add-flow", "br", f"in_port=a,dl_type={KIND:#x} actions=meter:1,output:b")
    assert passed(ports, "a", "b") < SENT / 2
    assert passed(ports, "c", "d", 50) == 50


def test_policing_holds_nothing_back(ovs: Ovs, ports: HostNamespace) -> None:
    ovs.vsctl("set", "interface", "a", f"ingress_policing_rate={LIMIT // 1000}", "ingress_policing_burst=25")
    assert passed(ports, "a", "b") == SENT
