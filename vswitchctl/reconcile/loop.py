"""The reconcile loop: level-triggered, one pass at a time, the only place that makes changes.

Events do no I/O: they call `mark`, and the next pass reads whatever is cheap to read, compiles, diffs and
applies (`work.py`). What a pass could not do stands in the status of its entity, and is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from vswitchctl.compiler.compile import Compiler
from vswitchctl.compiler.vifs import unexplained, vm_facts
from vswitchctl.errors import RetryableError, VswitchctlError
from vswitchctl.latest import Latest, Steady
from vswitchctl.model.domains import VmFacts
from vswitchctl.model.flow import FlowKey, FlowTable, FlowValue, PartedTable, cookie
from vswitchctl.model.intent import Intent
from vswitchctl.model.plan import Change
from vswitchctl.model.state import DesiredState, Facts, ObservedNetlink, ObservedOvs, Owner
from vswitchctl.reconcile.backoff import BackOff
from vswitchctl.reconcile.plan import WiringPlan, WiringPlanner, stale_ports
from vswitchctl.reconcile.protocol import (
    Domains,
    IntentStore,
    Netlink,
    ObservedFlows,
    ObservedMeters,
    OpenFlow,
    Ovs,
)
from vswitchctl.reconcile.work import Outcome, Work
from vswitchctl.reconcile.zones import Zones

LOG = logging.getLogger(__name__)

FEW_COOKIES = 64
"""Up to so many are read back one by one; a whole bridge costs about as much as a hundred of them."""

READERS = 4
"""Bridges read at once when the daemon starts: ovs-vswitchd answers one after the other anyhow."""

REREAD = 2.0
"""Seconds until the next try while something outside does not answer."""


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
        domains: Domains | None = None,
    ) -> None:
        self.store = store
        self.netlink = netlink
        self.ovs = ovs
        self.openflow = openflow
        self.domains = domains
        self.zones = Zones()
        self.lock = threading.RLock()
        self._compiler = compiler
        self._system_datapath = system_datapath
        self._wake = threading.Condition()
        self._dirty = True
        self._stopping = False
        self._dirty_bridges: set[str] = set()
        self._flows: dict[str, ObservedFlows] = {}
        self._meters: dict[str, ObservedMeters] = {}
        self._ahead: dict[str, Future[ObservedFlows]] = {}
        self._looked_ahead = False
        self._settled: dict[str, PartedTable] = {}
        self._wiring, self._stale_ports = Latest(WiringPlanner().plan), Latest(stale_ports)
        self._facts = Latest(Facts)
        self._same_vms, self._same_bridges = Steady[VmFacts](), Steady[frozenset[str]]()
        self._backoff = BackOff()
        self._generations: dict[str, int] = {}
        self._step = Step()
        self._pass = Pass()
        self._begun = 0
        self._odd = (frozenset[str](), frozenset[str]())

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
        """A bridge's flows as last read; read now where they may have changed. Raises Unreachable.

        What it gives may change with the next pass: hold `lock`, or take a copy under it.
        """
        with self.lock:
            return self._read_flows(bridge)

    def meters(self, bridge: str) -> ObservedMeters:
        """A bridge's meters as last read; read again where its flows are. Raises Unreachable, ApplyError."""
        with self.lock:
            self._read_flows(bridge)
            if bridge not in self._meters:
                self._meters[bridge] = self.openflow.read_meters(bridge)
            return self._meters[bridge]

    def most_meters(self, datapath: str, ovs: ObservedOvs) -> int | None:
        """The highest id of a meter on a type of datapath; None while no bridge of ours with it answers."""
        for name, spec in sorted(ovs.owned.bridges.items()):
            if spec.datapath_type == datapath:
                with suppress(RetryableError):
                    return self.meters(name).most
        return None

    def facts(self, ovs: ObservedOvs, netlink: ObservedNetlink) -> Facts:
        vms = VmFacts() if self.domains is None else self._vm_facts(self.domains, netlink, ovs)
        bridges = self._same_bridges(netlink.foreign_bridges)
        return self._facts(ovs.ofports, self.system_datapath(ovs), self._same_vms(vms), bridges)

    def _vm_facts(self, libvirt: Domains, netlink: ObservedNetlink, ovs: ObservedOvs) -> VmFacts:
        domains = libvirt.read()
        odd = unexplained(domains, netlink)
        if odd != self._odd:
            self._odd = odd
            libvirt.look_again(odd[1])
        return vm_facts(domains, netlink, ovs)

    def system_datapath(self, ovs: ObservedOvs) -> bool:
        """Whether bridges declared 'auto' are the kernel's."""
        return "system" in ovs.datapath_types and self._system_datapath()

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
        work = Work(self, intent)
        work.wire()
        work.flow()
        work.unwire()
        work.open_zones()
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

    def compile(self, intent: Intent, ovs: ObservedOvs, netlink: ObservedNetlink) -> DesiredState:
        return self._compiler.compile(intent, self.facts(ovs, netlink))

    def read_ahead(self, bridges: Sequence[str]) -> None:
        """At the start alone: begin to read these bridges' flows, while what they should be is compiled."""
        if self._looked_ahead:
            return
        self._looked_ahead = True
        self.openflow.connect(bridges)
        reader = ThreadPoolExecutor(READERS, "read-ahead")
        self._ahead = {bridge: reader.submit(self._read_now, bridge) for bridge in bridges}
        reader.shutdown(wait=False)

    def _read_flows(self, bridge: str) -> ObservedFlows:
        ahead = self._ahead.pop(bridge, None)
        if ahead is not None:
            with suppress(RetryableError):  # it is read again below, and that says what is wrong
                self._flows[bridge] = ahead.result()
        with self._wake:
            dirty = bridge in self._dirty_bridges
        if dirty or bridge not in self._flows:
            self.forget_flows([bridge])
            if dirty:
                self._meters.pop(bridge, None)
            self._flows[bridge] = self._read_now(bridge)
        return self._flows[bridge]

    def _read_now(self, bridge: str) -> ObservedFlows:
        """What changes from the moment on that there is a session is seen, or makes the bridge dirty."""
        self.openflow.reach(bridge)
        with self._wake:
            self._dirty_bridges.discard(bridge)
        return self.openflow.read(bridge)

    def read_back(self, bridge: str, keys: Collection[FlowKey], values: Iterable[FlowValue]) -> FlowTable:
        """The bridge's flows of ours after a change to these keys.

        values: every value that a flow of these keys had or was to have. Few cookies are asked for by
        themselves, and what was read before stays; else the whole bridge is read again.
        """
        cookies = {cookie(value) for value in values}
        observed = self._flows.get(bridge)
        if observed is None or len(cookies) > FEW_COOKIES:
            self.forget_flows([bridge])
            return self._read_flows(bridge).owned
        found = self.openflow.read_of(bridge, cookies).owned
        for key in keys:
            observed.owned.pop(key, None)
        observed.owned.update(found)
        return found

    def settle(self, bridge: str, desired: PartedTable) -> None:
        """The flows as read are the desired ones: next time only what differs from them is looked at."""
        self._settled[bridge] = desired

    def settled(self, bridge: str) -> PartedTable | None:
        """The desired flows that the flows as read were found equal to; None where that is not known."""
        return self._settled.get(bridge)

    def forget_flows(self, bridges: Iterable[str]) -> None:
        for bridge in bridges:
            self._flows.pop(bridge, None)
            self._settled.pop(bridge, None)

    def plan(self, desired: DesiredState, netlink: ObservedNetlink, ovs: ObservedOvs) -> WiringPlan:
        return self._wiring(desired.netlink, desired.ovs, netlink, ovs)

    def stale_ports(self, netlink: ObservedNetlink, ovs: ObservedOvs) -> list[Change]:
        return self._stale_ports(netlink, ovs)

    def forget_meters(self, bridge: str) -> None:
        self._meters.pop(bridge, None)

    def keep_flows(self, bridges: Collection[str]) -> None:
        for gone in [bridge for bridge in self._meters if bridge not in bridges]:
            self.forget_meters(gone)
        self.forget_flows([bridge for bridge in self._flows if bridge not in bridges])
        self._ahead = {bridge: read for bridge, read in self._ahead.items() if bridge in bridges}

    def allowed(self, changes: Sequence[Change]) -> list[Change]:
        """The changes whose entities are not waiting for a later retry."""
        now = time.monotonic()
        return [change for change in changes if not self._backoff.waiting(change.owner, now)]

    def note(self, failures: Mapping[Owner, str], tried: Iterable[Owner], overtaken: Set[Owner]) -> None:
        """overtaken: of those that failed, whose turn is the next pass, for another thing is to be done."""
        now = time.monotonic()
        for owner in (set(tried) - failures.keys()) | overtaken:
            self._backoff.succeeded(owner)
        if overtaken:
            self.mark()
        for owner in failures.keys() - overtaken:
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
