"""The intent database on a real ovsdb-server: a file and, with the same schema and client, a Raft cluster."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from instances import SCHEMA_DIR
from intent_server import IntentServer, intent_server

from tests.strategies import topologies
from tests.unit.test_intent_rows import RICH, names_in_order
from vswitchctl.errors import Conflict, InvalidTopology, NotFound, Unreachable
from vswitchctl.intent.connection import ENTITIES_PER_SECOND
from vswitchctl.intent.database import IntentDatabase
from vswitchctl.intent.server import schema_path
from vswitchctl.model.intent import PolicyChange, Stored
from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import Topology, entities

SECONDS = 60
"""Until a wait for an event counts as failed; nothing here takes this long."""

CONTENT = [
    name for name in json.loads(schema_path().read_text())["tables"] if name not in ("Host", "Applied")
]


class Client(IntentDatabase):
    """A client that can wait for what others write: it reaches each replica when it does."""

    def __init__(self, remote: str, on_change: Callable[[], None] | None = None, **keys: Any) -> None:
        self._news = Event()
        self._pass_on = on_change
        super().__init__(remote, on_change=self._changed, **keys)

    def _changed(self) -> None:
        self._news.set()
        if self._pass_on is not None:
            self._pass_on()

    def wait_for(self, name: str, generation: int = 1) -> Stored:
        while True:
            self._news.clear()
            stored = self.read().get(name)
            if stored is not None and stored.generation >= generation:
                return stored
            assert self._news.wait(SECONDS), f"generation {generation} of '{name}' never came"


Open = Callable[..., Client]


@pytest.fixture(params=["file", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[IntentServer]:
    with intent_server(clustered=request.param == "cluster") as running:
        yield running


@pytest.fixture
def connect(server: IntentServer) -> Iterator[Open]:
    """`connect(host='hv1', timeout=..., on_change=...)`: clients that are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(
            remote: str = server.remote, host: str = "hv1", timeout: float = SECONDS, **keys: Any
        ) -> Client:
            db = Client(remote, host=host, timeout=timeout, **keys)
            return stack.enter_context(contextlib.closing(db))

        yield make


def lans(name: str, *networks: str, bridge: str = "", description: str = "") -> Topology:
    """A topology of some networks and one bridge."""
    return Topology.model_validate(
        {
            "name": name,
            "description": description,
            "tenants": {"t": {"description": description}},
            "networks": {network: {"tenant": "t", "description": description} for network in networks},
            "nodes": {bridge or f"br-{name}": {"kind": "bridge", "description": description}},
        }
    )


def rich(**changes: Any) -> Topology:
    return Topology.model_validate(RICH | changes)


# --- what is stored


def test_an_empty_database(connect: Open) -> None:
    assert connect().read() == {}


def test_everything_comes_back(connect: Open) -> None:
    topology = rich()
    sources = {entity: f"/etc/vswitchctl/büro.yaml:{line}" for line, entity in enumerate(entities(topology))}
    written = connect().write(topology, sources)
    assert (written.topology, written.generation, written.sources) == (topology, 1, sources)
    assert written.tags == {"web": 2, "lan": 4094, "blue-web": 1}
    read = connect().read()["rich"]
    assert read == written
    assert names_in_order(read.topology) == names_in_order(topology)


def test_any_topology_comes_back() -> None:
    with intent_server() as running, contextlib.ExitStack() as stack:
        writer, reader = (
            stack.enter_context(contextlib.closing(Client(running.remote, host="hv1", timeout=SECONDS)))
            for _ in range(2)
        )

        @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(topologies(max_bridges=4, max_endpoints=8, acls=True, routers=True))
        def round_trip(topology: Topology) -> None:
            renamed = topology.model_copy(update={"name": "any"})
            before = writer.read().get("any")
            written = writer.write(renamed, {})
            assert writer.read()["any"] == written
            assert written.topology == renamed
            changed = before is None or before.topology != renamed
            assert written.generation == (before.generation if before is not None else 0) + changed
            assert reader.wait_for("any", written.generation) == written

        round_trip()


