"""A topology's devices: which bridges, namespaces, veth pairs and ports a host should hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace

from vswitchctl.latest import Latest, Steady
from vswitchctl.model.domains import Vif, VifKey, VmFacts
from vswitchctl.model.state import (
    ROOT,
    Facts,
    LinuxBridgeSpec,
    NamespaceSpec,
    NetlinkState,
    OvsBridgeSpec,
    OvsPortSpec,
    OvsState,
    Owner,
    PortKey,
    Remark,
    RouteSpec,
    TapSpec,
    TunSpec,
    VethEnd,
    VethSpec,
    VifMarks,
)
from vswitchctl.model.topology import (
    Bridge,
    Link,
    LinuxBridge,
    Namespace,
    Topology,
    Tun,
    Uplink,
    Vm,
    device_name,
    link_name,
    split_end,
)
from vswitchctl.topology.routing import default_gateways

VLAN_HEADER = 4
"""IEEE 802.1Q: octets a tag adds, so links between bridges carry the network's MTU and its tag."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """netlink and ovs: the resources. ports: (bridge, the end or switch a port leads to) -> port key.

    remarks: of virtual machines whose NICs have no port now, or bypass the switch.
    """

    netlink: NetlinkState
    ovs: OvsState
    ports: Mapping[tuple[str, str], PortKey]
    remarks: Mapping[Owner, Remark]


def datapath_type(bridge: Bridge, facts: Facts) -> str:
    """'system' or 'netdev' of a bridge; 'auto' is the kernel's where its module is usable."""
    if bridge.datapath != "auto":
        return bridge.datapath
    return "system" if facts.system_datapath else "netdev"


def link_kind(topology: Topology, link: Link, facts: Facts) -> str:
    """'veth', 'patch', 'uplink' or 'tap': what joins the two ends. 'auto' is a patch where both are alike."""
    a, b = (topology.nodes[split_end(end)[0]] for end in link.ends)
    if isinstance(a, Uplink) or isinstance(b, Uplink):
        return "uplink"
    if isinstance(a, Vm) or isinstance(b, Vm):
        return "tap"
    if link.kind != "auto":
        return link.kind
    alike = (
        isinstance(a, Bridge) and isinstance(b, Bridge) and datapath_type(a, facts) == datapath_type(b, facts)
    )
    return "patch" if alike else "veth"


def compile_wiring(topology: Topology, facts: Facts) -> Wiring:
    """Every device of a valid topology on this host."""
    return WiringCompiler().compile(topology, facts)


class WiringCompiler:
    """Compiles one topology's devices again and again: what no TAP decides is the same while it can be."""

    def __init__(self) -> None:
        self._fixed, self._whole = Latest(_fixed), Latest(_with_taps)
        self._same_bridges, self._same_vms = Steady[frozenset[str]](), Steady[VmFacts]()

    def compile(self, topology: Topology, facts: Facts) -> Wiring:
        """See `compile_wiring`."""
        fixed = self._fixed(topology, facts.system_datapath, self._same_bridges(facts.linux_bridges))
        return self._whole(fixed, self._same_vms(facts.vms))


def _fixed(topology: Topology, system_datapath: bool, linux_bridges: frozenset[str]) -> _Wiring:
    """All but what leads to virtual machines."""
    build = _Wiring(topology, Facts(system_datapath=system_datapath, linux_bridges=linux_bridges))
    for name, node in topology.nodes.items():
        build.node(name, node)
    for link in topology.links:
        build.link(link)
    return build


def _with_taps(fixed: _Wiring, vms: VmFacts) -> Wiring:
    """And that. Whatever has no TAP in it is shared with `fixed`, which nobody alters any more."""
    build = copy(fixed)
    build.facts = replace(fixed.facts, vms=vms)
    build.netlink = replace(fixed.netlink, taps={})
    build.ovs = replace(fixed.ovs, ports=dict(fixed.ovs.ports))
    build.ports, build.remarks = dict(fixed.ports), dict(fixed.remarks)
    for link, owner in fixed.tap_links:
        build.tap(link, owner)
    return Wiring(build.netlink, build.ovs, build.ports, build.remarks)


