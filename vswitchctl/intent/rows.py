"""Rows of the intent database <-> the model: pure functions over the declarations of `tables.py`.

A topology is a tree of `Part`s, one for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from vswitchctl.errors import InvalidTopology
from vswitchctl.intent.tables import (
    CLAIM,
    CLAIMS,
    INTERFACE,
    NAMESPACE,
    NETWORK,
    TOPOLOGY,
    TUN,
    VM,
    Held,
    Table,
    Value,
)
from vswitchctl.model.intent import Stored, claims, zone_claims
from vswitchctl.model.topology import Topology

Key = tuple[str, int]
"""A part among those of one column: its identity, and its number among those with the same identity."""

NETWORKS = next(held.column for held in TOPOLOGY.holds if held.table is NETWORK)
ENDPOINT_NODES = tuple(held.column for held in TOPOLOGY.holds if held.table in (NAMESPACE, TUN, VM))
INTERFACES = next(held.column for held in NAMESPACE.holds if held.table is INTERFACE)

POSITION_STRIDE = 1 << 20
"""The gap left between siblings: room for 20 insertions at the same place before all are numbered anew."""


@dataclass(slots=True)
class Part:
    """One row and everything it holds. parts: column -> key -> part.

    row: its UUID, once it is stored. decoded: the model's object, once it was made.

    Two parts are equal where the rows hold the same, at the same places, with the same sources.
    """

    table: Table
    columns: dict[str, Value]
    parts: dict[str, dict[Key, Part]] = field(default_factory=dict)
    row: UUID | None = field(default=None, compare=False)
    decoded: Any = field(default=None, compare=False)

    def walk(self) -> Iterator[Part]:
        """This part and all below it."""
        yield self
        for held in self.parts.values():
            for part in held.values():
                yield from part.walk()


def keyed(table: Table, parts: Iterable[Part]) -> dict[Key, Part]:
    """Parts of one column by their keys. Equal siblings (parallel links) are told apart by their order."""
    seen: Counter[str] = Counter()
    result: dict[Key, Part] = {}
    for part in parts:
        identity = part.columns[table.identity] if table.identity else ""
        result[identity, seen[identity]] = part
        seen[identity] += 1
    return result


def to_part(
    topology: Topology,
    sources: Mapping[str, str],
    tags: Mapping[str, int],
    host: str,
    stored: Part | None,
    zones: Mapping[str, int] | None = None,
) -> Part:
    """The rows that hold `topology`, without generation and revision, which only the writer knows.

    stored: the rows that are there now, so that siblings keep their positions where they can.
    """
    root = _encode(TOPOLOGY, _Item("", 0, topology), "", sources)
    for part in root.parts[NETWORKS].values():
        part.columns["tag"] = tags[part.columns["name"]]
    zones = zones or {}
    for end, part in interfaces_of(root):
        part.columns["zone"] = zones.get(end, 0)
    root.parts[CLAIMS] = keyed(
        CLAIM,
        (
            Part(CLAIM, {"host": host, "device": device, "topology": topology.name, "entity": entity})
            for device, entity in (*claims(topology), *zone_claims(zones))
        ),
    )
    _place(root, stored)
    return root


def interfaces_of(root: Part) -> Iterator[tuple[str, Part]]:
    """('node:interface', its row) of every interface."""
    for column in ENDPOINT_NODES:
        for node in root.parts[column].values():
            for part in node.parts[INTERFACES].values():
                yield f"{node.columns['name']}:{part.columns['name']}", part


def zones_of(root: Part) -> dict[str, int]:
    """Endpoint -> conntrack zone of those that have one, as stored."""
    return {end: part.columns["zone"] for end, part in interfaces_of(root) if part.columns["zone"]}


class _Item(NamedTuple):
    """An entity as it stands in the model: `rank` counts it among its siblings."""

    name: str
    rank: int
    value: Any


def _encode(table: Table, item: _Item, parent: str, sources: Mapping[str, str]) -> Part:
    """The rows of one entity; `position` is its rank for now."""
    name, rank, value = item
    columns: dict[str, Value] = {
        table.column(attribute): codec.encode(value if table.bare else getattr(value, attribute))
        for attribute, codec in table.columns.items()
    }
    if "name" in table.stored:
        columns["name"] = name
    if "position" in table.stored:
        columns["position"] = rank
    if "source" in table.stored:
        columns["source"] = sources.get(table.entity.format(name=name, parent=parent), "")
    parts = {
        held.column: keyed(
            held.table,
            (
                _encode(held.table, child, name, sources)
                for child in _items(held, value if table.bare else getattr(value, held.attribute))
            ),
        )
        for held in table.holds
    }
    return Part(table, columns, parts)


def _items(held: Held, value: Any) -> Iterator[_Item]:
    """The items of an attribute that belong into this column."""
    if held.form == "single":
        pairs: Iterable[tuple[str, Any]] = () if value is None else (("", value),)
    elif held.form == "named":
        pairs = value.items()
    else:
        named_by = held.table.named_by
        pairs = ((named_by(item) if named_by is not None else "", item) for item in value)
    for rank, (name, item) in enumerate(pairs):
        if all(getattr(item, attribute) == implied for attribute, implied in held.table.constant.items()):
            yield _Item(name, rank, item)


def _attributes(table: Table) -> dict[str, list[Held]]:
    """The model's attribute -> the columns that hold it. Several may share one (`nodes`), and its order."""
    result: dict[str, list[Held]] = {}
    for held in table.holds:
        result.setdefault(held.attribute, []).append(held)
    return result