def test_text_of_many_bytes_comes_back(connect: Open) -> None:
    """Characters of four bytes, over more reads than one: some are cut."""
    description = "\U0001f310ü" * 200_000
    connect().write(lans("wide", description=description), {})
    assert connect().read()["wide"].topology.description == description


def test_a_text_that_cannot_be_stored_is_refused_and_nothing_breaks(connect: Open) -> None:
    db = connect()
    with pytest.raises(InvalidTopology, match="cannot be stored"):
        db.write(lans("nul", description="a\0b"), {})
    assert db.write(lans("nul"), {}).generation == 1


def test_two_topologies_side_by_side(connect: Open) -> None:
    db = connect()
    first, second = lans("first", "web"), lans("second", "web")
    db.write(first, {})
    db.write(second, {})
    assert {name: stored.topology for name, stored in db.read().items()} == {"first": first, "second": second}
    db.delete("first")
    assert list(connect().read()) == ["second"]


# --- one ACL or group alone


def acl(name: str, *ports: int) -> PolicyChange:
    rule = {"direction": "in", "action": "allow", "protocol": "tcp", "ports": list(ports)}
    return PolicyChange("acls", name, (Rule.model_validate(rule),), f"{name}.yaml:1")


def fine(_stored: Stored) -> None:
    """Nothing speaks against it."""


def test_one_acl_is_written_read_and_removed_and_nothing_else_is_touched(connect: Open) -> None:
    db, other = connect(), connect()
    sources = {entity: f"rich.yaml:{line}" for line, entity in enumerate(entities(rich()))}
    first = db.write(rich(), sources)
    seen = other.wait_for("rich")
    change = acl("web", 8080)
    written = db.write_policy("rich", change, fine)
    expected = change.applied(first.topology)
    assert (written.topology, written.generation) == (expected, 2)
    for read in (db.read()["rich"], other.wait_for("rich", 2)):
        assert read.topology == expected
        assert read.sources == {**sources, "acls/web": "web.yaml:1"}
        assert (read.tags, read.zones) == (first.tags, first.zones)
        assert names_in_order(read.topology) == names_in_order(first.topology)
    again = other.read()["rich"]
    assert again.topology.nodes is seen.topology.nodes and again.topology.links is seen.topology.links
    kept = [name for name in seen.topology.acls if name != "web"]
    assert all(
        a is b
        for name in kept
        for a, b in zip(again.topology.acls[name], seen.topology.acls[name], strict=True)
    )
    db.write_policy("rich", acl("fresh", 1), fine)
    assert list(db.read()["rich"].topology.acls) == [*first.topology.acls, "fresh"]
    db.write_policy("rich", PolicyChange("acls", "fresh", None), fine)
    assert other.wait_for("rich", 4) == db.read()["rich"]
    assert connect().read()["rich"] == db.read()["rich"], "read anew it is the same"


def test_the_same_acl_again_is_no_new_generation(connect: Open) -> None:
    db = connect()
    db.write(rich(), {})
    assert [db.write_policy("rich", acl("web", 1), fine).generation for _ in range(2)] == [2, 2]
    moved = replace(acl("web", 1), source="elsewhere.yaml:7")
    assert db.write_policy("rich", moved, fine).generation == 2
    assert db.read()["rich"].sources["acls/web"] == "elsewhere.yaml:7"


def test_an_acl_for_another_generation_or_topology_or_that_is_refused_changes_nothing(connect: Open) -> None:
    db = connect()
    before = db.write(rich(), {})

    def refuse(stored: Stored) -> None:
        assert stored.topology.acls["web"] == acl("web", 1).value
        raise InvalidTopology(("no",))

    with pytest.raises(Conflict, match="made for generation 7, and it is at generation 1"):
        db.write_policy("rich", acl("web", 1), fine, expected_generation=7)
    with pytest.raises(NotFound, match="no topology 'none'"):
        db.write_policy("none", acl("web", 1), fine)
    with pytest.raises(NotFound, match="'rich' has no group 'none'"):
        db.write_policy("rich", PolicyChange("groups", "none", None), fine)
    with pytest.raises(InvalidTopology, match="no"):
        db.write_policy("rich", acl("web", 1), refuse)
    assert db.read()["rich"] == before


