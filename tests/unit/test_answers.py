"""What a sender is told: resets and ICMP errors, read by os-ken, and everything that gets no answer."""

from __future__ import annotations

import os

os.environ.setdefault("OSKEN_HUB_TYPE", "native")

from dataclasses import replace
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, icmp, icmpv6, ipv4, ipv6, packet, packet_utils, tcp

from openflow_apps import answers
from tests.packets import checksum, frame
from tests.reference import BROADCAST, Packet

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
SYN = Packet(A, B, 6, "10.1.0.1", "10.1.0.2", 40000, 80, step="syn")
UDP = Packet(A, B, 17, "10.1.0.1", "10.1.0.2", 40000, 53)
ECHO = Packet(A, B, 1, "10.1.0.1", "10.1.0.2", 7, 7, icmp_type=8)
GRE = Packet(A, B, 47, "10.1.0.1", "10.1.0.2")
V6 = {"src": "fd00:1::1", "dst": "fd00:1::2"}
RST, ACK = 4, 16


def both(sent: Packet) -> list[Packet]:
    other = replace(sent, **V6)
    if sent.protocol == 1:
        other = replace(other, protocol=58, icmp_type=128)
    return [sent, other]


def read(data: bytes | None) -> dict[str, Any]:
    assert data is not None
    found = {layer.protocol_name: layer for layer in packet.Packet(data) if not isinstance(layer, bytes)}
    assert isinstance(found["ethernet"], ethernet.ethernet)
    return found


def parts(data: bytes) -> tuple[bytes, bytes, int]:
    """IP header, payload, protocol."""
    head = 34 if data[12:14] == b"\x08\x00" else 54
    return data[14:head], data[head:], data[23] if head == 34 else data[20]


def adds_up(data: bytes) -> bool:
    """Whether every checksum holds, RFC 1071."""
    ip, body, protocol = parts(data)
    if len(ip) == 20 and checksum(ip):
        return False
    pseudo = (ip[12:20] if len(ip) == 20 else ip[8:40]) + pack(">II", len(body), protocol)
    return checksum((b"" if protocol == 1 else pseudo) + body) == 0


def segment(version: int, flags: int, seq: int, ack: int, data: bytes = b"") -> bytes:
    sent = both(SYN)[version == 6]
    whole = bytearray(frame(sent)) + data
    at = 34 if version == 4 else 54
    whole[at + 4 : at + 12] = pack(">II", seq, ack)
    whole[at + 13] = flags
    length = 16 if version == 4 else 18
    whole[length : length + 2] = pack(">H", len(whole) - (14 if version == 4 else 54))
    return bytes(whole)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("flags", "seq", "ack", "data", "expected"),
    [
        (2, 100, 0, b"", (0, 101, RST | ACK)),
        (2, 0xFFFFFFFF, 0, b"", (0, 0, RST | ACK)),
        (1, 100, 0, b"abc", (0, 104, RST | ACK)),
        (16, 100, 777, b"abc", (777, 0, RST)),
        (18, 100, 777, b"", (777, 0, RST)),
    ],
    ids=["SYN", "SYN at the end of numbers", "FIN with data", "data with ACK", "SYN+ACK"],
)
def test_a_segment_is_reset_as_if_nobody_listened(
    version: int, flags: int, seq: int, ack: int, data: bytes, expected: tuple[int, int, int]
) -> None:
    reset = answers.tcp_reset(segment(version, flags, seq, ack, data))
    layers = read(reset)
    got = layers["tcp"]
    assert isinstance(got, tcp.tcp)
    assert (got.seq, got.ack, got.bits) == expected
    assert (got.src_port, got.dst_port) == (80, 40000)
    outer = layers["ipv4"] if version == 4 else layers["ipv6"]
    assert (outer.src, outer.dst) == (both(SYN)[version == 6].dst, both(SYN)[version == 6].src)
    assert (layers["ethernet"].src, layers["ethernet"].dst) == (B, A)
    assert reset is not None and adds_up(reset)
    assert answers.reject(segment(version, flags, seq, ack, data)) == reset


@pytest.mark.parametrize("version", [4, 6])
def test_a_reset_is_never_answered(version: int) -> None:
    assert answers.reject(segment(version, RST | ACK, 100, 5)) is None


@pytest.mark.parametrize(
    ("sent", "kind"),
    [(UDP, (3, 3)), (ECHO, (3, 13)), (GRE, (3, 13))],
    ids=["UDP", "echo request", "GRE"],
)
def test_an_error_says_that_it_is_prohibited_and_quotes_the_packet(
    sent: Packet, kind: tuple[int, int]
) -> None:
    told = answers.reject(frame(sent))
    layers = read(told)
    got, outer = layers["icmp"], layers["ipv4"]
    assert isinstance(got, icmp.icmp) and isinstance(outer, ipv4.ipv4)
    assert (got.type, got.code) == kind
    assert (outer.src, outer.dst, outer.ttl, outer.tos) == ("10.1.0.2", "10.1.0.1", 64, 0xC0)
    assert told is not None and adds_up(told)
    assert told.endswith(frame(sent)[14:])


@pytest.mark.parametrize(("sent", "kind"), [(UDP, (1, 4)), (ECHO, (1, 1)), (GRE, (1, 1))])
def test_so_does_one_of_ipv6(sent: Packet, kind: tuple[int, int]) -> None:
    asked = frame(both(sent)[1])
    told = answers.reject(asked)
    layers = read(told)
    got, outer = layers["icmpv6"], layers["ipv6"]
    assert isinstance(got, icmpv6.icmpv6) and isinstance(outer, ipv6.ipv6)
    assert (got.type_, got.code) == kind
    assert (outer.src, outer.dst, outer.hop_limit) == ("fd00:1::2", "fd00:1::1", 64)
    assert told is not None and adds_up(told)
    assert told.endswith(asked[14:])


