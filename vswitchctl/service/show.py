"""From stored topologies and the last pass to the views of the API. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from vswitchctl.compiler.wiring import compile_wiring, link_kind
from vswitchctl.model.flow import Flow, FlowKey, FlowValue
from vswitchctl.model.intent import Stored
from vswitchctl.model.meter import MeterValue
from vswitchctl.model.plan import Action, Change
from vswitchctl.model.state import DesiredState, Facts, Owner
from vswitchctl.model.topology import EndpointNode, link_name
from vswitchctl.model.views import (
    ChangeView,
    EntityStatus,
    FlowView,
    LinkView,
    Status,
    TenantView,
    TopologyView,
)
from vswitchctl.pipeline.cookies import without_rule
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.meters import meter_text
from vswitchctl.reconcile.delta import Delta
from vswitchctl.reconcile.loop import Pass
from vswitchctl.reconcile.work import Outcome


class Statuses:
    """Status and reason of entities after a pass."""

    def __init__(self, last: Pass) -> None:
        self._last = last

    def of(self, owner: Owner) -> tuple[Status, str]:
        if self._last.stale:
            return Status.STALE, self._last.stale
        outcome = self._last.outcomes.get(owner.topology)
        if outcome is None:
            return Status.APPLYING, "not reconciled yet"
        if owner in outcome.failures:
            return Status.FAILED, outcome.failures[owner]
        if owner in outcome.pending:
            return Status.PENDING, outcome.pending[owner]
        if owner in outcome.remarks:
            return Status(outcome.remarks[owner].status), outcome.remarks[owner].reason
        return Status.IN_SYNC, ""

    def entity(self, stored: Stored, entity: str) -> EntityStatus:
        status, reason = self.of(Owner(stored.topology.name, entity))
        return EntityStatus(entity=entity, status=status, reason=reason, source=stored.sources.get(entity))

    def worst(self, owners: Iterable[Owner]) -> tuple[Status, str]:
        order = [
            Status.STALE, Status.FAILED, Status.APPLYING, Status.PENDING, Status.BYPASSES, Status.IN_SYNC,
        ]  # fmt: skip
        return min(
            (self.of(owner) for owner in owners),
            key=lambda s: order.index(s[0]),
            default=(Status.IN_SYNC, ""),
        )


def topology_view(stored: Stored, last: Pass) -> TopologyView:
    topology = stored.topology
    outcome = last.outcomes.get(topology.name)
    status, reason = _topology_status(stored, outcome, last.stale)
    return TopologyView(
        name=topology.name,
        description=topology.description,
        generation=stored.generation,
        applied=outcome.generation if outcome is not None and outcome.verified else 0,
        status=status,
        reason=reason,
        nodes=len(topology.nodes),
        networks=len(topology.networks),
        links=len(topology.links),
    )


def _topology_status(stored: Stored, outcome: Outcome | None, stale: str) -> tuple[Status, str]:
    if stale:
        return Status.STALE, stale
    if outcome is None or outcome.generation != stored.generation:
        return Status.APPLYING, ""
    for status, reasons in ((Status.FAILED, outcome.failures), (Status.PENDING, outcome.pending)):
        if reasons:
            owner, reason = min(reasons.items())
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            return status, f"{owner.entity}: {reason}{more}"
    return Status.IN_SYNC, ""


def link_views(stored: Stored, states: Statuses) -> Iterable[LinkView]:
    topology = stored.topology
    facts = Facts()
    wiring = compile_wiring(topology, facts)
    devices: dict[str, list[str]] = defaultdict(list)
    for veth in wiring.netlink.veths.values():
        devices[veth.owner.entity] += [end.name for end in (veth.a, veth.b) if not end.namespace]
    for key, port in wiring.ovs.ports.items():
        if key.name not in devices[port.owner.entity]:
            devices[port.owner.entity].append(key.name)
    for link in topology.links:
        entity = f"links/{link_name(link)}"
        status, reason = states.of(Owner(topology.name, entity))
        yield LinkView(
            topology=topology.name, name=link_name(link), a=link.ends[0], b=link.ends[1],
            kind=link_kind(topology, link, facts), cost=link.cost, devices=" ".join(devices[entity]),
            status=status, reason=reason,
        )  # fmt: skip


def tenant_view(stored: Stored, tenant: str, states: Statuses) -> TenantView:
    topology = stored.topology
    networks = tuple(name for name, net in topology.networks.items() if net.tenant == tenant)
    namespaces = tuple(
        name
        for name, node in topology.nodes.items()
        if isinstance(node, EndpointNode) and node.tenant == tenant
    )
    endpoints = [end for end, interface in topology.endpoints().items() if interface.network in networks]
    owned = [f"networks/{n}" for n in networks] + [f"nodes/{n}" for n in namespaces]
    ends = set(endpoints)
    owned += [f"links/{link_name(link)}" for link in topology.links if ends & set(link.ends)]
    status, reason = states.worst(Owner(topology.name, entity) for entity in owned)
    return TenantView(
        topology=topology.name, name=tenant, networks=networks, namespaces=namespaces,
        endpoints=len(endpoints), status=status, reason=reason,
    )  # fmt: skip


def change_view(change: Change, sources: Mapping[str, str]) -> ChangeView:
    return ChangeView(
        action=change.action.value,
        kind=change.kind.value,
        name=change.name if change.kind != "veth" else change.owner.entity.removeprefix("links/"),
        entity=change.owner.entity,
        reason=change.reason,
        source=sources.get(change.owner.entity),
    )


_FLOW_REASONS = {
    Action.ADD: "declared, not there",
    Action.CHANGE: "differs",
    Action.REMOVE: "no longer declared",
}


def flow_changes(
    bridge: str,
    delta: Delta[FlowKey, FlowValue],
    desired: DesiredState,
    stored: Stored,
) -> Iterable[ChangeView]:
    rows = [(Action.ADD, key, value, "") for key, value in delta.add.items()]
    rows += [
        (Action.CHANGE, key, value, describe(Flow(key, old)).actions_text)
        for key, (old, value) in delta.change.items()
    ]
    rows += [(Action.REMOVE, key, value, "") for key, value in delta.remove.items()]
    for action, key, value, old in rows:
        view = flow_view(bridge, Flow(key, value), desired.cookies)
        yield ChangeView(
            action=action.value,
            kind="flow",
            name=f"{bridge} {view.table},priority={view.priority},{view.match}",
            entity=view.entity,
            reason=_FLOW_REASONS[action],
            source=stored.sources.get(view.entity.partition("/")[2]),
            detail=f"{old} -> {view.actions}" if old else view.actions,
        )


def meter_changes(
    bridge: str, delta: Delta[int, MeterValue], owners: Mapping[tuple[str, int], Owner], stored: Stored
) -> Iterable[ChangeView]:
    """Meters say little by their number, so each names its limit. One that goes has no entity any more."""
    rows = [(Action.ADD, one, meter_text(value)) for one, value in delta.add.items()]
    rows += [
        (Action.CHANGE, one, f"{meter_text(old)} -> {meter_text(value)}")
        for one, (old, value) in delta.change.items()
    ]
    rows += [(Action.REMOVE, one, meter_text(value)) for one, value in delta.remove.items()]
    for action, one, detail in rows:
        owner = owners.get((bridge, one))
        entity = f"nodes/{bridge}" if owner is None else owner.entity
        yield ChangeView(
            action=action.value,
            kind="meter",
            name=f"{bridge}:{one}",
            entity=entity,
            reason=_FLOW_REASONS[action],
            source=stored.sources.get(entity),
            detail=detail,
        )


def flow_view(bridge: str, flow: Flow, cookies: Mapping[int, Owner]) -> FlowView:
    said = describe(flow)
    owner = cookies.get(without_rule(said.cookie))
    return FlowView(
        bridge=bridge,
        table=said.table_name,
        priority=said.priority,
        match=said.match_text,
        actions=said.actions_text,
        cookie=f"0x{said.cookie:016x}",
        entity=owner.text if owner is not None else "",
    )
