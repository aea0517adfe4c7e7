"""Virtual machines and networks as libvirt tells of them: frozen data, one value per object. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

BYPASSES: Mapping[str, str] = {
    "hostdev": "the guest drives a device of the host itself (PCI passthrough, SR-IOV)",
    "vdpa": "the guest's queues lead to a network card (vDPA)",
    "direct": "macvtap hands its frames to a device of the host",
    "user": "QEMU itself makes its connections (SLIRP)",
    "vhostuser": "it is a socket that another process serves, not a device of the host",
    "mcast": "QEMU itself sends its frames to a multicast address",
    "server": "QEMU itself sends its frames through a socket",
    "client": "QEMU itself sends its frames through a socket",
    "udp": "QEMU itself sends its frames through a socket",
    "internal": "it leads to a network inside the hypervisor",
    "null": "it leads nowhere",
    "vds": "it leads to a switch of VMware",
}
"""Types of <interface> (libvirt's domain format) without a TAP device, and what they have in its place."""


@dataclass(frozen=True, slots=True)
class DomainInterface:
    """A NIC of a domain, from its live XML. Texts are '' where the XML does not say.

    mac: lower case. device: the TAP. type: what it comes down to where that differs from what is written, as
    'direct' of a network that is a pool of devices. source: network, bridge or device, by its type.
    bridge: the Linux or Open vSwitch bridge that it leads to.
    interface_id: of <virtualport>. mtu: 0 where not said. host_checksum: the guest may leave checksums to the
    host, as virtio does unless <driver><host csum='off'/> stands there.
    """

    mac: str
    type: str
    device: str = ""
    model: str = ""
    source: str = ""
    bridge: str = ""
    portgroup: str = ""
    virtualport: str = ""
    interface_id: str = ""
    mtu: int = 0
    link_up: bool = True
    host_checksum: bool = False


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain. uri: the connection that told of it. state: in libvirt's words, 'running', 'shut off', ...

    problem: what of its XML could not be understood, '' where all was. agent: a guest agent is connected.
    """

    uri: str
    name: str
    uuid: str
    state: str
    active: bool
    interfaces: tuple[DomainInterface, ...] = ()
    problem: str = ""
    agent: bool = False


class Addresses(NamedTuple):
    """What libvirt knows of a NIC's addresses. source: who says so. texts: '10.1.0.5/24'."""

    source: Literal["lease", "agent", "arp"]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LibvirtNetwork:
    """A network of libvirt's. forward: '' for an isolated one. bridge: its device, '' where it has none.

    portgroups: their names. virtualport: its type, 'openvswitch' for a network on Open vSwitch.
    subnets: of its bridge's own addresses.
    """

    uri: str
    name: str
    uuid: str
    active: bool
    bridge: str = ""
    forward: str = ""
    virtualport: str = ""
    portgroups: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ObservedDomains:
    """What every connection told last. silent: URI -> why it does not answer now; its domains may differ."""

    domains: tuple[Domain, ...] = ()
    networks: tuple[LibvirtNetwork, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)


class VifKey(NamedTuple):
    """The identity of a NIC: never the name of its device, which libvirt gives anew at every start.

    domain: its name, or its UUID, which stays when it is renamed.
    """

    domain: str
    mac: str


@dataclass(frozen=True, slots=True)
class Vif:
    """Where a NIC is on this host.

    device: its TAP, '' where it has none now, and `reason` says why. status: of its entity.
    vm: the domain's UUID. interface_id: what external_ids:iface-id says.
    master: the Linux bridge that the TAP is a port of now, '' for none.
    linux_bridge, ovs_bridge: what it was a port of before it was ours, '' for none.
    host_checksum: the guest may leave checksums to the host.
    """

    device: str = ""
    vm: str = ""
    interface_id: str = ""
    master: str = ""
    linux_bridge: str = ""
    ovs_bridge: str = ""
    status: Literal["in-sync", "pending", "stale", "bypasses"] = "in-sync"
    reason: str = ""
    host_checksum: bool = False


@dataclass(frozen=True, slots=True)
class VmFacts:
    """What compile knows of virtual machines.

    domains: names and UUIDs of those there are. silent: why libvirt cannot be asked now, '' where it can.
    held: while libvirt cannot be asked, what TAPs in Linux bridges say of themselves, by their owner's text.
    """

    vifs: Mapping[VifKey, Vif] = field(default_factory=dict)
    domains: frozenset[str] = frozenset()
    silent: str = ""
    held: Mapping[str, Vif] = field(default_factory=dict)

    def vif(self, key: VifKey) -> Vif:
        """Where the NIC is, or why that is not known."""
        found = self.vifs.get(key)
        if found is not None:
            return found
        if self.silent:
            return Vif(status="stale", reason=self.silent)
        if key.domain not in self.domains:
            return Vif(status="pending", reason=f"there is no domain '{key.domain}' yet")
        return Vif(status="pending", reason=f"domain '{key.domain}' has no NIC with MAC address {key.mac}")

    def of(self, domains: frozenset[str]) -> VmFacts:
        """What concerns these domains."""
        if not domains:
            return VmFacts()
        vifs = {key: vif for key, vif in self.vifs.items() if key.domain in domains}
        return VmFacts(vifs, self.domains & domains, self.silent, self.held)
