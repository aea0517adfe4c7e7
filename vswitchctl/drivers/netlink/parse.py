"""What the kernel says in rtnetlink messages, decoded as far as we look: a link takes pyroute2 590 us, and a
host has hundreds.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP

from vswitchctl.drivers.netlink.message import (
    ADDRESS,
    ANY_NSID,
    ATTRIBUTE,
    HEADER,
    IFA,
    IFLA,
    IFLA_BR_MCAST_SNOOPING,
    IFLA_BR_STP_STATE,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    LINK,
    NETNSA,
    NLA_TYPE_MASK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSGERR_ATTR_MSG,
    QDISC,
    ROUTE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA,
    TC_H_INGRESS,
    UNFINISHED,
)
from vswitchctl.model.state import ROUTE_PROTOCOL, Owner, RouteSpec, parse_alias

MADE = ("veth", "bridge")
"""The kinds of links that we make."""

IFLA_TUN_OWNER, IFLA_TUN_TYPE, IFLA_TUN_PERSIST = 1, 3, 6
"""linux/if_link.h, since Linux 4.16."""

TAP = "tun"
"""The kind of TUN and TAP devices alike: drivers/net/tun.c."""


def attributes(data: bytes, at: int) -> dict[int, bytes]:
    """Attribute number -> payload, from `at` to the end."""
    found: dict[int, bytes] = {}
    end = len(data)
    while at + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return found


@dataclass(frozen=True, slots=True)
class Tun:
    """What there is to a TUN device. user: the user id that may open it, None for root. kept: persistent."""

    user: int | None
    kept: bool


def _tun(data: bytes) -> Tun | None:
    found = attributes(data, 0)
    if found.get(IFLA_TUN_TYPE) != b"\x01":  # IFF_TUN of linux/if_tun.h; a TAP is 2
        return None
    user = found.get(IFLA_TUN_OWNER)
    return Tun(
        None if user is None else int.from_bytes(user, sys.byteorder), any(found.get(IFLA_TUN_PERSIST, b""))
    )


@dataclass(frozen=True, slots=True)
class Link:
    """A device. kind: 'veth', 'bridge', '', ...

    peer: ifindex of a veth's other end, 0 where it has none. peer_nsid: the id of that end's namespace in
    this one, None where it is in this one. stp, multicast_snooping: of a bridge.
    promiscuous: somebody, such as a switch, listens to all frames. tun: of a TUN device, and not of a TAP.
    """

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
    peer_nsid: int | None = None
    stp: bool = False
    multicast_snooping: bool = False
    promiscuous: bool = False
    tun: Tun | None = None

    @property
    def owner(self) -> Owner | None:
        """Whose it is by its mark: of what we make, veth pairs and bridges."""
        return parse_alias(self.alias) if self.kind in MADE else None

    @property
    def tap_mark(self) -> tuple[Owner, str] | None:
        """Of a TAP that is our port: whose it is, and the Linux bridge it was taken from, '' for none."""
        alias, _, former = self.alias.partition(" ")
        owner = parse_alias(alias) if self.kind == TAP else None
        return None if owner is None else (owner, former)

    @property
    def marked(self) -> Owner | None:
        """Whose it is by its mark, TUN and TAP devices included."""
        return self.owner or (self.tap_mark[0] if self.tap_mark is not None else None)

    @property
    def unfinished(self) -> bool:
        """Made by us and not marked yet: a crash came between."""
        return self.group == UNFINISHED and not self.alias and self.kind in MADE


def ingress_of(body: bytes) -> int | None:
    """From a RTM_NEWQDISC body: the ifindex of the device whose incoming frames it filters, else None."""
    _, index, _, parent, _ = QDISC.unpack_from(body)
    return index if parent == TC_H_INGRESS else None


def parse_link(body: bytes) -> Link:
    """From a RTM_NEWLINK body."""
    _, _, index, flags, _ = LINK.unpack_from(body)
    found = attributes(body, LINK.size)

    def number(name: str) -> int:
        return int.from_bytes(found.get(IFLA[name], b""), sys.byteorder)

    def text(name: str) -> str:
        return found.get(IFLA[name], b"").rstrip(b"\0").decode(errors="replace")

    info = attributes(found.get(IFLA["IFLA_LINKINFO"], b""), 0)
    kind = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    options = attributes(info.get(IFLA_INFO_DATA, b""), 0) if kind == "bridge" else {}
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
        promiscuous=number("IFLA_PROMISCUITY") > 0,
        kind=kind,
        peer_nsid=number("IFLA_LINK_NETNSID") if IFLA["IFLA_LINK_NETNSID"] in found else None,
        stp=any(options.get(IFLA_BR_STP_STATE, b"")),
        multicast_snooping=any(options.get(IFLA_BR_MCAST_SNOOPING, b"")),
        tun=_tun(info.get(IFLA_INFO_DATA, b"")) if kind == TAP else None,
    )


def parse_nsid(body: bytes) -> int | None:
    """From the answer to `get_nsid`; None where the namespace has no id."""
    number = int.from_bytes(attributes(body, 4).get(NETNSA["NETNSA_NSID"], b""), sys.byteorder)
    return None if number == ANY_NSID else number


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a device, '10.1.0.11/24'. protocol: who set it, None where the message does not say."""

    index: int
    text: str
    scope: int
    protocol: int | None


def parse_address(body: bytes) -> Address:
    """From a RTM_NEWADDR or RTM_DELADDR body."""
    _, length, _, scope, index = ADDRESS.unpack_from(body)
    found = attributes(body, ADDRESS.size)
    packed = found.get(IFA["IFA_LOCAL"]) or found.get(IFA["IFA_ADDRESS"]) or bytes(4)
    protocol = found.get(IFA["IFA_PROTO"])
    return Address(index, f"{ip_address(packed)}/{length}", scope, protocol[0] if protocol else None)


def marked_addresses(bodies: Iterable[bytes]) -> Iterator[Address]:
    """Those we set, of all in a namespace.

    Linux keeps who set an address since 5.18, and says so of loopback's own wherever it does: before, every
    global one counts as ours.
    """
    found = [parse_address(body) for body in bodies]
    kept = any(address.protocol is not None for address in found)
    for address in found:
        if address.protocol == ROUTE_PROTOCOL if kept else address.scope == RT_SCOPE_UNIVERSE:
            yield address


def head(body: bytes) -> tuple[int, int]:
    """(address family, ifindex) of a link's message."""
    return body[0], LINK.unpack_from(body)[2]


def is_foreign_route(body: bytes) -> bool:
    return body[5] != ROUTE_PROTOCOL


def parse_route(body: bytes) -> RouteSpec | None:
    """A route with our protocol number in the main table, None for others'."""
    family, length, _, _, table, protocol, _, _, _ = ROUTE.unpack_from(body)
    found = attributes(body, ROUTE.size)
    gateway = found.get(RTA["RTA_GATEWAY"])
    if protocol != ROUTE_PROTOCOL or table != RT_TABLE_MAIN or gateway is None:
        return None
    nothing = bytes(4 if family == socket.AF_INET else 16)
    target = ip_address(found.get(RTA["RTA_DST"], nothing))
    return RouteSpec(f"{target}/{length}", str(ip_address(gateway)))


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
