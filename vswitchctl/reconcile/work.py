"""One pass over the host: what was read, what is wanted, what was done, and what could not be.

    bridges; namespaces, Linux bridges, veth pairs -> ports -> meters -> flows -> meters that go
    -> (what goes) ports, bridges -> links, namespaces -> flows into conntrack zones that others had

and then read back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vswitchctl.errors import RetryableError, Unreachable
from vswitchctl.model.flow import FlowKey, FlowTable, PartedTable, cookie
from vswitchctl.model.intent import Intent
from vswitchctl.model.meter import MeterTable
from vswitchctl.model.plan import Action, Change, Failure, Kind
from vswitchctl.model.state import Owner, PortKey, Remark
from vswitchctl.pipeline.cookies import without_rule
from vswitchctl.reconcile.delta import diff
from vswitchctl.reconcile.plan import WiringPlan, under_ports
from vswitchctl.reconcile.protocol import ObservedFlows
from vswitchctl.reconcile.zones import Handover, one_of_each

if TYPE_CHECKING:
    from vswitchctl.reconcile.loop import Loop

LOG = logging.getLogger(__name__)

OFPORT_WAIT = 10.0
"""Seconds a pass waits for Open vSwitch to number new ports; later numbers come as events."""

REMOVAL_WAIT = 60.0
"""Seconds for Open vSwitch to take ports down: about 14 ms each on the userspace datapath."""

_Apply = Callable[[Sequence[Change], Callable[[int], None]], list[Failure]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last pass left of one topology.

    generation: the one that was compiled. verified: read back and found as declared.
    failures / pending: entity -> reason. gone: the topology is no longer in the intent.
    remarks: of what nothing waits for, such as a virtual machine that does not run.
    """

    generation: int
    verified: bool
    failures: Mapping[Owner, str]
    pending: Mapping[Owner, str]
    gone: bool = False
    remarks: Mapping[Owner, Remark] = field(default_factory=dict)


def overtaken(attempted: Iterable[Change], after: Iterable[Change]) -> set[Owner]:
    """Those for which all that is left to do is something else than what was tried.

    As for a TAP that came and went: what was tried is of no interest any more, and the rest need not wait.
    """
    known = {_what(change) for change in attempted}
    tried = {owner for _, _, _, owner, _ in known}
    left = [change for change in after if change.owner in tried]
    return {change.owner for change in left} - {change.owner for change in left if _what(change) in known}


def _what(change: Change) -> tuple[Kind, Action, object, Owner, object]:
    return change.kind, change.action, change.key, change.owner, change.desired


