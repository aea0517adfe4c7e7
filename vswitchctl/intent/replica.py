"""The topologies in the replica, decoded once per change. Every method needs the connection's lock held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

from vswitchctl.errors import InvalidTopology
from vswitchctl.intent.connection import IntentIdl
from vswitchctl.intent.rows import Key, Part, keyed, to_stored
from vswitchctl.intent.tables import APPLIED, CLAIM, CLAIMS, TOPOLOGY, Table
from vswitchctl.model.intent import Stored


@dataclass(slots=True)
class _Entry:
    """A topology's rows as a tree, their UUIDs, and the model once somebody asked for it."""

    part: Part
    rows: frozenset[UUID]
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
        kept: dict[UUID, Part] = {}
        for uuid, entry in list(self._entries.items()):
            if uuid not in rows or not entry.rows.isdisjoint(touched):
                kept |= {
                    part.row: part
                    for part in entry.part.walk()
                    if part.row is not None and _untouched(part, touched)
                }
                del self._entries[uuid]
                self._intent = None
        for uuid in rows.keys() - self._entries.keys():
            part = read_part(TOPOLOGY, rows[uuid], kept)
            self._entries[uuid] = _Entry(part, frozenset(below.row for below in part.walk() if below.row))
            self._intent = None
        return self._entries

    @staticmethod
    def _decoded(entry: _Entry) -> Stored:
        if entry.stored is None:
            entry.stored = to_stored(entry.part)
        return entry.stored


def _untouched(part: Part, touched: set[UUID]) -> bool:
    return all(below.row not in touched for below in part.walk())


def read_part(table: Table, row: Any, kept: Mapping[UUID, Part]) -> Part:
    """The rows of an entity and of all it holds; those in `kept` need not be read again."""
    if row.uuid in kept:
        return kept[row.uuid]
    columns = {column: getattr(row, column) for column in table.every_column}
    below = {held.column: held.table for held in table.holds}
    if table is TOPOLOGY:
        below[CLAIMS] = CLAIM
    parts = {column: _read_parts(held, getattr(row, column), kept) for column, held in below.items()}
    return Part(table, columns, parts, row.uuid)


def _read_parts(table: Table, rows: list[Any], kept: Mapping[UUID, Part]) -> dict[Key, Part]:
    parts = [read_part(table, row, kept) for row in rows]
    parts.sort(key=lambda part: part.columns.get("position", 0))
    return keyed(table, parts)
