"""Limits as declared, as numbers for meters, and as flows: one shape per combination."""

from __future__ import annotations

from typing import Any

import pytest

from openflow_apps.qos import APP
from vswitchctl.compiler.limits import port_limits
from vswitchctl.errors import Conflict
from vswitchctl.model.intent import allocate_meters
from vswitchctl.model.meter import NUMBERS, meter_id
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import Limit, PortLimits, Switch, SwitchNetwork, SwitchPort
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.meters import meter_text

OWNER = Owner("t", "interfaces/a:eth0")
RATE, PACKETS = Limit(1000, 250), Limit(10, 2)


def topology(qos: dict[str, Any], **interface: Any) -> Topology:
    return Topology.model_validate(
        {
            "name": "t",
            "tenants": {"red": {}},
            "networks": {"web": {"tenant": "red", "storm": {"broadcast": "1kpps", "multicast": 5}}},
            "qos": {"gold": qos},
            "nodes": {
                "br": {"kind": "bridge"},
                "a": {
                    "kind": "namespace",
                    "tenant": "red",
                    "interfaces": {"eth0": {"network": "web", "qos": "gold", **interface}},
                },
                "wan": {"kind": "uplink", "interface": "eth1", "network": "web", "storm": {"multicast": 9}},
                "trunk": {"kind": "uplink", "interface": "eth2", "trunk": {"web": 7}},
            },
            "links": [{"ends": ["a:eth0", "br"]}, {"ends": ["wan", "br"]}, {"ends": ["trunk", "br"]}],
        }
    )


def limits_of(end: str, qos: dict[str, Any], **interface: Any) -> PortLimits:
    found = port_limits(topology(qos, **interface), {"a:eth0": 3, "wan": 4}, end)
    assert found is not None
    return found


def test_both_directions_or_one_each_with_its_burst() -> None:
    both = limits_of("a:eth0", {"max_rate": "20mbit", "burst": {"out": "125 kbyte"}, "max_pps": "2kpps"})
    assert (both.rate_to, both.rate_from) == (Limit(20_000, 5_000), Limit(20_000, 1_000))
    assert both.packets_to == both.packets_from == Limit(2000, 500)
    one = limits_of("a:eth0", {"max_rate": {"in": "64kbit"}, "max_pps": {"out": 1}, "dscp": "af41"})
    assert (one.rate_to, one.rate_from) == (Limit(64, 25), None), "two frames of 1518 octets at least"
    assert (one.packets_to, one.packets_from, one.dscp) == (None, Limit(1, 1), 34)


def test_storms_are_those_of_the_port_over_those_of_its_network() -> None:
    own = limits_of("a:eth0", {"dscp": 0}, storm={"broadcast": 7, "unknown_unicast": 8})
    assert (own.broadcast, own.multicast, own.unknown_unicast) == (Limit(7, 1), Limit(5, 1), Limit(8, 2))
    uplink = limits_of("wan", {"dscp": 0})
    assert (uplink.broadcast, uplink.multicast) == (Limit(1000, 250), Limit(9, 2))
    assert uplink.owner.entity == "nodes/wan"
    assert port_limits(topology({"dscp": 0}), {}, "trunk") is None


def test_numbers_are_kept_and_the_lowest_free_one_is_next() -> None:
    one = topology({"max_rate": "1mbit"})
    assert allocate_meters(one, {}) == {"a:eth0": 0, "wan": 1}
    assert allocate_meters(one, {"wan": 0, "gone": 5}) == {"a:eth0": 1, "wan": 0}


def test_there_are_only_so_many_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vswitchctl.model.intent.NUMBERS", range(1))
    with pytest.raises(Conflict, match="no meters are left for 'wan'"):
        allocate_meters(topology({"dscp": 0}), {})
    assert meter_id(NUMBERS[-1], 7) == 0x2FFFF


def flows(**limits: Any) -> list[str]:
    """The flows of a port with these limits, without those that every bridge has."""
    port = SwitchPort(5, OWNER, (), limits=PortLimits(OWNER, 0, **limits))
    network = SwitchNetwork(1, OWNER, True, (5,))
    switch = Switch("br", OWNER, (port,), (), (network,))
    used = {meter_text(meter.value).split(",")[0] for meter in APP.meters(switch)}
    assert used <= {"kbps", "pktps"}
    said = [describe(flow).text for flow in APP.compile(switch)]
    return [text for text in said if "priority=0," not in text]


FIRST = "table=qos_from,priority=100,in_port=5,actions=meter:65536"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"rate_from": RATE}, [f"{FIRST},goto_table:40"]),
        ({"packets_from": RATE}, [f"{FIRST[:-1]}7,goto_table:40"]),
        (
            {"rate_from": RATE, "packets_from": PACKETS},
            [
                f"{FIRST},goto_table:31",
                "table=qos_from_packets,priority=100,in_port=5,actions=meter:65537,goto_table:40",
            ],
        ),
        (
            {"dscp": 46},
            [
                f"table=qos_from,priority=110,in_port=5,dl_type={kind},"
                "actions=set_field:46->ip_dscp,goto_table:40"
                for kind in ("0x800", "0x86dd")
            ],
        ),
        (
            {"multicast": PACKETS},
            [
                "table=qos_from,priority=100,in_port=5,actions=goto_table:32",
                "table=storm,priority=101,in_port=5,dl_dst=ff:ff:ff:ff:ff:ff,actions=goto_table:40",
                "table=storm,priority=100,in_port=5,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,"
                "actions=meter:65541,goto_table:40",
            ],
        ),
        (
            {"rate_to": RATE, "packets_to": PACKETS},
            [
                "table=qos_to,priority=110,in_port=5,reg1=0x5,actions=drop",
                "table=qos_to,priority=100,reg1=0x5,actions=meter:65538,goto_table:111",
                "table=qos_to_packets,priority=100,reg1=0x5,actions=meter:65539,goto_table:120",
            ],
        ),
        (
            {"unknown_unicast": PACKETS},
            ["table=unknown_storm,priority=100,in_port=5,reg1=0x0,actions=meter:65542,resubmit(,82)"],
        ),
    ],
)
def test_each_limit_costs_as_few_flows_as_it_can(limits: dict[str, Any], expected: list[str]) -> None:
    assert flows(**limits) == expected
