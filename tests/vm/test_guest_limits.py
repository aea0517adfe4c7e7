"""Guests under limits, with real traffic: what arrives, counted where it arrives, of the README's rates."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.conftest import until
from tests.vm.console import Console
from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic

MAC, GUEST, PEER, PORT = "52:54:00:aa:00:01", "10.1.0.1", "10.1.0.9", 5001
IN, OUT = 8, 4
"""Mbit/s."""

WARM_UP, SECONDS = 2, 6
"""With the warm-up the burst, a quarter of a second's worth, is left out."""

LIMITED = f"""
name: t
tenants: {{red: {{}}}}
networks: {{web: {{tenant: red, subnets: [10.1.0.0/24]}}}}
qos: {{slow: {{max_rate: {{in: {IN}mbit, out: {OUT}mbit}}}}}}
nodes:
  br-a: {{kind: bridge}}
  ns1: {{kind: namespace, tenant: red, interfaces: {{eth0: {{network: web, ip: {PEER}/24}}}}}}
  a1:
    kind: vm
    domain: a1
    tenant: red
    interfaces: {{"{MAC}": {{network: web, ip: {GUEST}/24, qos: slow}}}}
links:
  - {{ends: ["ns1:eth0", br-a]}}
  - {{ends: ["a1:{MAC}", br-a]}}
"""
FREE = LIMITED.replace(", qos: slow", "").replace(
    f"qos: {{slow: {{max_rate: {{in: {IN}mbit, out: {OUT}mbit}}}}}}\n", ""
)

COUNT = (
    f"sleep {WARM_UP}; cat /sys/class/net/eth0/statistics/rx_bytes; cut -d' ' -f1 /proc/uptime;"
    f" sleep {SECONDS}; cat /sys/class/net/eth0/statistics/rx_bytes; cut -d' ' -f1 /proc/uptime"
)
"""Octets of the frames that arrive, headers included as a meter counts them, and when."""

SEND = f"""
import socket
with socket.create_connection(("{GUEST}", {PORT}), 5) as s:
    while True:
        s.sendall(bytes(65536))
"""
TAKE = f"""
import socket
with socket.create_server(("{PEER}", {PORT})) as server:
    print("ready", flush=True)
    with server.accept()[0] as s:
        while s.recv(65536): pass
"""


def mbit(said: str) -> float:
    before, at, after, then = (float(line) for line in said.split())
    return (after - before) * 8 / (then - at) / 1e6


@contextmanager
def program(host: Hypervisor, text: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program in the namespace, ended afterwards."""
    argv = [*host.prefix, "ip", "netns", "exec", "ns1", "python3", "-c", text]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def to_guest(host: Hypervisor, guest: Console) -> float:
    """Mbit/s that arrive at the guest while the namespace sends by TCP as fast as it can."""
    guest.run(f"{{ nc -l -p {PORT} >/dev/null & }}")
    until(lambda: guest.succeeds(f"netstat -ltn | grep -q :{PORT}"), "the guest listens")
    with program(host, SEND):
        return mbit(guest.run(COUNT)[1])


def from_guest(host: Hypervisor, guest: Console) -> float:
    """Mbit/s that arrive at the namespace while the guest sends by TCP as fast as it can."""
    with program(host, TAKE) as taking:
        assert taking.stdout is not None
        assert taking.stdout.readline() == "ready\n"
        guest.run(f"{{ nc {PEER} {PORT} </dev/zero >/dev/null 2>&1 & }}")
        return mbit(host.run("ip", "netns", "exec", "ns1", "sh", "-c", COUNT))


@pytest.mark.timeout(240)
def test_a_guest_gets_and_sends_what_its_limits_say(host: Hypervisor, stack: HypervisorStack) -> None:
    """Without them it does more; they hold on a guest that runs, and after a restart."""
    host.define("a1", Nic(MAC, f"{GUEST}/24"))
    guest = host.boot("a1")
    stack.apply_text(FREE)
    until(lambda: guest.succeeds(f"ping -c1 -W1 {PEER}"), "the guest reaches the namespace")
    assert to_guest(host, guest) > 1.5 * IN
    assert from_guest(host, guest) > 1.5 * OUT

    stack.apply_text(LIMITED)
    assert to_guest(host, guest) == pytest.approx(IN, rel=0.1)
    assert from_guest(host, guest) == pytest.approx(OUT, rel=0.1)
    guest.close()

    host.virsh("destroy", "a1")
    guest = host.boot("a1")
    until(lambda: guest.succeeds(f"ping -c1 -W1 {PEER}"), "the guest reaches the namespace again")
    assert to_guest(host, guest) == pytest.approx(IN, rel=0.1)
    guest.close()
