"""The OpenFlow driver on a real switch: changes, refusals, drift, and sessions that come and go."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from instances import Ovs

from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.drivers.openflow.portions import PORTION
from vswitchctl.drivers.openflow.wire import HEADER, Kind
from vswitchctl.errors import Unreachable
from vswitchctl.model.flow import Flow, FlowTable
from vswitchctl.model.state import Owner
from vswitchctl.pipeline.actions import load
from vswitchctl.pipeline.cookies import LEARNED_RULE, cookie
from vswitchctl.pipeline.encode import Template, Var
from vswitchctl.pipeline.fields import ETH_DST
from vswitchctl.pipeline.registers import NETWORK, OUT_PORT
from vswitchctl.pipeline.tables import CT_TO, L2_LEARNED, L2_LOOKUP

SECONDS = 20
LOOKUP = Template(
    L2_LOOKUP, 100, {NETWORK: Var("network"), ETH_DST: Var("mac")}, [load(OUT_PORT, Var("port"))], CT_TO
)
MARK = cookie(Owner("test", "interfaces/web1:eth0"))
CHECK_OVERLAP = 2
"""OFPFF_CHECK_OVERLAP: the switch can refuse such a flow only when the bundle is committed."""


def lookups(count: int, port: int = 1) -> FlowTable:
    return LOOKUP.rows([(MARK, 5, mac, port) for mac in range(1, count + 1)])


def unknown_action(flow: Flow) -> FlowTable:
    """The flow with an action type that no switch knows."""
    at = flow.value.index(b"\xff\xff")
    return {flow.key: flow.value[:at] + b"\x77\x77" + flow.value[at + 2 :]}


class Watched:
    """A switch, the driver on it, and the driver's events."""

    def __init__(self, ovs: Ovs) -> None:
        self.ovs = ovs
        self.events: queue.Queue[str] = queue.Queue()
        self.driver = OpenFlowDriver(ovs.rundir, self.events.put)

    def add_bridge(self, name: str = "br0", *settings: str) -> None:
        self.ovs.vsctl("add-br", name, "--", "set", "bridge", name, "fail_mode=secure", *settings)

    def connected(self) -> None:
        """Connect to br0 and take the event that says so."""
        self.driver.connect(["br0"])
        assert self.event() == "br0"

    def event(self) -> str:
        return self.events.get(timeout=SECONDS)

    def witnessed(self, *match: str) -> list[str]:
        dump = self.ovs.ofctl("--no-stats", "dump-flows", "br0", *match)
        return [line.strip() for line in dump.splitlines() if "actions" in line]


@pytest.fixture
def watched(make_ovs: Callable[..., Ovs]) -> Iterator[Watched]:
    switch = Watched(make_ovs(dummy=True))
    switch.add_bridge()
    try:
        yield switch
    finally:
        switch.driver.close()


def test_flows_are_added_changed_and_removed(watched: Watched) -> None:
    watched.connected()
    first, changed = lookups(3), lookups(1, port=9)
    assert watched.driver.apply("br0", first, ()) == []
    assert watched.driver.read("br0").owned == first
    gone = list(first)[2]
    assert watched.driver.apply("br0", changed, [gone]) == []
    assert watched.driver.read("br0").owned == {k: v for k, v in (first | changed).items() if k != gone}
    head = f"cookie={MARK:#x}, table=80, priority=100,reg0=0x5/0xffff,dl_dst=00:00:00:00:00:0"
    assert sorted(watched.witnessed()) == [
        f"{head}1 actions=load:0x9->NXM_NX_REG1[],goto_table:90",
        f"{head}2 actions=load:0x1->NXM_NX_REG1[],goto_table:90",
    ]


