"""Byte layouts with slots: constant bytes, and numbers filled in flow by flow, packed by one Struct."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple

from vswitchctl.errors import InternalError

Column = Sequence[int]


@dataclass(frozen=True, slots=True)
class Var:
    """A slot of a template, filled when a flow is made."""

    name: str


class Term(NamedTuple):
    """A variable's bits in a number: ((value >> right) << left) & mask; a negative `right` shifts left."""

    var: str
    left: int = 0
    right: int = 0
    mask: int = -1


@dataclass(frozen=True, slots=True)
class Number:
    """`size` bytes, big endian: `base` with the terms or-ed in.

    limit: variable -> the bits it may have set; any other bit would spill into its neighbours.
    """

    size: int
    base: int
    terms: tuple[Term, ...]
    limit: tuple[tuple[str, int], ...]


Part = bytes | Number


def number(size: int, value: int | Var, *, shift: int = 0, limit: int, base: int = 0) -> tuple[Part, ...]:
    """`value` as `size` bytes, shifted left. limit: the bits it may have; InternalError beyond it."""
    if isinstance(value, Var):
        return (Number(size, base, (Term(value.name, shift),), ((value.name, limit),)),)
    if value & ~limit:
        raise InternalError(f"value {value:#x} does not fit {limit:#x}")
    return ((base | value << shift).to_bytes(size, "big"),)


_FORMAT = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _split(parts: Sequence[Part]) -> Iterator[Part]:
    """Numbers of 6 bytes take two constant bytes from before them, numbers of 16 become two of 8."""
    literal = b""
    for part in parts:
        if isinstance(part, bytes):
            literal += part
            continue
        size, base, terms = part.size, part.base, part.terms
        if size == 6:
            literal, head = literal[:-2], literal[-2:]
            size, base = 8, base | int.from_bytes(head, "big") << 48
        if literal:
            yield literal
        literal = b""
        if size == 16:
            high = tuple(Term(t.var, 0, 64 - t.left, (1 << 64) - 1) for t in terms)
            low = tuple(Term(t.var, t.left, 0, (1 << 64) - 1) for t in terms)
            yield Number(8, base >> 64, high, part.limit)
            yield Number(8, base & (1 << 64) - 1, low, part.limit)
        else:
            yield Number(size, base, terms, part.limit)
    if literal:
        yield literal


class Layout:
    """Parts ready to be packed: one flow by `one`, many by `many`. names: the variables in order."""

    def __init__(self, parts: Sequence[Part], names: Sequence[str]) -> None:
        index = {name: position for position, name in enumerate(names)}
        items = list(_split(parts))
        formats = (f"{len(i)}s" if isinstance(i, bytes) else _FORMAT[i.size] for i in items)
        self._struct = Struct(">" + "".join(formats))
        self._items = [i if isinstance(i, bytes) else _numbers(i, index) for i in items]
        # A flow's arguments are picked out of (its values, what is worked out of them, the constant bytes).
        numbers = [i for i in items if isinstance(i, Number) and not _plain(i)]
        self._worked_out = [_single(i, index) for i in numbers]
        self._constants: tuple[Any, ...] = tuple(i for i in items if isinstance(i, bytes))
        constants, derived = count(len(names) + len(numbers)), count(len(names))
        places = [
            next(constants) if isinstance(i, bytes) else index[i.terms[0].var] if _plain(i) else next(derived)
            for i in items
        ]
        self._pick = _picker(places)

    def one(self, values: tuple[int, ...]) -> bytes:
        if self._worked_out:
            values += tuple([work_out(values) for work_out in self._worked_out])
        return self._struct.pack(*self._pick(values + self._constants))

    def many(self, columns: Sequence[Column], rows: int) -> Iterator[bytes]:
        """One packed record for each of so many rows; `columns` holds the values variable by variable."""
        arguments = [repeat(i, rows) if isinstance(i, bytes) else i(columns) for i in self._items]
        return map(self._struct.pack, *arguments) if arguments else repeat(b"", rows)


def _picker(places: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """As itemgetter, which gives no tuple where it has one place, and cannot have none."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


def _plain(item: Number) -> bool:
    return not item.base and len(item.terms) == 1 and item.terms[0][1:] == (0, 0, -1)


def _single(item: Number, index: dict[str, int]) -> Callable[[Sequence[int]], int]:
    """For an item that is not a variable as it stands."""
    base = item.base
    terms = [(index[t.var], t.left, t.right, t.mask) for t in item.terms]
    if len(terms) == 1 and terms[0][2] >= 0:
        at, left, right, mask = terms[0]
        if (right, mask) == (0, -1):
            return lambda values: base | values[at] << left
        return lambda values: base | (values[at] >> right << left) & mask

    def value(values: Sequence[int]) -> int:
        result = base
        for position, left, right, mask in terms:
            result |= _place(values[position], left, right, mask)
        return result

    return value


def _place(value: int, left: int, right: int, mask: int) -> int:
    return ((value >> right if right >= 0 else value << -right) << left) & mask


def _numbers(item: Number, index: dict[str, int]) -> Callable[[Sequence[Column]], Column]:
    base = item.base
    terms = [(index[t.var], t.left, t.right, t.mask) for t in item.terms]
    if _plain(item):
        return lambda columns, position=terms[0][0]: columns[position]  # type: ignore[misc]

    def values(columns: Sequence[Column]) -> Column:
        (position, left, right, mask), *more = terms
        if (right, mask) == (0, -1):
            result = [base | value << left for value in columns[position]]
        else:
            result = [base | _place(value, left, right, mask) for value in columns[position]]
        for position, left, right, mask in more:
            result = [
                r | _place(v, left, right, mask) for r, v in zip(result, columns[position], strict=True)
            ]
        return result

    return values
