"""Stored intent: what the intent database holds of a topology beside its document. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from vswitchctl.errors import Conflict
from vswitchctl.model.meter import NUMBERS
from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import VLAN_MAX, VLAN_MIN, Group, Namespace, Topology, Uplink, Vm


@dataclass(frozen=True, slots=True)
class Stored:
    """One topology as stored.

    generation: 1 for the first write, one more for every write that changed something.
    tags: network -> VLAN tag on bridge links. sources: entity path ('nodes/web1') -> 'file:line'.
    zones: endpoint with ACLs -> its conntrack zone, which no other endpoint of the host has.
    meters: endpoint or uplink with limits -> its number among them, of which its meters' ids are made.
    """

    topology: Topology
    generation: int
    tags: Mapping[str, int]
    sources: Mapping[str, str] = field(default_factory=dict)
    zones: Mapping[str, int] = field(default_factory=dict)
    meters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One ACL or group, put in place or removed. value: its rules, or the group; None to remove it.

    source: 'file:line', '' where it came from no file.
    """

    section: Literal["acls", "groups"]
    name: str
    value: tuple[Rule, ...] | Group | None
    source: str = ""

    @property
    def noun(self) -> str:
        return "ACL" if self.section == "acls" else "group"

    @property
    def entity(self) -> str:
        return f"{self.section}/{self.name}"

    def applied(self, topology: Topology) -> Topology:
        """The topology with this change; everything else in it is the same objects."""
        entries = dict(getattr(topology, self.section))
        if self.value is None:
            entries.pop(self.name, None)
        else:
            entries[self.name] = self.value
        return topology.model_copy(update={self.section: entries})


Intent = Mapping[str, Stored]
"""Topology name -> stored topology."""


def allocate_tags(topology: Topology, kept: Mapping[str, int]) -> dict[str, int]:
    """A tag for each network: the declared one, else the one it has, else the lowest free one.

    Deterministic. Raises Conflict where all 4094 tags are taken.
    """
    declared = {name: net.vlan for name, net in topology.networks.items() if net.vlan is not None}
    tags: dict[str, int] = dict(declared)
    taken = set(declared.values())
    for name in topology.networks:
        if name not in tags and name in kept and kept[name] not in taken:
            tags[name] = kept[name]
            taken.add(kept[name])
    free = (tag for tag in range(VLAN_MIN, VLAN_MAX + 1) if tag not in taken)
    for name in topology.networks:
        if name not in tags:
            tag = next(free, None)
            if tag is None:
                raise Conflict(
                    f"no VLAN tag is left for network '{name}'", "at most 4094 networks fit a topology"
                )
            tags[name] = tag
    return {name: tags[name] for name in topology.networks}


ZONES = range(1, 0x10000)
"""Conntrack zones have 16 bits, and zone 0 is what everybody else uses."""


def allocate_zones(topology: Topology, kept: Mapping[str, int], taken: Collection[int]) -> dict[str, int]:
    """A conntrack zone for each endpoint with ACLs: the one it has, else the lowest that nobody has.

    One that becomes free by this is given out only where no other is left: its connections end later.
    taken: zones of other topologies of the host; one datapath has one connection table for all of them.
    Deterministic. Raises Conflict where all 65535 zones are taken.
    """
    ends = [end for end, interface in topology.endpoints().items() if interface.acls]
    used, zones = set(taken), dict[str, int]()
    for end in ends:
        if kept.get(end, 0) in ZONES and kept[end] not in used:
            zones[end] = kept[end]
            used.add(kept[end])
    freed = set(kept.values())
    fresh = (zone for zone in ZONES if zone not in used and zone not in freed)
    free = chain(fresh, (zone for zone in ZONES if zone in freed and zone not in used))
    for end in ends:
        if end not in zones:
            zone = next(free, None)
            if zone is None:
                raise Conflict(
                    f"no conntrack zone is left for '{end}'", "at most 65535 interfaces of a host have ACLs"
                )
            zones[end] = zone
    return {end: zones[end] for end in ends}


def allocate_meters(topology: Topology, kept: Mapping[str, int]) -> dict[str, int]:
    """A number for each endpoint and uplink with limits: the one it has, else the lowest free one.

    Kept, so that whoever comes or goes, the meters of the others are left as they are. Deterministic.
    Raises Conflict where all are taken.
    """
    ends = topology.limited()
    numbers = {end: kept[end] for end in ends if end in kept}
    taken = set(numbers.values())
    free = (number for number in NUMBERS if number not in taken)
    for end in ends:
        if end not in numbers:
            number = next(free, None)
            if number is None:
                raise Conflict(
                    f"no meters are left for '{end}'",
                    f"at most {len(NUMBERS)} interfaces and uplinks of a topology have limits",
                )
            numbers[end] = number
    return {end: numbers[end] for end in ends}


def zone_claims(zones: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    """Every (claim, entity) of conntrack zones: 'zone:N'."""
    for end, zone in zones.items():
        yield f"zone:{zone}", f"interfaces/{end}"


def claims(topology: Topology) -> Iterable[tuple[str, str]]:
    """Every (device, entity) on the host that this topology takes for itself: 'dev:NAME', 'netns:NAME' or
    'vif:DOMAIN/MAC'."""
    for name, node in topology.nodes.items():
        if isinstance(node, Uplink):
            yield f"dev:{node.interface}", f"nodes/{name}"
        elif isinstance(node, Namespace):
            yield f"netns:{name}", f"nodes/{name}"
        elif isinstance(node, Vm):
            for mac in node.interfaces:
                yield f"vif:{node.domain}/{mac}", f"nodes/{name}"
        else:
            yield f"dev:{name}", f"nodes/{name}"
