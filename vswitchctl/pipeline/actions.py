"""Actions as bytes: OpenFlow 1.4.1 section 7.2.5 and the Nicira extensions of ovs-actions(7).

Where OVS knows two encodings of an action, the one it dumps back unchanged is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vswitchctl.errors import InternalError
from vswitchctl.pipeline.fields import VLAN_VID, Field
from vswitchctl.pipeline.layout import Number, Part, Var, number
from vswitchctl.pipeline.registers import Bits
from vswitchctl.pipeline.tables import Table

NICIRA = 0x00002320
"""NX_VENDOR_ID."""

OFPP_MAX = 0xFFFFFF00
OFPP_IN_PORT = 0xFFFFFFF8
"""OpenFlow 1.4.1 section 7.2.1."""

VID_PRESENT = 0x1000
"""OFPVID_PRESENT, OpenFlow 1.4.1 section 7.2.3.8."""

_OUTPUT, _PUSH_VLAN, _POP_VLAN, _SET_QUEUE, _SET_FIELD, _EXPERIMENTER = 0, 17, 18, 21, 25, 0xFFFF
_MOVE, _LOAD, _RESUBMIT_TABLE, _OUTPUT_REG, _LEARN, _CONJUNCTION, _CT, _LEARN2 = 6, 7, 14, 15, 16, 34, 35, 45
_CONTROLLER = 37
"""ofp_action_type, and Nicira subtypes of the experimenter action."""

_DELETE_LEARNED = 2
"""NX_LEARN_F_DELETE_LEARNED: what was learned goes with the flow that learned it."""

_USERDATA = 3
"""NXAC2PT_USERDATA, a property of NXAST_CONTROLLER2: ofp-actions.c."""

_CT_COMMIT = 1
"""NX_CT_F_COMMIT."""

_NO_RECIRCULATION = 0xFF
"""NX_CT_RECIRC_NONE."""

Target = Field | Bits


@dataclass(frozen=True, slots=True)
class Action:
    """One action. sets: names the table must allow it to set. goes_to: the table that it continues in."""

    name: str
    parts: tuple[Part, ...]
    sets: frozenset[str] = frozenset()
    goes_to: Table | None = None


def size(parts: Sequence[Part]) -> int:
    """Bytes the parts take."""
    return sum(len(part) if isinstance(part, bytes) else part.size for part in parts)


def pad(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Parts filled up to a multiple of 8 bytes, as every action and instruction is."""
    return (*parts, bytes(-size(parts) % 8))


