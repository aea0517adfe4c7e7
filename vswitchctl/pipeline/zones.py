"""Who uses which conntrack zone, read from flows as they are on the switch."""

from __future__ import annotations

from vswitchctl.model.flow import FlowKey, FlowTable, FlowValue, cookie, table_id
from vswitchctl.pipeline.actions import load
from vswitchctl.pipeline.cookies import without_rule
from vswitchctl.pipeline.registers import ZONE
from vswitchctl.pipeline.tables import CT_FROM, CT_TO

ZoneUse = tuple[int, int]
"""(zone, cookie of the interface that it belongs to)."""

_TABLES = frozenset({CT_FROM.id, CT_TO.id})

_LOAD = b"".join(part for part in load(ZONE, 0).parts if isinstance(part, bytes))[:-8]
"""The action that names the zone, without its value: the last 8 bytes, NXAST_REG_LOAD in ovs-actions(7)."""

_INSTRUCTIONS = 14
"""Where they begin in a flow's value, see `model.flow`."""


def zone_use(key: FlowKey, value: FlowValue) -> ZoneUse | None:
    """The zone that this flow sends packets into, and for whom; None for any other flow."""
    if table_id(key) not in _TABLES:
        return None
    at = value.find(_LOAD, _INSTRUCTIONS)
    if at < 0:
        return None
    start = at + len(_LOAD)
    return int.from_bytes(value[start : start + 8], "big"), without_rule(cookie(value))


def zone_uses(flows: FlowTable) -> set[ZoneUse]:
    """Every zone in use, with its user."""
    return {use for key, value in flows.items() if (use := zone_use(key, value)) is not None}


def without_zones(flows: FlowTable, zones: set[int]) -> FlowTable:
    """The same flows, but what would enter one of these zones is dropped."""
    return {
        key: value[:_INSTRUCTIONS] if (use := zone_use(key, value)) and use[0] in zones else value
        for key, value in flows.items()
    }