def test_many_clients_change_acls_of_one_topology_at_once(connect: Open) -> None:
    first = connect()
    first.write(rich(), {})
    clients = [connect() for _ in range(4)]
    gate = Barrier(len(clients))

    def change(number: int) -> None:
        gate.wait()
        for port in range(1, 6):
            clients[number].write_policy("rich", acl(f"acl{number}", port), fine)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(change, range(len(clients))))
    stored = first.wait_for("rich", 21)
    assert stored.generation == 21
    assert [stored.topology.acls[f"acl{n}"] for n in range(4)] == [acl("", 5).value] * 4


def test_any_edit_reads_as_if_read_anew() -> None:
    """What is renewed row by row is what a new client reads."""
    with intent_server() as running, contextlib.ExitStack() as stack:
        writer, reader = (
            stack.enter_context(contextlib.closing(Client(running.remote, host="hv1", timeout=SECONDS)))
            for _ in range(2)
        )

        @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(topologies(max_bridges=3, max_endpoints=6, acls=True))
        def edits(topology: Topology) -> None:
            written = writer.write(topology.model_copy(update={"name": "any"}), {})
            for name in list(written.topology.acls):
                written = writer.write_policy("any", acl(name, 7), fine)
            with contextlib.closing(Client(running.remote, host="hv1", timeout=SECONDS)) as fresh:
                anew = fresh.read()["any"]
            assert reader.wait_for("any", written.generation) == writer.read()["any"] == anew
            assert anew.topology == written.topology

        edits()


def test_reading_is_free_while_nothing_changes(connect: Open) -> None:
    db = connect()
    db.write(lans("one", "web"), {})
    db.write(lans("two", "web"), {})
    before = db.read()
    assert db.read() is before
    db.report("one", 1, "in-sync", "")
    assert db.read() is before
    db.write(lans("two", "web", "more"), {})
    after = db.read()
    assert after["one"] is before["one"]
    assert list(after["two"].topology.networks) == ["web", "more"]


# --- generations


def test_generations_count_what_changed(connect: Open) -> None:
    db = connect()
    assert db.write(rich(), {}).generation == 1
    assert db.write(rich(), {}).generation == 1
    assert db.write(rich(description="other"), {}).generation == 2
    assert db.write(rich(links=RICH["links"][::-1]), {}).generation == 3
    assert db.write(lans("other"), {}).generation == 1


def test_nothing_is_written_where_nothing_changed(connect: Open, server: IntentServer) -> None:
    db = connect()
    db.write(rich(), {"nodes/zz": "a.yaml:1"})
    before = server.versions(*CONTENT)
    assert db.write(rich(), {"nodes/zz": "a.yaml:1"}).generation == 1
    assert server.versions(*CONTENT) == before


def test_sources_and_order_are_stored_without_a_generation(connect: Open) -> None:
    db = connect()
    db.write(rich(), {"nodes/zz": "a.yaml:1"})
    nodes = dict(reversed(RICH["nodes"].items()))
    again = db.write(rich(nodes=nodes), {"nodes/zz": "a.yaml:9", "nodes/aa": "a.yaml:2"})
    assert again.generation == 1
    stored = connect().read()["rich"]
    assert stored.sources == {"nodes/zz": "a.yaml:9", "nodes/aa": "a.yaml:2"}
    assert list(stored.topology.nodes) == list(nodes)


def test_only_rows_that_differ_are_written(connect: Open, server: IntentServer) -> None:
    db = connect()
    db.write(rich(), {})
    before = server.versions(*CONTENT)
    nodes = {**RICH["nodes"], "aa": {"kind": "bridge", "description": "new"}}
    del nodes["lan0"]
    db.write(rich(nodes=nodes), {})
    after = server.versions(*CONTENT)
    changed = sorted(
        table for (table, uuid), version in after.items() if before.get((table, uuid)) != version
    )
    assert changed == ["Bridge", "Topology"]
    assert sorted(table for table, uuid in before.keys() - after.keys()) == ["Claim", "Linux_Bridge"]