def test_flows_of_others_are_told_and_never_removed(watched: Watched) -> None:
    watched.connected()
    flows = lookups(2)
    watched.ovs.ofctl(
        "add-flow", "br0", "table=80,priority=100,reg0=5/0xffff,dl_dst=00:00:00:00:00:01,actions=2"
    )
    watched.ovs.ofctl("add-flow", "br0", "table=3,actions=normal")
    observed = watched.driver.read("br0")
    assert (observed.owned, len(observed.foreign)) == ({}, 2)
    assert watched.driver.apply("br0", {}, list(flows)) == []
    assert watched.driver.read("br0").foreign == observed.foreign


def test_learned_flows_are_counted_apart(watched: Watched) -> None:
    watched.connected()
    learned = cookie(Owner("test", "networks/red"), LEARNED_RULE)
    shape = Template(L2_LEARNED, 10, {NETWORK: 5, ETH_DST: Var("mac")}, [load(OUT_PORT, 3)], idle_timeout=300)
    assert watched.driver.apply("br0", shape.rows([(learned, 1), (learned, 2)]), ()) == []
    observed = watched.driver.read("br0")
    assert (observed.owned, observed.foreign, observed.learned) == ({}, {}, 2)


@pytest.mark.parametrize("count", [10, 20_500])
def test_a_refused_flow_is_named_and_the_rest_applied(watched: Watched, count: int) -> None:
    watched.connected()
    good = lookups(count)
    bad = unknown_action(LOOKUP(MARK, network=6, mac=1, port=1))
    failures = watched.driver.apply("br0", good | bad, ())
    assert [failure.key for failure in failures] == list(bad)
    assert "OFPBAC_BAD_TYPE" in failures[0].message
    assert watched.driver.read("br0").owned == good


def test_flows_refused_at_commit_are_named(watched: Watched) -> None:
    watched.connected()
    good = lookups(3)
    every = Template(L2_LOOKUP, 100, {NETWORK: Var("network")}, goto=CT_TO, flags=CHECK_OVERLAP)
    bad = every.rows([(MARK, 5)])
    assert watched.driver.apply("br0", good, ()) == []
    more = LOOKUP.rows([(MARK, 7, 1, 1)])
    failures = watched.driver.apply("br0", bad | more, ())
    assert [failure.key for failure in failures] == list(bad)
    assert watched.driver.read("br0").owned == good | more


def test_when_very_many_are_refused_each_is_named(watched: Watched) -> None:
    watched.connected()
    good = lookups(3)
    assert watched.driver.apply("br0", good, ()) == []
    every = Template(L2_LOOKUP, 100, {ETH_DST: Var("mac")}, goto=CT_TO, flags=CHECK_OVERLAP)
    refused = every.rows([(MARK, mac) for mac in range(1, 4)])
    many = Template(L2_LOOKUP, 100, {ETH_DST: (Var("value"), 0xFF)}, goto=CT_TO, flags=CHECK_OVERLAP)
    refused |= many.rows([(MARK, value) for value in range(1, 4)])
    fine = LOOKUP.rows([(MARK, 7, 0xF0, 1)])
    failures = watched.driver.apply("br0", refused | fine, ())
    assert {failure.key for failure in failures} == refused.keys()
    assert watched.driver.read("br0").owned == good | fine


def test_a_flow_longer_than_a_message_is_named(watched: Watched) -> None:
    watched.connected()
    flow = LOOKUP(MARK, network=6, mac=1, port=1)
    long = {flow.key: flow.value + bytes(0x10000)}
    good = lookups(1)
    failures = watched.driver.apply("br0", good | long, ())
    assert [failure.key for failure in failures] == list(long)
    assert watched.driver.read("br0").owned == good


@pytest.mark.parametrize("count", [5, 25_000])
def test_progress_adds_up(watched: Watched, count: int) -> None:
    watched.connected()
    steps: list[int] = []
    watched.driver.apply("br0", lookups(count), (), steps.append)
    assert sum(steps) == count


