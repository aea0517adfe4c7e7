"""What the wire brings: errors, fragments, tags, large and small frames, and tenants that are the same."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2 import netns

from tests import frames
from tests.frames import BROADCAST, EXPERIMENT, Host
from tests.packets import checksum
from tests.system.conftest import Stack, run, until

WIRE = """
name: wire
tenants: {red: {}, blue: {}}
networks:
  lan: {tenant: red, vlan: 10, subnets: [10.5.0.0/24, "fd00:5::/64"]}
  same: {tenant: blue, vlan: 20, subnets: [10.5.0.0/24, "fd00:5::/64"]}
  large: {tenant: red, mtu: 9000, subnets: [10.55.0.0/24, "fd00:55::/64"]}
nodes:
  wi-a: {kind: bridge}
  wi-b: {kind: bridge}
  wi-client:
    kind: namespace
    tenant: red
    interfaces:
      eth0: {network: lan, mac: "02:00:00:00:05:01", ip: [10.5.0.1/24, "fd00:5::1/64"], acls: closed}
      eth1: {network: large, ip: [10.55.0.1/24, "fd00:55::1/64"]}
  wi-server:
    kind: namespace
    tenant: red
    interfaces:
      eth0: {network: lan, mac: "02:00:00:00:05:02", ip: [10.5.0.2/24, "fd00:5::2/64"], acls: open7000}
      eth1: {network: large, ip: [10.55.0.2/24, "fd00:55::2/64"]}
  wi-blue1:
    kind: namespace
    tenant: blue
    interfaces: {eth0: {network: same, mac: "02:00:00:00:05:01", ip: [10.5.0.1/24, "fd00:5::1/64"]}}
  wi-blue2:
    kind: namespace
    tenant: blue
    interfaces: {eth0: {network: same, mac: "02:00:00:00:05:02", ip: [10.5.0.2/24, "fd00:5::2/64"]}}
links:
  - {ends: [wi-a, wi-b], kind: veth}
  - {ends: ["wi-client:eth0", wi-a]}
  - {ends: ["wi-client:eth1", wi-a]}
  - {ends: ["wi-server:eth0", wi-b]}
  - {ends: ["wi-server:eth1", wi-b]}
  - {ends: ["wi-blue1:eth0", wi-a]}
  - {ends: ["wi-blue2:eth0", wi-b]}
acls:
  closed: [{direction: in, action: deny}]
  open7000:
    - {direction: in, action: allow, protocol: udp, ports: [7000]}
    - {direction: in, action: allow, protocol: icmp, icmp_type: 8}
    - {direction: in, action: allow, protocol: icmpv6, icmp_type: 128}
"""
CLIENT = Host("wi-client", "02:00:00:00:05:01", "10.5.0.1", "fd00:5::1")
SERVER = Host("wi-server", "02:00:00:00:05:02", "10.5.0.2", "fd00:5::2")
BLUE1 = Host("wi-blue1", CLIENT.mac, CLIENT.ip, CLIENT.ip6)
BLUE2 = Host("wi-blue2", SERVER.mac, SERVER.ip, SERVER.ip6)

UDP, ICMP, FRAGMENT, ICMPV6 = 17, 1, 44, 58
VLAN, PROVIDER = 0x8100, 0x88A8
"""IEEE 802.1Q table 9-1: customer and service tags."""

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
_numbers = itertools.count(1)


@pytest.fixture
def wire(stack: Stack, tmp_path: Path) -> Stack:
    file = tmp_path / "wire.yaml"
    file.write_text(WIRE)
    stack.apply(file)
    for host in (CLIENT, SERVER, BLUE1, BLUE2):
        inside = ("ip", "-n", host.namespace, "-6", "address", "show", "tentative")
        until(lambda inside=inside: not run(*inside), "duplicate address detection is over")
    return stack


def address(host: Host, version: int) -> str:
    return host.ip if version == 4 else host.ip6


def udp_socket(host: Host, version: int, port: int) -> socket.socket:
    def opened() -> socket.socket:
        netns.setns(host.namespace)
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind((address(host, version), port))
        sock.settimeout(20)
        return sock

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(opened).result()


@contextlib.contextmanager
def sockets(*wanted: tuple[Host, int, int]) -> Iterator[list[socket.socket]]:
    """UDP sockets of (host, IP version, port)."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(udp_socket(*one)) for one in wanted]


def datagram(a: Host, b: Host, version: int, sport: int, dport: int, data: bytes) -> bytes:
    """A UDP header with its checksum, RFC 768, and the data."""
    ends = ip_address(address(a, version)).packed + ip_address(address(b, version)).packed
    whole = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    found = checksum(ends + struct.pack("!IHH", len(whole), 0, UDP) + whole) or 0xFFFF
    return whole[:6] + struct.pack("!H", found) + whole[8:]


