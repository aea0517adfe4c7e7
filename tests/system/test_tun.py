"""A TUN device as a node: a program answers packets through it, and it is kept as declared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.conftest import Stack, run, until

USER = 4711
TOPOLOGY = """
name: t
tenants: {red: {}}
networks: {web: {tenant: red, subnets: [10.1.0.0/24, "fd00:1::/64"]}}
nodes:
  br-a: {kind: bridge}
  client:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: web, ip: [10.1.0.9/24, "fd00:1::9/64"]}}
    routes: [{to: 10.8.0.0/24, via: 10.1.0.20}]
  vpn:
    kind: tun
    tenant: red
    ip: 10.8.0.1/24
    user: 4711
    interfaces: {eth0: {network: web, ip: [10.1.0.20/24, "fd00:1::20/64"], allowed: [{ip: 10.8.0.0/24}]}}
links:
  - {ends: ["client:eth0", br-a]}
  - {ends: ["vpn:eth0", br-a]}
"""

# Answers pings to everybody: swaps the addresses of an IPv4 packet, and makes a request (8) a reply (0),
# which adds 8 << 8 to the ICMP checksum's complement.
PROGRAM = """
import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
os.setuid(int(sys.argv[2]))
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1001))
print("open", flush=True)
while True:
    packet = bytearray(os.read(tun, 65535))
    if packet[0] >> 4 == 4 and packet[9] == 1 and packet[20] == 8:
        packet[12:16], packet[16:20] = packet[16:20], packet[12:16]
        total = struct.unpack_from("!H", packet, 22)[0] + 0x0800
        packet[20] = 0
        struct.pack_into("!H", packet, 22, (total & 0xFFFF) + (total >> 16))
        os.write(tun, packet)
"""


@contextmanager
def program(device: str = "tun0", user: int = USER) -> Iterator[None]:
    """The program, running in the node's namespace as a plain user."""
    argv = ["ip", "netns", "exec", "vpn", sys.executable, "-c", PROGRAM, device, str(user)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"open\n"
        yield
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def apply(stack: Stack, tmp_path: Path, text: str) -> str:
    file = tmp_path / "t.yaml"
    file.write_text(text)
    return stack.cli("apply", str(file), "--yes")


def pings(address: str = "10.8.0.77") -> bool:
    argv = ["ip", "netns", "exec", "client", "ping", "-c1", "-W1", address]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def device(name: str = "tun0") -> dict[str, object]:
    (found,) = json.loads(run("ip", "-n", "vpn", "-j", "-d", "addr", "show", "dev", name))
    return dict(found)


def test_a_program_answers_through_it(stack: Stack, tmp_path: Path) -> None:
    apply(stack, tmp_path, TOPOLOGY)
    assert stack.in_sync("t")
    info = device()["linkinfo"]["info_data"]  # type: ignore[index]
    assert (info["type"], info["persist"], info["user"]) == ("tun", True, USER)
    assert not pings()
    with program():
        until(pings, "somebody behind the VPN answers")
    # It stays while nobody has it open, and again works.
    assert stack.in_sync("t")
    with program():
        until(pings, "it answers again")
        # A change of the rest does not need the program to close it.
        apply(stack, tmp_path, TOPOLOGY.replace("10.8.0.1/24\n", "10.8.0.2/24\n    mtu: 1400\n"))
        assert device()["mtu"] == 1400
        assert [one["local"] for one in device()["addr_info"] if one["family"] == "inet"] == ["10.8.0.2"]  # type: ignore[attr-defined]
        until(pings, "it goes on")


def test_it_is_put_right_and_taken_away(stack: Stack, tmp_path: Path) -> None:
    apply(stack, tmp_path, TOPOLOGY)
    run("ip", "-n", "vpn", "link", "del", "tun0")
    until(lambda: "tun0" in run("ip", "-n", "vpn", "-o", "link"), "it is made again")
    until(lambda: stack.in_sync("t"), "in sync")
    run("ip", "-n", "vpn", "addr", "del", "10.8.0.1/24", "dev", "tun0")
    until(lambda: "10.8.0.1/24" in run("ip", "-n", "vpn", "addr", "show", "tun0"), "its address is back")
    run("ip", "-n", "vpn", "link", "set", "tun0", "down")
    until(lambda: "UP" in str(device()["flags"]), "it is up again")
    stack.kill_daemon()
    stack.cli("up")
    file = tmp_path / "t.yaml"
    assert stack.call("plan", str(file)).returncode == 0

    apply(stack, tmp_path, TOPOLOGY.replace("user: 4711", "device: vpn0"))
    assert "user" not in device("vpn0")["linkinfo"]["info_data"]  # type: ignore[index]
    assert "tun0" not in run("ip", "-n", "vpn", "-o", "link")
    with program("vpn0", os.getuid()):
        until(pings, "it answers under its other name")
    stack.cli("destroy", "t", "--yes")
    assert "vpn" not in run("ip", "netns", "list").split()


def test_a_kind_that_becomes_another(stack: Stack, tmp_path: Path) -> None:
    """A namespace gets a TUN device, and loses it again; its interface goes on all the while."""
    plain = TOPOLOGY.replace("kind: tun", "kind: namespace").replace(
        "    ip: 10.8.0.1/24\n    user: 4711\n", ""
    )
    apply(stack, tmp_path, plain)
    before = run("ip", "-n", "vpn", "-o", "link", "show", "eth0")
    apply(stack, tmp_path, TOPOLOGY)
    assert device()["operstate"] in ("DOWN", "UNKNOWN")
    apply(stack, tmp_path, plain)
    assert "tun0" not in run("ip", "-n", "vpn", "-o", "link")
    assert run("ip", "-n", "vpn", "-o", "link", "show", "eth0") == before
