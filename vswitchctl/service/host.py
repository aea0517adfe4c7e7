"""What the daemon answers: the `Service` of the API, over the intent database and the reconcile loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from vswitchctl.compiler.compile import compile_topology, provisional
from vswitchctl.errors import RetryableError
from vswitchctl.model.intent import (
    Intent,
    PolicyChange,
    Stored,
    allocate_meters,
    allocate_tags,
    allocate_zones,
)
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.state import DesiredState, Facts, ObservedNetlink, ObservedOvs
from vswitchctl.model.topology import Topology, entities
from vswitchctl.model.trace import TraceRequest, TraceView
from vswitchctl.model.views import (
    AclLogLine,
    AclRuleView,
    BridgeView,
    FlowCount,
    FlowView,
    HostView,
    LinkView,
    OperationView,
    PlanView,
    PortView,
    Status,
    TenantView,
    TopologyDetail,
    TopologyDocument,
    TopologyView,
)
from vswitchctl.model.vm_views import LibvirtNetworkView, NicRequest, VmView
from vswitchctl.operations import Operations
from vswitchctl.pipeline.app import App
from vswitchctl.pipeline.tables import ACL_FROM, ACL_TO
from vswitchctl.reconcile.delta import diff
from vswitchctl.reconcile.loop import Loop
from vswitchctl.reconcile.plan import plan_wiring
from vswitchctl.service.acl_log import AclLog
from vswitchctl.service.acls import acl_views
from vswitchctl.service.flows import FlowService
from vswitchctl.service.policy import PolicyStore, PolicyWriter
from vswitchctl.service.refuse import (
    find,
    refuse_bypassed,
    refuse_conflicts,
    refuse_invalid,
    refuse_loss_of_tc,
    refuse_taken_nics,
    refuse_unenforced,
    warnings_of,
)
from vswitchctl.service.show import (
    Statuses,
    change_view,
    flow_changes,
    link_views,
    meter_changes,
    tenant_view,
    topology_view,
)
from vswitchctl.service.trace import TraceService
from vswitchctl.service.trace_walk import Appctl
from vswitchctl.service.vms import VmService

RULE_TABLES = (ACL_FROM.id, ACL_TO.id)
"""Where a rule's flows are, and its counters: of a conjunction its verdict alone counts."""


class Store(PolicyStore, Protocol):
    """The intent database, as the service writes and reads it."""

    def read(self) -> Intent: ...

    def write(
        self, topology: Topology, sources: Mapping[str, str], *, expected_generation: int | None = None
    ) -> Stored: ...

    def delete(self, name: str) -> None: ...


