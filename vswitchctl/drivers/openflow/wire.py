"""Messages as bytes: OpenFlow 1.4.1. Flow-mods are packed in bulk, one Struct per shape of flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import groupby, repeat
from struct import Struct, pack

from vswitchctl.model.flow import FlowKey, FlowValue
from vswitchctl.pipeline.cookies import MAGIC, MASK

VERSION = 5
"""OpenFlow 1.4's version number on the wire."""

HEADER = Struct(">BBHI")
"""ofp_header: version, type, length, xid."""


class Kind(IntEnum):
    """ofp_type, section 7.1.1."""

    ERROR = 1
    FLOW_MOD = 14
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    BUNDLE_CONTROL = 33
    BUNDLE_ADD_MESSAGE = 34


class Multipart(IntEnum):
    """ofp_multipart_type, section 7.3.5."""

    FLOW = 1
    FLOW_MONITOR = 16


MORE = 1
"""OFPMPF_REPLY_MORE."""


class Bundle(IntEnum):
    """ofp_bundle_ctrl_type, section 7.3.9.1."""

    OPEN_REQUEST = 0
    COMMIT_REQUEST = 4
    DISCARD_REQUEST = 6


ATOMIC_ORDERED = 3
"""OFPBF_ATOMIC | OFPBF_ORDERED."""

_ADD, _DELETE_STRICT = 0, 4
"""ofp_flow_mod_command. An add replaces a flow of the same key, with its cookie and counters. A modify
would keep both, and then the flow would name an entity that it no longer comes from."""

_ANY = b"\xff" * 12
"""OFP_NO_BUFFER, OFPP_ANY, OFPG_ANY."""

_OURS = (MAGIC.to_bytes(8, "big"), bytes(4), bytes(2), b"")
"""Cookie, timeouts, flags and instructions of a delete."""

_MONITOR_ADD, _MONITOR_REMOVED, _MONITOR_MODIFY = 2, 4, 8
"""ofp_flow_monitor_flags, section 7.3.5.17."""

BUFFER = 1 << 20
"""Bytes sent at a time: os-ken's send queue holds 16 items of any size."""

Mod = tuple[FlowKey, FlowValue | None]
"""A flow to add, or with None to delete."""


def message(kind: Kind, xid: int, body: bytes = b"") -> bytes:
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), xid) + body


def barrier(xid: int) -> bytes:
    return message(Kind.BARRIER_REQUEST, xid)


def bundle_control(xid: int, bundle: int, what: Bundle) -> bytes:
    return message(Kind.BUNDLE_CONTROL, xid, pack(">IHH", bundle, what, ATOMIC_ORDERED))


def _match_all() -> bytes:
    """An empty ofp_match: type OXM, length 4, padded."""
    return pack(">HH4x", 1, 4)


def flow_request(xid: int) -> bytes:
    """Every flow of every table."""
    body = pack(">HH4xB3xII4xQQ", Multipart.FLOW, 0, 0xFF, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0) + _match_all()
    return message(Kind.MULTIPART_REQUEST, xid, body)


def monitor_request(xid: int, monitor: int) -> bytes:
    """Tell of every flow that others add, remove or modify; what this session does comes abbreviated."""
    flags = _MONITOR_ADD | _MONITOR_REMOVED | _MONITOR_MODIFY
    head = pack(">HH4x", Multipart.FLOW_MONITOR, 0)
    body = pack(">IIIHBB", monitor, 0xFFFFFFFF, 0xFFFFFFFF, flags, 0xFF, 0)
    return message(Kind.MULTIPART_REQUEST, xid, head + body + _match_all())


def by_shape(mods: Sequence[Mod]) -> list[Mod]:
    """Sorted so that flows of one shape stand together, adds before deletes."""
    return sorted(mods, key=_shape)


def _shape(mod: Mod) -> tuple[bool, int, int]:
    key, value = mod
    return (value is None, len(key), 0 if value is None else len(value))


def flow_mods(mods: Sequence[Mod], xid: int, bundle: int | None) -> Iterator[bytes]:
    """Buffers of flow-mods in the order of `by_shape`, numbered from `xid`, in the bundle if there is one."""
    for (_, key_length, value_length), group in groupby(mods, key=_shape):
        shape = _flow_mod(key_length, value_length, bundle is not None)
        members = list(group)
        step = max(1, BUFFER // shape.size)
        for start in range(0, len(members), step):
            part = members[start : start + step]
            yield shape.pack(part, xid, bundle or 0)
            xid += len(part)


class _FlowMod:
    """Flow-mods whose key and value have these lengths; without a value, strict deletes of flows of ours."""

    def __init__(self, key_length: int, value_length: int, bundled: bool) -> None:
        match, instructions = key_length - 3, max(0, value_length - 14)
        padding = -(match + 4) % 8
        inner = 8 + 40 + 4 + match + padding + instructions
        self.size = inner + 16 * bundled
        self._bundled = bundled
        self._outer = pack(">BBH", VERSION, Kind.BUNDLE_ADD_MESSAGE, inner + 16)
        self._inner = pack(">BBH", VERSION, Kind.FLOW_MOD, inner)
        self._match = pack(">HH", 1, match + 4)
        self._key = Struct(f">s2s{match}s")
        self._value = Struct(f">8s4s2s{instructions}s")
        head = "4sI8s4sI" if bundled else "4sI"
        self._struct = Struct(f">{head}8s8sss4s2s12s2s2x4s{match}s{padding}x{instructions}s")

    def pack(self, mods: Sequence[Mod], xid: int, bundle: int) -> bytes:
        tables, priorities, matches = zip(*map(self._key.unpack, (key for key, _ in mods)), strict=True)
        values = [value for _, value in mods if value is not None]
        if values:
            command, mask = bytes([_ADD]), bytes(8)
            columns: Iterable[Iterable[object]] = zip(*map(self._value.unpack, values), strict=True)
        else:
            command, mask = bytes([_DELETE_STRICT]), MASK.to_bytes(8, "big")
            columns = map(repeat, _OURS)
        cookies, timeouts, flags, instructions = columns
        xids = range(xid, xid + len(mods))
        head: list[Iterable[object]] = [repeat(self._inner), xids]
        if self._bundled:
            head = [repeat(self._outer), xids, repeat(pack(">I2xH", bundle, ATOMIC_ORDERED)), *head]
        fixed = [repeat(mask), tables, repeat(command), timeouts, priorities, repeat(_ANY), flags]
        return b"".join(
            map(self._struct.pack, *head, cookies, *fixed, repeat(self._match), matches, instructions)
        )


@lru_cache(maxsize=4096)
def _flow_mod(key_length: int, value_length: int, bundled: bool) -> _FlowMod:
    return _FlowMod(key_length, value_length, bundled)
