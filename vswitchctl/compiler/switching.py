"""A topology's bridges as the apps see them: numbered ports, memberships, known MACs, flood sets. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from vswitchctl.compiler.endpoints import (
    mac_number,
    networks_with_strangers,
    own_addresses,
    port_security,
)
from vswitchctl.compiler.learning import learn_limit, network_limits
from vswitchctl.compiler.policy import acl_sets
from vswitchctl.compiler.wiring import Wiring
from vswitchctl.model.intent import Stored
from vswitchctl.model.state import Facts, Owner, PortKey
from vswitchctl.model.switch import (
    KnownAddress,
    KnownMac,
    Membership,
    PortAcl,
    Switch,
    SwitchNetwork,
    SwitchPort,
)
from vswitchctl.model.topology import Bridge, LinuxBridge, Topology, Uplink
from vswitchctl.topology.graph import Forwarding, forwarding


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


def compile_switches(stored: Stored, wiring: Wiring, facts: Facts) -> tuple[Switch, ...]:
    """Every Open vSwitch bridge of the topology; ports without a number are left out."""
    topology = stored.topology
    build = _Switches(stored, wiring, facts)
    for network in topology.networks:
        build.network(network, forwarding(topology, network))
    return tuple(build.switch(name) for name, node in topology.nodes.items() if isinstance(node, Bridge))


class _Switches:
    """Collects, network by network, what each bridge takes part in."""

    def __init__(self, stored: Stored, wiring: Wiring, facts: Facts) -> None:
        self.topology = stored.topology
        self.tags = stored.tags
        self.zones = stored.zones
        self.acl_sets = acl_sets(stored.topology)
        self.strangers = networks_with_strangers(stored.topology)
        self.learn_limits = network_limits(stored.topology)
        self.own_addresses = own_addresses(stored.topology)
        self.wiring = wiring
        self.facts = facts
        self.memberships: dict[tuple[str, str], list[Membership]] = defaultdict(list)
        self.macs: dict[str, list[KnownMac]] = defaultdict(list)
        self.addresses: dict[str, list[KnownAddress]] = defaultdict(list)
        self.networks: dict[str, list[SwitchNetwork]] = defaultdict(list)
        self.numbered: dict[str, list[tuple[str, PortKey, int]]] = defaultdict(list)
        for (bridge, towards), key in wiring.ports.items():
            if key in facts.ofports:
                self.numbered[bridge].append((towards, key, facts.ofports[key]))

    def network(self, name: str, paths: Forwarding) -> None:
        unknown = learns(self.topology, name) or name in self.strangers
        bridges = [s for s in sorted(paths.switches) if isinstance(self.topology.nodes[s], Bridge)]
        ageing = self.topology.networks[name].mac_ageing
        self._memberships(name, paths)
        self._macs(name, paths, bridges)
        for bridge in bridges:
            flood = self._flood(name, bridge, paths)
            self.networks[bridge].append(
                SwitchNetwork(self.tags[name], self._owner(f"networks/{name}"), unknown, flood, ageing)
            )

    def switch(self, name: str) -> Switch:
        ports = [
            SwitchPort(
                ofport,
                self.wiring.ovs.ports[key].owner,
                tuple(self.memberships[name, towards]),
                endpoint=self.topology.interface(towards) is not None,
                security=port_security(self.topology, towards),
                acl=self._acl(towards),
            )
            for towards, key, ofport in self.numbered[name]
        ]
        used = {port.acl.set for port in ports if port.acl is not None}
        return Switch(
            name,
            self._owner(f"nodes/{name}"),
            ports=tuple(sorted(ports, key=lambda port: port.ofport)),
            macs=tuple(sorted(self.macs[name], key=lambda known: (known.tag, known.mac))),
            networks=tuple(sorted(self.networks[name], key=lambda network: network.tag)),
            addresses=tuple(sorted(self.addresses[name], key=lambda k: (k.tag, k.version, k.address))),
            acl_sets=tuple(acl_set for acl_set in self.acl_sets.values() if acl_set.number in used),
        )

    def _acl(self, towards: str) -> PortAcl | None:
        """The policy of a port that leads to an interface with ACLs."""
        interface = self.topology.interface(towards)
        if interface is None or not interface.acls:
            return None
        acl_set = self.acl_sets[interface.acls]
        return PortAcl(
            self._owner(f"interfaces/{towards}"),
            self.zones[towards],
            acl_set.number,
            covers_in=acl_set.covers(inbound=True),
            covers_out=acl_set.covers(inbound=False),
            rejects_in=acl_set.rejects(inbound=True),
            rejects_out=acl_set.rejects(inbound=False),
        )

    def _owner(self, entity: str) -> Owner:
        return Owner(self.topology.name, entity)

    def _ofport(self, bridge: str, towards: str) -> int | None:
        key = self.wiring.ports.get((bridge, towards))
        return None if key is None else self.facts.ofports.get(key)

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

    def _macs(self, network: str, paths: Forwarding, bridges: Iterable[str]) -> None:
        tag = self.tags[network]
        known = [
            (mac_number(self.topology.endpoint_mac(end)), end, switch, self._owner(f"interfaces/{end}"))
            for end, switch in paths.attached.items()
            if self.topology.interface(end) is not None
        ]
        asking = {switch for _, _, switch, _ in known}
        for bridge in bridges:
            for mac, end, switch, owner in known:
                towards = end if switch == bridge else paths.next_hop.get((bridge, switch))
                ofport = None if towards is None else self._ofport(bridge, towards)
                if ofport is None:
                    continue
                self.macs[bridge].append(KnownMac(tag, mac, ofport, owner))
                if bridge in asking:
                    here = ofport if switch == bridge else None
                    self.addresses[bridge] += [
                        KnownAddress(tag, version, address, mac, here, owner)
                        for version, address in self.own_addresses[end]
                    ]

    def _flood(self, network: str, bridge: str, paths: Forwarding) -> tuple[int, ...]:
        ends = [end for end, switch in paths.attached.items() if switch == bridge]
        branches = [b if a == bridge else a for a, b in paths.tree if bridge in (a, b)]
        numbers = (self._ofport(bridge, towards) for towards in (*ends, *branches))
        return tuple(sorted(number for number in numbers if number is not None))
