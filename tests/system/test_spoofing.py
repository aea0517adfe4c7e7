"""Port security, and answers to ARP and neighbour discovery, on real Open vSwitch with real frames."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import frames
from tests.frames import BROADCAST, EXPERIMENT, SOURCE_OPTION, TARGET_OPTION, Host, neighbour
from tests.system.conftest import ROOT, TOPOLOGIES, Stack, run, until
from vswitchctl.drivers.probe import probe
from vswitchctl.topology.load import load_text
from vswitchctl.topology.reachability import difference, expected_pairs

EDGE = """
name: edge
tenants: {red: {}, blue: {}}
networks:
  lan: {tenant: red, subnets: [10.7.0.0/24, "2001:db8:7::/64"]}
  other: {tenant: blue, subnets: [10.7.0.0/24, "2001:db8:7::/64"]}
nodes:
  ed-a: {kind: bridge}
  ed-b: {kind: bridge}
  ed-host:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, ip: [10.7.0.1/24, "2001:db8:7::1/64"], mac: "02:00:00:00:07:01"}}
  ed-free:
    kind: namespace
    tenant: red
    interfaces:
      eth0:
        network: lan
        ip: [10.7.0.2/24, "2001:db8:7::2/64"]
        mac: "02:00:00:00:07:02"
        port_security: false
  ed-server:
    kind: namespace
    tenant: red
    interfaces:
      eth0:
        network: lan
        ip: [10.7.0.3/24, "2001:db8:7::3/64"]
        mac: "02:00:00:00:07:03"
        dhcp_server: true
        router: true
        allowed: [{mac: "00:00:5e:00:01:07", ip: 10.7.0.100}, {ip: 10.8.0.0/24}, {ip: "2001:db8:8::/64"}]
  ed-bare:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, mac: "02:00:00:00:07:04"}}
  ed-victim:
    kind: namespace
    tenant: red
    interfaces: {eth0: {network: lan, ip: [10.7.0.9/24, "2001:db8:7::9/64"], mac: "02:00:00:00:07:09"}}
  ed-blue1:
    kind: namespace
    tenant: blue
    interfaces: {eth0: {network: other, ip: [10.7.0.1/24, "2001:db8:7::1/64"], mac: "02:00:00:00:07:01"}}
  ed-blue9:
    kind: namespace
    tenant: blue
    interfaces: {eth0: {network: other, ip: [10.7.0.9/24, "2001:db8:7::9/64"], mac: "02:00:00:00:b7:09"}}
links:
  - {ends: [ed-a, ed-b], kind: veth}
  - {ends: ["ed-host:eth0", ed-a]}
  - {ends: ["ed-free:eth0", ed-a]}
  - {ends: ["ed-server:eth0", ed-a]}
  - {ends: ["ed-bare:eth0", ed-a]}
  - {ends: ["ed-victim:eth0", ed-b]}
  - {ends: ["ed-blue1:eth0", ed-a]}
  - {ends: ["ed-blue9:eth0", ed-b]}
