"""The reconcile loop: level-triggered, one pass at a time, the only place that makes changes.

Events do no I/O: they call `mark`, and the next pass reads whatever is cheap to read, compiles, diffs and
applies. A pass adds in dependency order and removes in reverse:

    namespaces, Linux bridges, veth pairs -> bridges, ports -> flows
    -> (what goes) ports, bridges -> links, namespaces

then reads back. What a pass could not do stands in the status of its entity, and is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vswitchctl.compiler.compile import Compiler
from vswitchctl.errors import RetryableError, VswitchctlError
from vswitchctl.model.flow import FlowKey, FlowTable, cookie
from vswitchctl.model.intent import Intent
from vswitchctl.model.plan import Change, Failure, Kind
from vswitchctl.model.state import DesiredState, Facts, ObservedOvs, Owner, PortKey
from vswitchctl.pipeline.cookies import without_rule
from vswitchctl.reconcile.backoff import BackOff
from vswitchctl.reconcile.delta import diff
from vswitchctl.reconcile.plan import WiringPlan, plan_wiring, stale_ports, under_ports
from vswitchctl.reconcile.protocol import IntentStore, Netlink, ObservedFlows, OpenFlow, Ovs

LOG = logging.getLogger(__name__)

OFPORT_WAIT = 10.0
"""Seconds a pass waits for Open vSwitch to number new ports; later numbers come as events."""

REMOVAL_WAIT = 60.0
"""Seconds for Open vSwitch to take ports down: about 14 ms each on the userspace datapath."""

REREAD = 2.0
"""Seconds until the next try while something outside does not answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last pass left of one topology.

    generation: the one that was compiled. verified: read back and found as declared.
    failures / pending: entity -> reason. gone: the topology is no longer in the intent.
    """

    generation: int
    verified: bool
    failures: Mapping[Owner, str]
    pending: Mapping[Owner, str]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Where the current pass is: changes done of total, and what it does now."""

    done: int = 0
    total: int = 0
    name: str = "idle"


@dataclass(frozen=True, slots=True)
class Pass:
    """The result of one pass over the host.

    stale: why the outside could not be read, '' where it could. changes: how many it made or tried.
    """

    number: int = 0
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    desired: DesiredState = field(default_factory=DesiredState)
    stale: str = ""
    changes: int = 0
    seconds: float = 0.0


