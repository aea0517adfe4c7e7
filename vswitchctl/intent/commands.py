"""Commands on the intent database, in ovsdbapp's style: each is one transaction, computed on the replica.

`run_idl` runs again whenever another client was faster, on the replica with that client's change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ovsdbapp.backend.ovs_idl.command import BaseCommand

import vswitchctl
from vswitchctl.errors import Conflict, InternalError, InvalidTopology, NotFound
from vswitchctl.intent.connection import IntentBackend
from vswitchctl.intent.operations import operations
from vswitchctl.intent.replica import Replica
from vswitchctl.intent.rows import (
    NETWORKS,
    Part,
    entity_part,
    meters_of,
    sources_of,
    to_part,
    with_child,
    without_child,
    zones_of,
)
from vswitchctl.intent.tables import APPLIED, CLAIMS, HOST, TOPOLOGY, Value
from vswitchctl.model.intent import (
    PolicyChange,
    Stored,
    allocate_meters,
    allocate_tags,
    allocate_zones,
    claims,
)
from vswitchctl.model.topology import Topology, entities


class IntentCommand(BaseCommand):  # type: ignore[misc]
    """entities: how many it stores or deletes, where that may take a while."""

    entities: int = 0


class WriteTopologyCommand(IntentCommand):
    """Make the stored rows match a topology; rows that match already are left alone. result: Stored.

    Raises Conflict, InvalidTopology.
    """

    def __init__(
        self,
        backend: IntentBackend,
        replica: Replica,
        host: str,
        topology: Topology,
        sources: Mapping[str, str],
        expected_generation: int | None,
    ) -> None:
        super().__init__(backend)
        self._replica = replica
        self._host = host
        self._topology = topology
        self.entities = len(entities(topology))
        self._sources = sources
        self._expected = expected_generation
        self._tried = False

    def run_idl(self, txn: Any) -> None:
        name = self._topology.name
        part, stored = self._replica.part(name), self._replica.stored(name)
        generation = part.columns["generation"] if part is not None else 0
        unchanged = stored is not None and stored.topology == self._topology
        # A second run that finds its own change was preceded by one whose answer got lost.
        if self._expected not in (None, generation) and not (self._tried and unchanged):
            raise _changed_meanwhile(name, self._expected, generation)
        self._tried = True
        check_claims(self._topology, self._host, self._replica.others(name))
        tags = allocate_tags(self._topology, _tags(part))
        taken = zones_taken(self._host, self._replica.others(name))
        zones = allocate_zones(self._topology, zones_of(part) if part is not None else {}, taken)
        meters = allocate_meters(self._topology, meters_of(part) if part is not None else {})
        desired = to_part(self._topology, self._sources, tags, self._host, part, zones, meters)
        desired.columns["generation"] = generation if unchanged else generation + 1
        desired.columns["revision"] = revision = part.columns["revision"] if part is not None else 0
        self.result = Stored(
            self._topology, desired.columns["generation"], tags, sources_of(desired), zones, meters
        )
        if desired != part:
            check_texts(desired)
            desired.columns["revision"] = revision + 1
            for operation in operations(desired, part):
                txn.add_op(operation)


class WritePolicyCommand(IntentCommand):
    """Put one ACL or group of a stored topology in place, or remove it. result: Stored.

    Costs what the entity is, however large the topology. Raises NotFound, Conflict, InvalidTopology.
    """

    def __init__(
        self,
        backend: IntentBackend,
        replica: Replica,
        topology: str,
        change: PolicyChange,
        check: Callable[[Stored], None],
        expected_generation: int | None,
    ) -> None:
        super().__init__(backend)
        self._replica = replica
        self._name = topology
        self._change = change
        self._check = check
        self._expected = expected_generation
        self._tried = False

    def run_idl(self, txn: Any) -> None:
        part, stored = self._replica.part(self._name), self._replica.stored(self._name)
        if part is None or stored is None:
            raise _unknown(self._name)
        change = self._change
        there = getattr(stored.topology, change.section).get(change.name)
        # A second run that finds its own change was preceded by one whose answer got lost.
        unchanged = there == change.value and (there is not None or self._tried)
        if self._expected not in (None, stored.generation) and not (self._tried and unchanged):
            raise _changed_meanwhile(self._name, self._expected, stored.generation)
        if change.value is None and there is None and not self._tried:
            raise _no_entry(self._name, change)
        self._tried = True
        generation = stored.generation if unchanged else stored.generation + 1
        self.result = replace(stored, topology=change.applied(stored.topology), generation=generation)
        if not unchanged:
            self._check(self.result)
        rows = _with_change(part, change)
        if rows != part:
            revision = part.columns["revision"] + 1
            rows.columns = {**part.columns, "generation": generation, "revision": revision}
            for operation in operations(rows, part):
                txn.add_op(operation)


class DeleteTopologyCommand(IntentCommand):
    """Delete a topology's row; ovsdb-server collects what only it referred to. Raises NotFound."""

    def __init__(self, backend: IntentBackend, replica: Replica, name: str, count: int) -> None:
        """count: of the topology's entities."""
        super().__init__(backend)
        self._replica = replica
        self._name = name
        self.entities = count

    def run_idl(self, txn: Any) -> None:
        part = self._replica.part(self._name)
        if part is None:
            raise _unknown(self._name)
        self.api.tables[TOPOLOGY.name].rows[part.row].delete()


