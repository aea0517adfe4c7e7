"""How a bridge's flows are read in portions, so that the switch goes on forwarding meanwhile.

On the userspace datapath one thread of ovs-vswitchd answers requests and fetches packets from kernel
devices: while it lists 100,000 flows, nothing is forwarded. So a large bridge is asked table by table, and a
large table by some bits of the cookie. Portions that differ in these bits alone are together every cookie:
a flow of somebody else is in one of them as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import NamedTuple

from vswitchctl.drivers.openflow.observed import MalformedReplyError
from vswitchctl.pipeline.cookies import RULE_BITS

ALL_TABLES = 0xFF
"""OFPTT_ALL, OpenFlow 1.4.1 section 7.3.4.1."""

PORTION = 4096
"""Flows that one answer holds about; ovs-vswitchd makes them in about 20 ms."""

MOST_BITS = 8
"""ovs-vswitchd walks the whole table for each of its portions: more of them are not worth that."""

_BITS = tuple(1 << bit for pair in zip(range(RULE_BITS, 64), range(RULE_BITS), strict=False) for bit in pair)
"""Bits of a cookie in the order in which they divide: of the owner's hash, and of the rule's number."""

_TABLE = Struct(">B3xI16x")
"""ofp_table_stats, section 7.3.5.4: table and its flows; look-ups and matches are skipped."""


class Portion(NamedTuple):
    """The flows of a table whose cookie has these bits where the mask has ones."""

    table: int = ALL_TABLES
    cookie: int = 0
    mask: int = 0


def portions(counts: Mapping[int, int]) -> list[Portion]:
    """What to ask for one after the other. counts: table -> flows, of every table that has any."""
    if sum(counts.values()) <= PORTION:
        return [Portion()]
    return [portion for table, flows in sorted(counts.items()) for portion in _of_table(table, flows)]


def _of_table(table: int, flows: int) -> Iterator[Portion]:
    bits = _BITS[: min(MOST_BITS, (flows // PORTION).bit_length())]
    for number in range(1 << len(bits)):
        yield Portion(table, sum(bit for at, bit in enumerate(bits) if number >> at & 1), sum(bits))


def add_table_counts(counts: dict[int, int], body: bytes) -> None:
    """Add the tables that have flows from a multipart body. Raises MalformedReplyError on a wrong length."""
    if len(body) % _TABLE.size:
        raise MalformedReplyError(f"{len(body)} bytes are no ofp_table_stats")
    counts.update((table, flows) for table, flows in _TABLE.iter_unpack(body) if flows)
