"""From what runs to a topology that says so: plan it, and nothing is to be done. Pure.

Linux bridges of others are nodes as they are, and NICs are linked to those that they are in. A NIC on an Open
vSwitch bridge of somebody else's is declared and not linked: linked to a bridge of ours it is taken over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from vswitchctl.compiler.vifs import PLUGGABLE
from vswitchctl.model.domains import Domain, DomainInterface, ObservedDomains, VifKey
from vswitchctl.model.state import ObservedNetlink, ObservedOvs
from vswitchctl.model.topology import Topology

NAME_MAX = 63
"""The longest name of an entity: model.topology.Name."""

LOOSE, BYPASSING = "unplugged", "bypass"
"""Networks for NICs that are in none: those that may be linked, and those that no switch sees."""


def discover(
    domains: ObservedDomains,
    netlink: ObservedNetlink,
    ovs: ObservedOvs,
    taken: Collection[VifKey],
    *,
    name: str,
    tenant: str,
) -> Topology:
    """taken: NICs that topologies declare already, which are left out. tenant: whose everything is."""
    draft = _Draft(tenant, domains, netlink, ovs)
    names = Counter(domain.name for domain in domains.domains)
    for bridge in sorted(netlink.foreign_bridges):
        draft.linux_bridge(bridge)
    for domain in domains.domains:
        key = domain.name if names[domain.name] == 1 and _is_plain(domain.name) else domain.uuid
        known = {domain.name, domain.uuid}
        left = [nic for nic in domain.interfaces if not any(VifKey(one, nic.mac) in taken for one in known)]
        if left or not domain.interfaces:
            draft.vm(domain, key, left)
    return Topology.model_validate(
        {
            "name": name,
            "tenants": {tenant: {}},
            "networks": draft.networks,
            "nodes": draft.nodes,
            "links": draft.links,
        }
    )


def _is_plain(name: str) -> bool:
    """Whether `domain` of a document takes it: see model.topology.DomainName."""
    return name.isprintable() and name == name.strip() and "/" not in name


@dataclass
class _Draft:
    """A document while it is put together."""

    tenant: str
    domains: ObservedDomains
    netlink: ObservedNetlink
    ovs: ObservedOvs
    networks: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    links: list[Any] = field(default_factory=list)
    network_of: dict[str, str] = field(default_factory=dict)
    macs: set[tuple[str, str]] = field(default_factory=set)

    def linux_bridge(self, bridge: str) -> None:
        """A node, and the network that it is; one whose name no document takes is left out."""
        if _name(bridge) != bridge:
            return
        of_libvirt = next((one for one in self.domains.networks if one.bridge == bridge), None)
        network = self._network(of_libvirt.name if of_libvirt is not None else bridge)
        if of_libvirt is not None and of_libvirt.subnets:
            self.networks[network]["subnets"] = list(of_libvirt.subnets)
        self.network_of[bridge] = network
        self.nodes[bridge] = {"kind": "linux-bridge", "network": network, "external": True}

    def _network(self, wanted: str) -> str:
        name = _unused(_name(wanted), self.networks)
        self.networks[name] = {"tenant": self.tenant}
        return name

    def _shared(self, name: str) -> str:
        """A network of several, made when the first comes."""
        if name not in self.network_of:
            self.network_of[name] = self._network(name)
        return self.network_of[name]

    def vm(self, domain: Domain, key: str, nics: list[DomainInterface]) -> None:
        name = _unused(_name(domain.name), self.nodes)
        interfaces: dict[str, Any] = {}
        remarks = [domain.problem] if domain.problem else []
        for nic in nics:
            network, bridge, said = self._place(nic)
            if int(nic.mac[:2], 16) & 1 or nic.mac in interfaces or (network, nic.mac) in self.macs:
                remarks.append(f"NIC {nic.mac} is left out: its MAC address is a group's, or used twice")
                continue
            self.macs.add((network, nic.mac))
            interfaces[nic.mac] = {"network": network, **said}
            if bridge:
                self.links.append({"ends": [f"{name}:{nic.mac}", bridge]})
        self.nodes[name] = {
            "kind": "vm",
            "tenant": self.tenant,
            "domain": key,
            "interfaces": interfaces,
            "description": "; ".join(remarks),
        }

    def _place(self, nic: DomainInterface) -> tuple[str, str, dict[str, Any]]:
        """(network, the Linux bridge to link it to or '', what else is said of it)."""
        if nic.type not in PLUGGABLE:
            said = {"bypass": True, "description": f"a NIC of type '{nic.type}' bypasses the switch"}
            return self._shared(BYPASSING), "", said
        switched = self.ovs.foreign_ports.get(nic.device, "").partition(" ")[0] if nic.device else ""
        # Where it is counts, and what the XML says only of one that is nowhere now.
        bridge = self.netlink.taps[nic.device] if nic.device in self.netlink.taps else self._declared(nic)
        if not switched and bridge in self.nodes:
            return self.network_of[bridge], bridge, {}
        where = switched or bridge
        if where:
            text = f"it is in bridge '{where}'; linked to a bridge of this topology it is taken over"
            return self._shared(where), "", {"description": text}
        return self._shared(LOOSE), "", {}

    def _declared(self, nic: DomainInterface) -> str:
        """The bridge that the XML names, itself or by the network."""
        networks = (one.bridge for one in self.domains.networks if one.name == nic.source)
        by_network = next(networks, "") if nic.type == "network" else ""
        return nic.bridge or by_network


def _name(text: str) -> str:
    """The nearest name that a document takes."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:NAME_MAX]
    return re.sub(r"^[^A-Za-z0-9]+", "", name) or "unnamed"


def _unused(name: str, taken: Collection[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name[: NAME_MAX - 6]}-{number}" in taken:
        number += 1
    return f"{name[: NAME_MAX - 6]}-{number}"
