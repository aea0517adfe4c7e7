"""Open vSwitch comes, goes and comes back; and what we rest on of it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from instances import SCHEMA_DIR, HostNamespace, Ovs, run
from ovs.db.types import Type
from ovs_changes import WatchedDriver, add, bridge, port

from vswitchctl.drivers.ovsdb import OvsdbDriver
from vswitchctl.drivers.ovsdb_replica import SCHEMA
from vswitchctl.errors import Unreachable
from vswitchctl.model.state import PortKey

WAIT = 60.0


@pytest.fixture
def driver(ovs: Ovs) -> Iterator[WatchedDriver]:
    driver = WatchedDriver(ovs.db)
    yield driver
    driver.close()


def await_contact(driver: WatchedDriver, there: bool) -> None:
    """Wait until calls work, or no longer do."""
    while True:
        driver.changed.clear()
        try:
            driver.read()
        except Unreachable:
            if not there:
                return
        else:
            if there:
                return
        assert driver.changed.wait(WAIT), f"contact did not become {there}"


def test_a_killed_database_is_unreachable_until_it_is_back(ovs: Ovs, driver: WatchedDriver) -> None:
    driver.apply([add("br-a")])
    assert driver.wait_applied(WAIT)
    ovs.kill("ovsdb-server")
    await_contact(driver, there=False)

    for call in (
        driver.read,
        lambda: driver.apply([add("br-b")]),
        lambda: driver.wait_ofports([PortKey("br-a", "p1")], WAIT),
        lambda: driver.wait_applied(WAIT),
    ):
        with pytest.raises(Unreachable) as caught:
            call()
        assert ovs.db in caught.value.message
        assert "openvswitch-switch" in caught.value.remedy

    ovs.start_database()
    ovs.vsctl("--no-wait", "add-br", "meanwhile")
    await_contact(driver, there=True)
    observed = driver.read_until(lambda observed: "meanwhile" in observed.names)
    assert observed.owned.bridges == {"br-a": bridge("br-a")}
    assert driver.apply([add("br-b")]) == []
    assert set(driver.read().owned.bridges) == {"br-a", "br-b"}


def test_rows_that_vanished_meanwhile_are_gone(ovs: Ovs, driver: WatchedDriver) -> None:
    """The database is another one after the restart: nothing of the old replica may survive."""
    driver.apply([add("br-a"), add(PortKey("br-a", "pa"), port("pa", "patch", "pb"))])
    assert driver.wait_applied(WAIT)
    ovs.end("ovs-vswitchd")
    ovs.kill("ovsdb-server")
    await_contact(driver, there=False)
    (ovs.rundir / "conf.db").unlink()

    ovs.start()
    await_contact(driver, there=True)
    observed = driver.read()
    assert observed.names == {}
    assert observed.owned.ports == {}
    assert driver.wait_applied(WAIT), "the new database counts its configurations from zero"
    assert driver.apply([add("br-c")]) == []
    assert driver.wait_applied(WAIT)


def test_a_driver_started_before_open_vswitch_connects_later(short_tmp: Path, host_ns: HostNamespace) -> None:
    ovs = Ovs(short_tmp, host_ns)
    driver = WatchedDriver(ovs.db)
    try:
        with pytest.raises(Unreachable):
            driver.read()
        ovs.start()
        await_contact(driver, there=True)
        assert driver.apply([add("br-a")]) == []
        assert driver.wait_applied(WAIT)
    finally:
        driver.close()
        ovs.stop()


def test_a_silent_database_costs_no_more_than_the_timeout(ovs: Ovs) -> None:
    """ovsdb-server is stopped in its tracks: nothing closes, nothing answers."""
    driver = OvsdbDriver(ovs.db, timeout=1.0)
    pid = str(ovs.pid("ovsdb-server"))
    try:
        driver.read()
        run("kill", "-STOP", pid)
        with pytest.raises(Unreachable):
            driver.apply([add("br-a")])
    finally:
        run("kill", "-CONT", pid)
    try:
        assert driver.apply([add("br-a")]) == []
        assert driver.read().owned.bridges == {"br-a": bridge("br-a")}
    finally:
        driver.close()


def test_an_empty_database_says_what_is_missing(short_tmp: Path, host_ns: HostNamespace) -> None:
    ovs = Ovs(short_tmp, host_ns)
    run("ovsdb-tool", "create", str(short_tmp / "conf.db"), str(SCHEMA_DIR / "vswitch.ovsschema"))
    ovs._start("ovsdb-server", f"--remote=punix:{ovs.socket}", str(short_tmp / "conf.db"))
    driver = OvsdbDriver(ovs.db)
    try:
        assert driver.read().names == {}
        with pytest.raises(Unreachable, match="is empty"):
            driver.apply([add("br-a")])
    finally:
        driver.close()
        ovs.stop()


def test_close_ends_the_thread(ovs: Ovs) -> None:
    before = set(threading.enumerate())
    driver = OvsdbDriver(ovs.db)
    driver.read()
    assert set(threading.enumerate()) > before
    driver.close()
    assert set(threading.enumerate()) == before


def test_without_vswitchd_nothing_is_confirmed(ovs: Ovs, driver: WatchedDriver) -> None:
    ovs.kill("ovs-vswitchd")
    assert driver.apply([add("br-a")]) == []
    assert not driver.wait_applied(0.2)

    ovs.start_vswitchd()
    assert driver.wait_applied(WAIT)


def test_port_numbers_survive_a_restart_of_vswitchd(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    """They are kept in the database: Interface.ofport is asked for again before new ports get a number."""
    keys = [PortKey("br-a", f"p{number}") for number in range(1, 6)]
    for key in keys:
        host_ns.run("ip", "link", "add", key.name, "type", "veth", "peer", "name", f"{key.name}-p")
    driver.apply([add("br-a")])
    for key in reversed(keys):  # numbers in another order than names, so that neither decides by chance
        driver.apply([add(key)])
        driver.wait_ofports([key], WAIT)
    before = driver.wait_ofports(keys, WAIT)
    assert len(before) == 5

    ovs.kill("ovs-vswitchd")
    ovs.start_vswitchd()

    assert {key: int(ovs.vsctl("get", "Interface", key.name, "ofport")) for key in keys} == before
    assert driver.wait_ofports(keys, WAIT) == before


OFPT_HELLO, OFPT_ECHO_REQUEST, OFPT_ECHO_REPLY = 0, 2, 3
OPENFLOW_14 = 5


def message(kind: int, xid: int) -> bytes:
    """A message of OpenFlow 1.4.1 without a body (section 7.1.1)."""
    return struct.pack("!BBHI", OPENFLOW_14, kind, 8, xid)


def echo(connection: socket.socket, stream: bytearray) -> bool:
    """Whether the switch still answers on this connection."""
    connection.sendall(message(OFPT_ECHO_REQUEST, 0x77))
    while True:
        while len(stream) >= 8:
            _, kind, length, xid = struct.unpack_from("!BBHI", stream)
            if len(stream) < length:
                break
            del stream[:length]
            if (kind, xid) == (OFPT_ECHO_REPLY, 0x77):
                return True
        received = connection.recv(65536)
        if not received:
            return False
        stream += received


def test_openflow_connections_outlive_a_port_with_a_lower_mac(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    """By default the datapath id follows the lowest MAC, and each change of it drops every connection."""
    driver.apply([add("br-a")])
    assert driver.wait_applied(WAIT)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT)
        connection.connect(str(ovs.rundir / "br-a.mgmt"))
        connection.sendall(message(OFPT_HELLO, 1))
        stream = bytearray()
        assert echo(connection, stream)
        identity = ovs.vsctl("get", "Bridge", "br-a", "datapath_id")

        host_ns.run(
            "ip", "link", "add", "p1", "address", "00:00:00:00:00:02", "type", "veth", "peer", "name", "p1-p"
        )
        assert driver.apply([add(PortKey("br-a", "p1"))]) == []
        assert driver.wait_ofports([PortKey("br-a", "p1")], WAIT)

        assert (
            json.loads(host_ns.run("ip", "-j", "link", "show", "br-a"))[0]["address"] == "00:00:00:00:00:02"
        )
        assert echo(connection, stream)
        assert ovs.vsctl("get", "Bridge", "br-a", "datapath_id") == identity


def test_bundles_of_openflow_14_work_on_the_management_socket(ovs: Ovs, driver: WatchedDriver) -> None:
    driver.apply([add("br-a")])
    assert driver.wait_applied(WAIT)
    flows = ovs.rundir / "flows"
    flows.write_text("table=0,priority=7,in_port=1,actions=goto_table:1\ntable=1,cookie=0x5,actions=drop\n")
    target = f"unix:{ovs.rundir / 'br-a.mgmt'}"

    ovs.ofctl("--bundle", "add-flows", target, str(flows))

    shown = ovs.ofctl("--no-stats", "--no-names", "dump-flows", target)
    assert shown.splitlines() == [
        " priority=7,in_port=1 actions=goto_table:1",
        " cookie=0x5, table=1, actions=drop",
    ]


def test_our_columns_have_the_types_of_the_servers_schema() -> None:
    theirs = json.loads((SCHEMA_DIR / "vswitch.ovsschema").read_text())
    assert theirs["name"] == SCHEMA["name"]

    def shape(column: dict[str, object]) -> tuple[object, ...]:
        parsed = Type.from_json(column["type"])
        value = parsed.value.type if parsed.value else None
        return parsed.key.type, value, parsed.n_min, parsed.n_max

    for table, columns in SCHEMA["tables"].items():
        for name, column in columns.items():
            assert shape(column) == shape(theirs["tables"][table]["columns"][name]), f"{table}.{name}"