class HostService:
    """One host's daemon. Thread-safe: reads of the outside hold the loop's lock."""

    def __init__(
        self, host: str, store: Store, loop: Loop, apps: Sequence[App], log: AclLog, appctl: Appctl
    ) -> None:
        self._host = host
        self._store = store
        self._loop = loop
        self._apps = apps
        self._acl_log = log
        self._operations = Operations(loop)
        self._policy = PolicyWriter(store)
        self._vms = VmService(store, loop)
        self._flows = FlowService(store, loop)
        self._trace = TraceService(self._flows, loop, appctl)

    # -- plan, apply, destroy ----------------------------------------------------------------------------

    def plan(self, document: TopologyDocument, *, flows: bool = False) -> PlanView:
        """See `Service.plan`."""
        intent = self._store.read()
        refuse_invalid(document.topology, intent.get(document.topology.name))
        with self._loop.lock:
            return self._plan(document, intent, flows=flows)

    def _plan(self, document: TopologyDocument, intent: Intent, *, flows: bool) -> PlanView:
        topology = document.topology
        stored = intent.get(topology.name)
        taken = {
            zone for name, other in intent.items() if name != topology.name for zone in other.zones.values()
        }
        candidate = Stored(
            topology,
            stored.generation if stored else 0,
            allocate_tags(topology, stored.tags if stored else {}),
            document.sources,
            allocate_zones(topology, stored.zones if stored else {}, taken),
            allocate_meters(topology, stored.meters if stored else {}),
        )
        netlink, ovs = self._loop.netlink.read(), self._loop.ovs.read()
        facts = self._loop.facts(ovs, netlink)
        self._refuse(topology, intent, netlink, ovs, facts)
        desired = compile_topology(candidate, facts, self._apps)
        if desired.pending:
            desired = compile_topology(candidate, provisional(desired, facts), self._apps)
        return self._view(
            candidate, desired, netlink, ovs, flows=flows, warnings=warnings_of(topology, netlink, facts)
        )

    def plan_destroy(self, name: str) -> PlanView:
        """See `Service.plan_destroy`."""
        with self._loop.lock:
            stored = find(self._store.read(), name)
            netlink, ovs = self._loop.netlink.read(), self._loop.ovs.read()
            return self._view(stored, DesiredState(), netlink, ovs, flows=False, warnings=())

    def _view(
        self,
        stored: Stored,
        desired: DesiredState,
        netlink: ObservedNetlink,
        ovs: ObservedOvs,
        *,
        flows: bool,
        warnings: tuple[str, ...],
    ) -> PlanView:
        name = stored.topology.name
        changes = [
            c for c in plan_wiring(desired.netlink, desired.ovs, netlink, ovs) if c.owner.topology == name
        ]
        views = [change_view(change, stored.sources) for change in changes]
        counts = []
        foreign = [f"{f.kind} {f.name}" for f in ovs.foreign]
        mine = {bridge for bridge, spec in ovs.owned.bridges.items() if spec.owner.topology == name}
        for bridge in sorted(mine | desired.flows.keys()):
            there = self._loop.flows(bridge).owned if bridge in mine else {}
            meters = self._loop.meters(bridge) if bridge in mine else None
            change = diff(desired.meters.get(bridge, {}), meters.owned if meters is not None else {})
            views.extend(meter_changes(bridge, change, desired.meter_owners, stored))
            foreign += [f"meter {bridge}:{one}" for one in (meters.foreign if meters is not None else ())]
            delta = diff(desired.flows.get(bridge, {}), there)
            if delta:
                counts.append(
                    FlowCount(
                        bridge=bridge, add=len(delta.add), change=len(delta.change), remove=len(delta.remove)
                    )
                )
            if flows:
                views.extend(flow_changes(bridge, delta, desired, stored))
        return PlanView(
            topology=name,
            generation=stored.generation,
            changes=tuple(views),
            flows=tuple(counts),
            warnings=warnings,
            foreign=tuple(sorted(foreign)),
        )

    def apply(self, document: TopologyDocument, *, expected_generation: int | None = None) -> OperationView:
        """See `Service.apply`. Nothing is stored of a document that is invalid or in conflict."""
        topology = document.topology
        intent = self._store.read()
        refuse_invalid(topology, intent.get(topology.name))
        with self._loop.lock:
            netlink, ovs = self._loop.netlink.read(), self._loop.ovs.read()
            facts = self._loop.facts(ovs, netlink)
        self._refuse(topology, intent, netlink, ovs, facts)
        since = self._operations.moment()
        stored = self._store.write(topology, document.sources, expected_generation=expected_generation)
        return self._operations.begin("apply", topology.name, stored.generation, since)

    def _refuse(
        self, topology: Topology, intent: Intent, netlink: ObservedNetlink, ovs: ObservedOvs, facts: Facts
    ) -> None:
        """Raise Conflict where the host cannot be as the document says."""
        refuse_conflicts(topology, intent, netlink, ovs)
        refuse_bypassed(topology, facts.vms)
        refuse_taken_nics(topology, intent, facts.vms)
        refuse_loss_of_tc(topology, ovs, self._loop.netlink.ingress_filtered)
        refuse_unenforced(topology, facts, lambda kind: self._loop.most_meters(kind, ovs))

    def change_policy(
        self, topology: str, change: PolicyChange, *, expected_generation: int | None = None
    ) -> OperationView:
        """See `Service.change_policy`."""
        since = self._operations.moment()
        stored = self._policy.write(topology, change, expected_generation=expected_generation)
        return self._operations.begin("apply", topology, stored.generation, since)

    def document(self, topology: str) -> Topology:
        """See `Service.document`."""
        return find(self._store.read(), topology).topology

    def destroy(self, name: str) -> OperationView:
        """See `Service.destroy`."""
        stored = find(self._store.read(), name)
        since = self._operations.moment()
        self._store.delete(name)
        return self._operations.begin("destroy", name, stored.generation, since)

    def operation(self, operation_id: str) -> OperationView:
        """See `Service.operation`."""
        return self._operations.get(operation_id)

    def wait_operation(self, operation_id: str, seen: OperationView | None, timeout: float) -> OperationView:
        """See `Service.wait_operation`."""
        return self._operations.wait(operation_id, seen, timeout)

    # -- what is -----------------------------------------------------------------------------------------

    def topologies(self) -> tuple[TopologyView, ...]:
        """See `Service.topologies`."""
        last, _ = self._loop.current()
        return tuple(topology_view(stored, last) for _, stored in sorted(self._store.read().items()))

    def topology(self, name: str) -> TopologyDetail:
        """See `Service.topology`."""
        stored = find(self._store.read(), name)
        last, _ = self._loop.current()
        states = Statuses(last)
        return TopologyDetail(
            view=topology_view(stored, last),
            document=stored.topology,
            tags=dict(stored.tags),
            entities=tuple(states.entity(stored, entity) for entity in entities(stored.topology)),
        )

    def hosts(self) -> tuple[HostView, ...]:
        """See `Service.hosts`."""
        last, _ = self._loop.current()
        failed = [name for name, outcome in last.outcomes.items() if not outcome.verified]
        status = Status.STALE if last.stale else Status.FAILED if failed else Status.IN_SYNC
        reason = last.stale or (f"{len(failed)} of the topologies are not in sync" if failed else "")
        datapath, version = "", ""
        try:
            with self._loop.lock:
                ovs = self._loop.ovs.read()
            datapath = "system" if self._loop.system_datapath(ovs) else "netdev"
            version = self._loop.ovs.version
        except RetryableError as error:
            status, reason = Status.STALE, str(error)
        return (
            HostView(
                name=self._host,
                status=status,
                reason=reason,
                datapath=datapath,
                ovs_version=version,
                topologies=len(self._store.read()),
                flows=sum(len(table) for table in last.desired.flows.values()),
                last_sync_seconds=last.seconds,
            ),
        )

    def bridges(self) -> tuple[BridgeView, ...]:
        """See `Service.bridges`."""
        last, _ = self._loop.current()
        states = Statuses(last)
        ports = Counter(key.bridge for key in last.desired.ovs.ports)
        masters = Counter(
            end.master
            for veth in last.desired.netlink.veths.values()
            for end in (veth.a, veth.b)
            if end.master
        )
        found = []
        for name, bridge in sorted(last.desired.ovs.bridges.items()):
            status, reason = states.of(bridge.owner)
            flows, foreign = self._flow_counts(name)
            found.append(
                BridgeView(
                    name=name, kind="bridge", topology=bridge.owner.topology, datapath=bridge.datapath_type,
                    ports=ports[name], flows=flows, foreign_flows=foreign, status=status, reason=reason,
                )
            )  # fmt: skip
        for name, linux in sorted(last.desired.netlink.linux_bridges.items()):
            status, reason = states.of(linux.owner)
            found.append(
                BridgeView(
                    name=name, kind="linux-bridge", topology=linux.owner.topology,
                    ports=masters[name], status=status, reason=reason,
                )
            )  # fmt: skip
        return tuple(found)

    def _flow_counts(self, bridge: str) -> tuple[int, int]:
        try:
            read = self._loop.flows(bridge)
        except RetryableError:
            return 0, 0
        return len(read.owned), len(read.foreign)

    def ports(self) -> tuple[PortView, ...]:
        """See `Service.ports`."""
        last, _ = self._loop.current()
        states = Statuses(last)
        with self._loop.lock:
            ofports = self._loop.ovs.read().ofports
        found = []
        for key, port in sorted(last.desired.ovs.ports.items()):
            status, reason = states.of(port.owner)
            found.append(
                PortView(
                    bridge=key.bridge, name=key.name, ofport=ofports.get(key), type=port.type or "system",
                    topology=port.owner.topology, entity=port.owner.entity, status=status, reason=reason,
                )
            )  # fmt: skip
        return tuple(found)

    def links(self) -> tuple[LinkView, ...]:
        """See `Service.links`."""
        last, _ = self._loop.current()
        states = Statuses(last)
        return tuple(
            view for _, stored in sorted(self._store.read().items()) for view in link_views(stored, states)
        )

    def tenants(self) -> tuple[TenantView, ...]:
        """See `Service.tenants`."""
        last, _ = self._loop.current()
        states = Statuses(last)
        return tuple(
            tenant_view(stored, name, states)
            for _, stored in sorted(self._store.read().items())
            for name in stored.topology.tenants
        )

    def acls(self, topology: str | None = None) -> tuple[AclRuleView, ...]:
        """See `Service.acls`."""
        intent = self._store.read()
        names = sorted(intent) if topology is None else [find(intent, topology).topology.name]
        chosen = [intent[name] for name in names]
        counts = self._counts({stored.topology.name for stored in chosen if stored.topology.acls})
        return tuple(view for stored in chosen for view in acl_views(stored, counts))

    def _counts(self, topologies: Collection[str]) -> dict[int, tuple[int, int]]:
        """(packets, bytes) by cookie in the tables of rules, on the bridges of these topologies."""
        packets, octets = Counter[int](), Counter[int]()
        last, _ = self._loop.current()
        for bridge, spec in sorted(last.desired.ovs.bridges.items()):
            if spec.owner.topology in topologies:
                for cookie, (some, size) in self._loop.openflow.counts(bridge, RULE_TABLES).items():
                    packets[cookie] += some
                    octets[cookie] += size
        return {cookie: (packets[cookie], octets[cookie]) for cookie in packets}

    def acl_log(self, after: int = 0, timeout: float = 0.0) -> tuple[AclLogLine, ...]:
        """See `Service.acl_log`."""
        return self._acl_log.lines(after, timeout)

    def vms(self) -> tuple[VmView, ...]:
        """See `Service.vms`."""
        return self._vms.vms()

    def libvirt_networks(self) -> tuple[LibvirtNetworkView, ...]:
        """See `Service.libvirt_networks`."""
        return self._vms.networks()

    def discover(self, name: str, tenant: str) -> Topology:
        """See `Service.discover`."""
        return self._vms.discover(name, tenant)

    def attach(self, domain: str, request: NicRequest) -> None:
        """See `Service.attach`."""
        self._vms.attach(domain, request)

    def detach(self, domain: str, mac: str, *, config: bool) -> None:
        """See `Service.detach`."""
        self._vms.detach(domain, mac, config=config)

    def flows(self, query: FlowQuery) -> Iterator[FlowView]:
        """See `Service.flows`."""
        return self._flows.flows(query)

    def trace(self, request: TraceRequest) -> TraceView:
        """See `Service.trace`."""
        return self._trace.trace(request)
