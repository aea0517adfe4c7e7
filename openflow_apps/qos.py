"""Limits: how much, how many packets, and how many floods; and the DSCP of what an interface sends.

Tables qos_from, qos_from_packets and storm for what a port sends, unknown_storm for what nobody knows
where to send, qos_to and qos_to_packets for what goes to it. Each limit is an OpenFlow meter of the bridge:
a packet over it is dropped. A flow has one meter, so a second limit of a direction takes a second table.
A port without limits costs no flow, and a bridge two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vswitchctl.model.flow import Flow
from vswitchctl.model.meter import Meter, meter_id
from vswitchctl.model.switch import Limit, PortLimits, Switch, SwitchPort
from vswitchctl.pipeline import meters
from vswitchctl.pipeline.actions import resubmit, set_field
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import Match, Template, Var
from vswitchctl.pipeline.fields import (
    ETH_DST,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    GROUP_BIT,
    IN_PORT,
    IP_DSCP,
)
from vswitchctl.pipeline.registers import OUT_PORT
from vswitchctl.pipeline.tables import (
    CT_FROM,
    CT_TO,
    FLOOD,
    OUTPUT,
    QOS_FROM,
    QOS_FROM_PACKETS,
    QOS_TO,
    QOS_TO_PACKETS,
    STORM,
    UNKNOWN_STORM,
    Table,
)

BACK, MARKED, LIMITED, DEFAULT = 110, 110, 100, 0
"""Priorities: what would go back where it came from, what gets a DSCP, what is limited, everything else.
In storm, LIMITED + 1 is broadcast: a group address like any other, but counted by itself."""

BROADCAST = 0xFFFFFFFFFFFF

RATE_FROM, PACKETS_FROM, RATE_TO, PACKETS_TO, TO_ALL, TO_GROUPS, TO_UNKNOWN = range(7)
"""Slots of a port's meters; a slot keeps its meaning for ever, for it is in the meter's id."""

_FROM_DEFAULT = Template(QOS_FROM, DEFAULT, {}, goto=CT_FROM)
_STORM_DEFAULT = Template(STORM, DEFAULT, {}, goto=CT_FROM)
_TO_DEFAULT = Template(QOS_TO, DEFAULT, {}, goto=OUTPUT)
# A flood comes by the port it came from, too. It does not leave there, so it must not count there either.
_TO_BACK = Template(QOS_TO, BACK, {IN_PORT: Var("port"), OUT_PORT: Var("port")})
_NOWHERE: Match = {IN_PORT: Var("port"), OUT_PORT: 0}
_UNKNOWN = Template(UNKNOWN_STORM, LIMITED, _NOWHERE, [resubmit(FLOOD)], meter=Var("meter"))
_UNKNOWN_FOUND = Template(UNKNOWN_STORM, DEFAULT, {}, goto=CT_TO)


@cache
def _step(table: Table, goto: Table, metered: bool) -> Template:
    """Every packet of a port."""
    match: Match = {(IN_PORT if table in (QOS_FROM, QOS_FROM_PACKETS) else OUT_PORT): Var("port")}
    return Template(table, LIMITED, match, goto=goto, meter=Var("meter") if metered else None)


@cache
def _mark(ethertype: int, goto: Table, metered: bool) -> Template:
    match: Match = {IN_PORT: Var("port"), ETH_TYPE: ethertype}
    mark = [set_field(IP_DSCP, Var("dscp"))]
    return Template(QOS_FROM, MARKED, match, mark, goto, meter=Var("meter") if metered else None)


@cache
def _group(broadcast: bool, metered: bool) -> Template:
    address = BROADCAST if broadcast else (GROUP_BIT, GROUP_BIT)
    match: Match = {IN_PORT: Var("port"), ETH_DST: address}
    meter = Var("meter") if metered else None
    return Template(STORM, LIMITED + broadcast, match, goto=CT_FROM, meter=meter)


def _meters(limits: PortLimits) -> Iterator[Meter]:
    by_slot = (
        (RATE_FROM, limits.rate_from),
        (PACKETS_FROM, limits.packets_from),
        (RATE_TO, limits.rate_to),
        (PACKETS_TO, limits.packets_to),
        (TO_ALL, limits.broadcast),
        (TO_GROUPS, limits.multicast),
        (TO_UNKNOWN, limits.unknown_unicast),
    )
    for slot, limit in by_slot:
        if limit is not None:
            made = meters.bits if slot in (RATE_FROM, RATE_TO) else meters.packets
            yield Meter(meter_id(limits.number, slot), made(*limit), limits.owner)


class _Port:
    """The flows of one port with limits."""

    def __init__(self, port: SwitchPort, limits: PortLimits) -> None:
        self._port = port.ofport
        self._limits = limits
        self._cookie = cookie(limits.owner)

    def _metered(self, template: Template, slot: int | None, **values: int) -> Flow:
        if slot is not None:
            values["meter"] = meter_id(self._limits.number, slot)
        return template(self._cookie, port=self._port, **values)

    def sending(self) -> Iterator[Flow]:
        """What the port sends: bits, then packets, then floods."""
        limits = self._limits
        after = STORM if limits.limits_groups else CT_FROM
        first, second = _both(limits.rate_from, RATE_FROM, limits.packets_from, PACKETS_FROM)
        following = after if second is None else QOS_FROM_PACKETS
        metered = first is not None
        if metered or limits.limits_groups:
            yield self._metered(_step(QOS_FROM, following, metered), first)
        if limits.dscp is not None:
            for ethertype in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
                yield self._metered(_mark(ethertype, following, metered), first, dscp=limits.dscp)
        if second is not None:
            yield self._metered(_step(QOS_FROM_PACKETS, after, True), second)

    def storms(self) -> Iterator[Flow]:
        limits = self._limits
        if limits.limits_groups:
            slot = None if limits.broadcast is None else TO_ALL
            yield self._metered(_group(True, slot is not None), slot)
        if limits.multicast is not None:
            yield self._metered(_group(False, True), TO_GROUPS)
        if limits.unknown_unicast is not None:
            yield self._metered(_UNKNOWN, TO_UNKNOWN)

    def receiving(self) -> Iterator[Flow]:
        """What goes to the port."""
        limits = self._limits
        first, second = _both(limits.rate_to, RATE_TO, limits.packets_to, PACKETS_TO)
        if first is not None:
            yield _TO_BACK(self._cookie, port=self._port)
            yield self._metered(_step(QOS_TO, OUTPUT if second is None else QOS_TO_PACKETS, True), first)
        if second is not None:
            yield self._metered(_step(QOS_TO_PACKETS, OUTPUT, True), second)


def _both(
    rate: Limit | None, rate_slot: int, packets: Limit | None, packets_slot: int
) -> tuple[int | None, int | None]:
    """The slots of the first and of the second limit."""
    slots = [slot for limit, slot in ((rate, rate_slot), (packets, packets_slot)) if limit is not None]
    return (slots[0] if slots else None), (slots[1] if len(slots) > 1 else None)


@dataclass(frozen=True)
class Qos:
    """The app."""

    name: str = "qos"
    tables: tuple[Table, ...] = (QOS_FROM, QOS_FROM_PACKETS, STORM, UNKNOWN_STORM, QOS_TO, QOS_TO_PACKETS)
    reads: tuple[str, ...] = ("owner", "networks", "ports")

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """Every flow of one bridge's limits."""
        mark = cookie(switch.owner)
        if switch.networks:
            yield _FROM_DEFAULT(mark)
            yield _TO_DEFAULT(mark)
        limited = [(port, port.limits) for port in switch.ports if port.limits is not None]
        if any(limits.limits_groups for _, limits in limited):
            yield _STORM_DEFAULT(mark)
        if any(limits.unknown_unicast is not None for _, limits in limited):
            yield _UNKNOWN_FOUND(mark)
        for port, limits in limited:
            one = _Port(port, limits)
            yield from one.sending()
            yield from one.storms()
            yield from one.receiving()

    def meters(self, switch: Switch) -> Iterator[Meter]:
        """The meters of these flows."""
        for port in switch.ports:
            if port.limits is not None:
                yield from _meters(port.limits)


APP = Qos()
