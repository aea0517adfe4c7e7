"""A flood to more ports than one flow holds goes on in further flows, and every port gets one copy."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from openflow_apps.acl import APP as ACL
from openflow_apps.acl import CONNTRACK
from openflow_apps.l2 import APP as L2
from openflow_apps.l2 import FLOOD_PORTS
from openflow_apps.learning import APP as LEARNING
from openflow_apps.routing import APP as ROUTING
from tests.simulation import BROADCAST, Frame, Switch
from vswitchctl.model import switch as view
from vswitchctl.model.flow import Flow
from vswitchctl.model.state import Owner
from vswitchctl.pipeline.decode import describe

OWNER = Owner("t", "networks/n")


def bridge(ports: int) -> view.Switch:
    part = view.Membership(tag=5, vid=None, flood=True, learn=False)
    return view.Switch(
        "br",
        Owner("t", "nodes/br"),
        ports=tuple(view.SwitchPort(number, OWNER, (part,)) for number in range(1, ports + 1)),
        macs=(),
        networks=(view.SwitchNetwork(5, OWNER, learns=False, flood=tuple(range(1, ports + 1))),),
    )


@pytest.mark.parametrize("ports", [1, 2, FLOOD_PORTS, FLOOD_PORTS + 1, 2 * FLOOD_PORTS, 2500])
def test_every_port_but_the_sender_gets_one_copy(ports: int) -> None:
    switch = bridge(ports)
    tables = Switch(
        dict(flow for app in (L2, ACL, CONNTRACK, ROUTING, LEARNING) for flow in app.compile(switch))
    )
    got = Counter(port for port, _ in tables.receive(Frame("02:00:00:00:00:01", BROADCAST), 1))
    assert got == dict.fromkeys(range(2, ports + 1), 1)


@pytest.mark.parametrize(("ports", "flows"), [(1, 1), (FLOOD_PORTS, 1), (FLOOD_PORTS + 1, 2), (2500, 3)])
def test_a_flow_for_each_thousand_ports(ports: int, flows: int) -> None:
    assert sum(key[0] == 82 and key[1:3] != bytes(2) for key, _ in L2.compile(bridge(ports))) == flows


def test_only_ports_with_acls_are_flooded_to_by_way_of_them() -> None:
    coverage = view.Coverage(covers_in=True, covers_out=False, rejects_in=False, rejects_out=False)
    policy = view.PortAcl(OWNER, zone=1, set=7, coverage=coverage)
    plain = bridge(4)
    ports = tuple(replace(port, acl=policy if port.ofport == 3 else None) for port in plain.ports)
    before, after = dict(L2.compile(plain)), dict(L2.compile(replace(plain, ports=ports)))
    (changed,) = [key for key in before if before[key] != after[key]]
    assert before.keys() == after.keys()
    said = describe(Flow(changed, after[changed])).actions_text
    assert re.findall(r"load:0x(\d)->reg1\[\],resubmit\(,(\d+)\)", said) == [
        *(("1", "120"), ("2", "120"), ("3", "90"), ("4", "120"))
    ]
