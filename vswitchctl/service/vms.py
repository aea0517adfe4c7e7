"""Virtual machines as they are: domains, their NICs, libvirt's networks, beside what topologies declare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from vswitchctl.compiler.vifs import vm_facts
from vswitchctl.errors import UserError
from vswitchctl.model.domains import (
    Addresses,
    Domain,
    DomainInterface,
    LibvirtNetwork,
    ObservedDomains,
    VifKey,
    VmFacts,
)
from vswitchctl.model.intent import Intent
from vswitchctl.model.state import ObservedNetlink, ObservedOvs, Owner
from vswitchctl.model.topology import Interface, LinuxBridge, Topology, Vm
from vswitchctl.model.vm_views import LibvirtNetworkView, NicRequest, NicView, VmView
from vswitchctl.reconcile.loop import Loop
from vswitchctl.reconcile.protocol import Domains
from vswitchctl.service.discover import discover
from vswitchctl.service.show import Statuses


class Reads(Protocol):
    """The intent database, as far as it is read."""

    def read(self) -> Intent: ...


class VmService:
    """What the API says of virtual machines, and does to them. Thread-safe."""

    def __init__(self, store: Reads, loop: Loop) -> None:
        self._store = store
        self._loop = loop

    def vms(self) -> tuple[VmView, ...]:
        """See `Service.vms`."""
        look = self._look()
        addresses = self._libvirt().addresses()
        states = Statuses(self._loop.current()[0])
        found = [look.vm(domain, states, addresses) for domain in look.domains.domains]
        return tuple(sorted((*found, *look.undefined(states)), key=lambda view: (view.domain, view.uuid)))

    def networks(self) -> tuple[LibvirtNetworkView, ...]:
        """See `Service.libvirt_networks`."""
        return tuple(self._look().networks())

    def discover(self, name: str, tenant: str) -> Topology:
        """See `Service.discover`."""
        look = self._look()
        taken = {key for key in look.declared if key.domain in look.facts.domains}
        return discover(look.domains, look.netlink, look.ovs, taken, name=name, tenant=tenant)

    def attach(self, domain: str, request: NicRequest) -> None:
        """See `Service.attach`."""
        with self._loop.lock:
            checksums = self._loop.system_datapath(self._loop.ovs.read())
        self._libvirt().attach(domain, request.mac, request.model, config=request.config, checksums=checksums)

    def detach(self, domain: str, mac: str, *, config: bool) -> None:
        """See `Service.detach`."""
        self._libvirt().detach(domain, mac, config=config)

    def _libvirt(self) -> Domains:
        if self._loop.domains is None:
            raise UserError("no libvirt is followed", "name its URIs in VSWITCHCTL_LIBVIRT_URIS")
        return self._loop.domains

    def _look(self) -> _Look:
        domains = self._libvirt().read()
        with self._loop.lock:
            netlink, ovs = self._loop.netlink.read(), self._loop.ovs.read()
        return _Look(domains, netlink, ovs, self._store.read())


@dataclass(frozen=True, slots=True)
class _Declared:
    """An interface of a topology."""

    topology: str
    end: str
    interface: Interface


class _Look:
    """One look at everything."""

    def __init__(
        self, domains: ObservedDomains, netlink: ObservedNetlink, ovs: ObservedOvs, intent: Intent
    ) -> None:
        self.domains = domains
        self.netlink = netlink
        self.ovs = ovs
        self.facts: VmFacts = vm_facts(domains, netlink, ovs)
        self.declared = {
            VifKey(node.domain, mac): _Declared(name, f"{node_name}:{mac}", interface)
            for name, stored in sorted(intent.items())
            for node_name, node in stored.topology.nodes.items()
            if isinstance(node, Vm)
            for mac, interface in node.interfaces.items()
        }
        self._names = Counter(domain.name for domain in domains.domains)
        self._topologies = {
            node_name: name
            for name, stored in sorted(intent.items())
            for node_name, node in stored.topology.nodes.items()
            if isinstance(node, LinuxBridge)
        }

    def _declaration(self, domain: Domain, mac: str) -> _Declared | None:
        """By its UUID, or by its name where that is of no other."""
        found = self.declared.get(VifKey(domain.uuid, mac))
        if found is None and self._names[domain.name] == 1:
            found = self.declared.get(VifKey(domain.name, mac))
        return found

    def vm(self, domain: Domain, states: Statuses, addresses: Mapping[VifKey, Addresses]) -> VmView:
        nics = [
            self._nic(domain, interface, states, addresses.get(VifKey(domain.uuid, interface.mac)))
            for interface in domain.interfaces
        ]
        there = {interface.mac for interface in domain.interfaces}
        for key, declared in self.declared.items():
            by_name = key.domain == domain.name and self._names[domain.name] == 1
            if key.mac not in there and (by_name or key.domain == domain.uuid):
                nics.append(_absent(key.mac, declared, states))
        return VmView(
            domain=domain.name,
            uuid=domain.uuid,
            uri=domain.uri,
            state=domain.state,
            problem=domain.problem,
            nics=tuple(nics),
        )

    def undefined(self, states: Statuses) -> Iterator[VmView]:
        """Domains that topologies name and nobody defined yet."""
        absent: dict[str, list[NicView]] = {}
        for key, declared in self.declared.items():
            if key.domain not in self.facts.domains:
                absent.setdefault(key.domain, []).append(_absent(key.mac, declared, states))
        for name, nics in absent.items():
            yield VmView(domain=name, nics=tuple(nics))

    def _nic(
        self, domain: Domain, interface: DomainInterface, states: Statuses, said: Addresses | None
    ) -> NicView:
        declared = self._declaration(domain, interface.mac)
        vif = self.facts.vif(VifKey(domain.uuid, interface.mac))
        view = NicView(
            mac=interface.mac,
            type=interface.type,
            model=interface.model,
            source=interface.source,
            portgroup=interface.portgroup,
            mtu=interface.mtu,
            link_up=interface.link_up,
            device=vif.device,
            bridge=self._bridge(vif.device),
            addresses=said.texts if said is not None else (),
            addresses_from=said.source if said is not None else "",
        )
        return view if declared is None else _declared_nic(view, declared, states)

    def _bridge(self, device: str) -> str:
        """What a device is a port of now, '' for nothing."""
        if not device:
            return ""
        ours = next((key.bridge for key in self.ovs.owned.ports if key.name == device), "")
        theirs = self.ovs.foreign_ports.get(device, "").partition(" ")[0]
        return ours or theirs or self.netlink.taps.get(device, "")

    def networks(self) -> Iterator[LibvirtNetworkView]:
        """libvirt's, and then the Linux bridges of others."""
        for network in self.domains.networks:
            yield self._network(network)
        known = {network.bridge for network in self.domains.networks}
        for bridge in sorted(self.netlink.foreign_bridges - known):
            topology = self._topologies.get(bridge, "")
            yield LibvirtNetworkView(name=bridge, bridge=bridge, kind="linux-bridge", topology=topology)

    def _network(self, network: LibvirtNetwork) -> LibvirtNetworkView:
        switched = network.virtualport == "openvswitch"
        return LibvirtNetworkView(
            name=network.name,
            uri=network.uri,
            active=network.active,
            forward=network.forward,
            bridge=network.bridge,
            kind="" if not network.bridge else "openvswitch" if switched else "linux-bridge",
            portgroups=network.portgroups,
            topology="" if switched else self._topologies.get(network.bridge, ""),
            problem=network.problem,
        )


def _declared_nic(view: NicView, declared: _Declared, states: Statuses) -> NicView:
    entity = f"interfaces/{declared.end}"
    status, reason = states.of(Owner(declared.topology, entity))
    said: dict[str, object] = {
        "topology": declared.topology,
        "entity": entity,
        "network": declared.interface.network,
        "status": status,
        "reason": reason,
    }
    if declared.interface.ip:
        said |= {"addresses": declared.interface.ip, "addresses_from": "topology"}
    return view.model_copy(update=said)


def _absent(mac: str, declared: _Declared, states: Statuses) -> NicView:
    return _declared_nic(NicView(mac=mac), declared, states)
