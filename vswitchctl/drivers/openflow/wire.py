"""Messages as bytes: OpenFlow 1.4.1. Flow-mods, which come in great numbers, are in `flow_mods`."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, pack

VERSION = 5
"""OpenFlow 1.4's version number on the wire."""

HEADER = Struct(">BBHI")
"""ofp_header: version, type, length, xid."""


class Kind(IntEnum):
    """ofp_type, section 7.1.1."""

    ERROR = 1
    EXPERIMENTER = 4
    SET_CONFIG = 9
    PACKET_IN = 10
    PACKET_OUT = 13
    FLOW_MOD = 14
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    METER_MOD = 29
    BUNDLE_CONTROL = 33
    BUNDLE_ADD_MESSAGE = 34


class Multipart(IntEnum):
    """ofp_multipart_type, section 7.3.5."""

    FLOW = 1
    TABLE = 3
    METER_CONFIG = 10
    METER_FEATURES = 11
    FLOW_MONITOR = 16


MORE = 1
"""OFPMPF_REPLY_MORE."""


class Bundle(IntEnum):
    """ofp_bundle_ctrl_type, section 7.3.9.1."""

    OPEN_REQUEST = 0
    COMMIT_REQUEST = 4
    DISCARD_REQUEST = 6


NICIRA, _CT_FLUSH_ZONE = 0x00002320, 29
"""NX_VENDOR_ID, and the number of the message among Open vSwitch's own."""

WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF
"""The mask of a cookie that is to be exactly as given."""

ATOMIC_ORDERED = 3
"""OFPBF_ATOMIC | OFPBF_ORDERED."""

_MONITOR_ADD, _MONITOR_REMOVED, _MONITOR_MODIFY = 2, 4, 8
"""ofp_flow_monitor_flags, section 7.3.5.17."""


def message(kind: Kind, xid: int, body: bytes = b"") -> bytes:
    return HEADER.pack(VERSION, kind, HEADER.size + len(body), xid) + body


def barrier(xid: int) -> bytes:
    return message(Kind.BARRIER_REQUEST, xid)


def flush_zone(xid: int, zone: int) -> bytes:
    """NXT_CT_FLUSH_ZONE of Open vSwitch (nicira-ext.h): every connection of a conntrack zone."""
    return message(Kind.EXPERIMENTER, xid, pack(">II6xH", NICIRA, _CT_FLUSH_ZONE, zone))


def bundle_control(xid: int, bundle: int, what: Bundle) -> bytes:
    return message(Kind.BUNDLE_CONTROL, xid, pack(">IHH", bundle, what, ATOMIC_ORDERED))


def _match_all() -> bytes:
    """An empty ofp_match: type OXM, length 4, padded."""
    return pack(">HH4x", 1, 4)


def flow_request(xid: int, table: int = 0xFF, cookie: int = 0, mask: int = 0) -> bytes:
    """Every flow of a table, or of every table (OFPTT_ALL) where none is given.

    mask: which bits of the cookie are to be as given; the switch finds a whole one without a look at others.
    """
    head = pack(">HH4xB3xII4x", Multipart.FLOW, 0, table, 0xFFFFFFFF, 0xFFFFFFFF)
    return message(Kind.MULTIPART_REQUEST, xid, head + pack(">QQ", cookie, mask) + _match_all())


def table_request(xid: int) -> bytes:
    """How many flows each table has."""
    return message(Kind.MULTIPART_REQUEST, xid, pack(">HH4x", Multipart.TABLE, 0))


class MeterCommand(IntEnum):
    """ofp_meter_mod_command, section 7.3.4.4."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


_ALL_METERS = 0xFFFFFFFF
"""OFPM_ALL."""


def meter_request(xid: int) -> bytes:
    """Every meter of the bridge."""
    return message(Kind.MULTIPART_REQUEST, xid, pack(">HH4xI4x", Multipart.METER_CONFIG, 0, _ALL_METERS))


def meter_features_request(xid: int) -> bytes:
    """What the bridge's datapath knows of meters."""
    return message(Kind.MULTIPART_REQUEST, xid, pack(">HH4x", Multipart.METER_FEATURES, 0))


def meter_mod(xid: int, command: MeterCommand, identifier: int, value: bytes = b"\0\0") -> bytes:
    """value: flags (2 bytes) and bands, as `model/meter.py` has it."""
    return message(
        Kind.METER_MOD, xid, command.to_bytes(2, "big") + value[:2] + pack(">I", identifier) + value[2:]
    )


def monitor_request(xid: int, monitor: int) -> bytes:
    """Tell of every flow that others add, remove or modify; what this session does comes abbreviated."""
    flags = _MONITOR_ADD | _MONITOR_REMOVED | _MONITOR_MODIFY
    head = pack(">HH4x", Multipart.FLOW_MONITOR, 0)
    body = pack(">IIIHBB", monitor, 0xFFFFFFFF, 0xFFFFFFFF, flags, 0xFF, 0)
    return message(Kind.MULTIPART_REQUEST, xid, head + body + _match_all())