"""

HOST = Host("ed-host", "02:00:00:00:07:01", "10.7.0.1", "2001:db8:7::1")
FREE = Host("ed-free", "02:00:00:00:07:02", "10.7.0.2", "2001:db8:7::2")
SERVER = Host("ed-server", "02:00:00:00:07:03", "10.7.0.3", "2001:db8:7::3")
BARE = Host("ed-bare", "02:00:00:00:07:04", "10.7.0.44", "2001:db8:7::44")
VICTIM = Host("ed-victim", "02:00:00:00:07:09", "10.7.0.9", "2001:db8:7::9")
STRANGER = Host("", "02:00:00:00:07:66", "10.7.0.66", "2001:db8:7::66")
VRRP_MAC = "00:00:5e:00:01:07"

NS, NA, RS, RA, REDIRECT, MLD2 = 135, 136, 133, 134, 137, 143
MLD2_REPORT = bytes(4)
"""A report of no record, RFC 3810 section 5.2: reserved, and their number."""

_numbers = itertools.count(1)


@pytest.fixture
def edge(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    file = tmp_path / "edge.yaml"
    file.write_text(EDGE)
    stack.apply(file)
    for host in (HOST, FREE, SERVER, VICTIM):
        inside = ("ip", "-n", host.namespace, "-6", "address", "show", "tentative")
        until(lambda inside=inside: not run(*inside), "duplicate address detection is over")
    yield stack
    stack.cli("destroy", "edge", "--yes")


def delivered(sender: Host, tried: Mapping[str, bytes], receiver: Host = VICTIM) -> set[str]:
    """Which of these frames the receiver hears. A good one after them shows that no other is on its way."""
    fence = frames.ethernet(sender.mac, receiver.mac, EXPERIMENT, b"fence %d" % next(_numbers))
    with (
        frames.packet_socket(receiver.namespace, "eth0") as ears,
        frames.packet_socket(sender.namespace, "eth0") as mouth,
    ):
        for frame in (*tried.values(), fence):
            mouth.send(frame)
        heard = frames.heard_until(ears, fence)
    return {name for name, frame in tried.items() if frame in heard}


def poison(me: Host, other: Host) -> dict[str, bytes]:
    """`me` says that the other's addresses are at its MAC, in every way there is."""
    to = (me.mac, VICTIM.mac)
    all_nodes = (me.mac, frames.ALL_NODES_MAC, me.ip6, frames.ALL_NODES)
    own = (TARGET_OPTION, me.mac)
    return {
        "ARP reply": frames.arp(
            me.mac, op=2, sha=me.mac, spa=other.ip, tha=VICTIM.mac, tpa=VICTIM.ip, dst=VICTIM.mac
        ),
        "gratuitous ARP": frames.arp(me.mac, op=2, sha=me.mac, spa=other.ip, tpa=other.ip),
        "ARP for another MAC": frames.arp(me.mac, op=2, sha=other.mac, spa=me.ip, tpa=VICTIM.ip),
        "advertisement": frames.icmpv6(*to, me.ip6, VICTIM.ip6, NA, neighbour(other.ip6, own)),
        "unsolicited advertisement": frames.icmpv6(
            *all_nodes, NA, neighbour(other.ip6, own, flags=1 << 29)
        ),
        "advertisement of another MAC": frames.icmpv6(
            *to, me.ip6, VICTIM.ip6, NA, neighbour(me.ip6, (TARGET_OPTION, STRANGER.mac))
        ),
        "advertisement with code": frames.icmpv6(
            *to, me.ip6, VICTIM.ip6, NA, neighbour(me.ip6, own), code=1
        ),
        "solicitation of another MAC": frames.icmpv6(
            *to, me.ip6, VICTIM.ip6, NS, neighbour(VICTIM.ip6, (SOURCE_OPTION, STRANGER.mac))
        ),
        "solicitation from another address": frames.icmpv6(
            *to, other.ip6, VICTIM.ip6, NS, neighbour(VICTIM.ip6, (SOURCE_OPTION, me.mac))
        ),
        "solicitation with two options": frames.icmpv6(
            *to, me.ip6, VICTIM.ip6, NS,
            neighbour(VICTIM.ip6, (SOURCE_OPTION, STRANGER.mac), (SOURCE_OPTION, me.mac)),
        ),
    }  # fmt: skip


def pose(me: Host, other: Host) -> dict[str, bytes]:
    """`me` sends with another's MAC or address."""
    return {
        "another MAC": frames.ethernet(STRANGER.mac, VICTIM.mac, EXPERIMENT, b"stranger"),
        "another MAC, IPv4": frames.ipv4(STRANGER.mac, VICTIM.mac, me.ip, VICTIM.ip, 17, frames.udp(9, 9)),
        "another IPv4": frames.ipv4(me.mac, VICTIM.mac, other.ip, VICTIM.ip, 17, frames.udp(9, 9)),
        "another IPv6": frames.ipv6(me.mac, VICTIM.mac, other.ip6, VICTIM.ip6, 17, frames.udp(9, 9)),
        "another link-local address": frames.ipv6(
            me.mac, VICTIM.mac, "fe80::66", VICTIM.ip6, 17, frames.udp(9, 9)
        ),
        "no IPv4 address": frames.ipv4(me.mac, VICTIM.mac, "0.0.0.0", VICTIM.ip, 17, frames.udp(9, 9)),
        "no IPv6 address": frames.ipv6(me.mac, VICTIM.mac, "::", VICTIM.ip6, 17, frames.udp(9, 9)),
    }