def _former(vif: Vif, wanted: str) -> str:
    """The Linux bridge that a TAP goes back to: another than the wanted one that it is in now was put there
    by libvirt since we took it.
    """
    return vif.linux_bridge if vif.master in ("", wanted) else vif.master


class _Wiring:
    """Collects resources while it walks the topology once."""

    def __init__(self, topology: Topology, facts: Facts) -> None:
        self.topology = topology
        self.facts = facts
        self.netlink = NetlinkState()
        self.ovs = OvsState()
        self.ports: dict[tuple[str, str], PortKey] = {}
        self.remarks: dict[Owner, Remark] = {}
        self.tap_links: list[tuple[Link, Owner]] = []
        # A userspace datapath takes a partial checksum for a wrong one, wherever the frame entered.
        self.tx_checksum = all(
            datapath_type(node, facts) == "system"
            for node in topology.nodes.values()
            if isinstance(node, Bridge)
        )
        self.trunk_mtu = VLAN_HEADER + max((net.mtu for net in topology.networks.values()), default=1500)

    def node(self, name: str, node: Bridge | LinuxBridge | Namespace | Vm | Uplink) -> None:
        owner = Owner(self.topology.name, f"nodes/{name}")
        if isinstance(node, Bridge):
            self.ovs.bridges[name] = OvsBridgeSpec(owner, datapath_type(node, self.facts))
        elif isinstance(node, LinuxBridge):
            self._linux_bridge(name, node, owner)
        elif isinstance(node, Namespace):
            routes = frozenset(
                [RouteSpec(route.to, route.via) for route in node.routes]
                + [RouteSpec(to, via) for _, to, via in default_gateways(self.topology, node)]
            )
            self.netlink.namespaces[name] = NamespaceSpec(owner, routes)
        if isinstance(node, Tun):
            addresses = frozenset(node.ip)
            self.netlink.tuns[name] = TunSpec(owner, node.device, node.mtu, addresses, node.user)

    def _linux_bridge(self, name: str, node: LinuxBridge, owner: Owner) -> None:
        if not node.external:
            self.netlink.linux_bridges[name] = LinuxBridgeSpec(
                owner, self.topology.networks[node.network].mtu
            )
        elif name not in self.facts.linux_bridges:
            self.remarks[owner] = Remark("pending", f"there is no Linux bridge '{name}' yet")

    def link(self, link: Link) -> None:
        owner = Owner(self.topology.name, f"links/{link_name(link)}")
        for end in link.ends:
            missing = self.remarks.get(Owner(self.topology.name, f"nodes/{end}"))
            if missing is not None:
                self._wait_for(link, owner, missing)
                return
        kind = link_kind(self.topology, link, self.facts)
        if kind == "uplink":
            self._uplink(link, owner)
        elif kind == "tap":
            self.tap_links.append((link, owner))
        elif kind == "patch":
            self._patch(link, owner)
        else:
            self._veth(link, owner)

    def _wait_for(self, link: Link, owner: Owner, missing: Remark) -> None:
        """A link to what is not there yet, and the interface at its other end."""
        self.remarks[owner] = missing
        for end in link.ends:
            if self.topology.interface(end) is not None:
                self.remarks[Owner(self.topology.name, f"interfaces/{end}")] = missing

    def _port(self, bridge: str, towards: str, name: str, spec: OvsPortSpec) -> None:
        key = PortKey(bridge, name)
        self.ovs.ports[key] = spec
        self.ports[bridge, towards] = key

    def _uplink(self, link: Link, owner: Owner) -> None:
        for end, other in (link.ends, link.ends[::-1]):
            node = self.topology.nodes.get(end)
            if isinstance(node, Uplink):
                self._port(other, end, node.interface, OvsPortSpec(owner))

    def tap(self, link: Link, owner: Owner) -> None:
        """libvirt makes the TAP; it is taken from where libvirt put it, and becomes our port."""
        for end, other in (link.ends, link.ends[::-1]):
            name, mac = split_end(end)
            node = self.topology.nodes[name]
            if not isinstance(node, Vm):
                continue
            vif = self.facts.vms.vif(VifKey(node.domain, mac))
            in_linux = isinstance(self.topology.nodes[other], LinuxBridge)
            if in_linux and not vif.device:
                vif = self.facts.vms.held.get(owner.text, vif)
            if vif.device and not in_linux:
                marks = VifMarks(vif.interface_id, mac, vif.vm, node.domain, vif.ovs_bridge)
                self.netlink.taps[vif.device] = TapSpec(owner, _former(vif, ""))
                self._port(other, end, vif.device, OvsPortSpec(owner, vif=marks))
            elif vif.device:
                vif = self._tap_in_linux_bridge(vif, other, owner)
            if vif.status != "in-sync":
                remark = Remark(vif.status, vif.reason)
                self.remarks[owner] = self.remarks[Owner(self.topology.name, f"interfaces/{end}")] = remark

    def _tap_in_linux_bridge(self, vif: Vif, bridge: str, owner: Owner) -> Vif:
        """One that libvirt itself puts there is left as it is, without a mark."""
        if vif.ovs_bridge:
            where = vif.ovs_bridge.partition(" ")[0]
            reason = f"libvirt has its TAP in Open vSwitch bridge '{where}'; link it to a bridge of that kind"
            return replace(vif, status="pending", reason=reason)
        former = _former(vif, bridge)
        if not former == bridge == vif.master:
            self.netlink.taps[vif.device] = TapSpec(owner, former, master=bridge)
        return vif

    def _patch(self, link: Link, owner: Owner) -> None:
        name = {end: self._device(end, other) for end, other in (link.ends, link.ends[::-1])}
        for end, other in (link.ends, link.ends[::-1]):
            self._port(end, other, name[end], OvsPortSpec(owner, "patch", name[other]))

    def _veth(self, link: Link, owner: Owner) -> None:
        ends = [self._veth_end(end, other) for end, other in (link.ends, link.ends[::-1])]
        first, second = sorted(ends, key=lambda end: (end.namespace, end.name))
        self.netlink.veths[owner.text] = VethSpec(owner, first, second)
        for end, other in (link.ends, link.ends[::-1]):
            if isinstance(self.topology.nodes.get(end), Bridge):
                self._port(end, other, self._device(end, other), OvsPortSpec(owner))

    def _veth_end(self, end: str, other: str) -> VethEnd:
        interface = self.topology.interface(end)
        if interface is None:
            linux = isinstance(self.topology.nodes[end], LinuxBridge)
            # What the host or a guest sends into a Linux bridge may lack its checksum, too.
            leaves = linux and isinstance(self.topology.nodes.get(other), Bridge)
            return VethEnd(
                ROOT,
                self._device(end, other),
                self._mtu(end, other),
                master=end if linux else None,
                tx_checksum=self.tx_checksum or not leaves,
            )
        namespace, name = split_end(end)
        return VethEnd(
            namespace,
            name,
            self.topology.endpoint_mtu(end),
            mac=self.topology.endpoint_mac(end),
            addresses=frozenset(interface.ip),
            tx_checksum=self.tx_checksum,
        )

    def _mtu(self, end: str, other: str) -> int:
        """Both ends agree: the endpoint's MTU, the Linux bridge's network's, or a tagged trunk's."""
        for name in (end, other):
            if self.topology.interface(name) is not None:
                return self.topology.endpoint_mtu(name)
        for name in (end, other):
            node = self.topology.nodes[name]
            if isinstance(node, LinuxBridge):
                return self.topology.networks[node.network].mtu
        return self.trunk_mtu

    def _device(self, end: str, other: str) -> str:
        """The device at `end`, named after what it leads to."""
        return device_name(self.topology.name, other, end)
