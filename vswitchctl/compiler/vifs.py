"""Where the NICs of virtual machines are, by what libvirt, the kernel and Open vSwitch say. Pure."""

from __future__ import annotations

from collections import Counter

from vswitchctl.model.domains import BYPASSES, Domain, DomainInterface, ObservedDomains, Vif, VifKey, VmFacts
from vswitchctl.model.state import ObservedNetlink, ObservedOvs

PLUGGABLE = ("ethernet", "bridge", "network")
"""Types of <interface> that have a TAP device on this host."""


def vm_facts(domains: ObservedDomains, netlink: ObservedNetlink, ovs: ObservedOvs) -> VmFacts:
    """What compile needs to know.

    A libvirt that does not answer takes nothing back: NICs stay where they were last, as long as their TAPs
    are there. Where it was never asked, as after a restart of ours, what our ports say of themselves counts.
    """
    known = _Known(domains, netlink, ovs)
    silent = "; ".join(reason for _, reason in sorted(domains.silent.items()))
    vifs = known.remembered(silent) if silent else {}
    names = Counter(domain.name for domain in domains.domains)
    for domain in domains.domains:
        sole = names[domain.name] == 1
        for mac, vif in known.of(domain).items():
            vifs[VifKey(domain.uuid, mac)] = vif
            several = Vif(status="pending", reason=f"there are several domains named '{domain.name}'")
            vifs[VifKey(domain.name, mac)] = vif if sole else several
    there = frozenset(names) | {domain.uuid for domain in domains.domains}
    return VmFacts(vifs, there, silent, known.held(silent) if silent else {})


def unexplained(domains: ObservedDomains, netlink: ObservedNetlink) -> tuple[frozenset[str], frozenset[str]]:
    """TAPs that no domain has, and UUIDs of running domains whose TAPs are not there.

    libvirt tells of a domain when it has started; its TAPs are there before, and without a word gone again
    where it did not.
    """
    devices = {
        interface.device: domain.uuid
        for domain in domains.domains
        if domain.active
        for interface in domain.interfaces
        if interface.type in PLUGGABLE and interface.device
    }
    missing = {uuid for device, uuid in devices.items() if device not in netlink.taps}
    return frozenset(netlink.taps.keys() - devices.keys()), frozenset(missing)


class _Known:
    def __init__(self, domains: ObservedDomains, netlink: ObservedNetlink, ovs: ObservedOvs) -> None:
        self._silent = domains.silent
        self._netlink = netlink
        self._ours = {key.name: spec.vif for key, spec in ovs.owned.ports.items() if spec.vif is not None}
        self._foreign = ovs.foreign_ports

    def of(self, domain: Domain) -> dict[str, Vif]:
        """The NICs of a domain by their MAC addresses."""
        several = Counter(interface.mac for interface in domain.interfaces)
        found = {}
        for interface in domain.interfaces:
            if several[interface.mac] > 1:
                reason = f"domain '{domain.name}' has {interface.mac} more than once"
                found[interface.mac] = Vif(vm=domain.uuid, status="pending", reason=reason)
            else:
                found[interface.mac] = self._vif(domain, interface)
        return found

    def _vif(self, domain: Domain, interface: DomainInterface) -> Vif:
        if interface.type not in PLUGGABLE:
            why = BYPASSES.get(interface.type, "it has no device on this host")
            reason = f"a NIC of type '{interface.type}' bypasses the switch: {why}"
            return Vif(vm=domain.uuid, status="bypasses", reason=reason)
        if not domain.active:
            reason = f"domain '{domain.name}' is not running ({domain.state})"
        elif interface.device not in self._netlink.taps:
            what = f"its TAP '{interface.device}' is not there" if interface.device else "it has no TAP"
            reason = f"domain '{domain.name}' is {domain.state}, but {what}"
        else:
            return self._plugged(domain, interface)
        return Vif(vm=domain.uuid, status="pending", reason=reason, host_checksum=interface.host_checksum)

    def _plugged(self, domain: Domain, interface: DomainInterface) -> Vif:
        device = interface.device
        ours = self._ours.get(device)
        stale = self._silent.get(domain.uri, "")
        return Vif(
            device=device,
            vm=domain.uuid,
            interface_id=interface.interface_id or f"{domain.name}/{interface.mac}",
            master=self._netlink.taps[device],
            linux_bridge=self._former(device) or self._declared(interface),
            ovs_bridge=ours.former if ours is not None else self._foreign.get(device, ""),
            status="stale" if stale else "in-sync",
            reason=stale,
            host_checksum=interface.host_checksum,
        )

    def _former(self, device: str) -> str:
        """Where it was when we took it, by its mark; where it is, as long as it has none."""
        marked = self._netlink.owned.taps.get(device)
        return self._netlink.taps[device] if marked is None else marked.former

    def _declared(self, interface: DomainInterface) -> str:
        """The Linux bridge that its XML names."""
        return interface.bridge if interface.bridge in self._netlink.foreign_bridges else ""

    def remembered(self, reason: str) -> dict[VifKey, Vif]:
        """Those that ports of ours speak of, where libvirt cannot be asked."""
        found = {}
        for device, marks in self._ours.items():
            if device in self._netlink.taps:
                vif = Vif(
                    device=device,
                    vm=marks.vm_id,
                    interface_id=marks.iface_id,
                    master=self._netlink.taps[device],
                    linux_bridge=self._former(device),
                    ovs_bridge=marks.former,
                    status="stale",
                    reason=reason,
                )
                found[VifKey(marks.domain, marks.attached_mac)] = vif
        return found

    def held(self, reason: str) -> dict[str, Vif]:
        """TAPs that we put into Linux bridges: their marks name the link, and not the domain."""
        return {
            spec.owner.text: Vif(
                device=device, master=spec.master, linux_bridge=spec.former, status="stale", reason=reason
            )
            for device, spec in self._netlink.owned.taps.items()
            if device not in self._ours
        }
