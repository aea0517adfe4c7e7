"""rtnetlink messages as bytes. Numbers are pyroute2's; packing is ours, since it is on the hot path: pyroute2
takes 350 us for the message that makes a veth pair, which a hundred namespaces would wait for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, rtnl
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from vswitchctl.model.state import ROUTE_PROTOCOL, RouteSpec

NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLA_F_NESTED, NLA_TYPE_MASK = 1 << 15, 0x3FFF
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
"""linux/netlink.h."""

IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 5, 23
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 0, 253, 1
"""linux/if_link.h, linux/rtnetlink.h."""

UNFINISHED, DOOMED = 0x76000001, 0x76000002
"""Device groups (IFLA_GROUP): made and not marked yet, and about to be deleted. Marking clears the group."""

LO_INDEX = 1
"""Loopback is the first device of every network namespace."""

HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")


def _numbers(message: type) -> dict[str, int]:
    return {row[0]: number for number, row in enumerate(message.nla_map)}  # type: ignore[attr-defined]


IFLA, IFA, RTA = _numbers(ifinfmsg), _numbers(ifaddrmsg), _numbers(rtmsg)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    """A request; the channel that sends it fills the sequence number in."""
    return HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 0, 0) + body


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@dataclass(frozen=True, slots=True)
class Peer:
    """The far end of a new pair. descriptor: of its namespace, None where the near end is."""

    name: str
    mtu: int
    mac: str | None
    descriptor: int | None


def _new(name: str, mtu: int) -> bytes:
    """What every new device is made with. It has no alias yet, so its group says whose it is."""
    return (
        _LINK.pack(0, 0, 0, 0, 0)
        + _text(IFLA["IFLA_IFNAME"], name)
        + _u32(IFLA["IFLA_MTU"], mtu)
        + _u32(IFLA["IFLA_GROUP"], UNFINISHED)
    )


def new_veth(name: str, mtu: int, mac: str | None, peer: Peer) -> bytes:
    """A veth pair, both ends down: a peer that is created up fails with ENOTCONN."""
    inner = _new(peer.name, peer.mtu)
    if peer.mac is not None:
        inner += attribute(IFLA["IFLA_ADDRESS"], mac_bytes(peer.mac))
    if peer.descriptor is not None:
        inner += _u32(IFLA["IFLA_NET_NS_FD"], peer.descriptor)
    info = _nested(
        IFLA["IFLA_LINKINFO"],
        attribute(IFLA_INFO_KIND, b"veth\0"),
        _nested(IFLA_INFO_DATA, _nested(VETH_INFO_PEER, inner)),
    )
    outer = _new(name, mtu)
    if mac is not None:
        outer += attribute(IFLA["IFLA_ADDRESS"], mac_bytes(mac))
    return _message(rtnl.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, outer + info)


def new_bridge(name: str, mtu: int) -> bytes:
    """A Linux bridge without spanning tree and without multicast snooping, down."""
    data = _nested(
        IFLA_INFO_DATA,
        _u32(IFLA_BR_STP_STATE, 0),
        attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    info = _nested(IFLA["IFLA_LINKINFO"], attribute(IFLA_INFO_KIND, b"bridge\0"), data)
    return _message(rtnl.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _new(name, mtu) + info)


def set_link(
    name: str,
    *,
    alias: str | None = None,
    up: bool = False,
    mtu: int | None = None,
    mac: str | None = None,
    master: int | None = None,
    group: int | None = None,
    index: int = 0,
) -> bytes:
    """Change a device by name (or by index). master: an ifindex, 0 for none."""
    flags = IFF_UP if up else 0
    body = _LINK.pack(0, 0, index, flags, flags)
    if not index:
        body += _text(IFLA["IFLA_IFNAME"], name)
    if alias is not None:
        body += attribute(IFLA["IFLA_IFALIAS"], alias.encode())
    if mtu is not None:
        body += _u32(IFLA["IFLA_MTU"], mtu)
    if mac is not None:
        body += attribute(IFLA["IFLA_ADDRESS"], mac_bytes(mac))
    if master is not None:
        body += _u32(IFLA["IFLA_MASTER"], master)
    if group is not None:
        body += _u32(IFLA["IFLA_GROUP"], group)
    return _message(rtnl.RTM_NEWLINK, 0, body)


def no_link_local(name: str) -> bytes:
    """No IPv6 address of the kernel's own choice: the device only carries other people's frames."""
    inner = _nested(socket.AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE])))
    body = _LINK.pack(0, 0, 0, 0, 0) + _text(IFLA["IFLA_IFNAME"], name) + _nested(IFLA["IFLA_AF_SPEC"], inner)
    return _message(rtnl.RTM_NEWLINK, 0, body)


def delete_link(name: str) -> bytes:
    return _message(rtnl.RTM_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _text(IFLA["IFLA_IFNAME"], name))


def delete_group(group: int) -> bytes:
    """Every device of a group at once: one grace period for all instead of 31 ms for each."""
    return _message(rtnl.RTM_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _u32(IFLA["IFLA_GROUP"], group))


def address(index: int, text: str, *, add: bool) -> bytes:
    """Add or delete an address with our mark; an IPv6 one is usable at once (no duplicate detection)."""
    interface = ip_interface(text)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    body = _ADDRESS.pack(family, interface.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    packed = interface.ip.packed
    body += attribute(IFA["IFA_LOCAL"], packed) + attribute(IFA["IFA_ADDRESS"], packed)
    if not add:
        return _message(rtnl.RTM_DELADDR, 0, body)
    if interface.version == 6:
        body += _u32(IFA["IFA_FLAGS"], IFA_F_NODAD)
    body += attribute(IFA["IFA_PROTO"], bytes([ROUTE_PROTOCOL]))
    return _message(rtnl.RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def route(spec: RouteSpec, *, add: bool) -> bytes:
    """Add or delete a route with our protocol number in the main table."""
    target, via = ip_network(spec.to), ip_address(spec.via)
    family = socket.AF_INET if via.version == 4 else socket.AF_INET6
    head = (family, target.prefixlen, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    body = _ROUTE.pack(*head) + attribute(RTA["RTA_GATEWAY"], via.packed)
    if target.prefixlen:
        body += attribute(RTA["RTA_DST"], target.network_address.packed)
    if add:
        return _message(rtnl.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)
    return _message(rtnl.RTM_DELROUTE, 0, body)


def dump(kind: int) -> bytes:
    """Ask for every link (RTM_GETLINK), address (RTM_GETADDR) or route (RTM_GETROUTE)."""
    body = _LINK.pack(0, 0, 0, 0, 0)
    return HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body


# -- what the kernel says --------------------------------------------------------------------------------


def attributes(data: bytes, at: int) -> dict[int, bytes]:
    """Attribute number -> payload, from `at` to the end."""
    found: dict[int, bytes] = {}
    end = len(data)
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return found


@dataclass(frozen=True, slots=True)
class Link:
    """A device. peer: ifindex of a veth's other end, 0 where it has none. kind: 'veth', 'bridge', '', ..."""

    index: int
    name: str
    up: bool
    mtu: int
    mac: str
    alias: str
    master: int
    peer: int
    kind: str
    group: int