def test_tags_stay_where_networks_come_and_go(connect: Open) -> None:
    db = connect()
    assert db.write(lans("l", "a", "b", "c"), {}).tags == {"a": 1, "b": 2, "c": 3}
    assert db.write(lans("l", "c", "a"), {}).tags == {"c": 3, "a": 1}
    assert db.write(lans("l", "d", "c", "a"), {}).tags == {"d": 2, "c": 3, "a": 1}
    assert connect().read()["l"].tags == {"d": 2, "c": 3, "a": 1}


def test_expected_generation(connect: Open) -> None:
    db = connect()
    with pytest.raises(Conflict, match="made for generation 4, and it is not stored"):
        db.write(lans("l"), {}, expected_generation=4)
    assert db.write(lans("l"), {}, expected_generation=0).generation == 1
    assert db.write(lans("l", "a"), {}, expected_generation=1).generation == 2
    for expected in (0, 1):
        with pytest.raises(
            Conflict, match=r"'l' was changed meanwhile: .* it is at generation 2; plan again"
        ):
            connect().write(lans("l", "b"), {}, expected_generation=expected)
    assert list(db.read()["l"].topology.networks) == ["a"]


# --- devices


def test_a_device_of_another_topology(connect: Open) -> None:
    db = connect()
    db.write(lans("first", bridge="br0"), {})
    with pytest.raises(Conflict, match=r"device 'br0'.*nodes/br0.*belongs to topology 'first'.*destroy"):
        connect().write(lans("second", bridge="br0"), {})
    assert list(db.read()) == ["first"]
    db.delete("first")
    assert db.write(lans("second", bridge="br0"), {}).generation == 1


def test_a_device_goes_from_one_topology_to_another(connect: Open) -> None:
    db = connect()
    db.write(lans("first", bridge="br0"), {})
    db.write(lans("first", bridge="br1"), {})
    assert db.write(lans("second", bridge="br0"), {}).generation == 1


def test_another_host_has_devices_of_its_own(connect: Open) -> None:
    connect(host="hv1").write(lans("first", bridge="br0"), {})
    assert connect(host="hv2").write(lans("second", bridge="br0"), {}).generation == 1


def test_the_server_itself_refuses_a_device_taken_twice(connect: Open, server: IntentServer) -> None:
    connect().write(lans("first", bridge="br0"), {})
    claim = {"host": "hv1", "device": "dev:br0", "topology": "second", "entity": "nodes/br0"}
    network = {"generation": 1, "revision": 1, "name": "second"}
    results = server.transact(
        {"op": "insert", "table": "Claim", "uuid-name": "c", "row": claim},
        {"op": "insert", "table": "Topology", "row": {**network, "claims": ["named-uuid", "c"]}},
    )
    assert results[-1]["error"] == "constraint violation"
    assert 'index on columns "host" and "device"' in results[-1]["details"]


def test_a_race_for_a_device_has_one_winner(connect: Open) -> None:
    clients = [connect(), connect()]
    for round_number in range(15):
        barrier = Barrier(2)

        def claim(client: int, number: int = round_number, start: Barrier = barrier) -> str:
            start.wait()
            try:
                clients[client].write(lans(f"t{number}-{client}", bridge=f"br{number}"), {})
            except Conflict as error:
                assert f"topology 't{number}-{1 - client}'" in error.message
                return "lost"
            return "won"

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(claim, range(2))) == ["lost", "won"]


def policed(name: str, count: int) -> Topology:
    """Endpoints with ACLs, in namespaces that no other topology has."""
    interface = {"network": "lan", "acls": ["closed"]}
    document = {
        "name": name,
        "tenants": {"t": {}},
        "networks": {"lan": {"tenant": "t"}},
        "nodes": {
            f"{name}-{number}": {"kind": "namespace", "tenant": "t", "interfaces": {"eth0": interface}}
            for number in range(count)
        },
        "acls": {"closed": [{"direction": "in", "action": "deny"}]},
    }
    return Topology.model_validate(document)


