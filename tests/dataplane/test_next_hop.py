"""A router behind an uplink that nobody declared, on a real switch: asked for, learned, and found again."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from instances import Ovs

from tests.packets import checksum, frame
from tests.reference import BROADCAST, Packet
from vswitchctl.compiler.compile import compile_topology
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.intent import Stored, allocate_tags, allocate_zones
from vswitchctl.model.state import Facts
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.punt import PacketIn, PacketOut, answers_of

SECONDS = 20
WEB, FIRST, SECOND = "02:00:00:00:00:0b", "02:00:00:00:00:f1", "02:00:00:00:00:f2"
ENDS = ("web:eth0", "spy:eth0", "wan")
OUTSIDE = {4: ("10.1.0.2", "198.51.100.1"), 6: ("fd00:1::2", "2001:db8:9::1")}
HOP, GATEWAY = {4: "192.0.2.1", 6: "fd00:9::1"}, {4: "192.0.2.254", 6: "fd00:9::fe"}

TOPOLOGY = Topology.model_validate(
    {
        "name": "r",
        "tenants": {"t": {}},
        "networks": {
            "n": {
                "tenant": "t",
                "subnets": ["10.1.0.0/24", "fd00:1::/64"],
                "gateway": ["10.1.0.254", "fd00:1::fe"],
            },
            "out": {
                "tenant": "t",
                "subnets": ["192.0.2.0/24", "fd00:9::/64"],
                "gateway": list(GATEWAY.values()),
            },
        },
        "routers": {
            "r": {
                "tenant": "t",
                "networks": ["n", "out"],
                "routes": [{"to": "0.0.0.0/0", "via": HOP[4]}, {"to": "::/0", "via": HOP[6]}],
            }
        },
        "nodes": {
            "br0": {"kind": "bridge"},
            "web": {
                "kind": "namespace",
                "tenant": "t",
                "interfaces": {
                    "eth0": {"network": "n", "ip": ["10.1.0.2/24", "fd00:1::2/64"], "mac": WEB},
                },
            },
            "spy": {
                "kind": "namespace",
                "tenant": "t",
                "interfaces": {"eth0": {"network": "out", "port_security": False}},
            },
            "wan": {"kind": "uplink", "interface": "eth1", "network": "out"},
        },
        "links": [{"ends": [end, "br0"]} for end in ENDS],
    }
)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def compiled() -> FlowTable:
    stored = Stored(TOPOLOGY, 1, allocate_tags(TOPOLOGY, {}), zones=allocate_zones(TOPOLOGY, {}, ()))
    wiring = compile_wiring(TOPOLOGY, Facts())
    ofports = {key: 1 + ENDS.index(end) for (_, end), key in wiring.ports.items()}
    return compile_topology(stored, Facts(ofports), load_apps()).flows["br0"]


def said(version: int, own: str, dst: str) -> bytes:
    """A router says its MAC: an ARP reply (RFC 826), or an advertisement (RFC 4861 section 4.4)."""
    hop, gateway = ip_address(HOP[version]).packed, ip_address(GATEWAY[version]).packed
    if version == 4:
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac(own) + hop + mac(dst) + gateway
        return mac(dst) + mac(own) + b"\x08\x06" + body + bytes(18)
    body = struct.pack("!BBHI", 136, 0, 0, 0xE0000000) + hop + b"\x02\x01" + mac(own)
    pseudo = hop + gateway + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return (
        mac(dst) + mac(own) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, 32, 58, 255) + hop + gateway + body
    )


@dataclass
class Edge:
    """br0 with the three ports, and a driver whose packets are answered as the daemon does."""

    ovs: Ovs
    read: int = 0

    def __post_init__(self) -> None:
        ports = [
            word
            for number in (1, 2, 3)
            for word in (
                *("--", "add-port", "br0", f"p{number}"),
                *("--", "set", "interface", f"p{number}", "type=dummy", f"ofport_request={number}"),
                f"options:tx_pcap={self.capture(number)}",
            )
        ]
        self.ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure", *ports)
        answers = answers_of(load_apps())

        def answer(packet: PacketIn) -> Iterator[PacketOut]:
            yield from answers[packet.opcode](packet)

        self.driver = OpenFlowDriver(self.ovs.rundir, on_packet=answer)
        self.driver.connect(["br0"])
        assert self.driver.apply("br0", compiled(), ()) == []

    def capture(self, number: int) -> Path:
        return self.ovs.rundir / f"p{number}.pcap"

    def receive(self, number: int, data: bytes) -> None:
        self.ovs.appctl("netdev-dummy/receive", f"p{number}", data.hex())

    def send(self, version: int) -> None:
        """web sends a datagram to the world."""
        gateway = TOPOLOGY.gateway_mac("n")
        self.receive(1, frame(Packet(WEB, gateway, 17, *OUTSIDE[version], 4000, 53)))

    def left(self) -> list[bytes]:
        """What left by the uplink since the last look, out of a file of pcap-savefile(5)."""
        data, found, at = self.capture(3).read_bytes(), [], 24
        while at + 16 <= len(data):
            (length,) = struct.unpack_from("<I", data, at + 8)
            found.append(data[at + 16 : at + 16 + length])
            at += 16 + length
        found, self.read = found[self.read :], len(found)
        return found

    def next(self, kind: Callable[[bytes], bool]) -> list[bytes]:
        """What leaves, up to the first of a kind."""
        end, seen = time.monotonic() + SECONDS, []
        while not any(map(kind, seen)):
            assert time.monotonic() < end, seen
            self.ovs.appctl("version")  # ovs-vswitchd answers once it has worked off what came before
            seen += self.left()
        return seen


def datagram(data: bytes) -> bool:
    return data[23 if data[12:14] == b"\x08\x00" else 20] == 17 and data[12:14] != b"\x08\x06"


def question(data: bytes) -> bool:
    return data[12:14] == b"\x08\x06" or (data[12:14] == b"\x86\xdd" and data[54] == 135)


@pytest.fixture
def edge(make_ovs: Callable[..., Ovs]) -> Iterator[Edge]:
    made = Edge(make_ovs(dummy=True))
    try:
        yield made
    finally:
        made.driver.close()


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_the_first_packet_has_it_asked_and_the_next_goes_there(edge: Edge, version: int) -> None:
    ours = TOPOLOGY.gateway_mac("out")
    edge.send(version)
    (asked,) = edge.next(question)
    assert asked[6:12] == mac(ours)
    hop, gateway = ip_address(HOP[version]).packed, ip_address(GATEWAY[version]).packed
    if version == 4:
        assert asked[:6] == b"\xff" * 6
        assert asked[14:42] == bytes.fromhex("0001080006040001") + mac(ours) + gateway + bytes(6) + hop
    else:
        assert asked[:6] == b"\x33\x33\xff" + hop[-3:]
        assert asked[21] == 255 and asked[22:38] == gateway and asked[62:78] == hop
        assert asked[78:86] == b"\x01\x01" + mac(ours)
        assert checksum(asked[22:54] + struct.pack("!II", 32, 58) + asked[54:86]) == 0
    edge.receive(3, said(version, FIRST, ours))
    edge.send(version)
    (sent,) = edge.next(datagram)
    assert (sent[:6], sent[6:12]) == (mac(FIRST), mac(ours))
    assert sent[22 if version == 4 else 21] == (63 if version == 4 else 254), "one hop less"


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_a_mac_that_changed_is_taken_over_from_the_uplink_alone(edge: Edge, version: int) -> None:
    ours = TOPOLOGY.gateway_mac("out")
    edge.receive(3, said(version, FIRST, ours))
    edge.receive(2, said(version, SECOND, ours))
    edge.send(version)
    assert edge.next(datagram)[-1][:6] == mac(FIRST), "spy is not behind the uplink"
    edge.receive(3, said(version, SECOND, BROADCAST if version == 4 else "33:33:00:00:00:01"))
    edge.send(version)
    assert edge.next(datagram)[-1][:6] == mac(SECOND)


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_packets_go_on_while_an_old_mac_is_asked_for_again(edge: Edge, version: int) -> None:
    edge.receive(3, said(version, FIRST, TOPOLOGY.gateway_mac("out")))
    edge.ovs.ofctl("--strict", "del-flows", "br0", "table=85,priority=2," + learned(edge, version))
    edge.send(version)
    seen = edge.next(question)
    seen += edge.next(datagram) if not any(map(datagram, seen)) else []
    assert next(filter(datagram, seen))[:6] == mac(FIRST)


def learned(edge: Edge, version: int) -> str:
    """The match of the flow that was learned and ends soon."""
    (line,) = [
        line
        for line in edge.ovs.ofctl("dump-flows", "br0", "table=85").splitlines()
        if "hard_timeout" in line
    ]
    (match,) = [word for word in line.split() if word.startswith("priority=2,")]
    return match.removeprefix("priority=2,")


def test_a_question_of_the_next_hop_is_an_answer_too(edge: Edge) -> None:
    asks = bytearray(said(4, FIRST, BROADCAST))
    asks[21] = 1
    edge.receive(3, bytes(asks))
    (answer,) = edge.next(question)
    assert answer[:6] == mac(FIRST) and answer[20:22] == b"\0\x02"
    edge.send(4)
    assert edge.next(datagram)[-1][:6] == mac(FIRST)
    assert edge.driver.read("br0").owned == compiled(), "what was learned is no drift"
