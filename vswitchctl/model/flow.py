"""A flow as bytes: what the switch itself compares, so reading back 100,000 flows parses none of them.

key:   table_id (1 byte) | priority (2, big endian) | OXM fields in OVS's order, no header or padding
value: cookie (8) | idle_timeout (2) | hard_timeout (2) | flags (2) | instructions as on the wire
(OpenFlow 1.4.1 section 7.3.4.1 ofp_flow_mod and 7.3.5.2 ofp_flow_stats hold the same parts in other places.)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from vswitchctl.errors import InternalError

FlowKey = bytes
FlowValue = bytes
FlowTable = dict[FlowKey, FlowValue]


class Flow(NamedTuple):
    """One flow: `FlowTable` entries are these pairs."""

    key: FlowKey
    value: FlowValue


class CountedFlow(NamedTuple):
    """A flow as a switch tells of it: with what it was hit by, and for how many seconds it has been there."""

    key: FlowKey
    value: FlowValue
    packets: int
    octets: int
    seconds: float


def table_id(key: FlowKey) -> int:
    return key[0]


def priority(key: FlowKey) -> int:
    return int.from_bytes(key[1:3], "big")


def cookie(value: FlowValue) -> int:
    return int.from_bytes(value[:8], "big")


PartKey = tuple[str, Hashable]
"""The app that compiled a part, and its own name for it."""


class PartedTable(Mapping[FlowKey, FlowValue]):
    """A bridge's flows in parts. A part that did not change is the same object as before.

    As a mapping it is the union of its parts, which is made when somebody first looks into it.
    """

    def __init__(self, apps: Mapping[str, Mapping[Hashable, FlowTable]]) -> None:
        self.apps = apps

    @cached_property
    def whole(self) -> FlowTable:
        """Every flow. Raises InternalError where two parts have a flow of the same match."""
        table: FlowTable = {}
        count = 0
        for parts in self.apps.values():
            for part in parts.values():
                table.update(part)
                count += len(part)
        if count != len(table):
            raise InternalError(f"{count - len(table)} flows have the match of a flow of another part")
        return table

    def __getitem__(self, key: FlowKey) -> FlowValue:
        return self.whole[key]

    def __iter__(self) -> Iterator[FlowKey]:
        return iter(self.whole)

    def __len__(self) -> int:
        return sum(len(part) for parts in self.apps.values() for part in parts.values())

    def __eq__(self, other: object) -> bool:
        return self.whole == (other.whole if isinstance(other, PartedTable) else other)

    __hash__ = None  # type: ignore[assignment]

    def changed_since(self, before: PartedTable) -> tuple[FlowTable, FlowTable]:
        """The flows of every part that differs: as they were, and as they are. Cost: the parts that differ,
        and one look at each name of the apps that have one."""
        was: FlowTable = {}
        now: FlowTable = {}
        for app in before.apps.keys() | self.apps.keys():
            old, new = before.apps.get(app, {}), self.apps.get(app, {})
            if old is new:
                continue
            for name in old.keys() | new.keys():
                if old.get(name) is not new.get(name):
                    was.update(old.get(name, {}))
                    now.update(new.get(name, {}))
        return was, now