def rogue(me: Host) -> dict[str, bytes]:
    """`me` plays a DHCP server and a router."""
    to = (me.mac, VICTIM.mac, me.ip, VICTIM.ip, 17)
    to6 = (me.mac, VICTIM.mac, me.ip6, VICTIM.ip6)
    return {
        "DHCP offer": frames.ipv4(*to, frames.udp(67, 68)),
        "DHCP from its port": frames.ipv4(*to, frames.udp(67, 9)),
        "DHCP to the client's port": frames.ipv4(*to, frames.udp(9, 68)),
        "DHCPv6 reply": frames.ipv6(*to6, 17, frames.udp(547, 546)),
        "DHCPv6 from its port": frames.ipv6(*to6, 17, frames.udp(547, 9)),
        "DHCPv6 to the client's port": frames.ipv6(*to6, 17, frames.udp(9, 546)),
        "router advertisement": frames.icmpv6(
            me.mac, frames.ALL_NODES_MAC, me.ip6, frames.ALL_NODES, RA, bytes(12)
        ),
        "redirect": frames.icmpv6(*to6, REDIRECT, bytes(36)),
    }


def honest(me: Host) -> dict[str, bytes]:
    """What every host sends, with and without an address."""
    link_local = str(
        frames.IPv6Address(int(frames.IPv6Address("fe80::ff:fe00:0")) | int(me.mac[-5:-3] + me.mac[-2:], 16))
    )
    everyone = (me.mac, frames.ALL_NODES_MAC)
    return {
        "its MAC": frames.ethernet(me.mac, VICTIM.mac, EXPERIMENT, b"honest"),
        "IPv4": frames.ipv4(me.mac, VICTIM.mac, me.ip, VICTIM.ip, 17, frames.udp(9, 9)),
        "IPv6": frames.ipv6(me.mac, VICTIM.mac, me.ip6, VICTIM.ip6, 17, frames.udp(9, 9)),
        "link-local": frames.ipv6(me.mac, VICTIM.mac, link_local, VICTIM.ip6, 17, frames.udp(9, 9)),
        "DHCP discover": frames.ipv4(me.mac, BROADCAST, "0.0.0.0", "255.255.255.255", 17, frames.udp(68, 67)),
        "ARP for nobody's address": frames.arp(me.mac, op=1, sha=me.mac, spa=me.ip, tpa="10.7.0.77"),
        "ARP probe of its own": frames.arp(me.mac, op=1, sha=me.mac, spa="0.0.0.0", tpa=me.ip),
        "gratuitous ARP": frames.arp(me.mac, op=1, sha=me.mac, spa=me.ip, tpa=me.ip),
        "unicast ARP": frames.arp(me.mac, op=1, sha=me.mac, spa=me.ip, tpa=VICTIM.ip, dst=VICTIM.mac),
        "ARP reply": frames.arp(
            me.mac, op=2, sha=me.mac, spa=me.ip, tha=VICTIM.mac, tpa=VICTIM.ip, dst=VICTIM.mac
        ),
        "duplicate address detection": frames.icmpv6(
            *everyone, "::", "ff02::1:ff00:1", NS, neighbour(me.ip6)
        ),
        "duplicate address detection, link-local": frames.icmpv6(
            *everyone, "::", "ff02::1:ff00:1", NS, neighbour(link_local)
        ),
        "solicitation of nobody's address": frames.icmpv6(
            *everyone, me.ip6, frames.ALL_NODES, NS, neighbour("2001:db8:7::77", (SOURCE_OPTION, me.mac))
        ),
        "unicast solicitation": frames.icmpv6(
            me.mac, VICTIM.mac, me.ip6, VICTIM.ip6, NS, neighbour(VICTIM.ip6, (SOURCE_OPTION, me.mac))
        ),
        "unsolicited advertisement": frames.icmpv6(
            *everyone, me.ip6, frames.ALL_NODES, NA, neighbour(me.ip6, (TARGET_OPTION, me.mac))
        ),
        "MLD report without an address": frames.icmpv6(*everyone, "::", "ff02::16", MLD2, MLD2_REPORT),
        "router solicitation": frames.icmpv6(*everyone, link_local, "ff02::2", RS, bytes(4)),
    }  # fmt: skip


def test_a_host_sends_as_itself_and_as_nobody_else(edge: Stack) -> None:
    assert delivered(HOST, honest(HOST)) == set(honest(HOST))
    attacks = {**poison(HOST, SERVER), **pose(HOST, SERVER), **rogue(HOST)}
    assert len(attacks) == 25
    assert delivered(HOST, attacks) == set()


def test_without_port_security_the_same_frames_get_through(edge: Stack) -> None:
    """Which is what shows that the test before it is one."""
    attacks = {**poison(FREE, SERVER), **pose(FREE, SERVER), **rogue(FREE), **honest(FREE)}
    assert delivered(FREE, attacks) == set(attacks)


