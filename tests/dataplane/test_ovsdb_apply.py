"""Bridges and ports made, changed and removed in Open vSwitch's database, witnessed by ovs-vsctl and ip."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from instances import SCHEMA_DIR, HostNamespace, Ovs, database, run
from ovs_changes import WatchedDriver, add, bridge, change, port, remove, remove_all

from vswitchctl.drivers.ovsdb import OvsdbDriver
from vswitchctl.model.state import Foreign, OvsBridgeSpec, OvsPortSpec, Owner, PortKey

WAIT = 60.0


@pytest.fixture
def driver(ovs: Ovs) -> Iterator[WatchedDriver]:
    driver = WatchedDriver(ovs.db)
    yield driver
    driver.close()


def veths(host: HostNamespace, *names: str) -> None:
    for name in names:
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-p")


def map_column(ovs: Ovs, table: str, record: str, column: str) -> dict[str, str]:
    """A map as ovs-vsctl prints it."""
    text = ovs.vsctl("--format=json", f"--columns={column}", "list", table, record)
    return dict(json.loads(text)["data"][0][0][1])


def records(ovs: Ovs) -> list[dict[str, dict[str, dict[str, object]]]]:
    """Every transaction in the database's file (ovsdb(5)): a line of header, then one of JSON."""
    return [json.loads(line) for line in (ovs.rundir / "conf.db").read_text().splitlines() if line[0] == "{"]


