"""compile(intent, facts) -> desired state. Pure: the same input gives byte-identical output.

Stages run again only where their input changed, which shows in its identity: what nobody changed stays the
same object in the intent database's replica and in the drivers. So a changed rule costs what the rule costs.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

from vswitchctl.compiler.collecting import without_collecting
from vswitchctl.compiler.flows import FlowCompiler
from vswitchctl.compiler.policy import AclSets, set_numbers
from vswitchctl.compiler.switching import Numbered, SwitchCompiler, covered, numbered_ports, unnumbered
from vswitchctl.compiler.wiring import Wiring, WiringCompiler
from vswitchctl.errors import InternalError
from vswitchctl.latest import Latest, Steady, same
from vswitchctl.model.flow import PartedTable
from vswitchctl.model.intent import Intent, Stored
from vswitchctl.model.meter import Meter
from vswitchctl.model.state import DesiredState, Facts, NetlinkState, OvsState, Owner, PortKey
from vswitchctl.model.switch import AclSet, Coverage, Switch
from vswitchctl.model.topology import Bridge, Topology, Vm, entities
from vswitchctl.pipeline.app import App, MeterApp
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.topology.check_policy import SECTIONS

State = TypeVar("State", NetlinkState, OvsState)


def compile_topology(stored: Stored, facts: Facts, apps: Sequence[App]) -> DesiredState:
    """One topology's share of the host. Ports without an ofport have no flows yet and stand in `pending`."""
    return TopologyCompiler(apps).compile(stored, facts)


def compile_meters(switch: Switch, apps: Sequence[App]) -> tuple[Meter, ...]:
    """The meters that the flows of one bridge use. Raises InternalError where two have the same id."""
    found = tuple(meter for app in apps if isinstance(app, MeterApp) for meter in app.meters(switch))
    if len({meter.id for meter in found}) != len(found):
        raise InternalError(f"meters of bridge '{switch.name}' have the id of another meter")
    return found


def provisional(desired: DesiredState, facts: Facts) -> Facts:
    """Facts as they will be once ports exist: unnumbered ports get made-up numbers. For plans only."""
    missing = (key for key in desired.ovs.ports if key not in facts.ofports)
    made_up: dict[PortKey, int] = {key: 0xE000 + index for index, key in enumerate(missing)}
    return replace(facts, ofports={**facts.ofports, **made_up})


class TopologyCompiler:
    """Compiles one topology again and again."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._apps = apps
        self._layout_of = _Layout()
        self._facts = Latest(_own_facts)
        self._same_facts = Steady[Facts]()
        self._same_tags, self._same_zones = Steady[Mapping[str, int]](), Steady[Mapping[str, int]]()
        self._same_meters = Steady[Mapping[str, int]]()
        self._wiring = WiringCompiler()
        self._numbered, self._same_numbered = Latest(numbered_ports), Steady[tuple[Numbered, ...]]()
        self._set_numbers = Latest(set_numbers)
        self._switches = Latest(SwitchCompiler().compile)
        self._acl_sets = AclSets()
        self._coverage = Steady[Mapping[int, Coverage]]()
        self._covered = Latest(covered)
        self._cookies = Latest(_cookies), Latest(_cookies)
        self._pending = Latest(_pending)
        self._compile_meters = Latest(self._meters_of)
        self._flows: dict[str, _BridgeCompiler] = {}

    @without_collecting
    def compile(self, stored: Stored, facts: Facts) -> DesiredState:
        """The desired state; parts of it that did not change are the objects they were."""
        layout, policy = self._layout_of(stored.topology)
        own = self._same_facts(self._facts(layout, *_inputs(facts)))
        wiring = self._wiring.compile(layout, own)
        ports = self._same_numbered(self._numbered(wiring, own))
        numbers = self._set_numbers(layout)
        tags, zones = self._same_tags(stored.tags), self._same_zones(stored.zones)
        meters = self._same_meters(stored.meters)
        bare = self._switches(layout, tags, zones, meters, numbers, ports)
        acl_sets = self._acl_sets(stored.topology, numbers)
        switches = self._covered(bare, self._coverage({s.number: s.coverage for s in acl_sets}))
        metered = self._compile_meters(bare)
        cookies = [make(part) for make, part in zip(self._cookies, (layout, policy), strict=True)]
        return DesiredState(
            netlink=wiring.netlink,
            ovs=wiring.ovs,
            flows=self._compile_flows(switches, acl_sets),
            cookies=_chained(cookies),
            pending=self._pending(layout, wiring, own),
            remarks=dict(wiring.remarks),
            meters={name: {meter.id: meter.value for meter in found} for name, found in metered.items()},
            meter_owners={
                (name, meter.id): meter.owner for name, found in metered.items() for meter in found
            },
        )

    def _compile_flows(
        self, switches: Sequence[tuple[Switch, frozenset[int]]], acl_sets: tuple[AclSet, ...]
    ) -> dict[str, PartedTable]:
        kept = self._flows
        self._flows = {bare.name: kept.get(bare.name) or _BridgeCompiler(self._apps) for bare, _ in switches}
        return {bare.name: self._flows[bare.name].compile(bare, used, acl_sets) for bare, used in switches}

    def _meters_of(self, switches: Sequence[Switch]) -> dict[str, tuple[Meter, ...]]:
        return {switch.name: compile_meters(switch, self._apps) for switch in switches}


class _BridgeCompiler:
    """The flows of one bridge."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._used = Latest(_used)
        self._flows = FlowCompiler(apps)

    def compile(self, bare: Switch, used: frozenset[int], acl_sets: tuple[AclSet, ...]) -> PartedTable:
        return self._flows.compile(replace(bare, acl_sets=self._used(used, acl_sets)))