@pytest.mark.parametrize(("version", "longest"), [(4, 576), (6, 1280)])
def test_an_error_quotes_no_more_than_it_may(version: int, longest: int) -> None:
    sent = bytearray(frame(both(UDP)[version == 6]) + bytes(1400))
    at = 16 if version == 4 else 18
    sent[at : at + 2] = pack(">H", len(sent) - (14 if version == 4 else 54))
    told = answers.reject(bytes(sent))
    assert told is not None and len(told) == 14 + longest and adds_up(told)


def test_what_ethernet_fills_up_is_not_quoted() -> None:
    assert answers.reject(frame(UDP) + bytes(14)) == answers.reject(frame(UDP))


def test_a_gateway_says_that_time_is_exceeded() -> None:
    mac, address = bytes.fromhex("020000000001"), bytes([10, 1, 0, 254])
    told = answers.icmp_error(frame(UDP), *answers.TIME_EXCEEDED[4], mac, address)
    layers = read(told)
    assert (layers["icmp"].type, layers["icmp"].code, layers["ipv4"].src) == (11, 0, "10.1.0.254")
    assert layers["ethernet"].src == "02:00:00:00:00:01"
    assert answers.icmp_error(frame(UDP), 11, 0, mac, bytes(16)) is None, "an address of the other version"


def with_bytes(data: bytes, at: int, *new: int) -> bytes:
    return data[:at] + bytes(new) + data[at + len(new) :]


IPV4_UDP, IPV6_UDP = frame(UDP), frame(both(UDP)[1])
SILENT = {
    "broadcast frame": frame(replace(UDP, dst_mac=BROADCAST)),
    "multicast address": with_bytes(IPV4_UDP, 30, 224, 0, 0, 1),
    "broadcast address": with_bytes(IPV4_UDP, 30, 255, 255, 255, 255),
    "from nowhere": with_bytes(IPV4_UDP, 26, 0, 0, 0, 0),
    "from the loopback": with_bytes(IPV4_UDP, 26, 127, 0, 0, 1),
    "from a group": with_bytes(IPV4_UDP, 26, 239, 0, 0, 1),
    "later fragment": with_bytes(IPV4_UDP, 20, 0, 1),
    "IPv6 multicast": with_bytes(IPV6_UDP, 38, 0xFF),
    "IPv6 from nowhere": with_bytes(IPV6_UDP, 22, *bytes(16)),
    "IPv6 later fragment": with_bytes(IPV6_UDP, 20, 44)[:54] + bytes([17, 0, 0, 8, 0, 0, 0, 1]) + bytes(20),
    "no end of extensions": with_bytes(IPV6_UDP, 20, 0)[:54] + bytes(400),
    "ARP": frame(Packet(A, BROADCAST, src="10.1.0.1", arp=True)),
    "not IP": frame(Packet(A, B)),
    "nothing": b"",
    **{f"ICMP error {kind}": frame(replace(ECHO, icmp_type=kind)) for kind in (3, 4, 5, 11, 12)},
    **{f"ICMPv6 error {kind}": frame(replace(both(ECHO)[1], icmp_type=kind)) for kind in (1, 2, 3, 4, 137)},
}


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
def test_what_must_not_be_answered_is_not(sent: bytes) -> None:
    assert answers.reject(sent) is None
    assert answers.icmp_error(sent, 11, 0, bytes(6), bytes(4)) is None
    assert answers.icmp_error(sent, 3, 0, bytes(6), bytes(16)) is None


def test_extension_headers_are_passed_over() -> None:
    """Hop-by-hop options of 8 bytes, then a first fragment, then UDP."""
    inner = IPV6_UDP[54:]
    chain = bytes([44, 0, 1, 4, 0, 0, 0, 0]) + bytes([17, 0, 0, 1, 0, 0, 0, 9]) + inner
    sent = with_bytes(IPV6_UDP[:54], 18, *pack(">H", len(chain)), 0) + chain
    layers = read(answers.reject(sent))
    assert (layers["icmpv6"].type_, layers["icmpv6"].code) == answers.PORT_UNREACHABLE[6]


def test_no_answer_is_answered() -> None:
    for sent in (SYN, UDP, ECHO, GRE):
        for asked in both(sent):
            told = answers.reject(frame(asked))
            assert told is not None
            assert answers.reject(told) is None


HEADS = st.sampled_from([frame(each)[:14] for each in both(UDP)])
REAL = st.sampled_from([frame(each) for sent in (SYN, UDP, ECHO, GRE) for each in both(sent)])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    whole = bytearray(draw(REAL))
    for at, value in draw(st.lists(st.tuples(st.integers(12, 80), st.integers(0, 255)), max_size=6)):
        if at < len(whole):
            whole[at] = value
    return bytes(whole[: draw(st.integers(0, 200))])


@given(
    st.one_of(st.binary(max_size=200), st.builds(bytes.__add__, HEADS, st.binary(max_size=150)), damaged())
)
def test_any_bytes_are_answered_well_or_not_at_all(data: bytes) -> None:
    for told in (answers.reject(data), answers.icmp_error(data, 11, 0, bytes([2, 0, 0, 0, 0, 1]), bytes(4))):
        if told is not None:
            assert len(told) <= 14 + 1280
            assert adds_up(told)
            assert told[:6] == data[6:12]
            assert answers.reject(told) is None


def test_os_ken_agrees_about_checksums() -> None:
    assert packet_utils.checksum(b"\x01\x02\x03") == checksum(b"\x01\x02\x03")
