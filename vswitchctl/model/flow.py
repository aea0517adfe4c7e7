"""A flow as bytes: what the switch itself compares, so reading back 100,000 flows parses none of them.

key:   table_id (1 byte) | priority (2, big endian) | OXM fields in OVS's order, no header or padding
value: cookie (8) | idle_timeout (2) | hard_timeout (2) | flags (2) | instructions as on the wire
(OpenFlow 1.4.1 section 7.3.4.1 ofp_flow_mod and 7.3.5.2 ofp_flow_stats hold the same parts in other places.)
"""

from __future__ import annotations

from typing import NamedTuple

FlowKey = bytes
FlowValue = bytes
FlowTable = dict[FlowKey, FlowValue]


class Flow(NamedTuple):
    """One flow: `FlowTable` entries are these pairs."""

    key: FlowKey
    value: FlowValue


def table_id(key: FlowKey) -> int:
    return key[0]


def priority(key: FlowKey) -> int:
    return int.from_bytes(key[1:3], "big")


def cookie(value: FlowValue) -> int:
    return int.from_bytes(value[:8], "big")