class ReportCommand(IntentCommand):
    """Say what became of a topology on this host. Of one that is gone there is nothing to say."""

    def __init__(
        self, backend: IntentBackend, replica: Replica, host: str, topology: str, columns: Mapping[str, Value]
    ) -> None:
        super().__init__(backend)
        self._replica = replica
        self._host = host
        self._topology = topology
        self._columns = columns

    def run_idl(self, txn: Any) -> None:
        part = self._replica.part(self._topology)
        if part is None:
            return
        self._register(txn)
        row = self._replica.applied(self._host).get(self._topology)
        if row is None:
            row = txn.insert(self.api.tables[APPLIED])
            _assign(row, {"host": self._host, "topology": self._topology})
            self.api.tables[TOPOLOGY.name].rows[part.row].addvalue("applied", row)
        _assign(row, self._columns)

    def _register(self, txn: Any) -> None:
        """This host's own row, with the version of its daemon."""
        table = self.api.tables[HOST]
        row = next((row for row in table.rows.values() if row.name == self._host), None) or txn.insert(table)
        _assign(row, {"name": self._host, "version": vswitchctl.__version__})


def _with_change(part: Part, change: PolicyChange) -> Part:
    """The rows of a topology with the change; those that it does not concern are the same objects."""
    held = next(held for held in TOPOLOGY.holds if held.column == change.section)
    if change.value is None:
        return without_child(part, held.column, change.name)
    child = entity_part(held.table, change.name, change.value, change.source)
    check_texts(child)
    return with_child(part, held.column, child)


def _no_entry(topology: str, change: PolicyChange) -> NotFound:
    return NotFound(f"topology '{topology}' has no {change.noun} '{change.name}'", "")


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no topology '{name}'", "'vswitchctl show topologies' lists those there are")


def _assign(row: Any, columns: Mapping[str, Value]) -> None:
    """Set columns. (ovs' Row logs a value that its column does not take, and goes on without it.)"""
    for column, value in columns.items():
        setattr(row, column, value)
        if getattr(row, column, None) != value:
            raise InternalError(f"column {column} of table {row._table.name} does not take {value!r}")


def _tags(part: Part | None) -> dict[str, int]:
    networks = part.parts[NETWORKS].values() if part is not None else ()
    return {network.columns["name"]: network.columns["tag"] for network in networks}


def zones_taken(host: str, others: list[Part]) -> set[int]:
    """Conntrack zones that other topologies claim on this host."""
    claimed = (
        part.columns["device"].partition(":")
        for other in others
        for part in other.parts[CLAIMS].values()
        if part.columns["host"] == host
    )
    return {int(number) for kind, _, number in claimed if kind == "zone"}


def _changed_meanwhile(name: str, expected: int | None, generation: int) -> Conflict:
    is_now = f"is at generation {generation}" if generation else "is not stored"
    return Conflict(
        f"topology '{name}' was changed meanwhile: this is made for generation {expected}, and it {is_now}",
        "plan again and look at the difference",
    )


def check_claims(topology: Topology, host: str, others: list[Part]) -> None:
    """Raises Conflict where another topology has a device that this one takes, or this one takes it twice."""
    own: dict[str, str] = {}
    for device, entity in claims(topology):
        if device in own:
            raise Conflict(
                f"topology '{topology.name}' takes {_spoken(device)} twice: for {own[device]} and {entity}",
                "let one of the two have another name or device",
            )
        own[device] = entity
        for other in others:
            taken = other.parts[CLAIMS].get((device, 0))
            if taken is not None and taken.columns["host"] == host:
                raise Conflict(
                    f"{_spoken(device)}, that {entity} of topology '{topology.name}' needs on host '{host}', "
                    f"belongs to topology '{taken.columns['topology']}' ({taken.columns['entity']})",
                    f"rename {entity}, or destroy topology '{taken.columns['topology']}' first",
                )


def _spoken(device: str) -> str:
    kind, _, name = device.partition(":")
    return f"network namespace '{name}'" if kind == "netns" else f"device '{name}'"


def check_texts(part: Part) -> None:
    """Raises InvalidTopology where a text cannot be stored: ovs' JSON has no NUL, UTF-8 no surrogates."""
    findings = tuple(
        f"{below.table.name} '{below.columns.get('name', '')}': "
        f"the character {character!r} in its {column} cannot be stored; remove it"
        for below in part.walk()
        for column, value in below.columns.items()
        for character in _unstorable(value)
    )
    if findings:
        raise InvalidTopology(findings)


def _unstorable(value: Value) -> Iterator[str]:
    if isinstance(value, str):
        yield from (c for c in value if c == "\0" or "\ud800" <= c <= "\udfff")
    elif isinstance(value, dict):
        for text in (*value, *value.values()):
            yield from _unstorable(text)
    elif isinstance(value, list):
        for text in value:
            yield from _unstorable(text)
