"""What a host cannot do is refused before anything is touched: meters it lacks, tc settings it would lose."""

from __future__ import annotations

from typing import Any

import pytest

from vswitchctl.errors import Conflict
from vswitchctl.model.state import Facts, ObservedOvs, OvsState
from vswitchctl.model.topology import Topology
from vswitchctl.service.refuse import refuse_loss_of_tc, refuse_unenforced


def topology(**more: Any) -> Topology:
    return Topology.model_validate(
        {
            "name": "t",
            "tenants": {"red": {}},
            "networks": {"web": {"tenant": "red"}},
            "qos": {"gold": {"max_rate": "10mbit"}, "marked": {"dscp": "ef"}},
            "nodes": {
                "br": {"kind": "bridge"},
                "wan": {"kind": "uplink", "interface": "eth1", "network": "web"},
                "a": {
                    "kind": "namespace",
                    "tenant": "red",
                    "interfaces": {"eth0": {"network": "web", **more}},
                },
            },
            "links": [{"ends": ["a:eth0", "br"]}, {"ends": ["wan", "br"]}],
        }
    )


def observed(*ports: str) -> ObservedOvs:
    return ObservedOvs(OvsState(), {}, {}, dict.fromkeys(ports), frozenset({"system", "netdev"}), ())


@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize(
    ("most", "said"),
    [(0, "has no meters"), (200, "has 200 meters, and the limits need ids up to 65544"), (65544, None)],
)
def test_limits_need_meters(system: bool, most: int, said: str | None) -> None:
    asked: list[str] = []

    def most_meters(kind: str) -> int:
        asked.append(kind)
        return most

    facts = Facts(system_datapath=system)
    if said is None:
        refuse_unenforced(topology(qos="gold"), facts, most_meters)
    else:
        with pytest.raises(Conflict, match=said):
            refuse_unenforced(topology(qos="gold"), facts, most_meters)
    assert asked == ["system" if system else "netdev"]


def test_without_a_bridge_nobody_can_say_and_without_limits_nobody_asks() -> None:
    refuse_unenforced(topology(qos="gold"), Facts(), lambda kind: None)
    refuse_unenforced(topology(qos="marked"), Facts(), lambda kind: 0)


def test_what_open_vswitch_would_take_away_is_refused_while_it_is_there() -> None:
    with pytest.raises(Conflict, match="nodes/wan: 'eth1' has a qdisc for what comes in") as caught:
        refuse_loss_of_tc(topology(), observed(), lambda: {"eth1"})
    assert caught.value.remedy == "remove it yourself: tc qdisc del dev eth1 ingress"
    refuse_loss_of_tc(topology(), observed(), lambda: {"eth2"})
    refuse_loss_of_tc(topology(), observed("eth1"), lambda: {"eth1"})