def test_changes_by_others_are_noticed_and_our_own_are_not(watched: Watched) -> None:
    watched.connected()
    flows = lookups(1000)
    watched.driver.apply("br0", flows, ())
    watched.driver.apply("br0", lookups(500, port=7), list(flows)[900:])
    watched.ovs.ofctl("add-flow", "br0", "table=81,actions=drop")
    assert len(watched.driver.read("br0").owned) == 900
    assert watched.events.empty()
    watched.ovs.ofctl("del-flows", "br0", "table=80")
    assert watched.event() == "br0"
    assert watched.driver.read("br0").owned == {}


FOREIGN = [0, *(1 << bit for bit in range(64)), 0xFFFFFFFFFFFFFFFF, *(0x1234567 << bit for bit in range(16))]
"""Cookies that are not ours, so that any way to divide them has some on either side."""


def spread(count: int) -> FlowTable:
    """Flows of as many owners as a hundred interfaces, and of some rules each."""
    owners = [Owner("test", f"interfaces/web{number}:eth0") for number in range(100)]
    rows = ((cookie(owners[mac % 100], mac % 7), 5, mac, 1) for mac in range(1, count + 1))
    return LOOKUP.rows(list(rows))


def strangers(watched: Watched) -> None:
    """Flows of somebody else, one of each cookie."""
    lines = [
        f"cookie={value:#x},table={table},priority=7,reg1={number},actions=drop"
        for table in (3, L2_LOOKUP.id)
        for number, value in enumerate(FOREIGN)
    ]
    path = watched.ovs.rundir / "strangers"
    path.write_text("\n".join(lines))
    watched.ovs.ofctl("add-flows", "br0", str(path))


def test_flows_read_in_portions_are_all_flows(watched: Watched) -> None:
    watched.connected()
    flows = spread(5 * PORTION)
    assert watched.driver.apply("br0", flows, ()) == []
    strangers(watched)
    observed = watched.driver.read("br0")
    assert observed.owned == flows
    assert len(observed.foreign) == 2 * len(FOREIGN)
    watched.ovs.ofctl("del-flows", "br0", "table=3")
    assert len(watched.driver.read("br0").foreign) == len(FOREIGN)


def test_what_changes_while_flows_are_read_is_noticed(watched: Watched) -> None:
    watched.connected()
    flows = spread(5 * PORTION)
    watched.driver.apply("br0", flows, ())
    for number in range(5):
        reader = threading.Thread(target=watched.driver.read, args=("br0",))
        reader.start()
        watched.ovs.ofctl("add-flow", "br0", f"table=3,reg1={number},actions=drop")
        assert watched.event() == "br0"
        reader.join()
        assert len(watched.driver.read("br0").foreign) == number + 1


def test_who_waited_for_a_session_has_had_its_event(watched: Watched) -> None:
    watched.driver.connect(["br0"])
    watched.driver.reach("br0")
    assert watched.events.get_nowait() == "br0"
    watched.driver.read("br0")
    assert watched.events.empty()


@pytest.mark.parametrize("change", ["add", "modify", "delete"])
def test_each_kind_of_change_is_noticed(watched: Watched, change: str) -> None:
    watched.connected()
    watched.driver.apply("br0", lookups(2), ())
    commands = {
        "add": ("add-flow", "br0", "table=3,actions=drop"),
        "modify": ("mod-flows", "br0", "table=80,actions=drop"),
        "delete": (
            "--strict",
            "del-flows",
            "br0",
            "table=80,priority=100,reg0=5/0xffff,dl_dst=00:00:00:00:00:02",
        ),
    }
    watched.ovs.ofctl(*commands[change])
    assert watched.event() == "br0"


def test_a_switch_that_restarts_is_noticed_and_taken_up_again(watched: Watched) -> None:
    watched.connected()
    watched.driver.apply("br0", lookups(1), ())
    watched.ovs.kill("ovs-vswitchd")
    assert watched.event() == "br0"
    assert not watched.driver.connected("br0")
    watched.ovs.start_vswitchd()
    assert watched.event() == "br0"
    assert watched.driver.read("br0").owned == {}
    assert watched.driver.apply("br0", lookups(1), ()) == []


