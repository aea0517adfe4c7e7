"""What a sender is told when its packet ends on the way: TCP resets and ICMP errors, bytes to bytes. Pure.

Frames come from anybody and may be anything: no function raises on one. None means that it gets no answer, be
it that the standards forbid one or that the frame cannot be read.
"""

from __future__ import annotations

from struct import pack, pack_into, unpack_from

from vswitchctl.pipeline.ip import ICMP, ICMPV6, IPV4, IPV6, TCP, UDP, IpPacket, read_ip

PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}
"""Version -> type and code: RFC 792; RFC 4443 section 3.1."""
PROHIBITED = {4: (3, 13), 6: (1, 1)}
"""Communication administratively prohibited: RFC 1812 section 5.2.7.1; RFC 4443 section 3.1."""
TIME_EXCEEDED = {4: (11, 0), 6: (3, 0)}
"""TTL or hop limit exceeded in transit: RFC 792; RFC 4443 section 3.3."""
NO_ROUTE = {4: (3, 0), 6: (1, 0)}
"""Net unreachable, RFC 792; no route to destination, RFC 4443 section 3.1."""

LONGEST = {4: 576, 6: 1280}
"""Bytes of the IP packet that holds an error: RFC 1812 section 4.3.2.3; RFC 4443 section 2.4c."""

HOPS = 64
"""TTL or hop limit of answers: the default of RFC 1700."""

_V4_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Destination Unreachable, Source Quench, Redirect, Time Exceeded, Parameter Problem: RFC 1122 3.2.2."""

_V6_REDIRECT, _V6_FIRST_INFORMATIONAL = 137, 128
"""RFC 4443 section 2.4e: no error about a redirect, nor about an error (types below 128)."""

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
"""RFC 9293 section 3.1."""

_CONTROL = 0xC0
"""Precedence Internetwork Control, of IPv4's errors: RFC 1812 section 4.3.2.5."""


def reject(frame: bytes) -> bytes | None:
    """What the receiver of a frame would say if it refused it: a reset for TCP, else an ICMP error."""
    packet = read_ip(frame)
    if packet is None:
        return None
    if packet.protocol == TCP:
        return _reset(packet)
    kinds = PORT_UNREACHABLE if packet.protocol == UDP else PROHIBITED
    return _error(packet, *kinds[packet.version], packet.dst_mac, packet.dst)


def tcp_reset(frame: bytes) -> bytes | None:
    """The reset that a TCP segment to a closed port gets: RFC 9293 section 3.10.7.1."""
    packet = read_ip(frame)
    return None if packet is None or packet.protocol != TCP else _reset(packet)


def icmp_error(frame: bytes, kind: int, code: int, source_mac: bytes, source_ip: bytes) -> bytes | None:
    """An ICMP or ICMPv6 error (by the frame's version) to the frame's sender, which quotes the frame.

    source_mac, source_ip: who says it, as 6 and as 4 or 16 bytes; None where the address is of the other
    version.
    """
    packet = read_ip(frame)
    if packet is None or len(source_ip) != len(packet.src) or len(source_mac) != 6:
        return None
    return _error(packet, kind, code, source_mac, source_ip)


# -- what gets no answer -----------------------------------------------------------------------------------


def _one_to_one(packet: IpPacket) -> bool:
    """From one host to one host: whatever went to many, or came from none, gets no answer."""
    group = (packet.src_mac[0] | packet.dst_mac[0]) & 1
    if packet.version == 4:
        fine = 0 < packet.src[0] < 224 and packet.src[0] != 127 and packet.dst[0] < 224
    else:
        fine = packet.src[0] != 0xFF and any(packet.src) and packet.dst[0] != 0xFF
    return fine and not group and packet.first


def _is_error(packet: IpPacket) -> bool:
    """An ICMP error, or what could be one: there is never an error about it."""
    kind = packet.payload[0] if packet.payload else None
    if packet.version == 4 and packet.protocol == ICMP:
        return kind is None or kind in _V4_ERRORS
    if packet.version == 6 and packet.protocol == ICMPV6:
        return kind is None or kind < _V6_FIRST_INFORMATIONAL or kind == _V6_REDIRECT
    return False


# -- writing -----------------------------------------------------------------------------------------------


def _reset(packet: IpPacket) -> bytes | None:
    if not _one_to_one(packet) or len(packet.payload) < 20:
        return None
    to, back_from, seq, ack, offset, flags = unpack_from(">HHIIBB", packet.payload)
    data = packet.length - (offset >> 4) * 4
    if flags & _RST or offset >> 4 < 5 or data < 0:
        return None
    if flags & _ACK:
        seq, ack, answer = ack, 0, _RST
    else:
        length = data + bool(flags & _SYN) + bool(flags & _FIN)
        seq, ack, answer = 0, (seq + length) & 0xFFFFFFFF, _RST | _ACK
    segment = bytearray(pack(">HHIIBBHHH", back_from, to, seq, ack, 5 << 4, answer, 0, 0, 0))
    pseudo = _pseudo(packet.dst, packet.src, TCP, len(segment))
    pack_into(">H", segment, 16, _checksum(pseudo + segment))
    return _frame(packet, packet.dst_mac, packet.dst, TCP, bytes(segment), 0)


def _error(packet: IpPacket, kind: int, code: int, source_mac: bytes, source: bytes) -> bytes | None:
    if not _one_to_one(packet) or _is_error(packet):
        return None
    head, protocol = (20, ICMP) if packet.version == 4 else (40, ICMPV6)
    quoted = packet.whole[: LONGEST[packet.version] - head - 8]
    body = bytearray(pack(">BBHI", kind, code, 0, 0) + quoted)
    pseudo = b"" if packet.version == 4 else _pseudo(source, packet.src, ICMPV6, len(body))
    pack_into(">H", body, 2, _checksum(pseudo + body))
    return _frame(packet, source_mac, source, protocol, bytes(body), _CONTROL)


def _frame(
    packet: IpPacket, source_mac: bytes, source: bytes, protocol: int, body: bytes, service: int
) -> bytes:
    """To the sender of a packet. service: the type of service, of IPv4."""
    if packet.version == 6:
        ip = pack(">IHBB", 6 << 28, len(body), protocol, HOPS) + source + packet.src
        return packet.src_mac + source_mac + IPV6.to_bytes(2, "big") + ip + body
    head = bytearray(pack(">BBHHHBBH", 0x45, service, 20 + len(body), 0, 0x4000, HOPS, protocol, 0))
    head += source + packet.src
    pack_into(">H", head, 10, _checksum(head))
    return packet.src_mac + source_mac + IPV4.to_bytes(2, "big") + bytes(head) + body


def _pseudo(src: bytes, dst: bytes, protocol: int, length: int) -> bytes:
    """RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6; they add up to the same."""
    return src + dst + pack(">II", length, protocol)


def _checksum(data: bytes | bytearray) -> int:
    """RFC 1071."""
    padded = bytes(data) + bytes(len(data) % 2)
    total: int = sum(unpack_from(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
