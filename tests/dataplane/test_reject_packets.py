"""What is sent up of packets that a rule rejects: those to one receiver that is known, and no others."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from instances import Ovs

from tests.packets import frame
from tests.reference import BROADCAST, Packet
from vswitchctl.compiler.compile import compile_topology
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.intent import Stored, allocate_tags, allocate_zones
from vswitchctl.model.state import Facts
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.punt import Opcode, PacketIn

SECONDS = 20
STRANGER, OUTSIDE = "02:00:00:00:00:66", "02:00:00:00:00:99"
ENDS = ("web:eth0", "open:eth0", "wan")


def topology(action: str = "reject", **rule: Any) -> Topology:
    """An endpoint that rejects what comes in, one without ACLs, and an uplink: what is unknown floods."""
    interface = {"network": "n", "ip": ["10.1.0.2/24", "fd00:1::2/64"], "mac": "02:00:00:00:00:0b"}
    other = {"network": "n", "ip": "10.1.0.3/24", "mac": "02:00:00:00:00:0c"}
    data = {
        "name": "r",
        "tenants": {"t": {}},
        "networks": {"n": {"tenant": "t"}},
        "nodes": {
            "br0": {"kind": "bridge"},
            "web": {"kind": "namespace", "tenant": "t", "interfaces": {"eth0": {**interface, "acls": "web"}}},
            "open": {"kind": "namespace", "tenant": "t", "interfaces": {"eth0": other}},
            "wan": {"kind": "uplink", "interface": "eth1", "network": "n"},
        },
        "acls": {"web": [{"direction": "in", "action": action, **rule}]},
        "links": [{"ends": [end, "br0"]} for end in ENDS],
    }
    return Topology.model_validate(data)


def compiled(wanted: Topology) -> FlowTable:
    stored = Stored(wanted, 1, allocate_tags(wanted, {}), zones=allocate_zones(wanted, {}, ()))
    wiring = compile_wiring(wanted, Facts())
    ofports = {key: 1 + ENDS.index(end) for (_, end), key in wiring.ports.items()}
    return compile_topology(stored, Facts(ofports), load_apps()).flows["br0"]


class Rejecting:
    """br0, and what comes up from it."""

    def __init__(self, ovs: Ovs) -> None:
        self.ovs = ovs
        self.up: queue.Queue[PacketIn] = queue.Queue()
        ports = [
            word
            for number in (1, 2, 3)
            for word in (
                *("--", "add-port", "br0", f"p{number}"),
                *("--", "set", "interface", f"p{number}", "type=dummy", f"ofport_request={number}"),
            )
        ]
        ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure", *ports)
        self.driver = OpenFlowDriver(ovs.rundir, on_packet=self._note)
        self.driver.connect(["br0"])

    def _note(self, packet: PacketIn) -> tuple[()]:
        self.up.put(packet)
        return ()

    def load(self, wanted: Topology) -> None:
        flows = compiled(wanted)
        gone = self.driver.read("br0").owned.keys() - flows.keys()
        assert self.driver.apply("br0", flows, gone) == []
        self.ovs.appctl("revalidator/wait")  # what the datapath has cached of the flows before

    def send(self, packet: Packet) -> None:
        """From outside, by the uplink."""
        self.ovs.appctl("netdev-dummy/receive", "p3", frame(packet).hex())

    def came_up(self) -> PacketIn:
        return self.up.get(timeout=SECONDS)


@pytest.fixture
def bridge(make_ovs: Callable[..., Ovs]) -> Iterator[Rejecting]:
    made = Rejecting(make_ovs(dummy=True))
    try:
        yield made
    finally:
        made.driver.close()


UDP = Packet(OUTSIDE, "02:00:00:00:00:0b", 17, "10.1.0.9", "10.1.0.2", 4000, 53)
LAST = replace(UDP, a=4999)


@pytest.mark.parametrize("rule", [{}, {"stateful": False}], ids=["stateful", "stateless"])
def test_only_what_is_for_the_receiver_alone_is_sent_up(bridge: Rejecting, rule: dict[str, Any]) -> None:
    """Packets come up in order: what comes after those that must not is the first to come."""
    bridge.load(topology(**rule))
    bridge.send(replace(UDP, dst_mac=BROADCAST))
    bridge.send(replace(UDP, dst_mac=STRANGER))
    bridge.send(replace(UDP, dst_mac="01:00:5e:00:00:01", dst="224.0.0.1"))
    bridge.send(replace(UDP, dst_mac="02:00:00:00:00:0c", dst="10.1.0.3"))
    bridge.send(LAST)
    packet = bridge.came_up()
    assert packet.data == frame(LAST)
    assert packet.opcode == Opcode.REJECT_RECEIVER
    assert bridge.up.empty()


def test_what_is_denied_is_never_sent_up(bridge: Rejecting) -> None:
    bridge.load(topology("deny"))
    bridge.send(UDP)
    bridge.load(topology("reject"))
    bridge.send(LAST)
    assert bridge.came_up().data == frame(LAST)
    assert bridge.up.empty()


def test_only_a_bridge_with_such_a_rule_has_flows_for_it() -> None:
    denying, rejecting = compiled(topology("deny")), compiled(topology("reject"))
    more = rejecting.keys() - denying.keys()
    assert denying.keys() <= rejecting.keys()
    assert len(more) == 5, "in commit_to, for both IP versions, stateless rules, and the rest"
    changed = {key for key in denying if denying[key] != rejecting[key]}
    assert len(changed) == 2, "the rule's own, and the flood that marks its copies"
