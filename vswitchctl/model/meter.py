"""A meter as bytes: what the switch itself compares, as with flows. No I/O.

value: flags (2 bytes) | bands as on the wire (OpenFlow 1.4.1 section 7.3.4.4, ofp_meter_mod)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vswitchctl.model.state import Owner

MeterValue = bytes
MeterTable = Mapping[int, MeterValue]
"""Meter id -> value."""

OURS = range(0x10000, 0x30000)
"""Ids that are ours on a bridge of ours; whatever else is there belongs to others. Datapaths differ in how
many they take: 262,144 for netdev (dpif-netdev.c), at most 200,000 for the kernel's (DP_METER_NUM_MAX)."""

SLOTS = 8
"""Meters of one interface or uplink: so many ids are set aside for each number."""

NUMBERS = range(len(OURS) // SLOTS)
"""Numbers that interfaces and uplinks are given; a bridge belongs to one topology, so each starts anew."""


class Meter(NamedTuple):
    """A meter of a bridge, and whose it is."""

    id: int
    value: MeterValue
    owner: Owner


def meter_id(number: int, slot: int) -> int:
    """The id of meter `slot` (0..7) of the interface or uplink with that number."""
    return OURS.start + number * SLOTS + slot


def is_ours(identifier: int) -> bool:
    return identifier in OURS
