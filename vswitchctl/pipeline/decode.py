"""A flow's bytes as text that ovs-ofctl accepts; hex for what the encoder never emits.

Input comes from a switch and may be anything: nothing here raises on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import error as StructError

from vswitchctl.model import flow as parts
from vswitchctl.model.flow import Flow
from vswitchctl.pipeline.decode_actions import actions_text
from vswitchctl.pipeline.field_text import value_text
from vswitchctl.pipeline.fields import BY_HEADER, HAS_MASK
from vswitchctl.pipeline.tables import BY_ID

_APPLY_ACTIONS, _GOTO_TABLE, _METER = 4, 1, 6


@dataclass(frozen=True, slots=True)
class DecodedFlow:
    """A flow for a person. table_name: the table's name, its number where we have no such table."""

    table_name: str
    priority: int
    match_text: str
    actions_text: str
    cookie: int
    idle_timeout: int = 0
    hard_timeout: int = 0

    @property
    def text(self) -> str:
        match = f",{self.match_text}" if self.match_text else ""
        return f"table={self.table_name},priority={self.priority}{match},actions={self.actions_text}"


def describe(flow: Flow) -> DecodedFlow:
    """Any flow, ours or not, as text."""
    key, value = flow
    number = key[0] if key else 0
    table = BY_ID.get(number)
    return DecodedFlow(
        table_name=str(number) if table is None else table.name,
        priority=parts.priority(key),
        match_text=",".join(_match(key[3:])),
        actions_text=_instructions(value[14:]),
        cookie=parts.cookie(value),
        idle_timeout=int.from_bytes(value[8:10], "big"),
        hard_timeout=int.from_bytes(value[10:12], "big"),
    )


def ofctl_text(flow: Flow) -> str:
    """A line for `ovs-ofctl add-flows`."""
    said = describe(flow)
    match = f",{said.match_text}" if said.match_text else ""
    timeouts = "".join(
        f",{name}={seconds}"
        for name, seconds in (("idle_timeout", said.idle_timeout), ("hard_timeout", said.hard_timeout))
        if seconds
    )
    head = f"cookie={said.cookie:#x},table={flow.key[0] if flow.key else 0},priority={said.priority}"
    return f"{head}{timeouts}{match},actions={said.actions_text}"


def _match(data: bytes) -> Iterator[str]:
    while data:
        header = int.from_bytes(data[:4], "big")
        end = 4 + (header & 0xFF)
        field = BY_HEADER.get(header & ~0x1FF)
        masked = bool(header & HAS_MASK)
        wanted = 0 if field is None else field.length * (1 + masked)
        if field is None or len(data) < end or end != 4 + wanted:
            yield f"oxm:0x{data[: max(end, 4)].hex()}"
        else:
            value = int.from_bytes(data[4 : 4 + field.length], "big")
            mask = int.from_bytes(data[4 + field.length : end], "big") if masked else field.full
            yield f"{field.name}={value_text(field, value, mask)}"
        data = data[max(end, 4) :]


def _instructions(data: bytes) -> str:
    said: list[str] = []
    while data:
        kind, length = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        body = data[8:length] if kind == _APPLY_ACTIONS else data[4:length]
        try:
            said.append(_instruction(kind, length, body, data))
        except StructError:
            said.append(f"instruction:0x{data.hex()}")
            break
        data = data[max(length, 8) :]
    return ",".join(filter(None, said)) or "drop"


def _instruction(kind: int, length: int, body: bytes, data: bytes) -> str:
    if len(data) >= length >= 8:
        if kind == _APPLY_ACTIONS:
            return actions_text(body)
        if kind == _GOTO_TABLE:
            return f"goto_table:{body[0]}"
        if kind == _METER:
            return f"meter:{int.from_bytes(body[:4], 'big')}"
    return f"instruction:0x{data[: max(length, 8)].hex()}"