def _place(part: Part, stored: Part | None) -> None:
    """Turn ranks into positions: rows that need not move keep theirs, so that they are not written again."""
    for columns in _attributes(part.table).values():
        here = {
            (held.column, key): child for held in columns for key, child in part.parts[held.column].items()
        }
        there = {
            (held.column, key): child
            for held in columns
            for key, child in (stored.parts.get(held.column, {}) if stored is not None else {}).items()
        }
        for where, child in here.items():
            _place(child, there.get(where))
        if columns[0].form == "single":
            continue
        order = sorted(here, key=lambda where: here[where].columns["position"])
        placed = positions(order, {where: child.columns["position"] for where, child in there.items()})
        for where, position in zip(order, placed, strict=True):
            here[where].columns["position"] = position


def positions(order: Sequence[Hashable], stored: Mapping[Any, int]) -> list[int]:
    """Ascending positions for siblings in this order; those stored keep theirs, if order and gaps allow."""
    fixed = [stored.get(key) for key in order]
    highest = max((position for position in fixed if position is not None), default=0)
    placed: list[int] = []
    missing = 0
    for position in (*fixed, highest + POSITION_STRIDE * (len(order) + 1)):
        if position is None:
            missing += 1
            continue
        low = placed[-1] if placed else 0
        step = min((position - low) // (missing + 1), POSITION_STRIDE)
        if step <= 0:
            return [POSITION_STRIDE * (rank + 1) for rank in range(len(order))]
        placed += [low + step * (number + 1) for number in range(missing)]
        placed.append(position)
        missing = 0
    return placed[:-1]


# --- rows -> model --------------------------------------------------------------------------------


def to_stored(root: Part) -> Stored:
    """The topology that these rows hold. Raises InvalidTopology where another hand broke them."""
    tags = {
        part.columns["name"]: part.columns["tag"]
        for part in sorted(root.parts[NETWORKS].values(), key=lambda part: part.columns["position"])
    }
    return Stored(_decode(root), root.columns["generation"], tags, sources_of(root), zones_of(root))


def _decode(part: Part) -> Any:
    """The model's object for these rows, made once: parts that did not change keep theirs."""
    table = part.table
    if part.decoded is None:
        value: dict[str, Any] = {
            attribute: codec.decode(part.columns[table.column(attribute)])
            for attribute, codec in table.columns.items()
        }
        for attribute, columns in _attributes(table).items():
            value[attribute] = _decode_attribute(part, columns)
        try:
            part.decoded = (
                value[table.bare] if table.model is None else table.model(**table.constant, **value)
            )
        except ValidationError as error:
            raise InvalidTopology(tuple(_finding(part, found) for found in error.errors())) from error
    return part.decoded


def _decode_attribute(part: Part, columns: Sequence[Held]) -> Any:
    children = [child for held in columns for child in part.parts[held.column].values()]
    if columns[0].form == "single":
        return _decode(children[0]) if children else None
    children.sort(key=lambda child: child.columns["position"])
    if columns[0].form == "named":
        return {child.columns["name"]: _decode(child) for child in children}
    return tuple(_decode(child) for child in children)


def _finding(part: Part, found: Any) -> str:
    what = f"{part.table.name.lower()} '{part.columns.get('name', '')}'"
    return (
        f"{'.'.join(map(str, found['loc']))} of {what} as stored is not valid: {found['msg']}; "
        "apply its topology again from the file, or destroy it"
    )


def sources_of(root: Part) -> dict[str, str]:
    """Entity path -> 'file:line' of every entity that has one,"""
    return dict(_sources(root, ""))


def _sources(part: Part, parent: str) -> Iterator[tuple[str, str]]:
    name = part.columns.get("name", "")
    if part.columns.get("source"):
        yield part.table.entity.format(name=name, parent=parent), part.columns["source"]
    for held in part.table.holds:
        for child in part.parts[held.column].values():
            yield from _sources(child, name)