def test_one_transaction_makes_bridges_and_ports(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1", "p2", "p3")
    before = len(records(ovs))
    bridges = {"br-a": bridge("br-a"), "br-b": bridge("br-b")}
    ports = {
        PortKey("br-a", "p1"): port("p1"),
        PortKey("br-a", "p2"): port("p2"),
        PortKey("br-b", "p3"): port("p3"),
    }
    done: list[int] = []

    failures = driver.apply([add(key, spec) for key, spec in {**ports, **bridges}.items()], done.append)

    assert failures == []
    assert sum(done) == 5
    ofports = driver.wait_ofports(ports, WAIT)
    observed = driver.read()
    assert observed.owned.bridges == bridges
    assert observed.owned.ports == ports
    assert observed.ofports == ofports
    assert {key: int(ovs.vsctl("get", "Interface", key.name, "ofport")) for key in ports} == ofports
    assert observed.foreign == ()
    assert observed.names == {
        **{name: spec.owner for name, spec in bridges.items()},
        **{key.name: spec.owner for key, spec in ports.items()},
    }
    assert "netdev" in observed.datapath_types
    written = [record for record in records(ovs)[before:] if "Bridge" in record]
    assert [len(record["Bridge"]) for record in written[:1]] == [2], "both bridges belong to one transaction"
    assert all(row["fail_mode"] == "secure" for row in written[0]["Bridge"].values())
    assert len(written[0]["Port"]) == 5, "three ports and two local ones"


def test_bridge_forwards_nothing_by_itself(ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace) -> None:
    veths(host_ns, "p1")
    driver.apply([add("br-a"), add(PortKey("br-a", "p1"))])
    assert driver.wait_applied(WAIT)

    assert ovs.vsctl("get-fail-mode", "br-a") == "secure"
    assert ovs.vsctl("get-controller", "br-a") == ""
    assert ovs.ofctl("--no-names", "dump-flows", "br-a").strip().splitlines()[1:] == []
    assert map_column(ovs, "Bridge", "br-a", "other_config")["disable-in-band"] == "true"
    assert map_column(ovs, "Bridge", "br-a", "external_ids") == {"vswitchctl": "lab/nodes/br-a"}
    assert map_column(ovs, "Port", "p1", "external_ids") == {"vswitchctl": "lab/links/p1"}
    assert map_column(ovs, "Interface", "p1", "external_ids") == {"vswitchctl": "lab/links/p1"}
    local = json.loads(host_ns.run("ip", "-j", "addr", "show", "br-a"))[0]
    assert "UP" not in local["flags"]
    assert local["addr_info"] == []


def test_patch_ports_join_two_bridges(ovs: Ovs, driver: WatchedDriver) -> None:
    ends = {
        PortKey("br-a", "pa"): port("pa", "patch", "pb"),
        PortKey("br-b", "pb"): port("pb", "patch", "pa"),
    }
    assert driver.apply([add("br-a"), add("br-b"), *(add(key, spec) for key, spec in ends.items())]) == []

    assert set(driver.wait_ofports(ends, WAIT)) == set(ends)
    assert driver.read().owned.ports == ends
    assert map_column(ovs, "Interface", "pa", "options") == {"peer": "pb"}


def test_a_missing_device_is_an_error_of_its_port_alone(
    driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1")
    keys = [PortKey("br-a", "p1"), PortKey("br-a", "absent")]
    assert driver.apply([add("br-a"), *(add(key) for key in keys)]) == []

    assert set(driver.wait_ofports(keys, WAIT)) == {keys[0]}
    errors = driver.read().errors
    assert set(errors) == {keys[1]}
    assert "absent" in errors[keys[1]]


def test_a_device_that_comes_later_gets_its_number(driver: WatchedDriver, host_ns: HostNamespace) -> None:
    key = PortKey("br-a", "late")
    driver.apply([add("br-a"), add(key)])
    assert driver.wait_ofports([key], WAIT) == {}
    assert set(driver.read().errors) == {key}

    veths(host_ns, "late")
    observed = driver.read_until(lambda observed: key in observed.ofports)

    assert observed.errors == {}


def test_read_is_the_same_object_while_nothing_changes(driver: WatchedDriver) -> None:
    driver.apply([add("br-a")])
    assert driver.wait_applied(WAIT)
    observed = driver.read()

    assert driver.read() is observed
    driver.apply([add("br-b")])
    assert "br-b" in driver.read().owned.bridges


def test_applying_twice_changes_nothing(ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace) -> None:
    veths(host_ns, "p1")
    changes = [add("br-a"), add(PortKey("br-a", "p1"))]
    driver.apply(changes)
    assert driver.wait_applied(WAIT)
    before = ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg")

    assert driver.apply(changes) == []
    assert driver.wait_applied(WAIT)
    assert ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg") == before


BRIDGE_DRIFT = {
    "fail_mode": ["set-fail-mode", "br-a", "standalone"],
    "no fail_mode": ["del-fail-mode", "br-a"],
    "controller": ["set-controller", "br-a", "ptcp:0:127.0.0.1"],
    "protocols": ["set", "Bridge", "br-a", "protocols=OpenFlow10"],
    "stp": ["set", "Bridge", "br-a", "stp_enable=true"],
    "rstp": ["set", "Bridge", "br-a", "rstp_enable=true"],
    "snooping": ["set", "Bridge", "br-a", "mcast_snooping_enable=true"],
    "in-band": ["remove", "Bridge", "br-a", "other_config", "disable-in-band"],
    "datapath-id": ["set", "Bridge", "br-a", "other_config:datapath-id=0000000000000001"],
}
PORT_DRIFT = {
    "tag": ["set", "Port", "p1", "tag=5"],
    "trunks": ["set", "Port", "p1", "trunks=5,6"],
    "vlan_mode": ["set", "Port", "p1", "vlan_mode=native-tagged"],
    "type": ["set", "Interface", "p1", "type=internal"],
    "options": ["set", "Interface", "p1", "options:key=1"],
    "interface mark": ["remove", "Interface", "p1", "external_ids", "vswitchctl"],
    "bond": [
        "--",
        "--id=@i",
        "create",
        "Interface",
        "name=p2",
        "--",
        "add",
        "Port",
        "p1",
        "interfaces",
        "@i",
    ],
}


@pytest.mark.parametrize("command", BRIDGE_DRIFT.values(), ids=BRIDGE_DRIFT)
def test_a_bridge_altered_by_hand_differs_and_is_set_right(
    ovs: Ovs, driver: WatchedDriver, command: list[str]
) -> None:
    driver.apply([add("br-a")])
    assert driver.wait_applied(WAIT)
    before = driver.read()
    ovs.vsctl(
        "--no-wait", "set", "Bridge", "br-a", "external_ids:theirs=kept", "other_config:forward-bpdu=false"
    )
    marked = driver.read_until(lambda observed: observed is not before)
    assert marked.owned.bridges == {"br-a": bridge("br-a")}, "what is the user's own is no drift"

    ovs.vsctl(*command)
    drifted = driver.read_until(
        lambda observed: observed.owned.bridges["br-a"] != bridge("br-a")
    ).owned.bridges["br-a"]
    assert drifted.drift
    assert driver.apply([change("br-a", bridge("br-a"), drifted)]) == []

    assert driver.read().owned.bridges == {"br-a": bridge("br-a")}
    assert map_column(ovs, "Bridge", "br-a", "external_ids")["theirs"] == "kept"
    assert map_column(ovs, "Bridge", "br-a", "other_config")["forward-bpdu"] == "false"


@pytest.mark.parametrize("command", PORT_DRIFT.values(), ids=PORT_DRIFT)
def test_a_port_altered_by_hand_differs_and_is_set_right(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace, command: list[str]
) -> None:
    veths(host_ns, "p1", "p2")
    key = PortKey("br-a", "p1")
    driver.apply([add("br-a"), add(key)])
    ovs.vsctl("set", "Port", "p1", "external_ids:theirs=kept")

    ovs.vsctl(*command)
    drifted = driver.read_until(lambda observed: observed.owned.ports[key] != port("p1")).owned.ports[key]
    assert driver.apply([change(key, port("p1"), drifted)]) == []

    assert driver.read().owned.ports == {key: port("p1")}
    assert set(driver.wait_ofports([key], WAIT)) == {key}
    assert map_column(ovs, "Port", "p1", "external_ids")["theirs"] == "kept"


def test_a_renamed_entity_changes_the_owner_in_place(driver: WatchedDriver, host_ns: HostNamespace) -> None:
    veths(host_ns, "p1")
    key = PortKey("br-a", "p1")
    driver.apply([add("br-a"), add(key)])
    number = driver.wait_ofports([key], WAIT)
    renamed = OvsPortSpec(Owner("lab", "links/other"))

    assert driver.apply([change(key, renamed, port("p1"))]) == []
    assert driver.wait_applied(WAIT)
    assert driver.read().owned.ports == {key: renamed}
    assert driver.read().ofports == number


def test_names_of_others_are_refused_and_the_rest_goes_on(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1", "p2", "p3", "m1", "m2")
    ovs.vsctl("add-br", "theirs", "--", "set", "Bridge", "theirs", "datapath_type=netdev")
    ovs.vsctl("add-port", "theirs", "p1")
    ovs.vsctl("add-bond", "theirs", "bond0", "m1", "m2")
    before = ovs.vsctl("--columns=_uuid,name,external_ids,interfaces", "list", "Port", "p1", "bond0")
    refused = [add("theirs"), *(add(PortKey("br-a", name)) for name in ("p1", "bond0", "m1", "theirs"))]
    on_theirs = add(PortKey("theirs", "p2"))
    good = [add("br-a"), add(PortKey("br-a", "p3"))]

    driver.read_until(lambda observed: "m2" in observed.names)

    failures = driver.apply([*refused, on_theirs, *good])

    assert {id(failure.change) for failure in failures} == {id(change) for change in [*refused, on_theirs]}
    assert all("exists and is not ours" in failure.message for failure in failures)
    observed = driver.read()
    assert set(observed.owned.bridges) == {"br-a"}
    assert set(observed.owned.ports) == {PortKey("br-a", "p3")}
    assert observed.foreign == (Foreign("bridge", "theirs"),)
    assert observed.names["p1"] is observed.names["m1"] is observed.names["theirs"] is None
    assert ovs.vsctl("--columns=_uuid,name,external_ids,interfaces", "list", "Port", "p1", "bond0") == before


def test_another_topology_keeps_its_bridge(driver: WatchedDriver) -> None:
    driver.apply([add("br-a")])
    other = OvsBridgeSpec(Owner("other", "nodes/br-a"), "netdev")

    (added,) = driver.apply([add("br-a", other)])
    (removed,) = driver.apply([remove("br-a", other)])

    assert "belongs to lab/nodes/br-a" in added.message
    assert "belongs to lab/nodes/br-a" in removed.message
    assert driver.read().owned.bridges == {"br-a": bridge("br-a")}


def test_everything_is_removed_in_one_transaction(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1", "p2")
    driver.apply([add("br-a"), add("br-b"), add(PortKey("br-a", "p1")), add(PortKey("br-b", "p2"))])
    assert driver.wait_applied(WAIT)
    before = int(ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg"))

    assert driver.apply(remove_all(driver.read())) == []
    assert driver.wait_applied(WAIT)

    assert int(ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg")) == before + 1
    assert driver.read().names == {}
    assert ovs.vsctl("list-br") == ""
    assert ovs.vsctl("--columns=name", "list", "Interface") == ""
    devices = {link["ifname"] for link in json.loads(host_ns.run("ip", "-j", "link"))}
    assert devices == {"lo", "p1", "p1-p", "p2", "p2-p"}


def test_removing_what_is_gone_already_succeeds(driver: WatchedDriver) -> None:
    assert driver.apply([remove("br-a", bridge("br-a")), remove(PortKey("br-a", "p1"), port("p1"))]) == []


def test_a_bridge_with_ports_of_others_stays_until_they_are_gone(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1", "theirs")
    driver.apply([add("br-a"), add("br-b"), add(PortKey("br-a", "p1"))])
    ovs.vsctl("add-port", "br-a", "theirs")
    observed = driver.read_until(lambda observed: observed.foreign)
    assert observed.foreign == (Foreign("port", "theirs", "on bridge br-a"),)

    (failure,) = driver.apply(remove_all(observed))

    assert failure.change.key == "br-a"
    assert "theirs" in failure.message
    assert ovs.vsctl("list-ports", "br-a") == "theirs"
    assert ovs.vsctl("list-br") == "br-a"
    ovs.vsctl("del-port", "theirs")
    observed = driver.read_until(lambda observed: not observed.foreign)
    assert driver.apply(remove_all(observed)) == []
    assert ovs.vsctl("list-br") == ""


def test_a_port_moves_between_bridges_at_once(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1")
    here, there = PortKey("br-a", "p1"), PortKey("br-b", "p1")
    driver.apply([add("br-a"), add("br-b"), add(here)])

    assert driver.apply([add(there), remove(here, port("p1"))]) == []

    assert driver.read().owned.ports == {there: port("p1")}
    assert set(driver.wait_ofports([there], WAIT)) == {there}
    assert ovs.vsctl("port-to-br", "p1") == "br-b"


def test_a_mark_removed_meanwhile_saves_the_row(ovs: Ovs) -> None:
    """The replica still shows our mark when the removal is built; only the database knows better."""
    stuck, go_on = threading.Event(), threading.Event()
    armed = threading.Event()

    def on_change() -> None:
        if armed.is_set():
            armed.clear()
            stuck.set()
            assert go_on.wait(WAIT)

    driver = OvsdbDriver(ovs.db, on_change)
    try:
        driver.apply([add("br-a")])
        assert driver.wait_applied(WAIT)
        armed.set()
        ovs.vsctl("--no-wait", "set", "Bridge", "br-a", "external_ids:any=1")
        assert stuck.wait(WAIT)
        ovs.vsctl("--no-wait", "remove", "Bridge", "br-a", "external_ids", "vswitchctl")
        answers: list[object] = []
        removal = threading.Thread(
            target=lambda: answers.append(driver.apply([remove("br-a", bridge("br-a"))]))
        )
        removal.start()
        while driver._replica._connection.txns.empty():
            assert removal.is_alive()
        go_on.set()
        removal.join()
    finally:
        go_on.set()
        driver.close()

    (failures,) = answers
    assert isinstance(failures, list)
    assert ["exists and is not ours" in failure.message for failure in failures] == [True]
    assert ovs.vsctl("list-br") == "br-a"


@pytest.fixture
def three_bridges_only(short_tmp: Path) -> Iterator[str]:
    """A real database that takes three bridges and refuses a fourth (maxRows, RFC 7047 section 3.2)."""
    schema = json.loads((SCHEMA_DIR / "vswitch.ovsschema").read_text())
    schema["tables"]["Bridge"]["maxRows"] = 3
    file = short_tmp / "small.ovsschema"
    file.write_text(json.dumps(schema))
    with database(file) as socket:
        run("ovs-vsctl", f"--db=unix:{socket}", "--no-wait", "init")
        yield f"unix:{socket}"


def test_a_change_the_database_refuses_blocks_no_other(three_bridges_only: str) -> None:
    driver = OvsdbDriver(three_bridges_only)
    done: list[int] = []
    try:
        names = [f"br-{letter}" for letter in "abcd"]
        failures = driver.apply(
            [*map(add, names), add(PortKey("br-a", "p1")), add(PortKey("br-d", "p2"))], done.append
        )
        observed = driver.read()
    finally:
        driver.close()

    assert set(observed.owned.bridges) == {"br-a", "br-b", "br-c"}
    assert set(observed.owned.ports) == {PortKey("br-a", "p1")}
    assert {failure.change.key for failure in failures} == {"br-d", PortKey("br-d", "p2")}
    messages = {failure.change.key: failure.message for failure in failures}
    assert re.search(r"constraint violation.*\b3\b", messages["br-d"])
    assert "'br-d' does not exist" in messages[PortKey("br-d", "p2")]
    assert sum(done) == 6


def test_thousand_ports_fit_one_transaction(make_ovs: Callable[..., Ovs]) -> None:
    ovs = make_ovs(dummy=True)
    driver = OvsdbDriver(ovs.db)
    try:
        keys = [PortKey("br-a", f"p{number}") for number in range(1000)]
        assert driver.apply([add("br-a", bridge("br-a", "dummy")), *map(add, keys)]) == []
        ofports = driver.wait_ofports(keys, WAIT)
    finally:
        driver.close()
    assert len(set(ofports.values())) == 1000


def test_tc_settings_of_others_survive(ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace) -> None:
    """Open vSwitch takes a device's qdisc away when it opens the port, unless a QoS row says otherwise."""
    veths(host_ns, "p1", "p2", "p3")
    tbf = ("root", "tbf", "rate", "50mbit", "burst", "100k", "latency", "50ms")
    for name in ("p1", "p2"):
        host_ns.run("tc", "qdisc", "add", "dev", name, *tbf)
    ovs.vsctl("add-br", "br-x", "--", "set", "bridge", "br-x", "datapath_type=netdev")
    ovs.vsctl("add-port", "br-x", "p2")
    assert "tbf" not in host_ns.run("tc", "qdisc", "show", "dev", "p2"), "so it does by itself"

    assert driver.apply([add("br-a"), add(PortKey("br-a", "p1")), add(PortKey("br-a", "p3"))]) == []
    assert driver.wait_ofports([PortKey("br-a", "p1"), PortKey("br-a", "p3")], WAIT)

    assert "tbf" in host_ns.run("tc", "qdisc", "show", "dev", "p1")
    assert map_column(ovs, "QoS", ovs.vsctl("get", "port", "p1", "qos"), "external_ids") == {
        "vswitchctl": "lab/nodes/br-a"
    }
    assert ovs.vsctl("get", "port", "p1", "qos") == ovs.vsctl("get", "port", "p3", "qos"), (
        "one for the bridge"
    )
    assert driver.apply(remove_all(driver.read())) == []
    assert driver.wait_applied(WAIT)
    assert "tbf" in host_ns.run("tc", "qdisc", "show", "dev", "p1")
    assert ovs.vsctl("list", "QoS") == "", "no row of ours is left"


def test_a_qos_of_somebody_else_is_reported_and_left(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1", "p2")
    key = PortKey("br-a", "p1")
    driver.apply([add("br-a"), add(key), add(PortKey("br-a", "p2"))])
    assert driver.wait_ofports([key], WAIT)
    theirs = ovs.vsctl(
        "--", "set", "port", "p1", "qos=@q", "--", "--id=@q", "create", "qos", "type=linux-htb"
    )

    observed = driver.read_until(lambda it: it.foreign)

    assert observed.foreign == (Foreign("qos", "p1", "linux-htb"),)
    assert observed.owned.ports[key] == port("p1"), "which is no drift"
    assert driver.apply([change(key, port("p1"), observed.owned.ports[key])]) == []
    assert ovs.vsctl("get", "port", "p1", "qos") == theirs
    assert driver.apply(remove_all(driver.read())) == []
    assert ovs.vsctl("--columns=_uuid", "list", "QoS").split()[-1] == theirs


def test_a_qos_of_ours_that_is_altered_or_gone_is_drift(
    ovs: Ovs, driver: WatchedDriver, host_ns: HostNamespace
) -> None:
    veths(host_ns, "p1")
    key = PortKey("br-a", "p1")
    driver.apply([add("br-a"), add(key)])
    assert driver.wait_ofports([key], WAIT)
    for alter, said in (
        (("set", "qos", ovs.vsctl("get", "port", "p1", "qos"), "type=linux-htb"), "qos:type=linux-htb"),
        (("clear", "port", "p1", "qos"), "no qos"),
    ):
        ovs.vsctl(*alter)
        observed = driver.read_until(lambda it: it.owned.ports[key].drift)
        assert observed.owned.ports[key].drift == said
        assert driver.apply([change(key, port("p1"), observed.owned.ports[key])]) == []
        assert driver.read_until(lambda it: not it.owned.ports[key].drift).owned.ports[key] == port("p1")
        assert ovs.vsctl("get", "qos", ovs.vsctl("get", "port", "p1", "qos"), "type") == "linux-noop"
