"""Rows of the intent database <-> the model: pure functions over the declarations of `tables.py`.

A topology is a tree of `Part`s, one for each row.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar
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
    UPLINK,
    VM,
    Held,
    Table,
    Value,
)
from vswitchctl.latest import Latest
from vswitchctl.model.intent import Stored, claims, zone_claims
from vswitchctl.model.topology import Topology

T = TypeVar("T")

Key = tuple[str, int]
"""A part among those of one column: its identity, and its number among those with the same identity."""

NETWORKS = next(held.column for held in TOPOLOGY.holds if held.table is NETWORK)
UPLINKS = next(held.column for held in TOPOLOGY.holds if held.table is UPLINK)
ENDPOINT_NODES = tuple(held.column for held in TOPOLOGY.holds if held.table in (NAMESPACE, TUN, VM))
INTERFACES = next(held.column for held in NAMESPACE.holds if held.table is INTERFACE)

POSITION_STRIDE = 1 << 20
"""The gap left between siblings: room for 20 insertions at the same place before all are numbered anew."""


@dataclass(slots=True)
class Part:
    """One row and everything it holds. parts: column -> key -> part.

    row: its UUID, once it is stored. decoded: the model's object, once it was made, of these `values`.
    former: of a row that was read again, that object and values before. kept: what was worked out of `parts`.

    Two parts are equal where the rows hold the same, at the same places, with the same sources.
    """

    table: Table
    columns: dict[str, Value]
    parts: dict[str, dict[Key, Part]] = field(default_factory=dict)
    row: UUID | None = field(default=None, compare=False)
    decoded: Any = field(default=None, compare=False)
    values: dict[str, Any] = field(default_factory=dict, compare=False)
    former: tuple[Any, dict[str, Any]] | None = field(default=None, compare=False)
    kept: dict[str, Latest[Any]] = field(default_factory=dict, compare=False)

    def work_out(self, name: str, function: Callable[..., T], *inputs: Any) -> T:
        """`function(*inputs)`, run again only where an input is another object than the last time."""
        if name not in self.kept:
            self.kept[name] = Latest(function)
        result: T = self.kept[name](*inputs)
        return result

    def renewed(self, columns: dict[str, Value], parts: dict[str, dict[Key, Part]]) -> Part:
        """The same row, read again: what did not change is not worked out anew."""
        known = self.table is TOPOLOGY and self.decoded is not None
        former = (self.decoded, self.values) if known else self.former
        return Part(self.table, columns, parts, self.row, former=former, kept=self.kept)

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
    meters: Mapping[str, int] | None = None,
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
    for end, part in limited_of(root):
        part.columns["meter"] = (meters or {}).get(end, -1) + 1
    root.parts[CLAIMS] = keyed(
        CLAIM,
        (
            Part(CLAIM, {"host": host, "device": device, "topology": topology.name, "entity": entity})
            for device, entity in (*claims(topology), *zone_claims(zones))
        ),
    )
    _place(root, stored)
    return root


def with_child(root: Part, column: str, child: Part) -> Part:
    """The rows of a topology with one entity more, or another in its place; no other is made anew."""
    siblings = root.parts[column]
    key = child.columns["name"], 0
    there = siblings.get(key)
    last = max((part.columns["position"] for part in siblings.values()), default=0)
    _place(child, there)
    child.columns["position"] = there.columns["position"] if there is not None else last + POSITION_STRIDE
    return replace(root, parts={**root.parts, column: {**siblings, key: child}})


def without_child(root: Part, column: str, name: str) -> Part:
    """The rows of a topology without one entity."""
    siblings = {key: part for key, part in root.parts[column].items() if key[0] != name}
    return replace(root, parts={**root.parts, column: siblings})


def entity_part(table: Table, name: str, value: Any, source: str) -> Part:
    """The rows of one entity, not yet among its siblings."""
    return _encode(table, _Item(name, 0, value), "", {table.entity.format(name=name, parent=""): source})


def interfaces_of(root: Part) -> Iterator[tuple[str, Part]]:
    """('node:interface', its row) of every interface."""
    return _interfaces(*_endpoint_nodes(root))


def _endpoint_nodes(root: Part) -> list[Mapping[Key, Part]]:
    return [root.parts[column] for column in ENDPOINT_NODES]


def _interfaces(*nodes: Mapping[Key, Part]) -> Iterator[tuple[str, Part]]:
    for held in nodes:
        for node in held.values():
            for part in node.parts[INTERFACES].values():
                yield f"{node.columns['name']}:{part.columns['name']}", part


def zones_of(root: Part) -> dict[str, int]:
    """Endpoint -> conntrack zone of those that have one, as stored."""
    return root.work_out("zones", _zones, *_endpoint_nodes(root))


def _zones(*nodes: Mapping[Key, Part]) -> dict[str, int]:
    return {end: part.columns["zone"] for end, part in _interfaces(*nodes) if part.columns["zone"]}


def limited_of(root: Part) -> Iterator[tuple[str, Part]]:
    """('node:interface' or the uplink's name, its row) of all that may have limits."""
    return _limited(root.parts[UPLINKS], *_endpoint_nodes(root))


def _limited(uplinks: Mapping[Key, Part], *nodes: Mapping[Key, Part]) -> Iterator[tuple[str, Part]]:
    yield from _interfaces(*nodes)
    for part in uplinks.values():
        yield part.columns["name"], part


def meters_of(root: Part) -> dict[str, int]:
    """Endpoint or uplink -> number of its meters, as stored: one more in the column, where 0 is none."""
    return root.work_out("meters", _meters, root.parts[UPLINKS], *_endpoint_nodes(root))


def _meters(uplinks: Mapping[Key, Part], *nodes: Mapping[Key, Part]) -> dict[str, int]:
    limited = _limited(uplinks, *nodes)
    return {end: part.columns["meter"] - 1 for end, part in limited if part.columns["meter"]}


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
    tags = root.work_out("tags", _tags, root.parts[NETWORKS])
    return Stored(
        _decode(root),
        root.columns["generation"],
        tags,
        sources_of(root),
        zones_of(root),
        meters_of(root),
    )


def _tags(networks: Mapping[Key, Part]) -> dict[str, int]:
    ordered = sorted(networks.values(), key=lambda part: part.columns["position"])
    return {part.columns["name"]: part.columns["tag"] for part in ordered}


def _decode(part: Part) -> Any:
    """The model's object for these rows, made once: parts that did not change keep theirs."""
    if part.decoded is None:
        try:
            part.decoded = _made(part)
        except ValidationError as error:
            raise InvalidTopology(tuple(_finding(part, found) for found in error.errors())) from error
        part.former = None
    return part.decoded


def _made(part: Part) -> Any:
    """Raises ValidationError."""
    table = part.table
    value: dict[str, Any] = {
        attribute: codec.decode(part.columns[table.column(attribute)])
        for attribute, codec in table.columns.items()
    }
    for attribute, columns in _attributes(table).items():
        below = (part.parts[held.column] for held in columns)
        value[attribute] = part.work_out(attribute, partial(_decode_below, columns), *below)
    part.values = value
    if table.model is None:
        return value[table.bare]
    if part.former is None:
        return table.model(**table.constant, **value)
    # Only what changed is made and checked again: the rest stays the very objects it was.
    model, values = part.former
    changed = {name: new for name, new in value.items() if new is not values[name] and new != values[name]}
    checked = table.model(**table.constant, **{"name": value["name"], **changed})
    return model.model_copy(update={name: getattr(checked, name) for name in changed})


def _decode_below(columns: Sequence[Held], *parts: Mapping[Key, Part]) -> Any:
    """An attribute of the model from the parts of the columns that hold it."""
    children = [child for held in parts for child in held.values()]
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


def sources_of(root: Part) -> Mapping[str, str]:
    """Entity path -> 'file:line' of every entity that has one."""
    own = {"topology": root.columns["source"]} if root.columns.get("source") else {}
    below = (
        root.work_out(f"sources of {held.column}", _sources_below, root.parts[held.column])
        for held in root.table.holds
    )
    return ChainMap(own, *below)


def _sources_below(parts: Mapping[Key, Part]) -> dict[str, str]:
    return dict(pair for part in parts.values() for pair in _sources(part, ""))


def _sources(part: Part, parent: str) -> Iterator[tuple[str, str]]:
    name = part.columns.get("name", "")
    if part.columns.get("source"):
        yield part.table.entity.format(name=name, parent=parent), part.columns["source"]
    for held in part.table.holds:
        for child in part.parts[held.column].values():
            yield from _sources(child, name)
