"""Packets that the switch cannot answer by itself, and what goes back: the daemon's part of the pipeline.

A flow sends a copy up by `punt`; its userdata says what is asked. The app that compiles such flows declares
in `answers` who answers them. Without a daemon the copy is lost, and the packet itself goes as its flow says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

from vswitchctl.errors import InternalError
from vswitchctl.pipeline.actions import Action, controller, load, resubmit
from vswitchctl.pipeline.app import App
from vswitchctl.pipeline.registers import Bits
from vswitchctl.pipeline.tables import Table

MAGIC = 0x76
"""First byte of our userdata, as of our cookies."""

OFPP_CONTROLLER = 0xFFFFFFFD
"""OpenFlow 1.4.1 section 7.2.1: where an answer comes from, so that it may leave by any port."""


class Opcode(IntEnum):
    """What is asked; the second byte of our userdata."""

    REJECT_SENDER = 1
    """Denied on the bridge where it entered: the answer goes back by the port it came from."""
    REJECT_RECEIVER = 2
    """Denied before its receiver: the answer runs through the pipeline to the sender."""
    LOG = 16
    """A rule whose log is on has met it: the daemon itself writes it down, and nothing goes back."""
    TIME_EXCEEDED = 3
    """Its TTL or hop limit ends at a gateway."""


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A packet as the switch sent it up. Everything but `bridge` is untrusted.

    cookie, table: of the flow that sent it. fields: registers and in_port by name; those not there are 0.
    data: the frame as it was in that table.
    """

    bridge: str
    opcode: int
    cookie: int
    table: int
    fields: Mapping[str, int]
    data: bytes

    def register(self, bits: Bits) -> int:
        """The value of named register bits."""
        return (self.fields.get(bits.field.name, 0) & bits.mask) >> bits.offset

    @property
    def in_port(self) -> int:
        return self.fields.get("in_port", 0)


@dataclass(frozen=True, slots=True)
class PacketOut:
    """A frame for the bridge that the question came from. actions: as bytes on the wire."""

    data: bytes
    actions: bytes
    in_port: int = OFPP_CONTROLLER


Answer = Callable[[PacketIn], Iterable[PacketOut]]
"""Pure: the frames that answer a packet; none where it gets no answer. Raises nothing, whatever the bytes."""


@runtime_checkable
class AnsweringApp(Protocol):
    """An app whose flows send packets up. answers: by opcode."""

    @property
    def answers(self) -> Mapping[int, Answer]: ...


def answers_of(apps: Sequence[App]) -> dict[int, Answer]:
    """Who answers what. Raises InternalError where two apps answer the same."""
    found: dict[int, Answer] = {}
    for app in apps:
        if isinstance(app, AnsweringApp):
            for opcode, answer in app.answers.items():
                if opcode in found:
                    raise InternalError(f"opcode {opcode} of app '{app.name}' belongs to another app, too")
                found[opcode] = answer
    return found


def punt(opcode: Opcode) -> Action:
    """Send a copy of the packet up, to be answered for what `opcode` says."""
    return controller(bytes([MAGIC, opcode]))


def opcode_of(userdata: bytes) -> int | None:
    """What is asked; None where the userdata is not ours."""
    return userdata[1] if len(userdata) == 2 and userdata[0] == MAGIC else None


def continue_in(
    table: Table, data: bytes, registers: Mapping[Bits, int], in_port: int = OFPP_CONTROLLER
) -> PacketOut:
    """A frame that goes on in a table, with these register bits set.

    in_port: it does not leave by that one. One without a port is lost where it crosses a patch port and goes
    through conntrack: Open vSwitch 3.1 finds no port again (xlate_lookup_ofproto_ in ofproto-dpif-xlate.c).
    """
    actions = [*(load(bits, value) for bits, value in registers.items()), resubmit(table)]
    parts = (part for action in actions for part in action.parts if isinstance(part, bytes))
    return PacketOut(data, b"".join(parts), in_port)
