"""Flows as bytes, refused unless their table allows them. A `Template` is a shape, computed once.

One Struct packs a flow's key and one its value, so that many flows of a shape are made at over a million a
second. A match is written in OVS's own order with full masks left out, so it is dumped back byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_

from vswitchctl.errors import InternalError
from vswitchctl.model.flow import Flow, FlowTable
from vswitchctl.pipeline.actions import Action, names, pad, size
from vswitchctl.pipeline.fields import Field
from vswitchctl.pipeline.layout import Layout, Number, Part, Term, Var
from vswitchctl.pipeline.registers import Bits
from vswitchctl.pipeline.tables import Table

__all__ = ["Match", "MatchValue", "Template", "Var", "flow"]

MatchValue = int | tuple[int | Var, int] | Var
"""A value, a (value, mask) pair, or a variable that is matched in full."""

Match = Mapping[Field | Bits, MatchValue]
"""Field or register bits -> value. Bits of one register become one masked match."""

_GOTO_TABLE, _APPLY_ACTIONS = 1, 4
"""ofp_instruction_type, OpenFlow 1.4.1 section 7.2.4."""

_LONGEST = 0xFFFF
"""Lengths have 16 bits."""

_COOKIE = "cookie"


class _FieldMatch:
    """What a flow matches in one field: the union of the bits asked for."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.mask = 0
        self.base = 0
        self.terms: list[Term] = []
        self.limit: list[tuple[str, int]] = []

    def add(self, value: int | Var, mask: int, offset: int) -> None:
        placed = mask << offset
        if self.mask & placed:
            raise InternalError(f"a match names bits {self.mask & placed:#x} of '{self.field.name}' twice")
        self.mask |= placed
        if isinstance(value, Var):
            self.terms.append(Term(value.name, offset))
            self.limit.append((value.name, mask))
        elif value & ~mask:
            raise InternalError(f"'{self.field.name}': value {value:#x} has bits outside its mask {mask:#x}")
        else:
            self.base |= value << offset

    def parts(self) -> Iterator[Part]:
        """The OXM TLV; none where no bit is matched."""
        field = self.field
        if not self.mask:
            return
        whole = self.mask == field.full and not field.always_masked
        if not whole and not field.maskable:
            raise InternalError(f"'{field.name}' can only be matched in full")
        yield (field.header if whole else field.masked_header).to_bytes(4, "big")
        if self.terms:
            yield Number(field.length, self.base, tuple(self.terms), tuple(self.limit))
        else:
            yield self.base.to_bytes(field.length, "big")
        if not whole:
            yield self.mask.to_bytes(field.length, "big")


def _collect(table: Table, match: Match) -> dict[str, _FieldMatch]:
    fields: dict[str, _FieldMatch] = {}
    for target, wanted in match.items():
        if target.name not in table.matches:
            raise InternalError(f"table '{table.name}' does not match '{target.name}'")
        field, offset, width = (
            (target.field, target.offset, target.width)
            if isinstance(target, Bits)
            else (target, 0, target.bits)
        )
        full = (1 << width) - 1
        value, mask = wanted if isinstance(wanted, tuple) else (wanted, full)
        if mask & ~full:
            raise InternalError(f"mask {mask:#x} is wider than '{target.name}'")
        fields.setdefault(field.name, _FieldMatch(field)).add(value, mask, offset)
    return fields


def _refuse_missing(fields: Mapping[str, _FieldMatch]) -> None:
    for found in fields.values():
        for need in found.field.prereq:
            other = fields.get(need.field)
            if other is None or other.terms or other.base & need.mask not in need.values:
                raise InternalError(
                    f"a match on '{found.field.name}' needs '{need.field}' in {sorted(need.values)}"
                )


def _match(table: Table, match: Match) -> list[Part]:
    fields = _collect(table, match)
    _refuse_missing(fields)
    ordered = sorted(fields.values(), key=lambda found: found.field.order)
    return [part for found in ordered for part in found.parts()]


def _refuse_actions(table: Table, actions: Sequence[Action], goto: Table | None) -> None:
    for action in actions:
        if not action.sets <= table.sets:
            refused = ", ".join(sorted(action.sets - table.sets))
            raise InternalError(f"table '{table.name}' does not allow {action.name} to set '{refused}'")
    for next_table in (*(action.goes_to for action in actions), goto):
        if next_table is not None and next_table.name not in table.next:
            raise InternalError(f"table '{table.name}' does not lead to table '{next_table.name}'")
    if goto is not None and goto.id <= table.id:
        raise InternalError(f"goto from table '{table.name}' leads back to table '{goto.name}'")


