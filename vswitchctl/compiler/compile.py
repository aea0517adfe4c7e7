"""compile(intent, facts) -> desired state. Pure: the same input gives byte-identical output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vswitchctl.compiler.switching import compile_switches, unnumbered
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.errors import InternalError
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.intent import Intent, Stored
from vswitchctl.model.state import DesiredState, Facts, NetlinkState, OvsState, Owner, PortKey
from vswitchctl.model.switch import Switch
from vswitchctl.model.topology import entities
from vswitchctl.pipeline.app import App
from vswitchctl.pipeline.cookies import cookie


def compile_topology(stored: Stored, facts: Facts, apps: Sequence[App]) -> DesiredState:
    """One topology's share of the host. Ports without an ofport have no flows yet and stand in `pending`."""
    topology = stored.topology
    wiring = compile_wiring(topology, facts)
    owners = (Owner(topology.name, entity) for entity in entities(topology))
    waiting = "Open vSwitch has not given port '{}' of bridge '{}' a number"
    return DesiredState(
        netlink=wiring.netlink,
        ovs=wiring.ovs,
        flows={
            switch.name: compile_flows(switch, apps) for switch in compile_switches(stored, wiring, facts)
        },
        cookies={cookie(owner): owner for owner in owners},
        pending={
            wiring.ovs.ports[key].owner: waiting.format(key.name, key.bridge)
            for key in unnumbered(wiring, facts)
        },
        remarks=dict(wiring.remarks),
    )


def compile_flows(switch: Switch, apps: Sequence[App]) -> FlowTable:
    """The flows of one bridge. Raises InternalError where two flows have the same match."""
    table: FlowTable = {}
    count = 0
    for app in apps:
        for key, value in app.compile(switch):
            table[key] = value
            count += 1
    if count != len(table):
        raise InternalError(
            f"{count - len(table)} flows of bridge '{switch.name}' have the match of another flow"
        )
    return table


def provisional(desired: DesiredState, facts: Facts) -> Facts:
    """Facts as they will be once ports exist: unnumbered ports get made-up numbers. For plans only."""
    missing = (key for key in desired.ovs.ports if key not in facts.ofports)
    made_up: dict[PortKey, int] = {key: 0xE000 + index for index, key in enumerate(missing)}
    return replace(facts, ofports={**facts.ofports, **made_up})


class Compiler:
    """Compiles every topology of an intent, and only those again whose input changed."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._apps = apps
        self._kept: dict[str, tuple[Stored, Facts, DesiredState]] = {}

    def compile(self, intent: Intent, facts: Facts) -> DesiredState:
        """The whole host: the union of its topologies, which cannot claim the same device."""
        for name in [name for name in self._kept if name not in intent]:
            del self._kept[name]
        return merge([self._one(intent[name], facts) for name in sorted(intent)])

    def _one(self, stored: Stored, facts: Facts) -> DesiredState:
        name = stored.topology.name
        nodes = stored.topology.nodes
        bridges = {node for node, spec in nodes.items() if spec.kind == "bridge"}
        domains = frozenset(node.domain for node in nodes.values() if node.kind == "vm")
        own = Facts(
            {key: n for key, n in facts.ofports.items() if key.bridge in bridges},
            facts.system_datapath,
            facts.vms.of(domains),
            facts.linux_bridges & nodes.keys(),
        )
        kept = self._kept.get(name)
        if kept is not None and kept[0] == stored and kept[1] == own:
            return kept[2]
        desired = compile_topology(stored, own, self._apps)
        self._kept[name] = (stored, own, desired)
        return desired


def merge(parts: Sequence[DesiredState]) -> DesiredState:
    """The union of desired states whose keys are disjoint."""
    whole = DesiredState(NetlinkState(), OvsState())
    for part in parts:
        whole.netlink.namespaces.update(part.netlink.namespaces)
        whole.netlink.linux_bridges.update(part.netlink.linux_bridges)
        whole.netlink.veths.update(part.netlink.veths)
        whole.netlink.taps.update(part.netlink.taps)
        whole.netlink.tuns.update(part.netlink.tuns)
        whole.ovs.bridges.update(part.ovs.bridges)
        whole.ovs.ports.update(part.ovs.ports)
        whole.flows.update(part.flows)
        whole.cookies.update(part.cookies)
        whole.pending.update(part.pending)
        whole.remarks.update(part.remarks)
    return whole