def test_a_switch_that_does_not_answer_is_unreachable_until_it_does(watched: Watched) -> None:
    watched.connected()
    flows = lookups(5)
    assert watched.driver.apply("br0", flows, ()) == []
    pid = watched.ovs.pid("ovs-vswitchd")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match=r"bridge 'br0' did not answer for 0\.2 s"):
            watched.driver.read("br0", timeout=0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert watched.driver.read("br0").owned == flows


def test_a_bridge_that_comes_later_is_connected(watched: Watched) -> None:
    watched.driver.connect(["br0", "br1"])
    assert watched.event() == "br0"
    watched.add_bridge("br1")
    assert watched.event() == "br1"
    watched.driver.connect(["br1"])
    assert watched.event() == "br0"
    assert not watched.driver.connected("br0")
    with pytest.raises(Unreachable, match="no OpenFlow session with bridge 'br0' is wanted"):
        watched.driver.read("br0")


def test_a_bridge_without_openflow_14_is_unreachable_until_it_speaks_it(watched: Watched) -> None:
    watched.add_bridge("br1", "protocols=OpenFlow13")
    watched.driver.connect(["br1"])
    with pytest.raises(Unreachable, match="protocols allow OpenFlow14"):
        watched.driver.read("br1")
    watched.ovs.vsctl("set", "bridge", "br1", "protocols=OpenFlow13,OpenFlow14")
    assert watched.event() == "br1"
    assert watched.driver.read("br1").owned == {}


def listening() -> set[int]:
    """TCP ports that this process listens on."""
    links = (str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:[")}
    tables = (Path(f"/proc/self/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def test_nothing_listens_and_nothing_stays_behind(watched: Watched) -> None:
    before = set(threading.enumerate())
    ports = listening()
    driver = OpenFlowDriver(watched.ovs.rundir)
    driver.connect(["br0"])
    driver.read("br0")
    assert listening() == ports
    driver.close()
    assert set(threading.enumerate()) <= before


def answers(sock: socket.socket, hostile: bytes) -> None:
    """Play a switch through the handshake; answer the first flow request with `hostile` as its body."""
    hello = HEADER.pack(5, 0, 8, 1)
    features = bytes(7) + b"\x01" + bytes(4) + b"\xfe" + bytes(3) + bytes(8)
    sock.sendall(hello)
    with sock, sock.makefile("rb") as stream:
        while head := stream.read(8):
            _, kind, length, xid = HEADER.unpack(head)
            body = stream.read(length - 8)
            if kind == 5:
                sock.sendall(HEADER.pack(5, 6, 8 + len(features), xid) + features)
            elif kind == Kind.MULTIPART_REQUEST:
                reply = body[:2] + bytes(6) + (hostile if body[1] == 1 else b"")
                sock.sendall(HEADER.pack(5, Kind.MULTIPART_REPLY, 8 + len(reply), xid) + reply)


@pytest.mark.parametrize(
    "hostile",
    [b"\0", b"\xff" * 100, b"\0\0" + bytes(70), b"\0\x38" + bytes(46) + b"\0\1\xff\xff" + bytes(4)],
    ids=["cut off", "longer than the message", "length 0", "match longer than the flow"],
)
def test_a_hostile_switch_is_unreachable_and_harms_nobody(short_tmp: Path, hostile: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short_tmp / "evil.mgmt"))
        server.listen()
        driver = OpenFlowDriver(short_tmp)
        try:
            driver.connect(["evil"])
            accepted, _ = server.accept()
            switch = threading.Thread(target=answers, args=(accepted, hostile))
            switch.start()
            with pytest.raises(Unreachable, match="cannot be read"):
                driver.read("evil")
        finally:
            driver.close()
        switch.join(SECONDS)
        assert not switch.is_alive()