def _u16(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _action(kind: int, *body: Part) -> tuple[Part, ...]:
    padded = pad((_u16(kind, 0), *body))
    return (_u16(kind, size(padded)), *padded[1:])


def _nicira(subtype: int, *body: Part) -> tuple[Part, ...]:
    return _action(_EXPERIMENTER, _u32(NICIRA), _u16(subtype), *body)


def _bits(target: Target) -> tuple[Field, int, int]:
    """(field, offset, width): a whole field is all its bits; of a tag, actions see 12."""
    if isinstance(target, Bits):
        return target.field, target.offset, target.width
    return target, 0, 12 if target is VLAN_VID else target.bits


def load(bits: Bits, value: int | Var) -> Action:
    """Load a value into bits of a register, or of a connection inside of `ct`."""
    ofs_nbits = _u16(bits.offset << 6 | bits.width - 1)
    loaded = number(8, value, limit=(1 << bits.width) - 1)
    return Action(
        "load", _nicira(_LOAD, ofs_nbits, _u32(bits.field.action_header), *loaded), frozenset({bits.name})
    )


def set_field(field: Field, value: int | Var, *, base: int = 0) -> Action:
    """Set a whole field of the packet. `base` holds bits that are set whatever the value."""
    header = _u32(field.header)
    content = number(field.length, value, limit=field.full, base=base)
    return Action("set_field", _action(_SET_FIELD, header, *content), frozenset({field.name}))


def move(src: Target, dst: Target, n_bits: int | None = None) -> Action:
    """Copy bits. n_bits: by default the narrower of the two. Raises InternalError where they do not fit."""
    (from_field, from_offset, from_width), (to_field, to_offset, to_width) = _bits(src), _bits(dst)
    width = min(from_width, to_width) if n_bits is None else n_bits
    if width > min(from_width, to_width):
        raise InternalError(f"{width} bits do not fit a move from '{src.name}' to '{dst.name}'")
    body = _u16(width, from_offset, to_offset) + _u32(from_field.action_header) + _u32(to_field.action_header)
    return Action("move", _nicira(_MOVE, body), frozenset({dst.name}))


def output(port: int | Var) -> Action:
    """Send to a port by number."""
    return Action(
        "output", _action(_OUTPUT, *number(4, port, limit=0xFFFFFFFF), bytes(8)), frozenset({"output"})
    )


def in_port() -> Action:
    """Send back to the port it came from, which `output` never does."""
    return output(OFPP_IN_PORT)


def output_reg(bits: Bits) -> Action:
    """Send to the port whose number the bits hold."""
    body = _u16(bits.offset << 6 | bits.width - 1) + _u32(bits.field.action_header) + bytes(8)
    return Action("output_reg", _nicira(_OUTPUT_REG, body), frozenset({"output"}))


def push_vlan() -> Action:
    """Put an empty 802.1Q tag (TPID 0x8100) on; `set_vlan` numbers it."""
    return Action("push_vlan", _action(_PUSH_VLAN, _u16(0x8100)), frozenset({VLAN_VID.name}))


def pop_vlan() -> Action:
    """Take the outer tag off."""
    return Action("pop_vlan", _action(_POP_VLAN), frozenset({VLAN_VID.name}))


def set_vlan(vid: int | Var) -> Action:
    """Number the outer tag. OFPVID_PRESENT is set whether the value holds it or not."""
    return set_field(VLAN_VID, vid if isinstance(vid, Var) else vid | VID_PRESENT, base=VID_PRESENT)


def set_queue(queue: int | Var) -> Action:
    """The queue of the port that later outputs use."""
    return Action("set_queue", _action(_SET_QUEUE, *number(4, queue, limit=0xFFFFFFFF)), frozenset({"queue"}))


def resubmit(table: Table) -> Action:
    """Look up in another table, then go on here with what it set."""
    body = _u16(OFPP_IN_PORT & 0xFFFF) + bytes([table.id]) + bytes(3)
    return Action("resubmit", _nicira(_RESUBMIT_TABLE, body), goes_to=table)


def conjunction(conj_id: int | Var, clause: int, clauses: int) -> Action:
    """Clause `clause` (1..n) of `clauses` (2..64) of a conjunctive match, ovs-fields(7)."""
    if not (2 <= clauses <= 64 and 1 <= clause <= clauses):
        raise InternalError(f"conjunction clause {clause} of {clauses}")
    body = bytes([clause - 1, clauses])
    parts = _nicira(_CONJUNCTION, body, *number(4, conj_id, limit=0xFFFFFFFF))
    return Action("conjunction", parts, frozenset({"conjunction"}))


def ct(
    zone: int | Var | Bits,
    *,
    table: Table | None = None,
    commit: bool = False,
    execute: Sequence[Action] = (),
) -> Action:
    """Through conntrack in a zone; with `table`, on to there with ct_state set.

    execute: what to set in the connection that is committed (its mark or label).
    """
    if execute and not commit:
        raise InternalError("only a connection that is committed can be marked")
    if isinstance(zone, Bits):
        source: tuple[Part, ...] = (_u32(zone.field.action_header), _u16(zone.offset << 6 | zone.width - 1))
    else:
        source = (_u32(0), *number(2, zone, limit=0xFFFF))
    after = bytes([_NO_RECIRCULATION if table is None else table.id])
    inner = [part for action in execute for part in action.parts]
    parts = _nicira(_CT, _u16(_CT_COMMIT if commit else 0), *source, after, bytes(3), _u16(0), *inner)
    return Action("ct", parts, frozenset({"ct"}).union(*(action.sets for action in execute)), table)


def controller(userdata: bytes) -> Action:
    """A copy to the controller, whole, with `userdata` to say what is asked.

    Open vSwitch limits them by the bridge's meter for controllers, before they leave the datapath.
    """
    named = pad((_u16(_USERDATA, 4 + len(userdata)) + userdata,))
    return Action("controller", _nicira(_CONTROLLER, bytes(6), *named), frozenset({"controller"}))


def drop() -> Action:
    """Nothing: says in a list of actions that the packet ends here."""
    return Action("drop", ())


@dataclass(frozen=True, slots=True)
class Spec:
    """One part of a learned flow. matches / sets: the name that the learned flow matches or sets."""

    parts: tuple[Part, ...]
    matches: str | None = None
    sets: str | None = None


_FROM_VALUE, _TO_LOAD, _TO_OUTPUT = 1 << 13, 1 << 11, 2 << 11
"""flow_mod_spec header bits, ovs-actions(7): immediate source, load or output as destination."""


def _spec(src: Target | int | Var, dst: Target, kind: int) -> tuple[Part, ...]:
    field, offset, width = _bits(dst)
    target = _u32(field.action_header) + _u16(offset)
    if isinstance(src, int | Var):
        octets = -(-width // 16) * 2
        return (_u16(width | kind | _FROM_VALUE), *number(octets, src, limit=(1 << width) - 1), target)
    from_field, from_offset, from_width = _bits(src)
    if from_width != width:
        raise InternalError(f"learn copies {from_width} bits of '{src.name}' to {width} bits of '{dst.name}'")
    return (_u16(width | kind) + _u32(from_field.action_header) + _u16(from_offset) + target,)


def copy_spec(src: Target | int | Var, dst: Target) -> Spec:
    """The learned flow matches in `dst` what this packet holds in `src` (or a value)."""
    return Spec(_spec(src, dst, 0), matches=dst.name)


def load_spec(src: Target | int | Var, dst: Target) -> Spec:
    """The learned flow loads into `dst` what this packet holds in `src` (or a value)."""
    return Spec(_spec(src, dst, _TO_LOAD), sets=dst.name)


def output_spec(src: Target) -> Spec:
    """The learned flow sends to the port whose number this packet holds in `src`."""
    field, offset, width = _bits(src)
    return Spec((_u16(width | _TO_OUTPUT) + _u32(field.action_header) + _u16(offset),), sets="output")


def _refuse_specs(table: Table, specs: Sequence[Spec]) -> None:
    for spec in specs:
        if (spec.matches and spec.matches not in table.matches) or (
            spec.sets and spec.sets not in table.sets
        ):
            raise InternalError(f"table '{table.name}' does not allow learned '{spec.matches or spec.sets}'")


def learn(
    table: Table,
    priority: int,
    specs: Sequence[Spec],
    *,
    idle_timeout: int = 0,
    hard_timeout: int | Var = 0,
    cookie: int | Var = 0,
    limit: int | Var = 0,
    delete_learned: bool = True,
) -> Action:
    """Make the switch add a flow to `table`. Timeouts in seconds. limit: most flows of that cookie, 0: any.

    Raises InternalError where the table does not allow what is learned.
    """
    if not table.learned:
        raise InternalError(f"table '{table.name}' is not one that the switch fills itself")
    _refuse_specs(table, specs)
    flags = _DELETE_LEARNED if delete_learned else 0
    times = (_u16(idle_timeout), *number(2, hard_timeout, limit=0xFFFF), _u16(priority))
    mark = number(8, cookie, limit=(1 << 64) - 1)
    rest: tuple[Part, ...] = (_u16(flags) + bytes([table.id, 0]) + _u16(0, 0),)
    if limit:
        rest += (*number(4, limit, limit=0xFFFFFFFF), _u16(0, 0))
    body = [part for spec in specs for part in spec.parts]
    parts = _nicira(_LEARN2 if limit else _LEARN, *times, *mark, *rest, *body)
    return Action("learn", parts, frozenset({f"learn:{table.name}"}))


def names(actions: Sequence[Action]) -> tuple[str, ...]:
    """Variables of the actions, in order of appearance."""
    found = (t.var for a in actions for p in a.parts if isinstance(p, Number) for t in p.terms)
    return tuple(dict.fromkeys(found))