def _instructions(actions: Sequence[Action], goto: Table | None) -> list[Part]:
    body = [part for action in actions for part in action.parts]
    parts: list[Part] = []
    if body:
        length = size(body) + 8
        if length > _LONGEST:
            raise InternalError(
                f"{len(actions)} actions of {length} bytes are longer than an OpenFlow message"
            )
        parts += [_APPLY_ACTIONS.to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(4), *body]
    if goto is not None:
        parts += pad([_GOTO_TABLE.to_bytes(2, "big") + (8).to_bytes(2, "big") + bytes([goto.id])])
    return parts


class Template:
    """A flow shape. Raises InternalError where its table does not allow it.

    `vars` are its variables in declared order: first those of the match, then those of the actions.
    idle_timeout, hard_timeout: seconds, 0 for never. flags: ofp_flow_mod_flags.
    """

    def __init__(
        self,
        table: Table,
        priority: int,
        match: Match,
        actions: Sequence[Action] = (),
        goto: Table | None = None,
        *,
        idle_timeout: int = 0,
        hard_timeout: int = 0,
        flags: int = 0,
    ) -> None:
        _refuse_actions(table, actions, goto)
        matched = _match(table, match)
        self.table = table
        self.vars = _declared(match, actions)
        columns = (_COOKIE, *self.vars)
        head = bytes([table.id]) + priority.to_bytes(2, "big")
        mark = Number(8, 0, (Term(_COOKIE),), ((_COOKIE, (1 << 64) - 1),))
        fixed = b"".join(number.to_bytes(2, "big") for number in (idle_timeout, hard_timeout, flags))
        value: list[Part] = [mark, fixed, *_instructions(actions, goto)]
        self._key = Layout([head, *matched], columns)
        self._value = Layout(value, columns)
        self._names = columns
        self._limits = _limits(columns, [*matched, *value])

    def __call__(self, cookie: int, **values: int) -> Flow:
        """One flow. Raises InternalError on a variable missing, unknown or too wide."""
        if len(values) != len(self.vars):
            raise self._not_the_variables(values)
        try:
            row = (cookie, *[values[name] for name in self.vars])
        except KeyError:
            raise self._not_the_variables(values) from None
        for value, forbidden, name in zip(row, self._limits, self._names, strict=True):
            if value & forbidden:
                raise self._too_wide(name, value)
        return Flow(self._key.one(row), self._value.one(row))

    def rows(self, rows: Iterable[tuple[int, ...]]) -> FlowTable:
        """Many flows: each row is the cookie and then the variables in declared order."""
        columns = list(zip(*rows, strict=True))
        if not columns:
            return {}
        if len(columns) != len(self._names):
            raise InternalError(f"rows of {len(columns)} for the columns {', '.join(self._names)}")
        for column, forbidden, name in zip(columns, self._limits, self._names, strict=True):
            if reduce(or_, column) & forbidden:
                raise self._too_wide(name, next(value for value in column if value & forbidden))
        count = len(columns[0])
        return dict(zip(self._key.many(columns, count), self._value.many(columns, count), strict=True))

    def _not_the_variables(self, values: Mapping[str, int]) -> InternalError:
        given, wanted = ", ".join(sorted(values)), ", ".join(self.vars)
        return InternalError(f"table '{self.table.name}': a template of ({wanted}) was given ({given})")

    def _too_wide(self, name: str, value: int) -> InternalError:
        return InternalError(f"table '{self.table.name}': {name}={value:#x} does not fit its field or mask")


def _declared(match: Match, actions: Sequence[Action]) -> tuple[str, ...]:
    """Variables in the order that the caller wrote them."""
    values = (wanted[0] if isinstance(wanted, tuple) else wanted for wanted in match.values())
    matched = [value.name for value in values if isinstance(value, Var)]
    return tuple(dict.fromkeys([*matched, *names(actions)]))


def _limits(columns: Sequence[str], parts: Sequence[Part]) -> tuple[int, ...]:
    """Per variable the bits it must not have set; every place it fills has its say."""
    allowed = dict.fromkeys(columns, -1)
    for part in parts:
        if isinstance(part, Number):
            for name, bits in part.limit:
                allowed[name] &= bits
    return tuple(~allowed[name] for name in columns)


def flow(
    table: Table,
    priority: int,
    match: Match,
    actions: Sequence[Action] = (),
    goto: Table | None = None,
    *,
    cookie: int = 0,
) -> Flow:
    """One flow of a shape that does not come again, such as a flood to n ports."""
    return Template(table, priority, match, actions, goto)(cookie)
