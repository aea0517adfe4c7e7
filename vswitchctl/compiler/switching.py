"""A topology's bridges as the apps see them: numbered ports, memberships, known MACs, flood sets. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from vswitchctl.compiler.endpoints import (
    mac_number,
    networks_with_strangers,
    own_addresses,
    port_security,
)
from vswitchctl.compiler.learning import learn_limit, network_limits
from vswitchctl.compiler.limits import limits_what_comes_in, port_limits
from vswitchctl.compiler.policy import Names
from vswitchctl.compiler.routing import OutsideHop, outside_hops, switch_routers
from vswitchctl.compiler.wiring import Wiring
from vswitchctl.latest import Latest
from vswitchctl.model.state import Facts, Owner, PortKey
from vswitchctl.model.switch import (
    Coverage,
    KnownAddress,
    KnownMac,
    Membership,
    NextHop,
    PortAcl,
    Switch,
    SwitchNetwork,
    SwitchPort,
)
from vswitchctl.model.topology import Bridge, LinuxBridge, Topology, Uplink
from vswitchctl.topology.graph import Forwarding, forwarding, wires

UNKNOWN = Coverage(covers_in=True, covers_out=True, rejects_in=True, rejects_out=True)
"""Of a set whose rules nobody has looked at yet."""


def learns(topology: Topology, network: str) -> bool:
    """Whether the network reaches what nobody declared: behind a Linux bridge or an uplink."""
    return any(
        (isinstance(node, LinuxBridge) and node.network == network)
        or (isinstance(node, Uplink) and (node.network == network or network in node.trunk))
        for node in topology.nodes.values()
    )


def unnumbered(wiring: Wiring, facts: Facts) -> Iterator[PortKey]:
    """Ports that Open vSwitch has not numbered yet; their flows follow once it has."""
    return (key for key in wiring.ports.values() if key not in facts.ofports)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A port with a number. towards: the end or switch that it leads to. owner: the link."""

    bridge: str
    towards: str
    ofport: int
    owner: Owner


def numbered_ports(wiring: Wiring, facts: Facts) -> tuple[Numbered, ...]:
    """The ports that Open vSwitch has numbered."""
    return tuple(
        Numbered(bridge, towards, facts.ofports[key], wiring.ovs.ports[key].owner)
        for (bridge, towards), key in wiring.ports.items()
        if key in facts.ofports
    )


def compile_switches(
    topology: Topology,
    tags: Mapping[str, int],
    zones: Mapping[str, int],
    meters: Mapping[str, int],
    acl_sets: Mapping[Names, int],
    ports: Iterable[Numbered],
) -> tuple[Switch, ...]:
    """Every Open vSwitch bridge of the topology; ports without a number are left out.

    Of its ACLs only the numbers of the sets are known yet: `covered` tells what follows from the rules.
    """
    return SwitchCompiler().compile(topology, tags, zones, meters, acl_sets, ports)


class SwitchCompiler:
    """Compiles the bridges of one topology again and again: what no number decides is worked out once."""

    def __init__(self) -> None:
        self._plans = Latest(_Plan)

    def compile(
        self,
        topology: Topology,
        tags: Mapping[str, int],
        zones: Mapping[str, int],
        meters: Mapping[str, int],
        acl_sets: Mapping[Names, int],
        ports: Iterable[Numbered],
    ) -> tuple[Switch, ...]:
        """See `compile_switches`."""
        build = _Switches(self._plans(topology, tags, zones, meters, acl_sets), ports)
        for network in topology.networks:
            build.network(network)
        return tuple(build.switch(name) for name, node in topology.nodes.items() if isinstance(node, Bridge))


def covered(
    switches: tuple[Switch, ...], coverage: Mapping[int, Coverage]
) -> tuple[tuple[Switch, frozenset[int]], ...]:
    """The same with each port's part in what its set covers, and the numbers of the sets in use."""
    found = []
    for switch in switches:
        ports = tuple(_cover(port, coverage) for port in switch.ports)
        used = frozenset(port.acl.set for port in ports if port.acl is not None)
        found.append((replace(switch, ports=ports), used))
    return tuple(found)


def _cover(port: SwitchPort, coverage: Mapping[int, Coverage]) -> SwitchPort:
    if port.acl is None:
        return port
    return replace(port, acl=replace(port.acl, coverage=coverage[port.acl.set]))


