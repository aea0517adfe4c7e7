"""Our rtnetlink bytes as pyroute2 reads them, and pyroute2's as we read them."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, rtnl
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from vswitchctl.drivers.netlink import message, parse
from vswitchctl.model.state import ROUTE_PROTOCOL, Owner, RouteSpec

HEADER = 16
OWNER = Owner("t", "links/web1:eth0--br-a")


def decoded(kind: type, request: bytes) -> Any:
    """A request as pyroute2 reads it."""
    assert int.from_bytes(request[:4], "little") == len(request)
    read = kind(request)
    read.decode()
    return read


def encoded(kind: type, attributes: list[tuple[str, Any]], **fields: Any) -> bytes:
    """The body of a message that pyroute2 wrote."""
    made = kind()
    made.update(fields)
    made["attrs"] = attributes
    made.encode()
    return bytes(made.data[HEADER:])


# -- what we write ---------------------------------------------------------------------------------------


def test_a_new_pair() -> None:
    peer = message.Peer("eth0", 1400, "02:00:00:00:00:01", 7)
    read = decoded(ifinfmsg, message.new_veth("v-1", 1400, None, peer))
    assert read["header"]["type"] == rtnl.RTM_NEWLINK
    assert read["header"]["flags"] == NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    assert read["flags"] == 0, "down: a peer that is made up is refused"
    assert (read.get("ifname"), read.get("mtu"), read.get("group")) == ("v-1", 1400, message.UNFINISHED)
    assert read.get("address") is None
    info = read.get("linkinfo")
    assert info.get("kind") == "veth"
    far = info.get("data").get("VETH_INFO_PEER")
    assert far["flags"] == 0
    names = ("IFLA_IFNAME", "IFLA_MTU", "IFLA_ADDRESS", "IFLA_NET_NS_FD", "IFLA_GROUP")
    assert [far.get_attr(name) for name in names] == [
        "eth0", 1400, "02:00:00:00:00:01", 7, message.UNFINISHED,
    ]  # fmt: skip


def test_a_new_bridge_neither_spans_nor_snoops() -> None:
    info = decoded(ifinfmsg, message.new_bridge("lan0", 1500)).get("linkinfo")
    assert info.get("kind") == "bridge"
    assert info.get("data").get("br_stp_state") == info.get("data").get("br_mcast_snooping") == 0


def test_only_what_is_given_is_set() -> None:
    read = decoded(ifinfmsg, message.set_link("v-1", mtu=1400))
    assert read["change"] == 0, "it stays up or down"
    assert [name for name, _ in read["attrs"]] == ["IFLA_IFNAME", "IFLA_MTU"]
    read = decoded(ifinfmsg, message.set_link("v-1", alias=OWNER.alias, up=True, master=0, group=0))
    assert (read["flags"], read["change"]) == (1, 1)
    assert (read.get("ifalias"), read.get("master"), read.get("group")) == (OWNER.alias, 0, 0)
    read = decoded(ifinfmsg, message.set_link("", index=1, up=True))
    assert (read["index"], read["attrs"]) == (1, [])


@pytest.mark.parametrize(
    ("text", "family", "flags"), [("10.1.0.11/24", 2, None), ("fd00::b/64", 10, IFA_F_NODAD)]
)
def test_an_address(text: str, family: int, flags: int | None) -> None:
    read = decoded(ifaddrmsg, message.address(5, text, add=True))
    assert (
        read["header"]["flags"] & (NLM_F_CREATE | NLM_F_REPLACE | NLM_F_EXCL) == NLM_F_CREATE | NLM_F_REPLACE
    )
    assert (read["family"], read["index"], f"{read.get('local')}/{read['prefixlen']}") == (family, 5, text)
    assert (read.get("proto"), read.get("flags") or None) == (ROUTE_PROTOCOL, flags or None)
    gone = decoded(ifaddrmsg, message.address(5, text, add=False))
    assert gone["header"]["type"] == rtnl.RTM_DELADDR


@pytest.mark.parametrize(
    "spec",
    [
        RouteSpec("0.0.0.0/0", "10.1.0.1"),
        RouteSpec("10.8.0.0/16", "10.1.0.1"),
        RouteSpec("::/0", "fd00::1"),
        RouteSpec("2001:db8::/32", "fd00::1"),
    ],
)
def test_a_route_there_and_back(spec: RouteSpec) -> None:
    request = message.route(spec, add=True)
    read = decoded(rtmsg, request)
    assert read["header"]["flags"] & NLM_F_EXCL, "another's route to there is not replaced"
    assert (read["proto"], read["table"], read.get("gateway")) == (ROUTE_PROTOCOL, 254, spec.via)
    target = read.get("dst")
    assert (f"{target}/{read['dst_len']}" if target else None) == (
        None if spec.to in ("0.0.0.0/0", "::/0") else spec.to
    )
    assert parse.parse_route(request[HEADER:]) == spec


def test_an_id_for_a_namespace() -> None:
    read = decoded(nsidmsg, message.new_nsid(7))
    assert (read.get("NETNSA_FD"), read.get("NETNSA_NSID")) == (7, message.ANY_NSID)
    assert parse.parse_nsid(encoded(nsidmsg, [("NETNSA_NSID", 3)], rtgen_family=0)) == 3
    assert parse.parse_nsid(encoded(nsidmsg, [("NETNSA_NSID", message.ANY_NSID)], rtgen_family=0)) is None


# -- what we read ----------------------------------------------------------------------------------------


def link(*attributes: tuple[str, Any], flags: int = 0) -> parse.Link:
    body = encoded(ifinfmsg, [("IFLA_IFNAME", "d"), *attributes], index=9, flags=flags)
    return parse.parse_link(body)


def info(kind: str, *data: tuple[str, Any]) -> tuple[str, Any]:
    return (
        "IFLA_LINKINFO",
        {"attrs": [("IFLA_INFO_KIND", kind), *([("IFLA_INFO_DATA", {"attrs": list(data)})] if data else [])]},
    )


def test_a_link() -> None:
    read = link(
        ("IFLA_MTU", 1400),
        ("IFLA_ADDRESS", "02:00:00:00:00:01"),
        ("IFLA_IFALIAS", OWNER.alias),
        ("IFLA_MASTER", 4),
        ("IFLA_LINK", 6),
        ("IFLA_LINK_NETNSID", 0),
        ("IFLA_GROUP", 2),
        ("IFLA_PROMISCUITY", 1),
        info("veth"),
        flags=1,
    )
    assert read == parse.Link(
        index=9,
        name="d",
        up=True,
        mtu=1400,
        mac="02:00:00:00:00:01",
        alias=OWNER.alias,
        master=4,
        peer=6,
        kind="veth",
        group=2,
        peer_nsid=0,
        promiscuous=True,
    )
    assert read.owner == OWNER


def test_a_bridge_that_spans_and_snoops() -> None:
    read = link(info("bridge", ("IFLA_BR_STP_STATE", 1), ("IFLA_BR_MCAST_SNOOPING", 1)))
    assert (read.stp, read.multicast_snooping, read.peer_nsid) == (True, True, None)


@pytest.mark.parametrize("kind", ["dummy", "vxlan", "openvswitch"])
def test_what_we_do_not_make_is_nobody_s_of_ours(kind: str) -> None:
    assert link(("IFLA_IFALIAS", OWNER.alias), info(kind)).owner is None
    assert not link(("IFLA_GROUP", message.UNFINISHED), info(kind)).unfinished


@pytest.mark.parametrize(
    "alias", ["", "vswitchctl:", "vswitchctl:t", "vswitchctl:/x", "VSWITCHCTL:t/x", "t/x"]
)
def test_an_alias_that_is_no_mark(alias: str) -> None:
    assert link(("IFLA_IFALIAS", alias), info("veth")).owner is None


def test_an_alias_of_any_bytes() -> None:
    body = struct.pack("=BxHiII", 0, 0, 9, 0, 0) + message.attribute(
        message.IFLA["IFLA_IFALIAS"], b"\xff\xfe\0"
    )
    assert parse.parse_link(body).owner is None


def address(text: str, proto: int | None, scope: int = 0) -> bytes:
    family = 10 if ":" in text else 2
    attributes = [("IFA_ADDRESS", text), *([("IFA_LOCAL", text)] if family == 2 else [])]
    marked = [*attributes, *([("IFA_PROTO", proto)] if proto is not None else [])]
    return encoded(ifaddrmsg, marked, family=family, prefixlen=24, index=3, scope=scope)


def test_our_addresses_among_others() -> None:
    bodies = [
        address("127.0.0.1", 1, scope=254),
        address("10.1.0.1", ROUTE_PROTOCOL),
        address("10.1.0.2", None),
        address("10.1.0.3", 4),
        address("fe80::1", 3, scope=253),
    ]
    assert [found.text for found in parse.marked_addresses(bodies)] == ["10.1.0.1/24"]


def test_addresses_of_a_kernel_that_does_not_keep_who_set_them() -> None:
    """Linux before 5.18: then loopback's own is not marked either."""
    bodies = [
        address("127.0.0.1", None, scope=254),
        address("10.1.0.1", None),
        address("fe80::1", None, scope=253),
    ]
    assert [found.text for found in parse.marked_addresses(bodies)] == ["10.1.0.1/24"]