def test_an_interface_without_addresses_has_its_mac_checked_alone(edge: Stack) -> None:
    assert delivered(BARE, honest(BARE)) == set(honest(BARE))
    lies = {**poison(BARE, SERVER), **pose(BARE, SERVER)}
    about_macs = {name for name in lies if "another MAC" in name or "code" in name or "two options" in name}
    assert delivered(BARE, lies) == set(lies) - about_macs
    assert delivered(BARE, rogue(BARE)) == set()


def test_servers_routers_and_allowed_pairs(edge: Stack) -> None:
    assert delivered(SERVER, {**honest(SERVER), **rogue(SERVER)}) == {*honest(SERVER), *rogue(SERVER)}
    allowed = {
        "the virtual router": frames.ipv4(VRRP_MAC, VICTIM.mac, "10.7.0.100", VICTIM.ip, 112, b"vrrp"),
        "its ARP": frames.arp(VRRP_MAC, op=2, sha=VRRP_MAC, spa="10.7.0.100", tpa="10.7.0.100"),
        "a subnet behind it": frames.ipv4(
            SERVER.mac, VICTIM.mac, "10.8.0.5", VICTIM.ip, 17, frames.udp(9, 9)
        ),
        "one of IPv6": frames.ipv6(
            SERVER.mac, VICTIM.mac, "2001:db8:8::5", VICTIM.ip6, 17, frames.udp(9, 9)
        ),
    }  # fmt: skip
    assert delivered(SERVER, allowed) == set(allowed)
    refused = {
        "the pair's MAC with its own address": frames.ipv4(
            VRRP_MAC, VICTIM.mac, SERVER.ip, VICTIM.ip, 17, frames.udp(9, 9)
        ),
        "its own MAC with the pair's address": frames.ipv4(
            SERVER.mac, VICTIM.mac, "10.7.0.100", VICTIM.ip, 17, frames.udp(9, 9)
        ),
        "beside the subnet": frames.ipv4(SERVER.mac, VICTIM.mac, "10.9.0.5", VICTIM.ip, 17, frames.udp(9, 9)),
    }
    assert delivered(SERVER, {**refused, **pose(SERVER, HOST)}) == set()
    there = {"to the virtual router": frames.ethernet(VICTIM.mac, VRRP_MAC, EXPERIMENT, b"learned")}
    assert delivered(VICTIM, there, SERVER) == set(there), "an allowed MAC is learned, so answers find it"


def link_device() -> str:
    """One end of the veth between the bridges."""
    links = json.loads(run("ip", "-j", "-details", "link", "show"))
    found = [link["ifname"] for link in links if link.get("ifalias", "").endswith("edge/links/ed-a--ed-b")]
    assert len(found) == 2, links
    return str(found[0])


def questions(heard: set[bytes]) -> set[bytes]:
    """ARP requests to all, and solicitations to a group that name their sender, with a tag or without."""
    found = set()
    for frame in heard:
        at = 16 if frame[12:14] == b"\x81\x00" else 12
        body = frame[at + 2 :]
        if frame[at : at + 2] == b"\x08\x06" and frame[0] & 1 and body[6:8] == b"\x00\x01":
            found.add(body[24:28])
        if frame[at : at + 2] == b"\x86\xdd" and frame[0] & 1 and body[6] == 58 and body[40] == NS:
            found |= {body[48:64]} if body[8:24] != bytes(16) else set()
    return found


def test_questions_for_known_addresses_stay_off_links(edge: Stack) -> None:
    unknown = frames.IPv4Address("10.7.0.77").packed, frames.IPv6Address("2001:db8:7::77").packed
    last = frames.ethernet(HOST.mac, VICTIM.mac, EXPERIMENT, b"last of all")
    device = link_device()
    with (
        frames.packet_socket(None, device) as link,
        frames.packet_socket(VICTIM.namespace, "eth0") as victim,
        frames.packet_socket(HOST.namespace, "eth0") as mouth,
    ):
        for address in (VICTIM.ip, VICTIM.ip6):
            run("ip", "netns", "exec", HOST.namespace, "ping", "-c", "1", "-W", "5", address)
        for name in ("ARP for nobody's address", "solicitation of nobody's address"):
            mouth.send(honest(HOST)[name])
        mouth.send(last)
        frames.heard_until(victim, last)
        asked = questions(everything(link))
    assert asked == set(unknown), "those that only others can answer, which shows that we would see the rest"
    known = run("ip", "-n", HOST.namespace, "neigh", "show")
    for address in (VICTIM.ip, VICTIM.ip6):
        assert f"{address} dev eth0 lladdr {VICTIM.mac}" in known


