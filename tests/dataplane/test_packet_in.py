"""Packets that come up from a real switch, answers that go down, and the limit on them."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from instances import Ovs

from openflow_apps.answers import reject
from tests.packets import frame
from tests.reference import Packet
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.drivers.openflow.packets import BURST, RATE
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.state import Owner
from vswitchctl.pipeline.actions import load, output
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import flow
from vswitchctl.pipeline.fields import IN_PORT
from vswitchctl.pipeline.punt import Opcode, PacketIn, PacketOut, continue_in, punt
from vswitchctl.pipeline.registers import NETWORK, OUT_PORT
from vswitchctl.pipeline.tables import Table

SECONDS = 20
MARK = cookie(Owner("test", "acls/web"), 3)
FIRST = Table(
    0,
    "first",
    matches=frozenset({"in_port"}),
    sets=frozenset({"network", "controller"}),
    next=frozenset({"last"}),
)
LAST = Table(120, "last", matches=frozenset({"network", "out_port"}), sets=frozenset({"output"}))
UDP = Packet("02:00:00:00:00:0a", "02:00:00:00:00:0b", 17, "10.1.0.1", "10.1.0.2", 40000, 53)


def flows(mark: int = MARK) -> FlowTable:
    """What comes from port 1 is asked about; what is of network 5 and for port 1 or 2 leaves."""
    return dict(
        [
            flow(
                FIRST,
                10,
                {IN_PORT: 1},
                [load(NETWORK, 5), punt(Opcode.REJECT_SENDER)],
                cookie=mark,
            ),
            *(flow(LAST, 10, {NETWORK: 5, OUT_PORT: port}, [output(port)], cookie=mark) for port in (1, 2)),
        ]
    )


class Asked:
    """A switch with ports p1 and p2, and a driver whose packets are answered by `answer`."""

    def __init__(self, ovs: Ovs) -> None:
        self.ovs = ovs
        self.events: queue.Queue[str] = queue.Queue()
        self.packets: queue.Queue[PacketIn] = queue.Queue()
        self.answer: Callable[[PacketIn], Iterable[PacketOut]] = lambda packet: ()
        self.driver = OpenFlowDriver(ovs.rundir, self.events.put, self._handle)
        self.add_bridge()
        self.driver.connect(["br0"])
        self.connected()

    def add_bridge(self) -> None:
        ports = [
            word
            for number in (1, 2)
            for word in (
                *("--", "add-port", "br0", f"p{number}"),
                *("--", "set", "interface", f"p{number}", "type=dummy", f"ofport_request={number}"),
                f"options:tx_pcap={self.ovs.rundir}/p{number}.pcap",
            )
        ]
        self.ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure", *ports)

    def connected(self) -> None:
        while not self.driver.connected("br0"):
            self.events.get(timeout=SECONDS)
        # The switch handles messages in order, so what the session asked for holds once it has answered.
        self.driver.read("br0")

    def _handle(self, packet: PacketIn) -> Iterable[PacketOut]:
        self.packets.put(packet)
        return self.answer(packet)

    def send(self, data: bytes, times: int = 1) -> None:
        for _ in range(times):
            self.ovs.appctl("netdev-dummy/receive", "p1", data.hex())

    def packet(self) -> PacketIn:
        return self.packets.get(timeout=SECONDS)

    def meter(self) -> str:
        return " ".join(self.ovs.ofctl("dump-meters", "br0").split())


@pytest.fixture
def asked(make_ovs: Callable[..., Ovs]) -> Iterator[Asked]:
    made = Asked(make_ovs(dummy=True))
    try:
        yield made
    finally:
        made.driver.close()


def test_a_packet_comes_up_as_it_was_in_the_table(asked: Asked) -> None:
    assert asked.driver.apply("br0", flows(), ()) == []
    asked.send(frame(UDP))
    packet = asked.packet()
    assert (packet.bridge, packet.opcode, packet.cookie, packet.table) == ("br0", 1, MARK, 0)
    assert (packet.in_port, packet.register(NETWORK), packet.register(OUT_PORT)) == (1, 5, 0)
    assert packet.data == frame(UDP)


@pytest.mark.parametrize("port", [1, 2], ids=["back to where it came from", "to another port"])
def test_an_answer_goes_on_in_the_pipeline(asked: Asked, port: int) -> None:
    answered = threading.Event()

    def answer(packet: PacketIn) -> Iterable[PacketOut]:
        data = reject(packet.data)
        assert data is not None
        yield continue_in(LAST, data, {NETWORK: packet.register(NETWORK), OUT_PORT: port})
        answered.set()

    asked.answer = answer
    assert asked.driver.apply("br0", flows(), ()) == []
    asked.send(frame(UDP))
    assert answered.wait(SECONDS)
    asked.driver.read("br0")
    told = reject(frame(UDP))
    assert told is not None
    assert told in (asked.ovs.rundir / f"p{port}.pcap").read_bytes()
    assert told not in (asked.ovs.rundir / f"p{3 - port}.pcap").read_bytes()


def test_packets_of_flows_that_are_not_ours_are_left_alone(asked: Asked) -> None:
    assert asked.driver.apply("br0", flows(), ()) == []
    asked.ovs.ofctl("add-flow", "br0", "table=0,priority=99,in_port=p1,udp,actions=controller")
    asked.send(frame(UDP))
    asked.ovs.ofctl("--strict", "del-flows", "br0", "table=0,priority=99,in_port=p1,udp")
    asked.send(frame(UDP))
    assert asked.packet().cookie == MARK
    assert asked.packets.empty()


def test_a_slow_answer_keeps_nothing_else_waiting(asked: Asked) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def answer(packet: PacketIn) -> Iterable[PacketOut]:
        entered.set()
        assert go_on.wait(SECONDS)
        return ()

    asked.answer = answer
    assert asked.driver.apply("br0", flows(), ()) == []
    asked.send(frame(UDP))
    assert entered.wait(SECONDS)
    try:
        asked.send(frame(UDP), times=20)
        assert asked.driver.apply("br0", flows(MARK + 1), ()) == []
        assert asked.driver.read("br0").owned == flows(MARK + 1)
    finally:
        go_on.set()


LIMIT = f"bands= type=drop rate={RATE} burst_size={BURST}"


def test_the_switch_limits_what_it_sends_up(asked: Asked) -> None:
    assert "meter=controller pktps burst" in asked.meter() and LIMIT in asked.meter()
    assert asked.driver.apply("br0", flows(), ()) == []
    asked.ovs.ofctl("mod-meter", "br0", "meter=controller,pktps,burst,band=type=drop,rate=1,burst_size=1")
    asked.send(frame(UDP), times=200)
    found = re.search(r"0: packet_count:(\d+)", asked.ovs.ofctl("meter-stats", "br0"))
    assert found is not None and int(found[1]) > 100
    assert asked.packets.qsize() < 100


def test_the_limit_comes_back_with_the_session_and_with_the_switch(asked: Asked) -> None:
    for change in ("mod-meter", "del-meter"):
        band = ",pktps,burst,band=type=drop,rate=7,burst_size=7" if change == "mod-meter" else ""
        asked.ovs.ofctl(change, "br0", f"meter=controller{band}")
        assert LIMIT not in asked.meter()
        asked.driver.connect([])
        asked.driver.connect(["br0"])
        asked.connected()
        assert LIMIT in asked.meter()
    asked.ovs.kill("ovs-vswitchd")
    while asked.driver.connected("br0"):
        asked.events.get(timeout=SECONDS)
    asked.ovs.start_vswitchd()
    asked.connected()
    assert LIMIT in asked.meter()
    assert asked.driver.apply("br0", flows(), ()) == []
    asked.send(frame(UDP))
    assert asked.packet().cookie == MARK


def test_without_anybody_who_answers_nothing_comes_up(make_ovs: Callable[..., Ovs]) -> None:
    ovs = make_ovs(dummy=True)
    ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure")
    driver = OpenFlowDriver(ovs.rundir)
    try:
        driver.connect(["br0"])
        driver.read("br0")
        assert "meter=" not in ovs.ofctl("dump-meters", "br0")
    finally:
        driver.close()
