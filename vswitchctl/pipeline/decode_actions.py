"""Actions' bytes as text in the form of ovs-actions(7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import error as StructError
from struct import unpack_from

from vswitchctl.pipeline.actions import NICIRA, OFPP_IN_PORT, OFPP_TABLE
from vswitchctl.pipeline.field_text import value_text
from vswitchctl.pipeline.fields import BY_HEADER, IN_PORT, Field


def actions_text(data: bytes) -> str:
    """A list of actions, separated by commas; hex for those we never send. Raises nothing."""
    said: list[str] = []
    while data:
        length = int.from_bytes(data[2:4], "big")
        one = data[: max(length, 8)]
        said.append(_action(one, len(data) >= length >= 8))
        data = data[len(one) :]
    return ",".join(said)


def _action(one: bytes, complete: bool) -> str:
    kind = int.from_bytes(one[:2], "big")
    try:
        decode = _ACTIONS.get(kind) if complete else None
        if kind == 0xFFFF and complete and unpack_from(">I", one, 4)[0] == NICIRA:
            decode = _NICIRA.get(unpack_from(">H", one, 8)[0])
        return decode(one) if decode else f"action:0x{one.hex()}"
    except (StructError, KeyError):
        return f"action:0x{one.hex()}"


def _field(header: int) -> Field:
    """The field of a header. Raises KeyError where the pipeline has no such field."""
    return BY_HEADER[header & ~0x1FF]


def _subfield(header: int, offset: int, width: int) -> str:
    field = _field(header)
    name = "in_port_oxm" if field is IN_PORT else field.name  # ovs-ofctl's in_port has 16 bits
    if offset == 0 and width == field.length * 8:
        return f"{name}[]"
    return f"{name}[{offset}]" if width == 1 else f"{name}[{offset}..{offset + width - 1}]"


def _part(one: bytes, at: int, width: int) -> str:
    header, offset = unpack_from(">IH", one, at)
    return _subfield(header, offset, width)


def _ofs_nbits(header: int, packed: int) -> str:
    return _subfield(header, packed >> 6, (packed & 0x3F) + 1)


def _output(one: bytes) -> str:
    (port,) = unpack_from(">I", one, 4)
    return "in_port" if port == OFPP_IN_PORT else f"output:{port}"


def _push_vlan(one: bytes) -> str:
    return f"push_vlan:{unpack_from('>H', one, 4)[0]:#x}"


def _set_queue(one: bytes) -> str:
    return f"set_queue:{unpack_from('>I', one, 4)[0]}"


def _set_field(one: bytes) -> str:
    field = _field(unpack_from(">I", one, 4)[0])
    value = int.from_bytes(one[8 : 8 + field.length], "big")
    return f"set_field:{value_text(field, value, field.full)}->{field.name}"


def _load(one: bytes) -> str:
    packed, header, value = unpack_from(">HIQ", one, 10)
    return f"load:{value:#x}->{_ofs_nbits(header, packed)}"


def _move(one: bytes) -> str:
    width, src_offset, dst_offset, src, dst = unpack_from(">HHHII", one, 10)
    return f"move:{_subfield(src, src_offset, width)}->{_subfield(dst, dst_offset, width)}"


def _resubmit(one: bytes) -> str:
    return f"resubmit(,{unpack_from('>HB', one, 10)[1]})"


def _output_reg(one: bytes) -> str:
    packed, header = unpack_from(">HI", one, 10)
    return f"output:{_ofs_nbits(header, packed)}"


def _conjunction(one: bytes) -> str:
    clause, clauses, conj_id = unpack_from(">BBI", one, 10)
    return f"conjunction({conj_id},{clause + 1}/{clauses})"


def _ct(one: bytes) -> str:
    flags, source, zone, table = unpack_from(">HIHB", one, 10)
    said = ["commit"] if flags & 1 else []
    if table != 0xFF:
        said.append(f"table={table}")
    said.append(f"zone={_ofs_nbits(source, zone) if source else zone}")
    if len(one) > 24:
        said.append(f"exec({actions_text(one[24:])})")
    return f"ct({','.join(said)})"


def _controller(one: bytes) -> str:
    """Raises KeyError on properties that we never send."""
    kind, length = unpack_from(">HH", one, 16)
    if kind != 3 or not 4 <= length <= len(one) - 16 < length + 8:
        raise KeyError(kind)
    return f"controller(userdata={one[20 : 16 + length].hex('.')})"


def _output_trunc(one: bytes) -> str:
    port, longest = unpack_from(">HI", one, 10)
    return f"output(port={'TABLE' if port == OFPP_TABLE else port},max_len={longest})"


def _clone(one: bytes) -> str:
    return f"clone({actions_text(one[16:])})"


def _learn(one: bytes, specs_at: int = 32) -> str:
    idle, hard, priority, cookie, flags, table = unpack_from(">HHHQHB", one, 10)
    limit = unpack_from(">I", one, 32)[0] if specs_at > 32 else 0
    head = [f"table={table}"]
    named = (("idle_timeout", idle), ("hard_timeout", hard))
    head += [f"{name}={seconds}" for name, seconds in named if seconds]
    head += [f"priority={priority}", f"cookie={cookie:#x}"]
    if limit:
        head.append(f"limit={limit}")
    if flags & 2:
        head.append("delete_learned")
    return f"learn({','.join([*head, *_specs(one, specs_at)])})"


def _learn2(one: bytes) -> str:
    return _learn(one, 40)


def _specs(one: bytes, at: int) -> Iterator[str]:
    """flow_mod_specs up to the padding. Raises StructError or KeyError where they are cut off or unknown."""
    while at + 2 <= len(one) and (header := unpack_from(">H", one, at)[0]):
        width, kind, immediate = header & 0x7FF, header >> 11 & 3, header >> 13 & 1
        at += 2
        if immediate:
            octets = -(-width // 16) * 2
            src, at = hex(int.from_bytes(one[at : at + octets], "big")), at + octets
        else:
            src, at = _part(one, at, width), at + 6
        if kind == 2:
            yield f"output:{src}"
            continue
        dst, at = _part(one, at, width), at + 6
        yield f"load:{src}->{dst}" if kind == 1 else f"{dst}={src}"


_ACTIONS: dict[int, Callable[[bytes], str]] = {
    0: _output,
    17: _push_vlan,
    18: lambda one: "pop_vlan",
    21: _set_queue,
    24: lambda one: "dec_ttl",
    25: _set_field,
}
_NICIRA: dict[int, Callable[[bytes], str]] = {
    6: _move,
    7: _load,
    14: _resubmit,
    15: _output_reg,
    16: _learn,
    34: _conjunction,
    35: _ct,
    37: _controller,
    39: _output_trunc,
    42: _clone,
    43: lambda one: "ct_clear",
    45: _learn2,
}
