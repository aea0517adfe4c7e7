"""The packets of tests/reference.py as bytes, with checksums, so that conntrack takes them for real."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from tests.reference import Packet

SYN, ACK, PUSH = 2, 16, 8
SEQUENCE = {"syn": (100, 0, SYN), "synack": (500, 101, SYN | ACK), "ack": (101, 501, ACK)}
"""Sequence and acknowledgement numbers and flags of a handshake, RFC 9293 section 3.5."""


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _segment(packet: Packet, pseudo: bytes) -> bytes:
    assert packet.protocol is not None
    if packet.protocol == 6:
        seq, ack, flags = SEQUENCE[packet.step]
        head = struct.pack("!HHIIBBHHH", packet.a, packet.b, seq, ack, 5 << 4, flags, 8192, 0, 0)
        at, whole = 16, head
    elif packet.protocol == 17:
        whole = struct.pack("!HHHH", packet.a, packet.b, 12, 0) + b"data"
        at = 6
    elif packet.protocol in (1, 58):
        whole = struct.pack("!BBHHH", packet.icmp_type, 0, 0, packet.a, 1) + b"ping"
        at = 2
        if packet.protocol == 1:
            return _with(whole, at, checksum(whole))
    else:
        return b"any data"
    length = struct.pack("!I", len(whole)) + bytes([0, 0, 0, packet.protocol])
    return _with(whole, at, checksum(pseudo + length + whole))


def _with(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + struct.pack("!H", value) + data[at + 2 :]


def frame(packet: Packet) -> bytes:
    head = _mac(packet.dst_mac) + _mac(packet.src_mac)
    if packet.arp:
        # An announcement by reply (RFC 826), which a switch that answers requests leaves alone, too.
        own = _mac(packet.src_mac) + ip_address(packet.src).packed
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + own + own
        return head + struct.pack("!H", 0x0806) + body + bytes(18)
    if packet.protocol is None:
        return head + struct.pack("!H", 0x88B5) + bytes(46)
    src, dst = ip_address(packet.src).packed, ip_address(packet.dst).packed
    if packet.version == 4:
        body = _segment(packet, src + dst)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, packet.protocol, 0) + src + dst
        return head + struct.pack("!H", 0x0800) + _with(ip, 10, checksum(ip)) + body
    body = _segment(packet, src + dst)
    ip = struct.pack("!IHBB", 6 << 28, len(body), packet.protocol, 255) + src + dst
    return head + struct.pack("!H", 0x86DD) + ip + body