def everything(sock: socket.socket) -> set[bytes]:
    """What waits in the socket, either direction."""
    sock.setblocking(False)
    heard: set[bytes] = set()
    while True:
        try:
            heard.add(sock.recv(65535))
        except BlockingIOError:
            return heard


def answers(sender: Host, question: bytes) -> set[bytes]:
    """What comes back to the sender's own port until a frame of the victim's does."""
    fence = frames.ethernet(VICTIM.mac, sender.mac, EXPERIMENT, b"fence %d" % next(_numbers))
    with (
        frames.packet_socket(sender.namespace, "eth0") as mouth,
        frames.packet_socket(VICTIM.namespace, "eth0") as victim,
    ):
        assert delivered_after(mouth, question, sender)
        victim.send(fence)
        return {frame for frame in frames.heard_until(mouth, fence) if frame[12:14] == b"\x08\x06"}


def delivered_after(mouth: socket.socket, question: bytes, sender: Host) -> bool:
    mouth.send(question)
    return delivered(sender, {}) == set()


def test_answers_are_right_and_a_conflict_is_told_to_the_newcomer_alone(edge: Stack) -> None:
    probe_of_victim = frames.arp(HOST.mac, op=1, sha=HOST.mac, spa="0.0.0.0", tpa=VICTIM.ip)
    told = frames.arp(
        VICTIM.mac, op=2, sha=VICTIM.mac, spa=VICTIM.ip, tha=HOST.mac, tpa="0.0.0.0", dst=HOST.mac
    )
    assert told in answers(HOST, probe_of_victim)
    own = frames.arp(HOST.mac, op=1, sha=HOST.mac, spa="0.0.0.0", tpa=HOST.ip)
    assert not any(frame[28:32] == frames.IPv4Address(HOST.ip).packed for frame in answers(HOST, own))
    pair = frames.arp(HOST.mac, op=1, sha=HOST.mac, spa=HOST.ip, tpa="10.7.0.100")
    assert not answers(HOST, pair), "an address that may move is not answered for"


def test_tenants_with_the_same_addresses_get_their_own_answers(edge: Stack) -> None:
    blue = Host("ed-blue1", HOST.mac, HOST.ip, HOST.ip6)
    for host, mac in ((HOST, VICTIM.mac), (blue, "02:00:00:00:b7:09")):
        for address in (VICTIM.ip, VICTIM.ip6):
            run("ip", "netns", "exec", host.namespace, "ping", "-c", "1", "-W", "5", address)
            assert f"lladdr {mac}" in run("ip", "-n", host.namespace, "neigh", "show", address)


def test_an_address_that_is_taken_fails_duplicate_address_detection(edge: Stack) -> None:
    """Of IPv6, from a port that may lie: its owner hears the question, and answers."""
    run("ip", "-n", FREE.namespace, "address", "add", f"{VICTIM.ip6}/64", "dev", "eth0")
    shown = ("ip", "-n", FREE.namespace, "-6", "address", "show", "dadfailed")
    until(lambda: VICTIM.ip6 in run(*shown), "the address is found to be taken")
    run("ip", "-n", FREE.namespace, "address", "del", f"{VICTIM.ip6}/64", "dev", "eth0")


def test_everybody_still_reaches_everybody(edge: Stack) -> None:
    topology = load_text(EDGE, "yaml").require()
    found = difference(probe(topology), expected_pairs(topology))
    assert not found, found


def test_what_the_readme_shows(stack: Stack) -> None:
    stack.apply(TOPOLOGIES / "two-tenants.yaml")
    lines = re.findall(
        r"^ip netns exec red-web1 .*10\.1\.0\.(?:66|12).*$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(lines) == 4
    codes = [subprocess.run(shlex.split(line), capture_output=True, check=False).returncode for line in lines]
    assert codes == [0, 1, 0, 0]
    lies = stack.ofctl("dump-flows", "br-a", "table=10,arp")
    (dropped,) = [line for line in lies.splitlines() if "priority=105" in line]
    assert " n_packets=0," not in dropped
    run("ip", "netns", "exec", "red-web1", "ping", "-c", "1", "-W", "5", "10.2.0.15")
