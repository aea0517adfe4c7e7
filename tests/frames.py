"""Ethernet frames made byte by byte, as an attacker would, and raw sockets to send and hear them."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from pyroute2 import netns

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
"""RFC 4291 section 2.7.1 and RFC 2464 section 7."""

ETH_P_ALL = 3
"""linux/if_ether.h."""

SOURCE_OPTION, TARGET_OPTION = 1, 2
"""RFC 4861 section 4.6.1."""

EXPERIMENT = 0x88B5
"""IEEE 802 local experimental ethertype 1."""


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(src: str, dst: str, ethertype: int, payload: bytes) -> bytes:
    """Filled up to 60 octets, the least that Ethernet carries (IEEE 802.3 3.2.8)."""
    return (octets(dst) + octets(src) + struct.pack("!H", ethertype) + payload).ljust(60, b"\0")


def arp(
    src: str, *, op: int, sha: str, spa: str, tha: str = "00:00:00:00:00:00", tpa: str, dst: str = BROADCAST
) -> bytes:
    """RFC 826: Ethernet and IPv4."""
    hosts = octets(sha) + IPv4Address(spa).packed + octets(tha) + IPv4Address(tpa).packed
    return ethernet(src, dst, 0x0806, struct.pack("!HHBBH", 1, 0x0800, 6, 4, op) + hosts)


def _sum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src: str, dst: str, ip_src: str, ip_dst: str, proto: int, payload: bytes) -> bytes:
    ends = IPv4Address(ip_src).packed + IPv4Address(ip_dst).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, proto, 0) + ends
    return ethernet(src, dst, 0x0800, head[:10] + struct.pack("!H", _sum(head)) + head[12:] + payload)


def ipv6(src: str, dst: str, ip_src: str, ip_dst: str, proto: int, payload: bytes) -> bytes:
    ends = IPv6Address(ip_src).packed + IPv6Address(ip_dst).packed
    return ethernet(
        src, dst, 0x86DD, struct.pack("!IHBB", 6 << 28, len(payload), proto, 255) + ends + payload
    )


def udp(src: int, dst: int, data: bytes = b"data") -> bytes:
    return struct.pack("!HHHH", src, dst, 8 + len(data), 0) + data


def icmpv6(src: str, dst: str, ip_src: str, ip_dst: str, kind: int, body: bytes, code: int = 0) -> bytes:
    """body: what follows the checksum."""
    ends = IPv6Address(ip_src).packed + IPv6Address(ip_dst).packed
    message = struct.pack("!BBH", kind, code, 0) + body
    checksum = _sum(ends + struct.pack("!II", len(message), 58) + message)
    return ipv6(src, dst, ip_src, ip_dst, 58, message[:2] + struct.pack("!H", checksum) + message[4:])


def neighbour(target: str, *options: tuple[int, str], flags: int = 0) -> bytes:
    """The body of a solicitation or advertisement. options: type and MAC."""
    said = b"".join(bytes([kind, 1]) + octets(mac) for kind, mac in options)
    return struct.pack("!I", flags) + IPv6Address(target).packed + said


@dataclass(frozen=True)
class Host:
    """Who sends: a namespace's device, its MAC and its addresses."""

    namespace: str
    mac: str
    ip: str
    ip6: str

    def posing_as(self, other: Host) -> Host:
        """Here, but with the other's addresses; the MAC stays."""
        return replace(other, namespace=self.namespace, mac=self.mac)


def packet_socket(namespace: str | None, device: str) -> socket.socket:
    """A raw socket on a device, in a namespace or here. A thread of its own enters it and ends there."""

    def opened() -> socket.socket:
        if namespace is not None:
            netns.setns(namespace)
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind((device, ETH_P_ALL))
        sock.settimeout(20)
        return sock

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(opened).result()


def heard_until(sock: socket.socket, fence: bytes) -> set[bytes]:
    """Every frame that came in until the fence did. Raises TimeoutError where that does not come."""
    heard: set[bytes] = set()
    while fence not in heard:
        data, address = sock.recvfrom(65535)
        if address[2] != socket.PACKET_OUTGOING:
            heard.add(data)
    return heard
