"""Open vSwitch against the plain reference: whole histories of packets through real conntrack.

Random policies on one bridge with a router, random packets and answers in both directions, and policies that
change under connections that are open. Devices are simulated (netdev-dummy), the datapath and its conntrack
are not.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from instances import Ovs

from tests.packets import frame
from tests.policies import document, next_mac, packet, policy
from tests.reference import Packet, Reference, answer
from vswitchctl.compiler.compile import compile_topology
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.flow import cookie as flow_cookie
from vswitchctl.model.intent import Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.state import Facts, Owner
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.topology.validate import validate

HISTORIES, PACKETS, CHANGES = 60, 400, 4
VERDICTS = HISTORIES * PACKETS
"""Packets whose receivers are compared: at least 20,000."""

REQUESTS_PER_TURN = 10
"""Requests that ovs-vswitchd may answer in one turn of its main loop: run_connection in lib/unixctl.c."""


class Control:
    """ovs-appctl over one connection: JSON-RPC on ovs-vswitchd's control socket, unixctl(7)."""

    def __init__(self, rundir: Path) -> None:
        (path,) = rundir.glob("ovs-vswitchd.*.ctl")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))

    def __call__(self, method: str, *params: str) -> str:
        self._socket.sendall(json.dumps({"id": 0, "method": method, "params": params}).encode())
        said = b""
        while True:
            said += self._socket.recv(1 << 16)
            with contextlib.suppress(ValueError):
                reply = json.loads(said)
                assert reply["error"] is None, reply
                return str(reply["result"])

    def close(self) -> None:
        self._socket.close()


class Bridge:
    """br0 with a simulated port for each endpoint; what leaves by a port grows its capture file."""

    def __init__(self, ovs: Ovs, ends: list[str]) -> None:
        self.number = {end: at for at, end in enumerate(ends, 1)}
        self.capture = {end: ovs.rundir / f"p{at}.pcap" for end, at in self.number.items()}
        ports = [
            word
            for end, at in self.number.items()
            for word in (
                *("--", "add-port", "br0", f"p{at}", "--", "set", "interface", f"p{at}", "type=dummy"),
                *(f"ofport_request={at}", f"options:tx_pcap={self.capture[end]}"),
            )
        ]
        ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure", *ports)
        self.control = Control(ovs.rundir)
        self.driver = OpenFlowDriver(ovs.rundir)
        self.driver.connect(["br0"])
        self.flows: FlowTable = {}

    def close(self) -> None:
        self.driver.close()
        self.control.close()

    def load(self, topology: Topology) -> int:
        """Make the bridge hold this policy, as the reconciler would; how many flows that changed."""
        wanted = self.compiled(topology)
        changed = {key: value for key, value in wanted.items() if self.flows.get(key) != value}
        gone = self.flows.keys() - wanted.keys()
        assert self.driver.apply("br0", changed, gone) == []
        self.flows = wanted
        self._forget_cached()
        return len(changed) + len(gone)

    def _forget_cached(self) -> None:
        """No cached flow outlives a change: packets come at once after it, before Open vSwitch looks again.

        revalidator_sweep__ in ofproto/ofproto-dpif-upcall.c leaves out each flow that a revalidator has
        locked, so none may be at work meanwhile.
        """
        self.control("revalidator/pause")
        self.control("revalidator/purge")
        self.control("revalidator/resume")
        assert "recirc_id" not in self.control("dpctl/dump-flows")

    def compiled(self, topology: Topology) -> FlowTable:
        stored = Stored(
            topology,
            1,
            allocate_tags(topology, {}),
            zones=allocate_zones(topology, {}, ()),
            meters=allocate_meters(topology, {}),
        )
        wiring = compile_wiring(topology, Facts())
        ofports = {key: self.number[end] for (_, end), key in wiring.ports.items()}
        return compile_topology(stored, Facts(ofports), load_apps()).flows["br0"]

    def send(self, end: str, sent: Packet) -> set[str]:
        """Who gets it."""
        before = self._sizes()
        self.control("netdev-dummy/receive", f"p{self.number[end]}", frame(sent).hex())
        for _ in range(REQUESTS_PER_TURN):
            self.control("version")
        after = self._sizes()
        return {other for other in after if after[other] != before[other]}

    def zones_with_connections(self) -> set[int]:
        return {int(zone) for zone in re.findall(r"zone=(\d+)", self.control("dpctl/dump-conntrack"))}

    def _sizes(self) -> dict[str, int]:
        return {end: path.stat().st_size for end, path in self.capture.items()}


