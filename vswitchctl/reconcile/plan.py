"""From a desired and an observed state to an ordered plan, each change with its reason. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from vswitchctl.latest import Latest
from vswitchctl.model.plan import Action, Change, Kind
from vswitchctl.model.state import NetlinkState, ObservedNetlink, ObservedOvs, OvsState, Owner
from vswitchctl.reconcile.delta import Delta, diff


@dataclass(frozen=True, slots=True)
class WiringPlan:
    """Device changes in the order they are made: additions and changes, then removals.

    Open vSwitch knows a port name once, so a port that moves between bridges leaves the old one in `ovs_up`.
    """

    netlink_up: list[Change] = field(default_factory=list)
    ovs_up: list[Change] = field(default_factory=list)
    ovs_down: list[Change] = field(default_factory=list)
    netlink_down: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.netlink_up or self.ovs_up or self.ovs_down or self.netlink_down)

    def __iter__(self) -> Iterator[Change]:
        yield from self.netlink_up
        yield from self.ovs_up
        yield from self.ovs_down
        yield from self.netlink_down


def plan_wiring(
    desired_netlink: NetlinkState, desired_ovs: OvsState, netlink: ObservedNetlink, ovs: ObservedOvs
) -> WiringPlan:
    """Every device change that makes the observed state the desired one."""
    return WiringPlanner().plan(desired_netlink, desired_ovs, netlink, ovs)


class WiringPlanner:
    """Plans again and again: a kind of which both sides are the same objects as before is not compared."""

    def __init__(self) -> None:
        self._changes = {kind: Latest(partial(_changes, kind)) for kind in Kind}

    def plan(
        self, desired_netlink: NetlinkState, desired_ovs: OvsState, netlink: ObservedNetlink, ovs: ObservedOvs
    ) -> WiringPlan:
        """See `plan_wiring`."""
        observed = _with_broken(netlink)
        changes = self._changes
        links = [
            *changes[Kind.NAMESPACE](desired_netlink.namespaces, observed.namespaces),
            *changes[Kind.LINUX_BRIDGE](desired_netlink.linux_bridges, observed.linux_bridges),
            *changes[Kind.VETH](desired_netlink.veths, observed.veths),
            *changes[Kind.TAP](desired_netlink.taps, observed.taps),
            *changes[Kind.TUN](desired_netlink.tuns, observed.tuns),
        ]
        ports = [
            *changes[Kind.BRIDGE](desired_ovs.bridges, ovs.owned.bridges),
            *changes[Kind.PORT](desired_ovs.ports, ovs.owned.ports),
        ]
        return _ordered(links, ports)


def _ordered(links: Sequence[Change], ports: Sequence[Change]) -> WiringPlan:
    arriving = {change.key.name for change in ports if _is_port(change, Action.ADD)}
    leaving = [c for c in ports if c.action is Action.REMOVE]
    moving = [c for c in leaving if _is_port(c, Action.REMOVE) and c.key.name in arriving]
    return WiringPlan(
        netlink_up=[change for change in links if change.action is not Action.REMOVE],
        ovs_up=[*moving, *(change for change in ports if change.action is not Action.REMOVE)],
        ovs_down=[change for change in reversed(leaving) if change not in moving],
        netlink_down=[change for change in reversed(links) if change.action is Action.REMOVE],
    )


def stale_ports(netlink: ObservedNetlink, ovs: ObservedOvs) -> list[Change]:
    """Ports to take out so that they come back opened anew.

    A device that is deleted and made again under its name is another device, but ovs-vswitchd's userspace
    datapath goes on with the old one and forwards nothing: the port has its number, the device is not opened.
    """
    return [
        Change(Kind.PORT, Action.REMOVE, key, port.owner, None, port, "holds a device that is gone")
        for key, port in ovs.owned.ports.items()
        if port.type == "" and key in ovs.ofports and key.name in netlink.unopened
    ]


def under_ports(changes: Iterable[Change], ovs: ObservedOvs) -> bool:
    """Whether any of these links is made under a port that is there, which may hold its predecessor."""
    ports = {key.name for key in ovs.owned.ports}
    pairs = (change.desired for change in changes if change.kind is Kind.VETH)
    return any(end.name in ports for pair in pairs for end in (pair.a, pair.b))


def _is_port(change: Change, action: Action) -> bool:
    return change.kind is Kind.PORT and change.action is action


def _with_broken(netlink: ObservedNetlink) -> NetlinkState:
    """A pair with an end missing stands as something that equals no spec, so it is changed or removed."""
    owned = netlink.owned
    if not netlink.broken:
        return owned
    veths: dict[str, Any] = {**owned.veths, **netlink.broken}
    return NetlinkState(owned.namespaces, owned.linux_bridges, veths, owned.taps, owned.tuns)


def _changes(kind: Kind, desired: Mapping[Any, Any], observed: Mapping[Any, Any]) -> tuple[Change, ...]:
    return tuple(_differences(kind, desired, observed))


def _differences(kind: Kind, desired: Mapping[Any, Any], observed: Mapping[Any, Any]) -> Iterator[Change]:
    delta: Delta[Hashable, Any] = diff(desired, observed)
    for key, value in delta.add.items():
        yield Change(kind, Action.ADD, key, value.owner, value, None, "declared, not there")
    for key, (there, value) in delta.change.items():
        yield Change(kind, Action.CHANGE, key, value.owner, value, there, difference(there, value))
    for key, there in delta.remove.items():
        yield Change(kind, Action.REMOVE, key, _owner(key, there), None, there, "no longer declared")


def _owner(key: Hashable, observed: Any) -> Owner:
    """The owner of an observed resource; a broken pair's key is its owner's text."""
    owner = getattr(observed, "owner", None)
    if isinstance(owner, Owner):
        return owner
    topology, _, entity = str(key).partition("/")
    return Owner(topology, entity)


def difference(there: Any, wanted: Any) -> str:
    """What differs between two specs, in words: 'mtu 1500 -> 1400'."""
    if type(there) is not type(wanted):
        return "damaged: " + ("an end is missing or down" if isinstance(there, tuple) else "unreadable")
    parts = []
    for spec in fields(wanted):
        before, after = getattr(there, spec.name), getattr(wanted, spec.name)
        if before == after:
            continue
        if (
            hasattr(after, "__dataclass_fields__")
            and type(before) is type(after)
            and not isinstance(after, Owner)
        ):
            parts.append(difference(before, after))
        else:
            parts.append(f"{spec.name} {_show(before)} -> {_show(after)}")
    return ", ".join(parts)


def _show(value: Any) -> str:
    if isinstance(value, Owner):
        return value.text
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(_show(item) for item in value)) + "}"
    if hasattr(value, "to") and hasattr(value, "via"):
        return f"{value.to} via {value.via}"
    return "none" if value in (None, "") else str(value)