def test_zones_stay_where_interfaces_come_and_go(connect: Open) -> None:
    db = connect()
    assert db.write(policed("a", 2), {}).zones == {"a-0:eth0": 1, "a-1:eth0": 2}
    assert db.write(policed("b", 1), {}).zones == {"b-0:eth0": 3}
    assert db.write(policed("a", 3), {}).zones == {"a-0:eth0": 1, "a-1:eth0": 2, "a-2:eth0": 4}
    db.write(policed("b", 0), {})
    assert db.write(policed("c", 1), {}).zones == {"c-0:eth0": 3}
    assert connect().read()["a"].zones == {"a-0:eth0": 1, "a-1:eth0": 2, "a-2:eth0": 4}
    assert connect(host="hv2").write(policed("d", 1), {}).zones == {"d-0:eth0": 1}


def test_a_race_for_zones_gives_each_its_own(connect: Open) -> None:
    """Both choose the lowest free ones; the database takes one writer, and the other chooses again."""
    clients = [connect(), connect()]
    for round_number in range(10):
        barrier = Barrier(2)

        def write(client: int, number: int = round_number, start: Barrier = barrier) -> Stored:
            start.wait()
            return clients[client].write(policed(f"z{number}-{client}", 5), {})

        with ThreadPoolExecutor(2) as pool:
            stored = list(pool.map(write, range(2)))
        zones = [zone for one in stored for zone in one.zones.values()]
        assert len(set(zones)) == 10
    every = [zone for one in connect().read().values() for zone in one.zones.values()]
    assert sorted(every) == list(range(1, 101))


# --- several writers


def test_no_update_is_lost(connect: Open) -> None:
    """Six writers, two connections, each adds its own networks to what it read."""
    clients = [connect(), connect()]
    clients[0].write(lans("l"), {})
    seen: list[dict[str, int]] = []
    barrier = Barrier(6)
    clients[1].wait_for("l")

    def add(writer: int) -> int:
        client, refused = clients[writer % 2], 0
        for number in range(5):
            while True:
                stored = client.read()["l"]
                if number == refused == 0:
                    barrier.wait(SECONDS)  # all have read the same, so one gets through with it
                networks = [*stored.topology.networks, f"n{writer}-{number}"]
                try:
                    written = client.write(lans("l", *networks), {}, expected_generation=stored.generation)
                except Conflict:
                    refused += 1
                    continue
                seen.append(dict(written.tags))
                break
        return refused

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(add, range(6))) >= 5
    stored = connect().read()["l"]
    assert set(stored.topology.networks) == {
        f"n{writer}-{number}" for writer in range(6) for number in range(5)
    }
    assert stored.generation == 31
    assert len(set(stored.tags.values())) == 30
    for tags in seen:
        assert tags.items() <= stored.tags.items()


def test_writers_who_expect_nothing_all_get_through(connect: Open) -> None:
    """Also the first write of a name, where the index alone tells them that there is one already."""
    clients = [connect(), connect(), connect()]
    barrier = Barrier(6)

    def write(writer: int) -> list[int]:
        barrier.wait()
        return [
            clients[writer % 3].write(lans("l", f"w{writer}-{number}"), {}).generation for number in range(5)
        ]

    with ThreadPoolExecutor(6) as pool:
        generations = [generation for each in pool.map(write, range(6)) for generation in each]
    assert sorted(generations) == list(range(1, 31))


def test_a_reader_never_sees_half_a_write(connect: Open) -> None:
    writer, reader = connect(), connect()
    writer.write(lans("l", *(f"n{i}" for i in range(40)), description="0"), {})
    stop = Event()
    reader.wait_for("l")

    def write() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            # The number of networks and every description change together, hundreds of rows at once.
            networks = (f"n{i}" for i in range(40 + number % 7))
            writer.write(lans("l", *networks, description=str(number)), {})
        return number

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            seen: set[int] = set()
            while len(seen) < 15 and not writing.done():
                topology = reader.read()["l"].topology
                number = int(topology.description)
                entities_of = (
                    *topology.tenants.values(),
                    *topology.networks.values(),
                    *topology.nodes.values(),
                )
                assert {entity.description for entity in entities_of} == {topology.description}
                assert len(topology.networks) == 40 + number % 7
                seen.add(number)
        finally:
            stop.set()
        assert writing.result() >= 14


