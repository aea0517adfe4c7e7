"""Learning on paper: each port and network has its share, and nobody takes over a declared MAC."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation import BROADCAST, Fabric, Frame
from vswitchctl.compiler.learning import learn_limit, network_limits
from vswitchctl.model.topology import LEARN_LIMIT, Topology


def topology(**limits: int) -> Topology:
    """An uplink in two networks, a Linux bridge, and guests that bridge, at two bridges."""

    def learning(name: str) -> dict[str, Any]:
        return {"learn_limit": limits[name]} if name in limits else {}

    def guest(network: str, **keys: Any) -> dict[str, Any]:
        return {"kind": "namespace", "tenant": "t", "interfaces": {"i": {"network": network, **keys}}}

    nodes = {
        **{name: {"kind": "bridge"} for name in ("br-a", "br-b")},
        "wan": {"kind": "uplink", "interface": "eth1", "trunk": {"lan": 1, "lab": 2}, **learning("wan")},
        "lan0": {"kind": "linux-bridge", "network": "lan", **learning("lan0")},
        "nested": guest("lan", port_security=False, **learning("nested")),
        "other": guest("lan", port_security=False, **learning("other")),
        "plain": guest("lan"),
        "lab1": guest("lab"),
    }
    pairs = [("nested:i", "br-a"), ("other:i", "br-b"), ("plain:i", "br-b"), ("lab1:i", "br-b")]
    pairs += [("wan", "br-a"), ("lan0", "br-a"), ("br-a", "br-b")]
    data = {
        "name": "learning",
        "tenants": {"t": {}},
        "networks": {"lan": {"tenant": "t"}, "lab": {"tenant": "t"}},
        "nodes": nodes,
        "links": [{"ends": ends} for ends in pairs],
    }
    return Topology.model_validate(data)


def stranger(number: int, dst: str = BROADCAST) -> Frame:
    return Frame(f"0a:00:00:00:00:{number:02x}", dst)


def behind(fabric: Fabric, bridge: str, towards: str) -> set[int]:
    """The numbers of strangers that the bridge knows behind a port."""
    port = fabric.port[bridge, towards]
    learned = fabric.switches[bridge].learned
    return {dict(key)["eth_dst"] & 0xFF for key, found in learned.items() if found["reg1"] == port}


def test_who_invents_sources_fills_its_own_share_alone() -> None:
    fabric = Fabric(topology(nested=3, other=2, wan=0, lan0=0))
    for number in range(10):
        fabric.send("nested:i", stranger(number))
    assert behind(fabric, "br-a", "nested:i") == {0, 1, 2}
    fabric.send("other:i", stranger(0x21))
    assert behind(fabric, "br-b", "other:i") == {0x21}
    assert fabric.send("plain:i", Frame(fabric.topology.endpoint_mac("plain:i"), stranger(0x21).src)) == {
        "other:i": 1
    }


def test_a_frame_from_above_the_bound_passes_and_its_answer_is_flooded() -> None:
    fabric = Fabric(topology(nested=1, other=0, wan=0, lan0=0))
    plain = fabric.topology.endpoint_mac("plain:i")
    fabric.send("nested:i", stranger(1))
    assert fabric.send("nested:i", stranger(2, plain)) == {"plain:i": 1}
    assert fabric.send("plain:i", Frame(plain, stranger(1).src)) == {"nested:i": 1}
    assert fabric.send("plain:i", Frame(plain, stranger(2).src)) == {"nested:i": 1, "other:i": 1, "wan": 1}


def test_a_stranger_that_moves_is_found_at_once_even_where_its_old_port_is_full() -> None:
    fabric = Fabric(topology(nested=2, other=2))
    plain = fabric.topology.endpoint_mac("plain:i")
    for number in range(4):
        fabric.send("nested:i", stranger(number))
    fabric.send("other:i", stranger(1))
    assert fabric.send("plain:i", Frame(plain, stranger(1).src)) == {"other:i": 1}
    assert behind(fabric, "br-a", "nested:i") == {0}
    fabric.send("nested:i", stranger(9))
    assert behind(fabric, "br-a", "nested:i") == {0, 9}, "its place is free again"


def test_a_declared_mac_is_never_learned() -> None:
    fabric = Fabric(topology())
    plain, nested = (fabric.topology.endpoint_mac(end) for end in ("plain:i", "nested:i"))
    fabric.send("nested:i", Frame(plain, BROADCAST))
    assert fabric.send("nested:i", Frame(nested, plain)) == {"plain:i": 1}
    assert all(not switch.learned for switch in fabric.switches.values())


def test_networks_of_a_port_have_a_share_each() -> None:
    fabric = Fabric(topology(wan=2))
    port = fabric.port["br-a", "wan"]
    for number in range(4):
        for vid in (1, 2):
            fabric.switches["br-a"].receive(Frame(stranger(number).src, BROADCAST, vid), port)
    learned = [dict(key)["reg0"] for key in fabric.switches["br-a"].learned]
    assert sorted(learned.count(tag) for tag in set(learned)) == [2, 2]


@pytest.mark.parametrize(
    ("towards", "limit"), [("wan", 7), ("lan0", 5), ("nested:i", 3), ("plain:i", 0), ("br-a", 0)]
)
def test_the_limit_is_the_file_s(towards: str, limit: int) -> None:
    assert learn_limit(topology(wan=7, lan0=5, nested=3), towards) == limit


def test_links_between_bridges_have_room_for_all() -> None:
    assert network_limits(topology(wan=7, lan0=5, nested=3, other=1)) == {"lan": 16, "lab": 7}
    assert network_limits(topology())["lab"] == LEARN_LIMIT
