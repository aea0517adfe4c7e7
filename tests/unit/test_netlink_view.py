"""The state of a host put together from what its namespaces hold, and which events may change it."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink.message import IFLA, LO_INDEX, address, attribute, route
from vswitchctl.drivers.netlink.parse import Link
from vswitchctl.drivers.netlink.reader import Contents, Place, are_peers, assemble, concerns
from vswitchctl.model.state import ROOT, NamespaceSpec, Owner, RouteSpec, VethEnd, VethSpec

NODE, LINK = Owner("t", "nodes/web"), Owner("t", "links/web:eth0--br-a")
HEADER = 16


def link(index: int, name: str, kind: str = "", **fields: object) -> Link:
    values = {
        "up": True,
        "mtu": 1500,
        "mac": "02:00:00:00:00:01",
        "alias": "",
        "master": 0,
        "peer": 0,
        "group": 0,
    }
    return Link(index=index, name=name, kind=kind, **{**values, **fields})  # type: ignore[arg-type]


def contents(*links: Link, **fields: object) -> Contents:
    return Contents(
        links={link.name: link for link in links},
        by_index={link.index: link for link in links},
        **fields,  # type: ignore[arg-type]
    )


LO = link(LO_INDEX, "lo", alias=NODE.alias)
OUTER = link(5, "v-1", "veth", alias=LINK.alias, peer=2, peer_nsid=7)
INNER = link(2, "eth0", "veth", alias=LINK.alias, peer=5, peer_nsid=0)
INSIDE = contents(LO, INNER, nsid=7, addresses={2: frozenset({"10.1.0.1/24"})}, unchecksummed=frozenset({2}))


def test_a_whole_pair() -> None:
    observed = assemble({ROOT: contents(OUTER), "web": INSIDE}, {"theirs": None})
    assert observed.owned.veths == {
        LINK.text: VethSpec(
            LINK,
            VethEnd(ROOT, "v-1", 1500),
            VethEnd(
                "web",
                "eth0",
                1500,
                mac="02:00:00:00:00:01",
                addresses=frozenset({"10.1.0.1/24"}),
                tx_checksum=False,
            ),
        )
    }
    assert observed.namespaces == {"web": NODE, "theirs": None}
    assert observed.devices == {"v-1": LINK}
    assert not observed.broken


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        pytest.param({"up": False}, {}, id="down"),
        pytest.param({"peer": 3}, {}, id="another's end"),
        pytest.param({"peer_nsid": 8}, {}, id="its end is in another namespace"),
        pytest.param({}, {"alias": ""}, id="without a mark"),
        pytest.param({}, {"kind": "bridge"}, id="no pair at all"),
    ],
)
def test_a_broken_pair(outer: dict[str, object], inner: dict[str, object]) -> None:
    root = contents(replace(OUTER, **outer))  # type: ignore[arg-type]
    inside = contents(LO, replace(INNER, **inner), nsid=7)  # type: ignore[arg-type]
    observed = assemble({ROOT: root, "web": inside}, {})
    assert LINK.text in observed.broken
    assert LINK.text not in observed.owned.veths


def test_open_vswitch_s_own_master_is_none_of_our_concern() -> None:
    """The kernel datapath is the master of its ports; a Linux bridge is what somebody attached it to."""
    for kind, seen in (("openvswitch", None), ("bridge", "m0")):
        root = contents(
            link(4, "m0", kind), link(5, "v-1", "veth", alias=LINK.alias, peer=2, peer_nsid=7, master=4)
        )
        observed = assemble({ROOT: root, "web": INSIDE}, {})
        assert observed.owned.veths[LINK.text].a.master == seen


def test_a_name_that_a_crash_left_without_its_namespace() -> None:
    observed = assemble({ROOT: contents()}, {"web": NODE})
    assert observed.owned.namespaces == {"web": NamespaceSpec(NODE, loopback_up=False)}
    assert observed.namespaces == {"web": NODE}


def test_peers_within_one_namespace_and_across() -> None:
    a = Place(ROOT, link(5, "a", "veth", peer=6))
    b = Place(ROOT, link(6, "b", "veth", peer=5))
    assert are_peers(a, b, {ROOT: contents()})
    far = Place("web", link(6, "b", "veth", peer=5, peer_nsid=0))
    assert not are_peers(a, far, {ROOT: contents(), "web": INSIDE}), "a's is in its own namespace"


# -- events ----------------------------------------------------------------------------------------------

VIEW = contents(LO, OUTER, link(8, "theirs", "bridge"))


def link_event(index: int, name: str, family: int = 0) -> bytes:
    name_attribute = attribute(IFLA["IFLA_IFNAME"], name.encode() + b"\0")
    return struct.pack("=BxHiII", family, 0, index, 0, 0) + name_attribute


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        pytest.param(rtnl.RTM_NEWLINK, link_event(5, "v-1"), True, id="ours"),
        pytest.param(rtnl.RTM_NEWLINK, link_event(1, "lo"), True, id="the mark of the namespace"),
        pytest.param(rtnl.RTM_NEWLINK, link_event(8, "theirs"), False, id="theirs"),
        pytest.param(rtnl.RTM_NEWLINK, link_event(8, "renamed"), True, id="a name is free, one is taken"),
        pytest.param(rtnl.RTM_NEWLINK, link_event(9, "new"), True, id="a name is taken"),
        pytest.param(rtnl.RTM_DELLINK, link_event(8, "theirs"), True, id="a name is free"),
        pytest.param(
            rtnl.RTM_DELLINK, link_event(8, "theirs", 7), False, id="a bridge loses a port of theirs"
        ),
        pytest.param(rtnl.RTM_DELLINK, link_event(5, "v-1", 7), True, id="a bridge loses a port of ours"),
        pytest.param(rtnl.RTM_DELADDR, address(5, "10.1.0.1/24", add=True)[HEADER:], True, id="our address"),
        pytest.param(
            rtnl.RTM_DELADDR, address(8, "10.1.0.1/24", add=True)[HEADER:], False, id="their device's"
        ),
        pytest.param(
            rtnl.RTM_NEWADDR,
            address(5, "10.1.0.1/24", add=True)[HEADER:-4] + b"\3\0\0\0",
            False,
            id="the kernel's",
        ),
        pytest.param(
            rtnl.RTM_DELROUTE,
            route(RouteSpec("10.8.0.0/16", "10.1.0.1"), add=False)[HEADER:],
            True,
            id="our route",
        ),
        pytest.param(
            rtnl.RTM_NEWROUTE, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0), False, id="their route"
        ),
        pytest.param(rtnl.RTM_NEWNEIGH, bytes(12), False, id="a neighbour"),
    ],
)
def test_an_event_that_concerns_us(kind: int, body: bytes, expected: bool) -> None:
    assert concerns(VIEW, kind, body) is expected
    assert concerns(None, kind, body), "before the first read everything does"