class _Plan:
    """What no number of a port decides; ports and MACs as they are with the numbers that they last had."""

    def __init__(
        self,
        topology: Topology,
        tags: Mapping[str, int],
        zones: Mapping[str, int],
        meters: Mapping[str, int],
        acl_sets: Mapping[Names, int],
    ) -> None:
        self.topology = topology
        self.tags = tags
        self.zones = zones
        self.meters = meters
        self.acl_sets = acl_sets
        self.limited_to = [end for end in topology.endpoints() if limits_what_comes_in(topology, end)]
        self.strangers = networks_with_strangers(topology)
        self.learn_limits = network_limits(topology)
        self.own_addresses = own_addresses(topology)
        self.routers = switch_routers(topology, tags)
        self.gateways = {net.tag: net.mac for _, router in self.routers for net in router.networks}
        self.memberships: dict[tuple[str, str], list[Membership]] = defaultdict(list)
        links = wires(topology)
        self.paths = {network: forwarding(topology, network, links) for network in topology.networks}
        for network, paths in self.paths.items():
            self._memberships(network, paths)
        self.known = {network: self._known(paths) for network, paths in self.paths.items()}
        self._ports: dict[tuple[str, str], SwitchPort] = {}
        self._macs: dict[tuple[str, int, int], KnownMac] = {}
        self._addresses: dict[tuple[str, str], tuple[KnownAddress, ...]] = {}

    def port(self, at: Numbered) -> SwitchPort:
        """The same object as long as its number is."""
        towards = at.towards
        kept = self._ports.get((at.bridge, towards))
        if kept is None:
            kept = SwitchPort(
                at.ofport,
                at.owner,
                tuple(self.memberships[at.bridge, towards]),
                endpoint=self.topology.interface(towards) is not None,
                security=port_security(self.topology, towards),
                acl=self._acl(towards),
                limits=port_limits(self.topology, self.meters, towards),
            )
        elif kept.ofport != at.ofport:
            kept = replace(kept, ofport=at.ofport)
        self._ports[at.bridge, towards] = kept
        return kept

    def mac(self, bridge: str, tag: int, mac: int, ofport: int, owner: Owner) -> KnownMac:
        """The same object as long as it is where it was."""
        kept = self._macs.get((bridge, tag, mac))
        if kept is None or kept.ofport != ofport:
            kept = self._macs[bridge, tag, mac] = KnownMac(tag, mac, ofport, owner)
        return kept

    def addresses(
        self, bridge: str, end: str, tag: int, mac: int, here: int | None, owner: Owner
    ) -> tuple[KnownAddress, ...]:
        """The same objects as long as the end is where it was."""
        own = self.own_addresses.get(end, ())
        kept = self._addresses.get((bridge, end))
        if own and (kept is None or kept[0].ofport != here):
            kept = self._addresses[bridge, end] = tuple(
                KnownAddress(tag, version, address, mac, here, owner) for version, address in own
            )
        return kept or ()

    def owner(self, entity: str) -> Owner:
        return Owner(self.topology.name, entity)

    def _known(self, paths: Forwarding) -> list[tuple[int, str, str, Owner]]:
        """(MAC, end, the bridge it is at, owner) of each endpoint."""
        return [
            (mac_number(self.topology.endpoint_mac(end)), end, switch, self.owner(f"interfaces/{end}"))
            for end, switch in paths.attached.items()
            if self.topology.interface(end) is not None
        ]

    def _acl(self, towards: str) -> PortAcl | None:
        """The policy of a port that leads to an interface with ACLs."""
        interface = self.topology.interface(towards)
        if interface is None or not interface.acls:
            return None
        owner = self.owner(f"interfaces/{towards}")
        number = self.acl_sets[interface.acls]
        return PortAcl(owner, self.zones[towards], number, UNKNOWN)

    def _memberships(self, network: str, paths: Forwarding) -> None:
        tag = self.tags[network]
        for end, switch in paths.attached.items():
            if isinstance(self.topology.nodes[switch], Bridge):
                node = self.topology.nodes.get(end)
                vid = node.trunk.get(network) if isinstance(node, Uplink) else None
                limit = learn_limit(self.topology, end)
                self.memberships[switch, end].append(
                    Membership(tag, vid, flood=True, learn=limit > 0, limit=limit)
                )
        for a, b in sorted(paths.carried):
            flood = (a, b) in paths.tree
            for at, towards in ((a, b), (b, a)):
                linux = isinstance(self.topology.nodes[towards], LinuxBridge)
                vid = None if linux else tag
                limit = learn_limit(self.topology, towards) if linux else self.learn_limits[network]
                learn = flood and limit > 0
                self.memberships[at, towards].append(
                    Membership(tag, vid, flood, learn, limit if learn else 0)
                )


