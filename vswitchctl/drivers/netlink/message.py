"""rtnetlink messages as bytes. Numbers are pyroute2's; packing is ours, since it is on the hot path: pyroute2
takes 350 us for the message that makes a veth pair, which a hundred namespaces would wait for.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    rtnl,
)
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
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
IFLA_INET_CONF, IPV4_DEVCONF_PROMOTE_SECONDARIES = 1, 20
RTEXT_FILTER_SKIP_STATS = 8
RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 0, 253, 1
TC_H_INGRESS = 0xFFFFFFF1
"""linux/if_link.h, linux/rtnetlink.h, linux/ip.h, linux/pkt_sched.h."""

UNFINISHED, DOOMED = 0x76000001, 0x76000002
"""Device groups (IFLA_GROUP): made and not marked yet, and about to be deleted. Marking clears the group."""

ANY_NSID = 0xFFFFFFFF
"""NETNSA_NSID_NOT_ASSIGNED of linux/net_namespace.h: the kernel chooses one, or says that there is none."""

LO_INDEX = 1
"""Loopback is the first device of every network namespace."""

HEADER = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBi")
ROUTE = struct.Struct("=BBBBBBBBI")
QDISC = struct.Struct("=BxxxiIII")
ATTRIBUTE = struct.Struct("=HH")


def _numbers(message: type) -> dict[str, int]:
    return {row[0]: number for number, row in enumerate(message.nla_map)}  # type: ignore[attr-defined]


IFLA, IFA, RTA, NETNSA = (_numbers(kind) for kind in (ifinfmsg, ifaddrmsg, rtmsg, nsidmsg))


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


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
        LINK.pack(0, 0, 0, 0, 0)
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
    """A Linux bridge as `plain_bridge` makes it, down, for which `mtu` is still to be set.

    Only an MTU that is set, and differs, keeps the kernel's br_mtu_auto_adjust away.
    """
    return _message(rtnl.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _new(name, mtu ^ 1) + _PLAIN_BRIDGE)


def plain_bridge(name: str) -> bytes:
    """No spanning tree, no multicast snooping: the bridge floods what it does not know."""
    body = LINK.pack(0, 0, 0, 0, 0) + _text(IFLA["IFLA_IFNAME"], name) + _PLAIN_BRIDGE
    return _message(rtnl.RTM_NEWLINK, 0, body)


_PLAIN_BRIDGE = _nested(
    IFLA["IFLA_LINKINFO"],
    attribute(IFLA_INFO_KIND, b"bridge\0"),
    _nested(IFLA_INFO_DATA, _u32(IFLA_BR_STP_STATE, 0), attribute(IFLA_BR_MCAST_SNOOPING, b"\0")),
)


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
    body = LINK.pack(0, 0, index, flags, flags)
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
    body = LINK.pack(0, 0, 0, 0, 0) + _text(IFLA["IFLA_IFNAME"], name) + _nested(IFLA["IFLA_AF_SPEC"], inner)
    return _message(rtnl.RTM_NEWLINK, 0, body)


def promote_secondaries(index: int) -> bytes:
    """Let an IPv4 address go alone: else the kernel takes along the later ones of its subnet (ip-sysctl)."""
    setting = _nested(IFLA_INET_CONF, _u32(IPV4_DEVCONF_PROMOTE_SECONDARIES, 1))
    inner = _nested(IFLA["IFLA_AF_SPEC"], _nested(socket.AF_INET, setting))
    return _message(rtnl.RTM_NEWLINK, 0, LINK.pack(0, 0, index, 0, 0) + inner)


def delete_group(group: int) -> bytes:
    """Every device of a group at once: one grace period for all instead of 31 ms for each."""
    return _message(rtnl.RTM_DELLINK, 0, LINK.pack(0, 0, 0, 0, 0) + _u32(IFLA["IFLA_GROUP"], group))


def address(index: int, text: str, *, add: bool) -> bytes:
    """Add or delete an address with our mark; an IPv6 one is usable at once (no duplicate detection).

    One that is there without the mark gets it.
    """
    interface = ip_interface(text)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    body = ADDRESS.pack(family, interface.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    packed = interface.ip.packed
    body += attribute(IFA["IFA_LOCAL"], packed) + attribute(IFA["IFA_ADDRESS"], packed)
    if not add:
        return _message(rtnl.RTM_DELADDR, 0, body)
    if interface.version == 6:
        body += _u32(IFA["IFA_FLAGS"], IFA_F_NODAD)
    body += attribute(IFA["IFA_PROTO"], bytes([ROUTE_PROTOCOL]))
    return _message(rtnl.RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)


def route(spec: RouteSpec, *, add: bool) -> bytes:
    """Add or delete a route with our protocol number in the main table."""
    target, via = ip_network(spec.to), ip_address(spec.via)
    family = socket.AF_INET if via.version == 4 else socket.AF_INET6
    head = (family, target.prefixlen, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    body = ROUTE.pack(*head) + attribute(RTA["RTA_GATEWAY"], via.packed)
    if target.prefixlen:
        body += attribute(RTA["RTA_DST"], target.network_address.packed)
    if add:
        return _message(rtnl.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)
    return _message(rtnl.RTM_DELROUTE, 0, body)


def new_nsid(descriptor: int) -> bytes:
    """Give a namespace an id within the one that asks."""
    body = bytes(4) + _u32(NETNSA["NETNSA_FD"], descriptor)
    return _message(rtnl.RTM_NEWNSID, 0, body + _u32(NETNSA["NETNSA_NSID"], ANY_NSID))


def get_nsid(descriptor: int) -> bytes:
    """Ask for that id; `parse_nsid` reads the answer."""
    return _message(rtnl.RTM_GETNSID, 0, bytes(4) + _u32(NETNSA["NETNSA_FD"], descriptor))


def get_link(index: int) -> bytes:
    """Ask for one device; `parse_link` reads the answer."""
    body = LINK.pack(0, 0, index, 0, 0) + _u32(IFLA["IFLA_EXT_MASK"], RTEXT_FILTER_SKIP_STATS)
    return _message(rtnl.RTM_GETLINK, 0, body)


def dump(kind: int) -> bytes:
    """Ask for every link (RTM_GETLINK), address, route or qdisc (RTM_GETADDR, RTM_GETROUTE, RTM_GETQDISC)."""
    body = bytes(QDISC.size if kind == rtnl.RTM_GETQDISC else LINK.size)
    if kind == rtnl.RTM_GETLINK:
        body += _u32(IFLA["IFLA_EXT_MASK"], RTEXT_FILTER_SKIP_STATS)
    return HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + body