# --- deleting


def test_delete_leaves_nothing(connect: Open, server: IntentServer) -> None:
    db = connect()
    db.write(rich(), {})
    db.report("rich", 1, "in-sync", "")
    assert all(server.rows(table) for table in (*CONTENT, "Applied"))
    db.delete("rich")
    assert db.read() == {}
    assert db.applied() == {}
    assert not any(server.rows(table) for table in (*CONTENT, "Applied"))
    assert db.write(rich(), {}).generation == 1


def test_delete_of_what_is_not_there(connect: Open) -> None:
    with pytest.raises(NotFound, match="there is no topology 'nowhere'"):
        connect().delete("nowhere")


# --- what became of it


def test_reports_of_each_host(connect: Open, server: IntentServer) -> None:
    one, two = connect(host="hv1"), connect(host="hv2")
    one.write(lans("l"), {})
    one.report("l", 1, "applying", "")
    one.report("l", 1, "failed", "no such device")
    one.write(lans("m"), {})
    two.wait_for("l")
    two.report("l", 1, "in-sync", "")
    assert one.applied() == {"l": (1, "failed", "no such device")}
    assert two.applied() == {"l": (1, "in-sync", "")}
    assert {row["name"] for row in server.rows("Host")} == {"hv1", "hv2"}
    assert len(server.rows("Applied")) == 2


def test_a_report_that_says_nothing_new_is_not_written(connect: Open, server: IntentServer) -> None:
    db = connect()
    db.write(lans("l"), {})
    db.report("l", 1, "in-sync", "")
    before = server.versions("Host", "Applied", "Topology")
    db.report("l", 1, "in-sync", "")
    assert server.versions("Host", "Applied", "Topology") == before


def test_a_report_on_what_is_gone_is_passed_over(connect: Open, server: IntentServer) -> None:
    connect().report("gone", 3, "in-sync", "")
    assert server.rows("Applied") == []


def test_two_daemons_of_one_host_report_at_once(connect: Open, server: IntentServer) -> None:
    clients = [connect(), connect()]
    clients[0].write(lans("l"), {})
    clients[1].wait_for("l")
    barrier = Barrier(2)

    def report(client: int) -> None:
        barrier.wait()
        clients[client].report("l", 1, "applying", str(client))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(report, range(2)))
    assert len(server.rows("Applied")) == len(server.rows("Host")) == 1


# --- changes of others


def test_on_change_for_what_another_client_writes(connect: Open) -> None:
    changed = Event()
    reader, writer = connect(on_change=changed.set), connect()
    reader.read()
    for step in (
        lambda: writer.write(lans("l"), {}),
        lambda: writer.write(lans("l", "web"), {}),
        lambda: writer.delete("l"),
    ):
        changed.clear()
        step()
        assert changed.wait(SECONDS)
    assert reader.read() == {}


def test_on_change_is_not_for_reports(connect: Open) -> None:
    """A loop that reports what it did would never come to rest."""
    changed = Event()
    db, other = connect(on_change=changed.set), connect(host="hv2")
    db.write(lans("l"), {})
    other.wait_for("l")
    changed.clear()
    other.report("l", 1, "applying", "")
    db.report("l", 1, "in-sync", "")  # after this, the replica and its callbacks are up to date
    db.report("l", 1, "pending", "")
    assert not changed.is_set()
    other.write(lans("l", "web"), {})
    assert changed.wait(SECONDS)


def test_a_callback_that_fails_does_not_end_the_connection(connect: Open) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("a defect")

    db = connect(on_change=fail)
    for networks in (["a"], ["a", "b"]):
        db.write(lans("l", *networks), {})
    assert len(calls) >= 2
    assert list(db.read()["l"].topology.networks) == ["a", "b"]