def test_an_error_in_the_kernel_s_own_words() -> None:
    request = message.HEADER.pack(64, rtnl.RTM_NEWLINK, 0, 5, 0)
    words = message.attribute(message.NLMSGERR_ATTR_MSG, b"mtu less than device minimum\0")
    body = struct.pack("=i", -errno.EINVAL) + request + words
    error = parse.parse_error(message.NLM_F_CAPPED | message.NLM_F_ACK_TLVS, body)
    assert error is not None
    assert (error.errno, error.strerror) == (
        errno.EINVAL,
        "Invalid argument (EINVAL): mtu less than device minimum",
    )
    whole = struct.pack("=i", -errno.EINVAL) + request + bytes(48) + words
    assert str(parse.parse_error(message.NLM_F_ACK_TLVS, whole)) == str(error)
    assert parse.parse_error(0, struct.pack("=i", 0) + request) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    parse.attributes(data, 0)
    list(parse.messages(data))
    parse.parse_link(struct.pack("=BxHiII", 0, 0, 9, 0, 0) + data)


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.binary(max_size=40)), max_size=8, unique_by=lambda pair: pair[0]
    )
)
def test_attributes_there_and_back(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(message.attribute(kind, payload) for kind, payload in pairs)
    assert len(data) % 4 == 0
    assert parse.attributes(data, 0) == dict(pairs)