def packet(a: Host, b: Host, version: int, protocol: int, body: bytes) -> bytes:
    make = frames.ipv4 if version == 4 else frames.ipv6
    return make(a.mac, b.mac, address(a, version), address(b, version), protocol, body)


def too_big(sender: Host, to: Host, version: int, about: bytes) -> bytes:
    """'Fragmentation needed' (RFC 1191, 4) or 'packet too big' (RFC 4443, 3.2), about a frame of theirs."""
    quoted = about[14:]
    if version == 6:
        body = struct.pack("!I", 1280) + quoted
        return frames.icmpv6(sender.mac, to.mac, sender.ip6, to.ip6, 2, body)
    message = struct.pack("!BBHHH", 3, 4, 0, 0, 1200) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return frames.ipv4(sender.mac, to.mac, sender.ip, to.ip, ICMP, message)


def delivered(sender: Host, tried: Mapping[str, bytes], receiver: Host) -> set[str]:
    """Which of these frames the receiver hears.

    Two fences behind them, the second once the first was heard: within one batch Open vSwitch does not keep
    the order of frames of different flows. ARP passes whatever the ACLs.
    """
    heard: set[bytes] = set()
    with (
        frames.packet_socket(receiver.namespace, "eth0") as ears,
        frames.packet_socket(sender.namespace, "eth0") as mouth,
    ):
        for frame in tried.values():
            mouth.send(frame)
        for _ in range(2):
            target = f"10.5.0.{100 + next(_numbers) % 100}"
            fence = frames.arp(sender.mac, op=1, sha=sender.mac, spa=sender.ip, tpa=target)
            mouth.send(fence)
            heard |= frames.heard_until(ears, fence)
    return {name for name, frame in tried.items() if frame in heard}


@VERSIONS
def test_what_is_too_large_for_a_path_is_told_to_who_sent_it(wire: Stack, version: int) -> None:
    """An ICMP error about a connection passes ACLs that let nothing in; about any other it does not."""
    with sockets((CLIENT, version, 6000), (SERVER, version, 7000)) as (mine, theirs):
        mine.sendto(b"large", (address(SERVER, version), 7000))
        assert theirs.recv(100) == b"large"
    mine_again = {
        port: packet(CLIENT, SERVER, version, UDP, datagram(CLIENT, SERVER, version, 6000, port, b"large"))
        for port in (7000, 7001)
    }
    told = {str(port): too_big(SERVER, CLIENT, version, frame[:62]) for port, frame in mine_again.items()}
    assert delivered(SERVER, told, CLIENT) == {"7000"}


def fragments(a: Host, b: Host, version: int, number: int, body: bytes, at: int) -> tuple[bytes, bytes]:
    """A packet in two, the second from octet `at`: RFC 791 section 3.2, RFC 8200 section 4.5."""
    parts = []
    for offset, part, more in ((0, body[:at], 1), (at, body[at:], 0)):
        if version == 6:
            head = struct.pack("!BBHI", UDP, 0, offset | more, number)
            parts.append(packet(a, b, 6, FRAGMENT, head + part))
            continue
        frame = packet(a, b, 4, UDP, part)
        head = bytearray(frame[14:34])
        struct.pack_into("!HH", head, 4, number & 0xFFFF, more << 13 | offset // 8)
        struct.pack_into("!H", head, 10, 0)
        struct.pack_into("!H", head, 10, checksum(bytes(head)))
        parts.append(frame[:14] + bytes(head) + frame[34:])
    return parts[0], parts[1]


@VERSIONS
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "last first"])
def test_fragments_are_judged_by_the_packet_they_are_of(
    wire: Stack, version: int, order: tuple[int, int]
) -> None:
    """The ports stand in the first one alone; the ACL lets 7000 in and nothing else."""
    data = {port: bytes([port & 0xFF]) * 2400 for port in (7001, 7000)}
    with sockets((SERVER, version, 7000), (SERVER, version, 7001)) as (allowed, denied):
        with frames.packet_socket(CLIENT.namespace, "eth0") as mouth:
            for number, (port, said) in enumerate(data.items(), next(_numbers) << 8):
                whole = datagram(CLIENT, SERVER, version, 6001, port, said)
                parts = fragments(CLIENT, SERVER, version, number, whole, 1280)
                for index in order:
                    mouth.send(parts[index])
        assert allowed.recv(4000) == data[7000]
        denied.setblocking(False)
        with pytest.raises(BlockingIOError):
            denied.recv(4000)


@VERSIONS
def test_what_a_kernel_fragments_arrives_and_its_answer_too(wire: Stack, version: int) -> None:
    """The answer enters an interface that denies all but answers."""
    with sockets((CLIENT, version, 6002), (SERVER, version, 7000)) as (mine, theirs):
        mine.sendto(b"q" * 5000, (address(SERVER, version), 7000))
        asked, back = theirs.recvfrom(9000)
        assert asked == b"q" * 5000
        theirs.sendto(b"a" * 5000, back)
        assert mine.recv(9000) == b"a" * 5000


