"""A Service that keeps topologies in memory: real plans and operations of documents, with no host below.

It stands for the daemon where a test is about HTTP or the command line. What the daemon does to a host is
tested on real switches elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from vswitchctl.errors import Conflict, NotFound
from vswitchctl.model.intent import PolicyChange
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.topology import Bridge, LinuxBridge, Namespace, Topology, link_name
from vswitchctl.model.trace import TraceRequest, TraceView
from vswitchctl.model.views import (
    AclLogLine,
    AclRuleView,
    BridgeView,
    ChangeView,
    EntityStatus,
    FlowCount,
    FlowView,
    HostView,
    LinkView,
    OperationState,
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
from vswitchctl.topology.nearest import one_of

KINDS = {"bridge": "bridge", "linux-bridge": "linux-bridge", "namespace": "namespace", "uplink": "port"}


@dataclass
class Stored:
    document: TopologyDocument
    generation: int
    broken: dict[str, str] = field(default_factory=dict)


class MemoryService:
    """`failing`: entity -> why its change is refused. `gate`: operations advance only while it is set.

    `watched` is set once somebody waits for an operation.
    """

    def __init__(self) -> None:
        self.failing: dict[str, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.watched = threading.Event()
        self.trace_views: dict[str, TraceView] = {}
        self.traced: list[TraceRequest] = []
        self.queries: list[FlowQuery] = []
        self.flow_views: dict[str, tuple[FlowView, ...]] = {}
        self.rule_views: tuple[AclRuleView, ...] = ()
        self.vm_views: tuple[VmView, ...] = ()
        self.network_views: tuple[LibvirtNetworkView, ...] = ()
        self.attached: list[tuple[str, NicRequest]] = []
        self.detached: list[tuple[str, str, bool]] = []
        self.log_lines: tuple[AclLogLine, ...] = ()
        self._stored: dict[str, Stored] = {}
        self._operations: dict[str, OperationView] = {}
        self._changed = threading.Condition()

    def topologies(self) -> tuple[TopologyView, ...]:
        with self._changed:
            return tuple(_view(stored) for stored in self._stored.values())

    def topology(self, name: str) -> TopologyDetail:
        stored = self._find(name)
        topology = stored.document.topology
        return TopologyDetail(
            view=_view(stored),
            document=topology,
            tags={network: number for number, network in enumerate(topology.networks, 1)},
            entities=tuple(_status(stored, entity) for entity in _entities(topology)),
        )

    def plan(self, document: TopologyDocument, *, flows: bool = False) -> PlanView:
        with self._changed:
            stored = self._stored.get(document.topology.name)
        old = _entities(stored.document.topology) if stored else {}
        return _plan(document, old, _entities(document.topology), stored.generation if stored else 0, flows)

    def plan_destroy(self, name: str) -> PlanView:
        stored = self._find(name)
        return _plan(stored.document, _entities(stored.document.topology), {}, stored.generation, False)

    def apply(self, document: TopologyDocument, *, expected_generation: int | None = None) -> OperationView:
        name = document.topology.name
        plan = self.plan(document)
        with self._changed:
            generation = self._stored[name].generation if name in self._stored else 0
            if expected_generation not in (None, generation):
                raise Conflict(f"'{name}' is at generation {generation} by now", "plan again")
            stored = Stored(document, generation + 1)
            self._stored[name] = stored
        return self._start("apply", plan, stored)

    def document(self, topology: str) -> Topology:
        return self._find(topology).document.topology

    def change_policy(
        self, topology: str, change: PolicyChange, *, expected_generation: int | None = None
    ) -> OperationView:
        found = self._find(topology).document
        if change.value is None and change.name not in getattr(found.topology, change.section):
            raise NotFound(f"topology '{topology}' has no {change.noun} '{change.name}'")
        sources = {**found.sources, change.entity: change.source}
        changed = TopologyDocument(topology=change.applied(found.topology), sources=sources)
        return self.apply(changed, expected_generation=expected_generation)

    def destroy(self, name: str) -> OperationView:
        plan = self.plan_destroy(name)
        with self._changed:
            stored = self._stored.pop(name)
        return self._start("destroy", plan, stored)

    def operation(self, operation_id: str) -> OperationView:
        with self._changed:
            if operation_id not in self._operations:
                raise NotFound(f"no operation '{operation_id}'")
            return self._operations[operation_id]

    def wait_operation(self, operation_id: str, seen: OperationView | None, timeout: float) -> OperationView:
        self.operation(operation_id)
        self.watched.set()
        with self._changed:
            self._changed.wait_for(lambda: self._operations[operation_id] != seen, timeout)
            return self._operations[operation_id]

    def hosts(self) -> tuple[HostView, ...]:
        return (HostView(name="hv1", status=Status.IN_SYNC, datapath="netdev", ovs_version="3.1.0"),)

    def bridges(self) -> tuple[BridgeView, ...]:
        return tuple(
            BridgeView(
                name=name,
                kind=node.kind,
                topology=topology.name,
                datapath="netdev",
                ports=sum(name in link.ends for link in topology.links),
                status=Status.IN_SYNC,
            )
            for topology in self._topologies()
            for name, node in topology.nodes.items()
            if isinstance(node, Bridge | LinuxBridge)
        )

    def ports(self) -> tuple[PortView, ...]:
        return tuple(
            PortView(
                bridge=end,
                name=f"p{number}",
                ofport=number,
                topology=topology.name,
                entity=f"links/{link_name(link)}",
                status=Status.IN_SYNC,
            )
            for topology in self._topologies()
            for number, link in enumerate(topology.links, 1)
            for end in link.ends
            if isinstance(topology.nodes.get(end), Bridge)
        )

    def links(self) -> tuple[LinkView, ...]:
        return tuple(
            LinkView(
                topology=stored.document.topology.name,
                name=link_name(link),
                a=link.ends[0],
                b=link.ends[1],
                kind=link.kind,
                cost=link.cost,
                status=_status(stored, f"links/{link_name(link)}").status,
                reason=_status(stored, f"links/{link_name(link)}").reason,
            )
            for stored in self._all()
            for link in stored.document.topology.links
        )

    def tenants(self) -> tuple[TenantView, ...]:
        return tuple(
            TenantView(
                topology=topology.name,
                name=tenant,
                networks=tuple(name for name, net in topology.networks.items() if net.tenant == tenant),
                namespaces=tuple(
                    name
                    for name, node in topology.nodes.items()
                    if isinstance(node, Namespace) and node.tenant == tenant
                ),
                endpoints=len(topology.endpoints()),
                status=Status.IN_SYNC,
            )
            for topology in self._topologies()
            for tenant in topology.tenants
        )

    def flows(self, query: FlowQuery) -> Iterator[FlowView]:
        self.queries.append(query)
        if query.bridge is not None and query.bridge not in self.flow_views:
            known = [view.name for view in self.bridges()]
            raise NotFound(f"no bridge '{query.bridge}'", one_of(query.bridge, known, "bridges are:"))
        return (
            view
            for bridge, views in self.flow_views.items()
            if query.bridge in (None, bridge)
            for view in views[: query.limit]
        )

    def trace(self, request: TraceRequest) -> TraceView:
        self.traced.append(request)
        if request.source not in self.trace_views:
            raise NotFound(f"no end '{request.source}'")
        return self.trace_views[request.source]

    def vms(self) -> tuple[VmView, ...]:
        return self.vm_views

    def libvirt_networks(self) -> tuple[LibvirtNetworkView, ...]:
        return self.network_views

    def discover(self, name: str, tenant: str) -> Topology:
        return Topology.model_validate({"name": name, "tenants": {tenant: {}}})

    def attach(self, domain: str, request: NicRequest) -> None:
        self._domain(domain)
        self.attached.append((domain, request))

    def detach(self, domain: str, mac: str, *, config: bool) -> None:
        self._domain(domain)
        self.detached.append((domain, mac, config))

    def _domain(self, name: str) -> None:
        if name not in {view.domain for view in self.vm_views}:
            raise NotFound(f"no domain '{name}'", "list them: vswitchctl vm list")

    def acls(self, topology: str | None = None) -> tuple[AclRuleView, ...]:
        names = None if topology is None else {self._find(topology).document.topology.name}
        return tuple(view for view in self.rule_views if names is None or view.topology in names)

    def acl_log(self, after: int = 0, timeout: float = 0.0) -> tuple[AclLogLine, ...]:
        return tuple(line for line in self.log_lines if line.number > after)

    def _all(self) -> list[Stored]:
        with self._changed:
            return list(self._stored.values())

    def _topologies(self) -> Iterator[Topology]:
        return (stored.document.topology for stored in self._all())

    def _find(self, name: str) -> Stored:
        with self._changed:
            if name not in self._stored:
                raise NotFound(f"no topology '{name}'")
            return self._stored[name]

    def _start(self, kind: str, plan: PlanView, stored: Stored) -> OperationView:
        view = OperationView(
            id=f"op-{len(self._operations) + 1}",
            topology=plan.topology,
            kind=kind,
            generation=stored.generation,
            state=OperationState.RUNNING,
            total=len(plan.changes),
        )
        self._publish(view)
        threading.Thread(target=self._work, args=(view, plan, stored), daemon=True).start()
        return view

    def _work(self, view: OperationView, plan: PlanView, stored: Stored) -> None:
        begun = time.monotonic()
        for done, change in enumerate(plan.changes, 1):
            self.gate.wait()
            if change.entity in self.failing:
                stored.broken[change.entity] = self.failing[change.entity]
            view = view.model_copy(update={"done": done, "step": f"{change.kind} {change.name}"})
            self._publish(view)
        errors = tuple(f"{entity}: {reason}" for entity, reason in stored.broken.items())
        state = OperationState.FAILED if errors else OperationState.DONE
        seconds = time.monotonic() - begun
        self._publish(view.model_copy(update={"state": state, "errors": errors, "seconds": seconds}))

    def _publish(self, view: OperationView) -> None:
        with self._changed:
            self._operations[view.id] = view
            self._changed.notify_all()


def _entities(topology: Topology) -> dict[str, tuple[str, object]]:
    """Entity -> (kind of its resource, what is declared)."""
    nodes = {f"nodes/{name}": (KINDS[node.kind], node) for name, node in topology.nodes.items()}
    return nodes | {f"links/{link_name(link)}": ("veth", link) for link in topology.links}


def _plan(
    document: TopologyDocument,
    old: dict[str, tuple[str, object]],
    new: dict[str, tuple[str, object]],
    generation: int,
    flows: bool,
) -> PlanView:
    changes = [
        *(_change(document, "add", entity, new, "is declared") for entity in new if entity not in old),
        *(
            _change(document, "change", entity, new, "is declared otherwise")
            for entity in new
            if entity in old and old[entity] != new[entity]
        ),
        *(_change(document, "remove", entity, old, "is not declared") for entity in old if entity not in new),
    ]
    count = len([change for change in changes if change.kind == "bridge"])
    flow_changes = tuple(
        ChangeView(
            action=change.action,
            kind="flow",
            name=f"{change.name}:l2",
            entity=change.entity,
            reason="the bridge needs it",
        )
        for change in changes
        if flows and change.kind == "bridge"
    )
    return PlanView(
        topology=document.topology.name,
        generation=generation,
        changes=(*changes, *flow_changes),
        flows=(FlowCount(bridge="br-a", add=count),) if count else (),
    )


def _change(
    document: TopologyDocument,
    action: str,
    entity: str,
    entities: dict[str, tuple[str, object]],
    reason: str,
) -> ChangeView:
    return ChangeView(
        action=action,
        kind=entities[entity][0],
        name=entity.partition("/")[2],
        entity=entity,
        reason=f"{entity} {reason}",
        source=document.sources.get(entity),
    )


def _status(stored: Stored, entity: str) -> EntityStatus:
    reason = stored.broken.get(entity, "")
    return EntityStatus(
        entity=entity,
        status=Status.FAILED if reason else Status.IN_SYNC,
        reason=reason,
        source=stored.document.sources.get(entity),
    )


def _view(stored: Stored) -> TopologyView:
    topology = stored.document.topology
    return TopologyView(
        name=topology.name,
        description=topology.description,
        generation=stored.generation,
        applied=stored.generation,
        status=Status.FAILED if stored.broken else Status.IN_SYNC,
        reason=next(iter(stored.broken.values()), ""),
        nodes=len(topology.nodes),
        networks=len(topology.networks),
        links=len(topology.links),
    )