class Loop:
    """Drives one host to its desired state. Thread-safe: `mark`, `current`, `wait` and `locked` reads."""

    def __init__(
        self,
        store: IntentStore,
        netlink: Netlink,
        ovs: Ovs,
        openflow: OpenFlow,
        compiler: Compiler,
        system_datapath: Callable[[], bool],
    ) -> None:
        self.store = store
        self.netlink = netlink
        self.ovs = ovs
        self.openflow = openflow
        self.lock = threading.RLock()
        self._compiler = compiler
        self._system_datapath = system_datapath
        self._wake = threading.Condition()
        self._dirty = True
        self._stopping = False
        self._dirty_bridges: set[str] = set()
        self._flows: dict[str, ObservedFlows] = {}
        self._backoff = BackOff()
        self._generations: dict[str, int] = {}
        self._step = Step()
        self._pass = Pass()
        self._begun = 0

    # -- from other threads ------------------------------------------------------------------------------

    def mark(self, bridge: str | None = None) -> None:
        """Something may have changed; with a bridge, its flows must be read again. No I/O."""
        with self._wake:
            self._dirty = True
            if bridge is not None:
                self._dirty_bridges.add(bridge)
            self._wake.notify_all()

    def stop(self) -> None:
        """End `run` after the pass under way."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def current(self) -> tuple[Pass, Step]:
        """The last finished pass and the step of the one under way."""
        with self._wake:
            return self._pass, self._step

    def begun(self) -> int:
        """The number of the latest pass that has begun; what is stored after that is seen by the next."""
        with self._wake:
            return self._begun

    def wait(self, seen: tuple[Pass, Step], timeout: float) -> tuple[Pass, Step]:
        """Block until something differs from what was seen, or for `timeout` seconds."""
        with self._wake:
            self._wake.wait_for(lambda: (self._pass, self._step) != seen or self._stopping, timeout)
            return self._pass, self._step

    def flows(self, bridge: str) -> ObservedFlows:
        """A bridge's flows as last read; read now where they may have changed. Raises Unreachable."""
        with self.lock:
            return self._read_flows(bridge)

    def facts(self, ovs: ObservedOvs) -> Facts:
        system = "system" in ovs.datapath_types and self._system_datapath()
        return Facts(ovs.ofports, system)

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Reconcile until `stop`. Runs in a thread of its own."""
        while self._await_work():
            self.reconcile()

    def _await_work(self) -> bool:
        with self._wake:
            due = self._backoff.next_due()
            if self._pass.stale:
                due = min(due or float("inf"), time.monotonic() + REREAD)
            timeout = None if due is None else max(0.0, due - time.monotonic())
            self._wake.wait_for(lambda: self._dirty or self._stopping, timeout)
            self._dirty = False
            return not self._stopping

    def reconcile(self) -> Pass:
        """One pass. Never raises for what is outside: the result says it."""
        started = time.monotonic()
        with self.lock:
            with self._wake:
                self._begun = self._pass.number + 1
            try:
                outcomes, desired = self._pass_once()
                done = Pass(outcomes=outcomes, desired=desired)
            except VswitchctlError as error:
                LOG.warning("cannot reconcile now: %s", error)
                done = replace(self._pass, stale=str(error))
        self._publish(replace(done, seconds=time.monotonic() - started))
        return self._pass

    def _pass_once(self) -> tuple[dict[str, Outcome], DesiredState]:
        intent = self.store.read()
        self._start_afresh(intent)
        work = _Work(self, intent)
        work.wire()
        work.flow()
        work.unwire()
        outcomes = work.outcomes(self._pass.outcomes)
        for name, outcome in outcomes.items():
            if not outcome.gone:
                reason = next(iter([*outcome.failures.values(), *outcome.pending.values()]), "")
                status = "in-sync" if outcome.verified else "failed" if outcome.failures else "pending"
                self.store.report(name, outcome.generation, status, reason)
        return outcomes, work.desired

    def _start_afresh(self, intent: Intent) -> None:
        """An edited topology is tried at once, whatever failed before."""
        generations = {name: stored.generation for name, stored in intent.items()}
        for name in generations.keys() | self._generations.keys():
            if generations.get(name) != self._generations.get(name):
                self._backoff.forget(name)
        self._generations = generations

    def _publish(self, done: Pass) -> None:
        with self._wake:
            self._pass = replace(done, number=self._pass.number + 1, changes=self._step.total)
            self._step = Step()
            self._wake.notify_all()

    # -- for the work of a pass --------------------------------------------------------------------------

    def compile(self, intent: Intent, ovs: ObservedOvs) -> DesiredState:
        return self._compiler.compile(intent, self.facts(ovs))

    def _read_flows(self, bridge: str) -> ObservedFlows:
        with self._wake:
            dirty = bridge in self._dirty_bridges
            self._dirty_bridges.discard(bridge)
        if dirty or bridge not in self._flows:
            self._flows.pop(bridge, None)
            self._flows[bridge] = self.openflow.read(bridge)
        return self._flows[bridge]

    def forget_flows(self, bridges: Iterable[str]) -> None:
        for bridge in bridges:
            self._flows.pop(bridge, None)

    def keep_flows(self, bridges: Collection[str]) -> None:
        self.forget_flows([bridge for bridge in self._flows if bridge not in bridges])

    def allowed(self, changes: Sequence[Change]) -> list[Change]:
        """The changes whose entities are not waiting for a later retry."""
        now = time.monotonic()
        return [change for change in changes if not self._backoff.waiting(change.owner, now)]

    def note(self, failures: Mapping[Owner, str], tried: Iterable[Owner]) -> None:
        now = time.monotonic()
        for owner in set(tried) - failures.keys():
            self._backoff.succeeded(owner)
        for owner in failures:
            if not self._backoff.waiting(owner, now):
                self._backoff.failed(owner, now)

    def begin(self, name: str, more: int) -> None:
        with self._wake:
            self._step = Step(self._step.done, self._step.total + more, name)
            self._wake.notify_all()

    def advance(self, count: int) -> None:
        with self._wake:
            self._step = Step(self._step.done + count, self._step.total, self._step.name)
            self._wake.notify_all()


class _Work:
    """One pass: what was read, what is wanted, and what could not be done."""

    def __init__(self, loop: Loop, intent: Intent) -> None:
        self.loop = loop
        self.intent = intent
        self.failures: dict[Owner, str] = {}
        self.flow_failures: dict[Owner, str] = {}
        self.tried: set[Owner] = set()
        self.unverified: set[str] = set()
        self.before = self._plan()

    def _plan(self) -> WiringPlan:
        # In this order: a port that has a number by now has had its device opened before.
        self.ovs = self.loop.ovs.read()
        self.netlink = self.loop.netlink.read()
        self.desired = self.loop.compile(self.intent, self.ovs)
        return plan_wiring(self.desired, self.netlink, self.ovs)

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
        stale = stale_ports(self.netlink, self.ovs)
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
        there = sorted(name for name in self.desired.flows if name in self.ovs.owned.bridges)
        self.loop.openflow.connect(there)
        self.loop.keep_flows(there)
        for bridge in there:
            try:
                self._flow(bridge, self.desired.flows[bridge])
            except RetryableError as error:
                self._bridge_failed(bridge, str(error))

    def _flow(self, bridge: str, desired: FlowTable) -> None:
        observed = self.loop.flows(bridge)
        taken = desired.keys() & observed.foreign.keys()
        for key in taken:
            self._flow_failed(bridge, key, desired, "a flow of somebody else has the match of one of ours")
        delta = diff(desired, observed.owned)
        add = {key: wanted for key, (_, wanted) in delta.change.items()}
        add |= {key: wanted for key, wanted in delta.add.items() if key not in taken}
        if not add and not delta.remove:
            return
        self.loop.begin(f"flows of {bridge}", len(add) + len(delta.remove))
        refused = self.loop.openflow.apply(bridge, add, list(delta.remove), self.loop.advance)
        for failure in refused:
            self._flow_failed(bridge, failure.key, desired, failure.message)
        self.loop.forget_flows([bridge])
        if not refused and not taken and diff(desired, self.loop.flows(bridge).owned):
            self._bridge_failed(bridge, "flows read back differ from those sent")

    def _flow_failed(self, bridge: str, key: FlowKey, desired: FlowTable, reason: str) -> None:
        owner = self.desired.cookies.get(without_rule(cookie(desired[key]))) if key in desired else None
        self.flow_failures[owner or self.desired.ovs.bridges[bridge].owner] = f"bridge '{bridge}': {reason}"

    def _bridge_failed(self, bridge: str, reason: str) -> None:
        self.flow_failures[self.desired.ovs.bridges[bridge].owner] = f"bridge '{bridge}': {reason}"

    def unwire(self) -> None:
        """Remove what is no longer declared: ports and bridges, then links and namespaces."""
        self._apply("ports and bridges to remove", self.loop.ovs.apply, self.before.ovs_down)
        self._apply("links and namespaces to remove", self.loop.netlink.apply, self.before.netlink_down)
        if self.before.ovs_down:
            # ovs-vswitchd takes its ports down meanwhile. A bridge's own device is there until it has.
            self.loop.ovs.wait_applied(REMOVAL_WAIT)

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
        for failure in apply(allowed, self.loop.advance):
            LOG.warning("%s: %s", failure.change.owner.text, failure.message)
            self.failures[failure.change.owner] = failure.message

    def outcomes(self, last: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Read the devices back and say of each topology what became of it."""
        plan = self._plan() if self.tried else self.before
        after = [*plan, *stale_ports(self.netlink, self.ovs)]
        missing = {change.owner: f"{change.kind} '{change.name}': {change.reason}" for change in after}
        # A reason that an outside system gave says more than "not there", also while the next try is awaited.
        kept = {owner: text for outcome in last.values() for owner, text in outcome.failures.items()}
        missing |= {owner: kept[owner] for owner in missing.keys() & kept.keys() - self.tried}
        broken = {self.ovs.owned.ports[key].owner: text for key, text in self._port_errors()}
        failures = {**missing, **self.failures, **self.flow_failures}
        self.loop.note(failures, self.tried)
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
        return Outcome(generation, verified=not failed and not waiting, failures=failed, pending=waiting)


_Apply = Callable[[Sequence[Change], Callable[[int], None]], list[Failure]]