class Work:
    """One pass: what was read, what is wanted, and what could not be done."""

    def __init__(self, loop: Loop, intent: Intent) -> None:
        self.loop = loop
        self.intent = intent
        self.failures: dict[Owner, str] = {}
        self.flow_failures: dict[Owner, str] = {}
        self.tried: set[Owner] = set()
        self.attempted: list[Change] = []
        self.there: list[str] = []
        self.unanswered: set[str] = set()
        self.handover = Handover(loop.zones)
        self.before = self._plan()

    def _plan(self) -> WiringPlan:
        # In this order: a port that has a number by now has had its device opened before.
        self.ovs = self.loop.ovs.read()
        bridges = self.ovs.owned.bridges
        self.loop.read_ahead([name for name in bridges if bridges[name].owner.topology in self.intent])
        self.netlink = self.loop.netlink.read()
        self.desired = self.loop.compile(self.intent, self.ovs, self.netlink)
        return self.loop.plan(self.desired, self.netlink, self.ovs)

    def wire(self) -> None:
        """Add and change devices, then ports, and let Open vSwitch number them.

        Bridges come first, for Open vSwitch makes them in its own process while we make links; and links are
        read back while it opens the ports.
        """
        plan = self.before
        self._apply("bridges", self.loop.ovs.apply, [c for c in plan.ovs_up if c.kind is Kind.BRIDGE])
        self._apply("links and namespaces", self.loop.netlink.apply, plan.netlink_up)
        if under_ports(plan.netlink_up, self.ovs):
            plan = self._plan()
        stale = self.loop.stale_ports(self.netlink, self.ovs)
        if stale:
            self._apply("ports to open anew", self.loop.ovs.apply, stale)
            self.loop.ovs.wait_applied(OFPORT_WAIT)
            plan = self._plan()
        ports = [change for change in plan.ovs_up if change.kind is Kind.PORT]
        self._apply("ports", self.loop.ovs.apply, ports)
        if ports:
            self.loop.netlink.read()
            wanted = [key for key in self.desired.ovs.ports if key not in self.ovs.ofports]
            self.loop.ovs.wait_ofports(wanted, OFPORT_WAIT)
        if self.tried:
            self._plan()

    def flow(self) -> None:
        """Make the flows of every bridge that is there right, each in one bundle, and read back."""
        self.there = sorted(name for name in self.desired.flows if name in self.ovs.owned.bridges)
        self.loop.openflow.connect(self.there)
        self.loop.keep_flows(self.there)
        for bridge in self.there:
            self._on(bridge, self._look)
        for bridge in self._answering():
            self._on(bridge, self._meter)
        for bridge in self._answering():
            self._on(bridge, self._flow)
        for bridge in self._answering():
            self._on(bridge, self._unmeter)

    def _on(self, bridge: str, do: Callable[[str], None]) -> None:
        try:
            do(bridge)
        except RetryableError as error:
            self.unanswered.add(bridge)
            self._bridge_failed(bridge, str(error))

    def _look(self, bridge: str) -> None:
        self.loop.zones.look(bridge, self.loop.flows(bridge).owned)

    def _flow(self, bridge: str) -> None:
        observed, target = self.loop.flows(bridge), self.desired.flows[bridge]
        before = self.loop.settled(bridge)
        if before is target:
            return
        if before is not None and self._flow_parts(bridge, target, before, observed):
            self.loop.settle(bridge, target)
            return
        desired = self.handover.closed(bridge, target.whole, observed.owned)
        self._make(bridge, desired, observed.owned, observed.foreign)
        if desired is target.whole and self.loop.flows(bridge).owned == desired:
            self.loop.settle(bridge, target)

    def _flow_parts(
        self, bridge: str, target: PartedTable, before: PartedTable, observed: ObservedFlows
    ) -> bool:
        """Make only those flows right whose part differs from `before`, which is what is there.

        False where they are not right after that, or where it takes a look at the whole bridge.
        """
        was, now = target.changed_since(before)
        taken = (key for key in now if key not in was and (key in observed.owned or key in observed.foreign))
        if any(taken) or self.loop.zones.given(now, was):
            return False
        self._make(bridge, now, was, {})
        found = self.loop.flows(bridge)
        return found is observed and all(
            found.owned.get(key) == now.get(key) for key in was.keys() | now.keys()
        )

    def _make(self, bridge: str, desired: FlowTable, there: FlowTable, foreign: FlowTable) -> None:
        """Make what is there the desired, in one bundle, and read it back."""
        taken = desired.keys() & foreign.keys()
        for key in taken:
            self._flow_failed(bridge, key, desired, "a flow of somebody else has the match of one of ours")
        delta = diff(desired, there)
        add = {key: wanted for key, (_, wanted) in delta.change.items()}
        add |= {key: wanted for key, wanted in delta.add.items() if key not in taken}
        if not add and not delta.remove:
            return
        self.loop.begin(f"flows of {bridge}", len(add) + len(delta.remove))
        refused = self.loop.openflow.apply(bridge, add, list(delta.remove), self.loop.advance)
        for failure in refused:
            self._flow_failed(bridge, failure.key, desired, failure.message)
        former = (there for there, _ in delta.change.values())
        found = self.loop.read_back(
            bridge, {*add, *delta.remove}, (*add.values(), *delta.remove.values(), *former)
        )
        wrong = any(found.get(key) != desired.get(key) for key in (*add, *delta.remove))
        if wrong and not refused and not taken:
            self._bridge_failed(bridge, "flows read back differ from those sent")

    def _meter(self, bridge: str) -> None:
        """Add and change meters, before flows point at them."""
        desired, observed = self.desired.meters.get(bridge, {}), self.loop.meters(bridge).owned
        delta = diff(desired, observed)
        put = delta.add | {one: wanted for one, (_, wanted) in delta.change.items()}
        if put:
            self._apply_meters(bridge, put, delta.change, ())

    def _unmeter(self, bridge: str) -> None:
        """Remove meters, once no flow points at them any more."""
        desired, observed = self.desired.meters.get(bridge, {}), self.loop.meters(bridge).owned
        unused = observed.keys() - desired.keys()
        if unused:
            self._apply_meters(bridge, {}, (), unused)

    def _apply_meters(
        self, bridge: str, put: MeterTable, there: Collection[int], remove: Collection[int]
    ) -> None:
        self.loop.begin(f"meters of {bridge}", len(put) + len(remove))
        refused = self.loop.openflow.apply_meters(bridge, put, there, sorted(remove))
        self.loop.forget_meters(bridge)
        self.loop.advance(len(put) + len(remove))
        for one, reason in refused.items():
            owner = self.desired.meter_owners.get((bridge, one))
            self._bridge_failed(bridge, f"meter {one} was refused: {reason}", owner)
        back = self.loop.meters(bridge).owned
        wrong = [one for one, wanted in put.items() if one not in refused and back.get(one) != wanted]
        if wrong:
            self._bridge_failed(bridge, f"meters read back differ from those sent: {wrong}")

    def open_zones(self) -> None:
        """Empty the conntrack zones that got another interface, and let that one in.

        Comes after `unwire`, so that bridges which go have taken the old interface's flows with them.
        """
        waiting, uses = sorted(self.handover.waiting), self.handover.uses()
        if not waiting:
            return
        hindrance = self._old_users() if self.loop.zones.had_another(uses) else ""
        try:
            if hindrance:
                raise Unreachable(f"a conntrack zone is not free yet: {hindrance}")
            datapaths = {name: self.desired.ovs.bridges[name].datapath_type for name in self._answering()}
            for bridge in one_of_each(datapaths):
                self.loop.openflow.flush_zones(bridge, sorted(zone for zone, _ in uses))
        except RetryableError as error:
            for bridge in waiting:
                self._bridge_failed(bridge, str(error))
            return
        self.loop.zones.flushed(uses)
        for bridge in waiting:
            self._on(bridge, self._flow)

    def _answering(self) -> list[str]:
        return [bridge for bridge in self.there if bridge not in self.unanswered]

    def _old_users(self) -> str:
        """Where flows may still be that use a zone for the interface that had it, '' where nowhere."""
        going = self.loop.ovs.read().owned.bridges.keys() - self.desired.ovs.bridges.keys()
        return ", ".join(f"bridge '{name}' still has flows" for name in sorted(going | self.unanswered))

    def _flow_failed(self, bridge: str, key: FlowKey, desired: FlowTable, reason: str) -> None:
        owner = self.desired.cookies.get(without_rule(cookie(desired[key]))) if key in desired else None
        self._bridge_failed(bridge, reason, owner)

    def _bridge_failed(self, bridge: str, reason: str, owner: Owner | None = None) -> None:
        """owner: whose fault it is; None: the bridge's own."""
        self.flow_failures[owner or self.desired.ovs.bridges[bridge].owner] = f"bridge '{bridge}': {reason}"

    def unwire(self) -> None:
        """Remove what is no longer declared: ports and bridges, then links and namespaces."""
        self._apply("ports and bridges to remove", self.loop.ovs.apply, self.before.ovs_down)
        self._apply("links and namespaces to remove", self.loop.netlink.apply, self.before.netlink_down)
        if any(self._is_held(change) for change in self.before.ovs_down):
            # ovs-vswitchd takes its ports down meanwhile. A bridge's own device is there until it has.
            self.loop.ovs.wait_applied(REMOVAL_WAIT)

    def _is_held(self, change: Change) -> bool:
        """Whether ovs-vswitchd has something to let go of. For a TAP that is gone nobody need wait."""
        is_device = change.kind is Kind.PORT and change.observed.type == ""
        return not is_device or change.key.name in self.netlink.devices

    def _apply(self, step: str, apply: _Apply, changes: Sequence[Change]) -> None:
        allowed = self.loop.allowed(changes)
        if not allowed:
            return
        self.loop.begin(step, len(allowed))
        for change in allowed:
            LOG.info(
                "%s %s %s for %s: %s",
                change.action,
                change.kind,
                change.name,
                change.owner.text,
                change.reason,
            )
        self.tried.update(change.owner for change in allowed)
        self.attempted += allowed
        for failure in apply(allowed, self.loop.advance):
            LOG.warning("%s: %s", failure.change.owner.text, failure.message)
            self.failures[failure.change.owner] = failure.message

    def outcomes(self, last: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Read the devices back and say of each topology what became of it."""
        plan = self._plan() if self.tried else self.before
        after = [*plan, *self.loop.stale_ports(self.netlink, self.ovs)]
        missing = {change.owner: f"{change.kind} '{change.name}': {change.reason}" for change in after}
        # A reason that an outside system gave says more than "not there", also while the next try is awaited.
        kept = {owner: text for outcome in last.values() for owner, text in outcome.failures.items()}
        missing |= {owner: kept[owner] for owner in missing.keys() & kept.keys() - self.tried}
        broken = {self.ovs.owned.ports[key].owner: text for key, text in self._port_errors()}
        failures = {**missing, **self.failures, **self.flow_failures}
        wrong = self.failures.keys() | self.flow_failures.keys()
        self.loop.note(failures, self.tried, overtaken(self.attempted, after) - wrong)
        pending = {**self.desired.pending, **broken}
        gone = {name for name, outcome in last.items() if not (outcome.gone and outcome.verified)}
        gone |= {owner.topology for owner in failures}
        found = {
            name: self._outcome(name, stored.generation, failures, pending)
            for name, stored in self.intent.items()
        }
        for name in sorted(gone - self.intent.keys()):
            mine = {owner: text for owner, text in failures.items() if owner.topology == name}
            found[name] = Outcome(0, verified=not mine, failures=mine, pending={}, gone=True)
        return found

    def _port_errors(self) -> Iterable[tuple[PortKey, str]]:
        return ((key, text) for key, text in self.ovs.errors.items() if key in self.ovs.owned.ports)

    def _outcome(
        self, name: str, generation: int, failures: Mapping[Owner, str], pending: Mapping[Owner, str]
    ) -> Outcome:
        failed = {owner: text for owner, text in failures.items() if owner.topology == name}
        waiting = {
            owner: text for owner, text in pending.items() if owner.topology == name and owner not in failed
        }
        remarks = {owner: said for owner, said in self.desired.remarks.items() if owner.topology == name}
        return Outcome(
            generation, verified=not failed and not waiting, failures=failed, pending=waiting, remarks=remarks
        )