@pytest.fixture
def bridge(make_ovs: Callable[..., Ovs]) -> Iterator[Bridge]:
    made = Bridge(make_ovs(dummy=True), list(document(Random(0)).endpoints()))
    try:
        yield made
    finally:
        made.close()


def replay(bridge: Bridge, seed: int) -> dict[bool, int]:
    """One history; how many packets arrived somewhere, and how many nowhere: PACKETS together.

    Those of which the reference cannot tell do not count.
    """
    random = Random(seed)
    topology = document(random)
    assert [f for f in validate(topology) if f.severity == "error"] == []
    bridge.control("dpctl/flush-conntrack")
    bridge.load(topology)
    reference = Reference(topology)
    counts = {True: 0, False: 0}
    arrived: list[tuple[str, Packet]] = []
    number = -1
    while sum(counts.values()) < PACKETS:
        number += 1
        assert number < 2 * PACKETS, f"seed {seed}: the reference cannot tell of too many packets"
        if number % (PACKETS // CHANGES) == PACKETS // CHANGES - 1:
            topology = Topology.model_validate({**topology.model_dump(), **policy(random)})
            reference.changed(topology)
            bridge.load(topology)
        end, sent = packet(random, topology)
        if arrived and random.random() < 0.5:
            end, sent = random.choice(arrived[-12:])
            if sent.step:
                arrived.remove((end, sent))
        if reference.unsettled(end, sent):
            continue
        got, expected = bridge.send(end, sent), reference.send(end, sent)
        assert got == expected, f"seed {seed}, packet {number}, {end} sends {sent}"
        counts[bool(got)] += 1
        arrived += [(end, sent)] if got and sent.protocol and not sent.step else []
        for other in sorted(got):
            if other != end and sent.protocol and sent.step in ("", "syn", "synack"):
                back = answer(replace(sent, dst_mac=topology.endpoint_mac(other)))
                back = replace(back, dst_mac=next_mac(topology, other, end))
                arrived.append((other, replace(back, step="ack") if sent.step == "synack" else back))
    return counts


@settings(
    max_examples=HISTORIES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32))
def test_every_packet_goes_where_the_policy_says(bridge: Bridge, seed: int) -> None:
    """A failure prints its seed: replay(bridge, seed) runs it again."""
    assert sum(replay(bridge, seed).values()) == PACKETS


def test_histories_hold_packets_that_arrive_and_packets_that_do_not(bridge: Bridge) -> None:
    counts = replay(bridge, 1)
    assert min(counts.values()) > PACKETS // 8


def test_a_flushed_zone_remembers_nothing_and_the_others_all(bridge: Bridge) -> None:
    """Every interface with ACLs has connections after a history; the driver empties one of the zones."""
    replay(bridge, 1)
    before = bridge.zones_with_connections()
    assert len(before) > 2
    gone = min(before)
    bridge.driver.flush_zones("br0", [gone])
    assert bridge.zones_with_connections() == before - {gone}
    bridge.driver.flush_zones("br0", sorted(before))
    assert bridge.zones_with_connections() == set()


def test_a_wrong_policy_would_be_noticed(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference forgets one kind of rule, and the first histories already differ."""
    monkeypatch.setattr(Reference, "_rules", lambda *_: [])
    with pytest.raises(AssertionError, match="seed"):
        for seed in range(5):
            replay(bridge, seed)


def test_one_more_rule_changes_the_flows_of_that_rule_alone(bridge: Bridge) -> None:
    """Nothing else is sent to the switch, so the counters of all other flows go on."""
    topology = document(Random(3))
    bridge.load(topology)
    before = dict(bridge.flows)
    rule = {"direction": "in", "action": "allow", "protocol": "tcp", "ports": [22]}
    acls = {name: [r.model_dump() for r in rules] for name, rules in topology.acls.items()}
    name = next(name for end in topology.endpoints().values() for name in end.acls)
    acls[name].append(rule)
    changed = bridge.load(Topology.model_validate({**topology.model_dump(), "acls": acls}))
    mark = cookie(Owner("random", f"acls/{name}"), len(acls[name]))
    added = {key: value for key, value in bridge.flows.items() if before.get(key) != value}
    sets = {end.acls for end in topology.endpoints().values() if name in end.acls}
    assert {flow_cookie(value) for value in added.values()} == {mark}
    assert before.keys() <= bridge.flows.keys()
    assert changed == len(added) == 2 * len(sets), "one flow for each IP version and set of ACLs"
