"""IP packets out of frames, and in words. Pure.

Frames come from anybody and may be anything: no function raises on one.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from struct import unpack_from

ETHERNET = 14
IPV4, IPV6 = 0x0800, 0x86DD
ARP = 0x0806
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132

NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6", SCTP: "sctp"}
"""IANA protocol numbers, by the words of the topology file."""

_PORTED = frozenset({TCP, UDP, SCTP})

_EXTENSIONS = frozenset({0, 43, 60})
"""Hop-by-hop, routing and destination options, RFC 8200 section 4: lengths in 8 octets, after the first."""
_FRAGMENT, _MOST_EXTENSIONS = 44, 8


@dataclass(frozen=True, slots=True)
class IpPacket:
    """An IP packet. whole: without what Ethernet fills up. length: of the payload, as the header says.

    payload: what there is of it. first: no fragment, or the first one.
    """

    version: int
    src_mac: bytes
    dst_mac: bytes
    src: bytes
    dst: bytes
    protocol: int
    whole: bytes
    payload: bytes
    length: int
    first: bool


def version_of(frame: bytes) -> int | None:
    """4 or 6; None where the frame is neither."""
    return {IPV4: 4, IPV6: 6}.get(int.from_bytes(frame[12:ETHERNET], "big"))


def read_ip(frame: bytes) -> IpPacket | None:
    """The IP packet in an Ethernet frame; None where there is none, or its headers are cut off."""
    read = {4: _read_v4, 6: _read_v6}.get(version_of(frame) or 0)
    return None if read is None else read(frame[6:12], frame[:6], frame[ETHERNET:])


def _read_v4(src_mac: bytes, dst_mac: bytes, ip: bytes) -> IpPacket | None:
    if len(ip) < 20 or ip[0] >> 4 != 4:
        return None
    head = (ip[0] & 15) * 4
    total, fragment = unpack_from(">H2xH", ip, 2)
    if not 20 <= head <= min(total, len(ip)):
        return None
    whole = ip[:total]
    return IpPacket(
        4, src_mac, dst_mac, ip[12:16], ip[16:20], ip[9], whole, whole[head:], total - head,
        first=not fragment & 0x1FFF,
    )  # fmt: skip


def _read_v6(src_mac: bytes, dst_mac: bytes, ip: bytes) -> IpPacket | None:
    if len(ip) < 40 or ip[0] >> 4 != 6:
        return None
    (length,) = unpack_from(">H", ip, 4)
    whole = ip[: 40 + length]
    found = _upper_layer(whole)
    if found is None:
        return None
    protocol, at, first = found
    return IpPacket(
        6, src_mac, dst_mac, ip[8:24], ip[24:40], protocol, whole, whole[at:], 40 + length - at, first
    )  # fmt: skip


def _upper_layer(whole: bytes) -> tuple[int, int, bool] | None:
    """(protocol, where it begins, whether it begins in this packet); None where headers are cut off."""
    protocol, at, first = whole[6], 40, True
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS and protocol != _FRAGMENT:
            return protocol, at, first
        if at + 8 > len(whole):
            return None
        if protocol == _FRAGMENT:
            first = not unpack_from(">H", whole, at + 2)[0] & 0xFFF8
            protocol, at = whole[at], at + 8
            if not first:
                return protocol, at, False
        else:
            protocol, at = whole[at], at + 8 + 8 * whole[at + 1]
    return None


def frame_words(frame: bytes) -> str:
    """What a line of a log says of a frame: 'tcp 10.1.0.21:40000 > 10.1.0.11:80'."""
    packet = read_ip(frame)
    if packet is None:
        return _not_ip(frame)
    src, dst = str(ip_address(packet.src)), str(ip_address(packet.dst))
    name = NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    if not packet.first:
        return f"{name} {src} > {dst} (a later fragment)"
    if packet.protocol in _PORTED and len(packet.payload) >= 4:
        ports = unpack_from(">HH", packet.payload)
        if packet.version == 6:
            src, dst = f"[{src}]", f"[{dst}]"
        return f"{name} {src}:{ports[0]} > {dst}:{ports[1]}"
    if packet.protocol in (ICMP, ICMPV6) and len(packet.payload) >= 2:
        return f"{name} type {packet.payload[0]} code {packet.payload[1]} {src} > {dst}"
    return f"{name} {src} > {dst}"


def _not_ip(frame: bytes) -> str:
    if len(frame) < ETHERNET:
        return f"a frame of {len(frame)} bytes"
    kind = int.from_bytes(frame[12:ETHERNET], "big")
    name = {ARP: "arp", IPV4: "ip, cut off", IPV6: "ipv6, cut off"}.get(kind, f"ethertype 0x{kind:04x}")
    return f"{name} {frame[6:12].hex(':')} > {frame[:6].hex(':')}"