def parse_link(body: bytes) -> Link:
    """From a RTM_NEWLINK body."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)

    def number(name: str) -> int:
        return int.from_bytes(found.get(IFLA[name], b""), sys.byteorder)

    def text(name: str) -> str:
        return found.get(IFLA[name], b"").rstrip(b"\0").decode(errors="replace")

    info = attributes(found.get(IFLA["IFLA_LINKINFO"], b""), 0)
    return Link(
        index=index,
        name=text("IFLA_IFNAME"),
        up=bool(flags & IFF_UP),
        mtu=number("IFLA_MTU"),
        mac=found.get(IFLA["IFLA_ADDRESS"], b"").hex(":"),
        alias=text("IFLA_IFALIAS"),
        master=number("IFLA_MASTER"),
        peer=number("IFLA_LINK"),
        group=number("IFLA_GROUP"),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
    )


def parse_address(body: bytes) -> tuple[int, str] | None:
    """(ifindex, '10.1.0.11/24') of an address with our mark, None for others'."""
    family, length, _, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    packed = found.get(IFA["IFA_LOCAL"]) or found.get(IFA["IFA_ADDRESS"])
    if found.get(IFA["IFA_PROTO"]) != bytes([ROUTE_PROTOCOL]) or packed is None:
        return None
    return index, f"{socket.inet_ntop(family, packed)}/{length}"


def parse_route(body: bytes) -> RouteSpec | None:
    """A route with our protocol number in the main table, None for others'."""
    family, length, _, _, table, protocol, _, _, _ = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    gateway = found.get(RTA["RTA_GATEWAY"])
    if protocol != ROUTE_PROTOCOL or table != RT_TABLE_MAIN or gateway is None:
        return None
    nothing = bytes(4 if family == socket.AF_INET else 16)
    target = socket.inet_ntop(family, found.get(RTA["RTA_DST"], nothing))
    return RouteSpec(f"{target}/{length}", socket.inet_ntop(family, gateway))


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message in what one recv gave."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if length < 16:
            break
        yield kind, flags, sequence, data[at + 16 : at + length]
        at += length + 3 & ~3


def parse_error(flags: int, body: bytes) -> OSError | None:
    """The error of a NLMSG_ERROR, in the kernel's own words if it gives any; None for an acknowledgement."""
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return None
    said = ""
    if flags & NLM_F_ACK_TLVS:
        request = HEADER.unpack_from(body, 4)[0]
        skip = 4 + (16 if flags & NLM_F_CAPPED else request + 3 & ~3)
        said = attributes(body, skip).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    name = errno.errorcode.get(number, str(number))
    return OSError(number, f"{os.strerror(number)} ({name})" + (f": {said}" if said else ""))