def _used(numbers: frozenset[int], acl_sets: tuple[AclSet, ...]) -> tuple[AclSet, ...]:
    return tuple(acl_set for acl_set in acl_sets if acl_set.number in numbers)


class _Layout:
    """A topology's two halves: without its policy, and the policy alone; each the same while it can be."""

    def __init__(self) -> None:
        self._known: dict[bool, tuple[tuple[object, ...], Topology]] = {}

    def __call__(self, topology: Topology) -> tuple[Topology, Topology]:
        return self._half(topology, policy=False), self._half(topology, policy=True)

    def _half(self, topology: Topology, *, policy: bool) -> Topology:
        names = [n for n in Topology.model_fields if (n in SECTIONS) == policy]
        values = tuple(getattr(topology, name) for name in names)
        known = self._known.get(policy)
        if known is not None and same(known[0], values):
            return known[1]
        half = Topology(name=topology.name).model_copy(update=dict(zip(names, values, strict=True)))
        self._known[policy] = values, half
        return half


def _inputs(facts: Facts) -> tuple[object, ...]:
    return tuple(getattr(facts, spec.name) for spec in fields(Facts))


def _own_facts(layout: Topology, *host: Any) -> Facts:
    """What this topology needs to know of the host, whose facts come one by one."""
    facts = Facts(*host)
    bridges = {name for name, node in layout.nodes.items() if isinstance(node, Bridge)}
    domains = frozenset(node.domain for node in layout.nodes.values() if isinstance(node, Vm))
    return replace(
        facts,
        ofports={key: number for key, number in facts.ofports.items() if key.bridge in bridges},
        vms=facts.vms.of(domains),
        linux_bridges=facts.linux_bridges & layout.nodes.keys(),
    )


def _cookies(half: Topology) -> dict[int, Owner]:
    return {cookie(owner): owner for owner in (Owner(half.name, entity) for entity in entities(half))}


def _pending(layout: Topology, wiring: Wiring, facts: Facts) -> dict[Owner, str]:
    waiting = "Open vSwitch has not given port '{}' of bridge '{}' a number"
    return {
        wiring.ovs.ports[key].owner: waiting.format(key.name, key.bridge) for key in unnumbered(wiring, facts)
    }


class Compiler:
    """Compiles every topology of an intent."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._apps = apps
        self._compilers: dict[str, TopologyCompiler] = {}
        self._netlink, self._ovs = Latest(partial(_united, NetlinkState)), Latest(partial(_united, OvsState))

    @without_collecting
    def compile(self, intent: Intent, facts: Facts) -> DesiredState:
        """The whole host: the union of its topologies, which cannot claim the same device."""
        self._compilers = {
            name: self._compilers.get(name) or TopologyCompiler(self._apps) for name in sorted(intent)
        }
        parts = [compiler.compile(intent[name], facts) for name, compiler in self._compilers.items()]
        return DesiredState(
            netlink=self._netlink(*(part.netlink for part in parts)),
            ovs=self._ovs(*(part.ovs for part in parts)),
            flows={bridge: flows for part in parts for bridge, flows in part.flows.items()},
            meters={bridge: meters for part in parts for bridge, meters in part.meters.items()},
            meter_owners={key: owner for part in parts for key, owner in part.meter_owners.items()},
            cookies=_chained(part.cookies for part in parts),
            pending={owner: why for part in parts for owner, why in part.pending.items()},
            remarks={owner: remark for part in parts for owner, remark in part.remarks.items()},
        )


def _chained(maps: Iterable[Mapping[int, Owner]]) -> Mapping[int, Owner]:
    """Their union, without a look at what is in them."""
    return ChainMap(*maps)  # type: ignore[arg-type]  # nobody writes to it


def _united(kind: Callable[[], State], *parts: State) -> State:
    """The union of states of one kind, whose mappings have no key in common."""
    if len(parts) == 1:
        return parts[0]
    whole = kind()
    for part in parts:
        for spec in fields(part):
            getattr(whole, spec.name).update(getattr(part, spec.name))
    return whole
