"""Conntrack zones that change hands: a new interface stays closed while connections of an old one are left.

A pass first makes every flow right but those that lead into such a zone, which drop. By its end whoever had
the zone has left it, on every bridge; then the zone is flushed, and only then do the flows lead into it. A
pass that is cut short leaves the port closed, and the next one begins again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vswitchctl.model.flow import FlowTable
from vswitchctl.pipeline.zones import ZoneUse, without_zones, zone_use, zone_uses


@dataclass(slots=True)
class Zones:
    """users: zone -> cookie of the interface whose connections may be in it. seen: bridges looked at.

    Lives as long as the daemon; what was before is read from the flows that are there.
    """

    users: dict[int, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def look(self, bridge: str, flows: FlowTable) -> None:
        """Learn from a bridge's flows who has which zone. Only the first look at a bridge costs anything."""
        if bridge not in self.seen:
            self.seen.add(bridge)
            for zone, user in zone_uses(flows):
                self.users.setdefault(zone, user)

    def given(self, desired: FlowTable, observed: FlowTable) -> set[ZoneUse]:
        """Zones that flows which are not there yet give to an interface that did not have them."""
        if desired == observed:
            return set()
        uses = (zone_use(key, value) for key, value in desired.items() if observed.get(key) != value)
        return {use for use in uses if use is not None and self.users.get(use[0]) != use[1]}

    def flushed(self, uses: Collection[ZoneUse]) -> None:
        """No connection is left in these zones, and from now on these interfaces have them."""
        self.users.update(uses)

    def had_another(self, uses: Collection[ZoneUse]) -> bool:
        """Whether any of these zones had a user before that is known."""
        return any(zone in self.users for zone, _ in uses)


@dataclass(slots=True)
class Handover:
    """The zones that change hands in one pass. waiting: bridge -> zones that it gives to an interface."""

    zones: Zones
    waiting: dict[str, set[ZoneUse]] = field(default_factory=dict)

    def closed(self, bridge: str, desired: FlowTable, observed: FlowTable) -> FlowTable:
        """The flows for now: those desired, but what leads into a zone that changes hands drops."""
        given = self.zones.given(desired, observed)
        if not given:
            return desired
        self.waiting[bridge] = given
        return without_zones(desired, {zone for zone, _ in given})

    def uses(self) -> set[ZoneUse]:
        return {use for given in self.waiting.values() for use in given}


def one_of_each(datapaths: Mapping[str, str]) -> list[str]:
    """A bridge of each datapath type (bridge -> its type): each has a connection table of its own."""
    return sorted({kind: bridge for bridge, kind in sorted(datapaths.items(), reverse=True)}.values())