# --- a server that goes and comes back


def test_a_killed_server_comes_back_with_everything(connect: Open, server: IntentServer) -> None:
    changed = Event()
    db = connect(on_change=changed.set)
    written = db.write(rich(), {"nodes/zz": "a.yaml:1"})
    server.kill()
    assert db.read()["rich"] == written  # from the replica
    server.start()
    assert db.write(rich(description="after"), {}).generation == 2  # waits for the connection
    assert connect().read()["rich"].topology.description == "after"
    changed.clear()
    connect().delete("rich")
    assert changed.wait(SECONDS)


def test_on_change_for_a_server_that_comes_back_empty(connect: Open) -> None:
    changed = Event()
    with intent_server() as lost:
        db = connect(remote=lost.remote, on_change=changed.set)
        db.write(lans("l"), {})
        changed.clear()
        lost.kill()
        (lost.directory / "intent.db").unlink()
        IntentServer(lost.directory, False, schema_path())
        lost.start()
        assert changed.wait(SECONDS)
        assert db.read() == {}


def test_a_client_that_comes_before_the_server(connect: Open) -> None:
    with intent_server() as late:
        late.kill()
        db = connect(remote=late.remote)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(db.read)
            late.start()
            assert reading.result(SECONDS) == {}
        assert db.connected


def calls(db: IntentDatabase) -> list[Callable[[], object]]:
    return [
        lambda: db.write(lans("l"), {}),
        lambda: db.delete("l"),
        lambda: db.report("l", 1, "in-sync", ""),
        db.read,
        db.applied,
    ]


def test_no_server(connect: Open, short_tmp: Path) -> None:
    db = connect(remote=f"unix:{short_tmp}/none.sock", timeout=0.2)
    for call in calls(db):
        with pytest.raises(Unreachable) as caught:
            call()
        assert f"unix:{short_tmp}/none.sock is not reachable: nothing answers there" in caught.value.message
        assert "vswitchctl up" in caught.value.remedy
        assert caught.value.retryable
    assert not db.connected


def test_a_server_of_another_database(connect: Open) -> None:
    with intent_server(schema=SCHEMA_DIR / "vswitch.ovsschema") as other:
        db = connect(remote=other.remote, timeout=5)
        with pytest.raises(Unreachable, match="does not serve 'vswitchctl' with the schema of this version"):
            db.read()


def test_a_server_that_went_away(connect: Open, server: IntentServer) -> None:
    connect().write(lans("l"), {})
    db = connect(timeout=3)
    assert list(db.read()) == ["l"]
    server.kill()
    for call in calls(db)[:2]:
        with pytest.raises(Unreachable, match="nothing answers there"):
            call()
    assert list(db.read()) == ["l"]
    assert not db.connected


def test_a_server_that_hangs(connect: Open, server: IntentServer) -> None:
    connect().write(lans("l"), {})
    db = connect(timeout=3)
    assert list(db.read()) == ["l"]
    server.freeze()
    with pytest.raises(Unreachable, match=r"gave no answer within 3 s; .* stored or not"):
        db.write(lans("l", "web"), {})
    assert list(db.read()["l"].topology.networks) == []
    server.thaw()
    patient = connect()
    assert patient.write(lans("l", "web"), {}).generation == 2  # whether the first was stored or not


def test_a_large_topology_is_given_more_time(connect: Open, server: IntentServer) -> None:
    db = connect(timeout=2)
    db.write(lans("l"), {})
    server.freeze()
    large = lans("l", *(f"n{number}" for number in range(ENTITIES_PER_SECOND)))
    with pytest.raises(Unreachable, match=r"gave no answer within 3 s"):
        db.write(large, {})
    server.thaw()


def test_after_close(connect: Open) -> None:
    db = connect()
    db.write(lans("l"), {})
    db.close()
    db.close()
    for call in calls(db):
        with pytest.raises(Unreachable, match="this connection to it was closed"):
            call()


def test_more_descriptors_than_select_can_take(connect: Open) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.callback(os.close, os.dup(0))
        assert connect().write(lans("l"), {}).generation == 1
