"""Where the links of changes belong, and what is there: to keep, ours and in the way, or somebody's. Pure."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vswitchctl.drivers.netlink.host import Host
from vswitchctl.drivers.netlink.reader import Place, are_peers, ends_by_owner
from vswitchctl.drivers.netlink.requests import refused
from vswitchctl.model.plan import Change, Kind
from vswitchctl.model.state import ROOT, VethEnd, VethSpec


@dataclass(slots=True)
class Placement:
    """bridges, pairs: id of a change -> what is kept for it (a pair's ends in the order of its spec).

    doomed: links of ours in the way -> the change that needs their place. refused: (change, reason).
    """

    bridges: set[int] = field(default_factory=set)
    pairs: dict[int, tuple[Place, Place]] = field(default_factory=dict)
    doomed: dict[Place, Change | None] = field(default_factory=dict)
    refused: list[tuple[Change, str]] = field(default_factory=list)


def place(host: Host, bridges: Sequence[Change], veths: Sequence[Change]) -> Placement:
    """What becomes of what is there, for all changes at once."""
    found = Placement()
    for change in bridges:
        _place_bridge(host, change, found)
    owned = ends_by_owner(host.contents)
    for change in veths:
        _place_pair(host, change, owned, found)
    # Somebody may have taken a place that is another's: then that pair is made anew, too.
    found.pairs = {
        number: pair for number, pair in found.pairs.items() if not any(end in found.doomed for end in pair)
    }
    return found


def _place_bridge(host: Host, change: Change, found: Placement) -> None:
    link = host.link(ROOT, str(change.key))
    if link is None:
        return
    if link.owner is None and not link.unfinished:
        found.refused.append((change, _device_taken(link.name)))
    elif link.kind == "bridge" and not link.unfinished:
        found.bridges.add(id(change))
    else:
        found.doomed[Place(ROOT, link)] = change


def _place_pair(host: Host, change: Change, owned: Mapping[str, list[Place]], found: Placement) -> None:
    spec: VethSpec = change.desired
    marked = owned.get(str(change.key), [])
    pair = _pair_in_place(host, spec, marked)
    if pair is None:
        for end in (spec.a, spec.b):
            there = _occupant(host, end)
            if there is None or there in marked:
                continue
            if there.link.owner is None and not there.link.unfinished and not _peer_of(there, marked, host):
                found.refused.append((change, _device_taken(end.name, end.namespace)))
                return
            found.doomed[there] = change
    else:
        found.pairs[id(change)] = pair
    for stray in marked:
        if pair is None or stray not in pair:
            found.doomed[stray] = change


def _occupant(host: Host, end: VethEnd) -> Place | None:
    link = host.link(end.namespace, end.name)
    return Place(end.namespace, link) if link is not None else None


def _pair_in_place(host: Host, spec: VethSpec, marked: Sequence[Place]) -> tuple[Place, Place] | None:
    """Both ends where they belong, one of them marked: then setting their attributes is enough."""
    a, b = _occupant(host, spec.a), _occupant(host, spec.b)
    if a is None or b is None or not are_peers(a, b, host.contents):
        return None
    return (a, b) if a in marked or b in marked else None


def _peer_of(place: Place, marked: Sequence[Place], host: Host) -> bool:
    """Whether it is the other end of a pair of ours, whose mark it lost."""
    return any(are_peers(place, end, host.contents) for end in marked)


def taken(change: Change, error: OSError) -> str:
    """What the kernel's answer to a request to make a link means: somebody was faster, or it cannot."""
    if error.errno != errno.EEXIST:
        return refused(change, error)
    spec: Any = change.desired
    name = change.name if change.kind is Kind.LINUX_BRIDGE else f"{spec.a.name}' or '{spec.b.name}"
    return _device_taken(name)


def _device_taken(name: str, namespace: str = ROOT) -> str:
    where = f" in namespace '{namespace}'" if namespace else ""
    return f"a device '{name}' exists{where} and is not ours; rename the node or remove the device"
