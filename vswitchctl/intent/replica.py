"""The topologies in the replica, decoded once per change. Every method needs the connection's lock held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from uuid import UUID

from vswitchctl.errors import InvalidTopology
from vswitchctl.intent.connection import IntentIdl
from vswitchctl.intent.rows import Key, Part, keyed, to_stored
from vswitchctl.intent.tables import APPLIED, CLAIM, CLAIMS, TOPOLOGY, Table
from vswitchctl.model.intent import Stored

Touched = Mapping[UUID, set[str] | None]
"""Rows that changed, with the columns that did; None for a row that came or went."""


@dataclass(slots=True)
class _Entry:
    """A topology's rows as a tree, where each stands in it, and the model once somebody asked for it."""

    part: Part
    places: dict[UUID, Place]
    stored: Stored | None = None


class Replica:
    """A view of the replica by topology. What did not change since the last call is not read again."""

    def __init__(self, idl: IntentIdl) -> None:
        self._idl = idl
        self._entries: dict[UUID, _Entry] = {}
        self._intent: Mapping[str, Stored] | None = None

    def intent(self) -> Mapping[str, Stored]:
        """Every topology by name; the same object as long as nothing changed. Raises InvalidTopology."""
        entries = self._refreshed()
        if self._intent is None:
            decoded = {entry.part.columns["name"]: self._decoded(entry) for entry in entries.values()}
            self._intent = MappingProxyType(dict(sorted(decoded.items())))
        return self._intent

    def part(self, name: str) -> Part | None:
        """The rows of one topology, or None where there is none of this name."""
        entry = self._entry(name)
        return entry.part if entry is not None else None

    def stored(self, name: str) -> Stored | None:
        """One topology, or None where there is none of this name, or its rows make no valid one."""
        entry = self._entry(name)
        try:
            return self._decoded(entry) if entry is not None else None
        except InvalidTopology:
            return None

    def others(self, name: str) -> list[Part]:
        """The rows of every topology but this one."""
        return [entry.part for entry in self._refreshed().values() if entry.part.columns["name"] != name]

    def applied(self, host: str) -> dict[str, Any]:
        """Topology -> the Applied row of this host."""
        rows = self._idl.tables[APPLIED].rows.values()
        return {row.topology: row for row in rows if row.host == host}

    def _entry(self, name: str) -> _Entry | None:
        entries = self._refreshed().values()
        return next((entry for entry in entries if entry.part.columns["name"] == name), None)

    def _refreshed(self) -> dict[UUID, _Entry]:
        """Drop what changed, read what is missing. A row that changed is in `touched`, whoever changed it."""
        touched, rows = self._idl.take_touched(), self._idl.tables[TOPOLOGY.name].rows
        for uuid in self._entries.keys() - rows.keys():
            del self._entries[uuid]
            self._intent = None
        for uuid, entry in self._entries.items():
            if not entry.places.keys().isdisjoint(touched):
                self._entries[uuid] = _renew(entry, self._idl.tables, uuid, touched)
                self._intent = None
        for uuid in rows.keys() - self._entries.keys():
            self._entries[uuid] = _read(rows[uuid])
            self._intent = None
        return self._entries

    @staticmethod
    def _decoded(entry: _Entry) -> Stored:
        if entry.stored is None:
            entry.stored = to_stored(entry.part)
        return entry.stored


class Place(NamedTuple):
    """Where a row stands: held by `above` in `column` under `key`. The topology's own row is held by none."""

    above: UUID | None
    column: str = ""
    key: Key = ("", 0)


def _read(row: Any) -> _Entry:
    part = read_part(TOPOLOGY, row)
    entry = _Entry(part, {row.uuid: Place(None)})
    _place_below(part, entry.places)
    return entry


def _place_below(part: Part, places: dict[UUID, Place]) -> None:
    for column, children in part.parts.items():
        for key, child in children.items():
            if child.row is not None:
                places[child.row] = Place(part.row, column, key)
            _place_below(child, places)


def _renew(entry: _Entry, tables: Any, uuid: UUID, touched: Touched) -> _Entry:
    """The topology with the rows that changed read again; every other part is the object that it was."""
    row = tables[TOPOLOGY.name].rows[uuid]
    if touched.get(uuid, set()) is None:
        return _read(row)
    stale: dict[UUID, dict[str, set[Key]]] = {}
    for below in touched.keys() & entry.places.keys():
        at = entry.places[below]
        while at.above is not None:
            stale.setdefault(at.above, {}).setdefault(at.column, set()).add(at.key)
            at = entry.places[at.above]
    return _Entry(_Renewal(tables, entry.places, touched, stale).part(entry.part), entry.places)


@dataclass(slots=True)
class _Renewal:
    """Reads again what changed. stale: row -> column -> the keys below which something did."""

    tables: Any
    places: dict[UUID, Place]
    touched: Touched
    stale: Mapping[UUID, Mapping[str, set[Key]]]

    def part(self, part: Part) -> Part:
        uuid = cast(UUID, part.row)
        row, changed = self.tables[part.table.name].rows[uuid], self.touched.get(uuid) or set()
        columns = part.columns | {name: getattr(row, name) for name in changed & set(part.table.every_column)}
        parts = dict(part.parts)
        for column, table in columns_below(part.table).items():
            keys = self.stale.get(uuid, {}).get(column, set())
            if column in changed:
                parts[column] = self._listed(part, column, table, getattr(row, column), keys)
            elif keys:
                parts[column] = self._replaced(part, column, table, keys)
        return part.renewed(columns, parts)

    def _replaced(self, part: Part, column: str, table: Table, keys: set[Key]) -> dict[Key, Part]:
        """The column holds the same rows; those of the keys changed, or something below them did."""
        children = dict(part.parts[column])
        ordering = {"position", table.identity}
        moved = any((self.touched.get(cast(UUID, children[key].row)) or set()) & ordering for key in keys)
        for key in keys:
            children[key] = self.part(children[key])
        return self._put(part, column, in_order(table, list(children.values()))) if moved else children

    def _listed(
        self, part: Part, column: str, table: Table, rows: list[Any], keys: set[Key]
    ) -> dict[Key, Part]:
        """The column holds other rows than before."""
        known = {child.row: (key, child) for key, child in part.parts[column].items()}
        children = []
        for row in rows:
            key, child = known.pop(row.uuid, (None, None))
            if child is None:
                child = read_part(table, row)
                _place_below(child, self.places)
            elif key in keys:
                child = self.part(child)
            children.append(child)
        for _, gone in known.values():
            for below in gone.walk():
                self.places.pop(cast(UUID, below.row), None)
        return self._put(part, column, in_order(table, children))

    def _put(self, part: Part, column: str, children: dict[Key, Part]) -> dict[Key, Part]:
        for key, child in children.items():
            self.places[cast(UUID, child.row)] = Place(part.row, column, key)
        return children


def columns_below(table: Table) -> dict[str, Table]:
    """The columns with the rows that a row of this table holds."""
    below = {held.column: held.table for held in table.holds}
    if table is TOPOLOGY:
        below[CLAIMS] = CLAIM
    return below


def read_part(table: Table, row: Any) -> Part:
    """The rows of an entity and of all it holds."""
    columns = {column: getattr(row, column) for column in table.every_column}
    parts = {
        column: in_order(below, [read_part(below, child) for child in getattr(row, column)])
        for column, below in columns_below(table).items()
    }
    return Part(table, columns, parts, row.uuid)


def in_order(table: Table, parts: list[Part]) -> dict[Key, Part]:
    """Parts of one column by their keys."""
    return keyed(table, sorted(parts, key=lambda part: part.columns.get("position", 0)))