class _Switches:
    """Collects, network by network, what each bridge takes part in."""

    def __init__(self, plan: _Plan, ports: Iterable[Numbered]) -> None:
        self.plan = plan
        self.topology = plan.topology
        self.macs: dict[str, list[KnownMac]] = defaultdict(list)
        self.addresses: dict[str, list[KnownAddress]] = defaultdict(list)
        self.next_hops: dict[str, list[NextHop]] = defaultdict(list)
        self.networks: dict[str, list[SwitchNetwork]] = defaultdict(list)
        self.ports: dict[str, list[Numbered]] = defaultdict(list)
        self.ofports: dict[tuple[str, str], int] = {}
        for port in ports:
            self.ports[port.bridge].append(port)
            self.ofports[port.bridge, port.towards] = port.ofport

    def network(self, name: str) -> None:
        plan, paths = self.plan, self.plan.paths[name]
        tag, owner = plan.tags[name], plan.owner(f"networks/{name}")
        unknown = learns(self.topology, name) or name in plan.strangers
        bridges = [s for s in sorted(paths.switches) if isinstance(self.topology.nodes[s], Bridge)]
        ageing = self.topology.networks[name].mac_ageing
        self._macs(name, paths, bridges)
        for bridge in bridges:
            self.networks[bridge].append(
                SwitchNetwork(
                    *(tag, owner, unknown, self._flood(bridge, paths), ageing),
                    gateway=plan.gateways.get(tag),
                    apart=self._apart(bridge, paths),
                )
            )

    def switch(self, name: str) -> Switch:
        ports = map(self.plan.port, self.ports[name])
        return Switch(
            name,
            self.plan.owner(f"nodes/{name}"),
            ports=tuple(sorted(ports, key=lambda port: port.ofport)),
            macs=tuple(sorted(self.macs[name], key=lambda known: (known.tag, known.mac))),
            networks=tuple(sorted(self.networks[name], key=lambda network: network.tag)),
            addresses=tuple(sorted(self.addresses[name], key=lambda k: (k.tag, k.version, k.address))),
            routers=tuple(router for entries, router in self.plan.routers if name in entries),
            next_hops=tuple(
                sorted(self.next_hops[name], key=lambda hop: (hop.tag, hop.version, hop.address))
            ),
        )

    def _macs(self, network: str, paths: Forwarding, bridges: Iterable[str]) -> None:
        plan, tag = self.plan, self.plan.tags[network]
        known = plan.known[network]
        asking = {switch for _, _, switch, _ in known}
        outside = [hop for hop in outside_hops(self.topology, network) if hop.uplink in paths.attached]
        asked = {(paths.attached[hop.uplink], hop.mac) for hop in outside if hop.asked is not None}
        known = [*known, *((hop.mac, hop.uplink, paths.attached[hop.uplink], hop.owner) for hop in outside)]
        self._next_hops(network, outside, paths)
        for bridge in bridges:
            for mac, end, switch, owner in known:
                if (bridge, mac) in asked:
                    continue
                towards = end if switch == bridge else paths.next_hop.get((bridge, switch))
                ofport = None if towards is None else self.ofports.get((bridge, towards))
                if ofport is None:
                    continue
                self.macs[bridge].append(plan.mac(bridge, tag, mac, ofport, owner))
                if bridge in asking:
                    here = ofport if switch == bridge else None
                    self.addresses[bridge] += plan.addresses(bridge, end, tag, mac, here, owner)

    def _apart(self, bridge: str, paths: Forwarding) -> tuple[int, ...]:
        """Links of the tree to other bridges, where limited endpoints of the network are on those."""
        if all(paths.attached.get(end, bridge) == bridge for end in self.plan.limited_to):
            return ()
        branches = (b if a == bridge else a for a, b in paths.tree if bridge in (a, b))
        numbers = (self.ofports.get((bridge, other)) for other in branches)
        return tuple(sorted(number for number in numbers if number is not None))

    def _next_hops(self, network: str, outside: Iterable[OutsideHop], paths: Forwarding) -> None:
        """Those that are asked for their MAC, where their uplink is."""
        for hop in outside:
            bridge = paths.attached[hop.uplink]
            ofport = self.ofports.get((bridge, hop.uplink))
            if hop.asked is not None and ofport is not None:
                version, address, gateway = hop.asked
                asks = gateway, self.plan.gateways[self.plan.tags[network]]
                self.next_hops[bridge].append(
                    NextHop(self.plan.tags[network], version, address, hop.mac, asks, ofport, hop.owner)
                )

    def _flood(self, bridge: str, paths: Forwarding) -> tuple[int, ...]:
        ends = [end for end, switch in paths.attached.items() if switch == bridge]
        branches = [b if a == bridge else a for a, b in paths.tree if bridge in (a, b)]
        numbers = (self.ofports.get((bridge, towards)) for towards in (*ends, *branches))
        return tuple(sorted(number for number in numbers if number is not None))