@VERSIONS
def test_a_ping_in_fragments_passes_by_its_type(wire: Stack, version: int) -> None:
    ping = ("ip", "netns", "exec", CLIENT.namespace, "ping", "-c", "1", "-W", "10", "-s", "4000")
    assert " 0% packet loss" in run(*ping, address(SERVER, version))


def tagged(frame: bytes, vid: int, ethertype: int = VLAN) -> bytes:
    return frame[:12] + struct.pack("!HH", ethertype, vid) + frame[12:]


def test_a_tag_from_an_endpoint_leads_nowhere(wire: Stack) -> None:
    """Neither into its own network nor into another one, whatever the tag says: vid 10 is lan, 20 is same."""
    plain = frames.ethernet(BLUE1.mac, BLUE2.mac, EXPERIMENT, b"plain")
    assert delivered(BLUE1, {"plain": plain}, BLUE2) == {"plain"}
    tries = {f"{vid} {kind:x}": tagged(plain, vid, kind) for vid in (0, 10, 20) for kind in (VLAN, PROVIDER)}
    tries |= {f"20 in {vid}": tagged(tagged(plain, 20), vid) for vid in (0, 10, 20)}
    bare = {frame[:12] + frame[16:] for frame in tries.values()}
    for receiver in (BLUE2, SERVER):
        with frames.packet_socket(receiver.namespace, "eth0") as ears:
            assert delivered(BLUE1, tries, BLUE2) == set()
            other = BLUE1 if receiver is BLUE2 else CLIENT
            fence = frames.arp(other.mac, op=1, sha=other.mac, spa=other.ip, tpa="10.5.0.77")
            with frames.packet_socket(other.namespace, "eth0") as mouth:
                mouth.send(fence)
            heard = frames.heard_until(ears, fence)
        assert not heard & (bare | set(tries.values()))


def test_two_tenants_of_the_same_addresses_and_macs_do_not_hear_each_other(wire: Stack) -> None:
    for sender, own, foreign in ((BLUE1, BLUE2, SERVER), (CLIENT, SERVER, BLUE2)):
        said = {
            "all": frames.arp(sender.mac, op=2, sha=sender.mac, spa=sender.ip, tpa=sender.ip),
            "one": frames.arp(
                sender.mac, op=2, sha=sender.mac, spa=sender.ip, tha=own.mac, tpa=own.ip, dst=own.mac
            ),
        }
        assert delivered(sender, said, own) == {"all", "one"}
        with frames.packet_socket(foreign.namespace, "eth0") as ears:
            assert delivered(sender, said, own) == {"all", "one"}
            partner = CLIENT if foreign is SERVER else BLUE1
            fence = frames.arp(partner.mac, op=1, sha=partner.mac, spa=partner.ip, tpa="10.5.0.78")
            with frames.packet_socket(partner.namespace, "eth0") as mouth:
                mouth.send(fence)
            assert not frames.heard_until(ears, fence) & set(said.values())


@pytest.mark.parametrize(("target", "header"), [("10.55.0.2", 28), ("fd00:55::2", 48)], ids=["IPv4", "IPv6"])
def test_a_jumbo_frame_crosses_bridges_where_it_is_declared(wire: Stack, target: str, header: int) -> None:
    """9000 octets of IP unfragmented, and not one more: its own kernel says so."""
    ping = ("ip", "netns", "exec", "wi-client", "ping", "-M", "do", "-c", "1", "-W", "10")
    assert " 0% packet loss" in run(*ping, "-s", str(9000 - header), target)
    assert " 0% packet loss" not in run(*ping, "-s", str(9001 - header), target, check=False)


def test_small_frames_arrive_as_they_are(wire: Stack) -> None:
    """The least that Ethernet carries, and what is less: a veth pair does not fill it up."""
    least = frames.ethernet(BLUE1.mac, BLUE2.mac, EXPERIMENT, b"least")
    assert len(least) == 60
    short = {f"{size}": least[:size] for size in (20, 40, 59)}
    assert delivered(BLUE1, {"60": least, **short}, BLUE2) == {"60", *short}
    assert delivered(
        BLUE1, {"broadcast": least.replace(frames.octets(BLUE2.mac), frames.octets(BROADCAST))}, BLUE2
    )


@VERSIONS
def test_padding_is_no_part_of_a_packet(wire: Stack, version: int) -> None:
    """One octet of data in a frame that is filled up, through conntrack, arrives as one octet."""
    with sockets((SERVER, version, 7000)) as (theirs,), frames.packet_socket("wi-client", "eth0") as mouth:
        frame = packet(CLIENT, SERVER, version, UDP, datagram(CLIENT, SERVER, version, 6003, 7000, b"x"))
        mouth.send(frame.ljust(80, b"\0"))
        assert theirs.recv(100) == b"x"
