"""The topology document: what a person declares. Frozen pydantic models, no I/O.

Shape only: types, units, unknown keys. What needs the whole document (duplicate addresses, links to
unknown ends, ...) is checked in `topology/validate.py`, which reports every finding with its place.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
)

from vswitchctl.model.limits import Bursts, Dscp, PacketRates, Rate, Rates, Storm
from vswitchctl.model.policy import Cidr, Rule

IFNAME_MAX = 15
"""IFNAMSIZ - 1, linux/if.h: the longest device name."""

VLAN_MIN, VLAN_MAX = 1, 4094
"""IEEE 802.1Q 9.6: VID 0 is priority-tagged, 4095 reserved."""

LEARN_LIMIT = 1024
"""MACs that are learned behind a port of a network unless the file says otherwise."""

MAC_AGEING = 300
"""Seconds: IEEE 802.1Q 8.8.3, the recommended default."""

MTU_MIN, MTU_MAX = 68, 65535
"""RFC 791: every IPv4 link carries 68 octets; a veth takes at most 65535."""

UID_MAX = 2**32 - 2
"""The highest user id: -1 stands for none, credentials(7)."""

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=63),
    Field(description="letters, digits, '_', '.', '-'"),
]


def _mac(value: str) -> str:
    text = value.lower()
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text):
        raise ValueError("a MAC address is six pairs of hex digits, e.g. 02:00:00:00:00:01")
    if int(text[:2], 16) & 1:
        raise ValueError("this is a multicast MAC address; the second hex digit must be even")
    if text == "00:00:00:00:00:00":
        raise ValueError("the all-zero MAC address belongs to nobody")
    return text


def _nic_mac(value: str) -> str:
    mac = _mac(value)
    if mac != value:
        raise ValueError(f'a NIC is named by its MAC address in lower case; write "{mac}"')
    return mac


def _domain_name(value: str) -> str:
    if not value.isprintable() or "/" in value or value != value.strip():
        raise ValueError("not the name of a domain; write it as 'virsh list --all' shows it")
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"not a subnet in CIDR form, e.g. 10.1.0.0/24: {error}") from error


def _interface_address(value: str) -> str:
    if "/" not in value:
        raise ValueError("an address needs its prefix length, e.g. 10.1.0.11/24")
    try:
        return str(ipaddress.ip_interface(value))
    except ValueError as error:
        raise ValueError(f"not an address with prefix, e.g. 10.1.0.11/24: {error}") from error


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise ValueError(f"not an IP address: {error}") from error


def _allowed_addresses(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"not an address or subnet, e.g. 10.1.0.100 or 10.1.0.0/24: {error}") from error


def _route_target(value: str) -> str:
    return "0.0.0.0/0" if value == "default" else _network(value)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Mac = Annotated[str, AfterValidator(_mac)]
NicMac = Annotated[str, AfterValidator(_nic_mac)]
DomainName = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_domain_name)]
Subnet = Annotated[str, AfterValidator(_network)]
InterfaceAddress = Annotated[str, AfterValidator(_interface_address)]
Address = Annotated[str, AfterValidator(_address)]
AllowedAddresses = Annotated[str, AfterValidator(_allowed_addresses)]
RouteTarget = Annotated[str, AfterValidator(_route_target)]
Vlan = Annotated[int, Field(ge=VLAN_MIN, le=VLAN_MAX)]
Mtu = Annotated[int, Field(ge=MTU_MIN, le=MTU_MAX)]
LearnLimit = Annotated[
    int, Field(ge=0, le=65535, description="most MACs that the switch learns behind it; 0: none is learned")
]
EndText = Annotated[str, Field(description="'node' or 'node:interface'", min_length=1)]


class Entity(BaseModel):
    """What every part of a document shares: strict keys, frozen, an optional description."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    description: str = ""


class Tenant(Entity):
    """An owner of networks and namespaces. Two tenants exchange no packet, unless a router connects them."""


class Network(Entity):
    """An L2 segment of one tenant."""

    tenant: Name
    subnets: tuple[Subnet, ...] = ()
    gateway: Annotated[tuple[Address, ...], BeforeValidator(_one_or_many)] = Field(
        (), description="the router's address in each subnet that is routed"
    )
    vlan: Vlan | None = Field(None, description="the tag on bridge links; chosen and kept where absent")
    mtu: Mtu = 1500
    mac_ageing: int = Field(
        MAC_AGEING, ge=1, le=65535, description="seconds without a frame from it until a MAC is forgotten"
    )
    storm: Storm = Field(Storm(), description="limits of what each of its ports to the outside floods")


class AllowedPair(Entity):
    """A source that an interface may use beside its own MAC with its own addresses."""

    mac: Mac | None = Field(None, description="the interface's own where absent")
    ip: AllowedAddresses | None = Field(
        None, description="an address or a subnet; the interface's own addresses where absent"
    )


class Interface(Entity):
    """A network interface of an endpoint: one MAC in one network."""

    network: Name
    ip: Annotated[tuple[InterfaceAddress, ...], BeforeValidator(_one_or_many)] = ()
    mac: Mac | None = Field(None, description="derived from the topology, node and interface where absent")
    mtu: Mtu | None = Field(None, description="the network's where absent")
    port_security: StrictBool = Field(True, description="drop what carries another's MAC or address")
    allowed: tuple[AllowedPair, ...] = Field((), description="further sources it may use")
    dhcp_server: StrictBool = Field(False, description="it may send what only DHCP servers and relays send")
    router: StrictBool = Field(False, description="it may send router advertisements and redirects")
    acls: Annotated[tuple[Name, ...], BeforeValidator(_one_or_many)] = ()
    bypass: StrictBool = Field(
        False, description="of a virtual machine: it may bypass the switch, so nothing here is enforced"
    )
    learn_limit: LearnLimit = LEARN_LIMIT
    qos: Name | None = Field(None, description="the profile of its limits")
    storm: Storm = Field(Storm(), description="limits of what it floods, over those of its network")


class Route(Entity):
    """A route inside a namespace."""

    to: RouteTarget
    via: Address


class Bridge(Entity):
    """An Open vSwitch bridge."""

    kind: Literal["bridge"]
    datapath: Literal["auto", "system", "netdev"] = "auto"


class LinuxBridge(Entity):
    """A bridge of the Linux kernel; a plain segment of one network."""

    kind: Literal["linux-bridge"]
    network: Name
    external: StrictBool = Field(
        False, description="it is somebody else's, such as libvirt's: linked, and neither made nor removed"
    )
    learn_limit: LearnLimit = LEARN_LIMIT


class Namespace(Entity):
    """A network namespace of one tenant, with interfaces linked to bridges."""

    kind: Literal["namespace"]
    tenant: Name
    interfaces: dict[Name, Interface] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    default_route: StrictBool = Field(True, description="by its network's gateway, where there is one")


class Vm(Entity):
    """A virtual machine of libvirt's, known by its domain's name; its NICs by their MAC addresses."""

    kind: Literal["vm"]
    tenant: Name
    domain: DomainName
    interfaces: dict[NicMac, Interface] = Field(default_factory=dict)


class Tun(Namespace):
    """A namespace with a TUN device in it, for a program that moves packets and not frames, as a VPN does.

    It forwards between the device and its interfaces.
    """

    kind: Literal["tun"]  # type: ignore[assignment]  # the tag of Node
    device: str = Field("tun0", min_length=1, max_length=IFNAME_MAX)
    ip: Annotated[tuple[InterfaceAddress, ...], BeforeValidator(_one_or_many)] = ()
    mtu: Mtu = 1500
    user: int | None = Field(
        None, ge=0, le=UID_MAX, description="the user id that may open it; root alone where absent"
    )


EndpointNode = Namespace | Vm
"""Nodes whose interfaces are endpoints."""


class Uplink(Entity):
    """A device of the host that leads out of the topology: untagged in one network, or tagged in several."""

    kind: Literal["uplink"]
    interface: str = Field(min_length=1, max_length=IFNAME_MAX)
    network: Name | None = None
    trunk: dict[Name, Vlan] = Field(default_factory=dict)
    learn_limit: LearnLimit = LEARN_LIMIT
    storm: Storm = Field(Storm(), description="limits of what comes in by it as floods")


Node = Annotated[Bridge | LinuxBridge | Namespace | Tun | Vm | Uplink, Field(discriminator="kind")]


class Link(Entity):
    """An edge of the graph between two ends, each 'node' or 'node:interface'."""

    ends: tuple[EndText, EndText]
    kind: Literal["auto", "veth", "patch"] = "auto"
    cost: int = Field(1, ge=1, le=65535)


class Qos(Entity):
    """A named profile of limits, for interfaces to name. Directions are seen from the interface."""

    max_rate: Rates | None = Field(None, description="at most so much, e.g. 100mbit")
    burst: Bursts | None = Field(
        None, description="so much at once above it; a quarter of a second if absent"
    )
    min_rate: Rate | None = Field(None, description="cannot be enforced: refused where an interface names it")
    max_pps: PacketRates | None = Field(None, description="at most so many packets per second")
    mechanism: Literal["meter", "queue", "police"] = Field(
        "meter", description="what holds the rates: meters alone, the others are refused with the reason"
    )
    dscp: Dscp | None = Field(None, description="the mark of every IP packet that the interface sends")


class Group(Entity):
    """Endpoints of one tenant, or addresses, that rules name together."""

    members: tuple[EndText, ...] = ()
    addresses: tuple[Cidr, ...] = ()


class RouterRoute(Entity):
    """A static route of a router. via: a next hop in one of its networks."""

    to: RouteTarget
    via: Address
    mac: Mac | None = Field(
        None, description="the next hop's, where it is behind an uplink; asked for where absent"
    )


class Router(Entity):
    """Routes between networks at their gateways, on whichever bridge a packet enters."""

    tenant: Name
    networks: tuple[Name, ...]
    connects: Annotated[tuple[Name, ...], BeforeValidator(_one_or_many)] = Field(
        (), description="other tenants whose networks it may have, too"
    )
    routes: tuple[RouterRoute, ...] = ()


class Expect(Entity):
    """What the author expects of the result: the proof that `verify` and the tests hold it to."""

    reachable: tuple[tuple[EndText, ...], ...] = Field(
        (), description="groups of endpoints; all pairs inside a group exchange packets, no other pair does"
    )


class Topology(Entity):
    """A whole document."""

    name: Name
    tenants: dict[Name, Tenant] = Field(default_factory=dict)
    networks: dict[Name, Network] = Field(default_factory=dict)
    nodes: dict[Name, Node] = Field(default_factory=dict)
    links: tuple[Link, ...] = ()
    qos: dict[Name, Qos] = Field(default_factory=dict)
    groups: dict[Name, Group] = Field(default_factory=dict)
    acls: dict[Name, tuple[Rule, ...]] = Field(default_factory=dict)
    routers: dict[Name, Router] = Field(default_factory=dict)
    expect: Expect | None = None

    def interface(self, end: str) -> Interface | None:
        """The interface that 'node:interface' names, or None where there is none."""
        node_name, _, interface_name = end.partition(":")
        node = self.nodes.get(node_name)
        return node.interfaces.get(interface_name) if isinstance(node, EndpointNode) else None

    def endpoints(self) -> dict[str, Interface]:
        """Every 'node:interface' of the document, in its order."""
        return {
            f"{name}:{interface_name}": interface
            for name, node in self.nodes.items()
            if isinstance(node, EndpointNode)
            for interface_name, interface in node.interfaces.items()
        }

    def storm(self, end: str) -> Storm:
        """The limits on floods of 'node:interface', or of an uplink: its own, then its network's."""
        spec = self.interface(end) or self.nodes.get(end)
        if not isinstance(spec, Interface | Uplink):
            return Storm()
        network = self.networks.get(spec.network or "")
        return spec.storm.over(network.storm) if network is not None else spec.storm

    def limited(self) -> tuple[str, ...]:
        """Every 'node:interface' and uplink with a limit that takes a meter, in the document's order."""
        uplinks = [name for name, node in self.nodes.items() if isinstance(node, Uplink)]
        return tuple(end for end in (*self.endpoints(), *uplinks) if self._metered(end))

    def _metered(self, end: str) -> bool:
        interface = self.interface(end)
        profile = self.qos.get(interface.qos or "") if interface is not None else None
        rates = profile is not None and (profile.max_rate is not None or profile.max_pps is not None)
        return rates or bool(self.storm(end))

    def endpoint_mac(self, end: str) -> str:
        """The declared MAC of 'node:interface', else the derived one; of a virtual machine its name."""
        node_name, _, interface_name = end.partition(":")
        if isinstance(self.nodes.get(node_name), Vm):
            return interface_name
        interface = self.interface(end)
        declared = interface.mac if interface is not None else None
        return declared or derived_mac(self.name, end)

    def gateway_mac(self, network: str) -> str:
        """The MAC of a network's gateway, the same on every bridge. No end has a name with two colons."""
        return derived_mac(self.name, f"gateway::{network}")

    def next_hop_mac(self, network: str, address: str) -> str:
        """The MAC that stands for a next hop of which nobody declared one."""
        return derived_mac(self.name, f"next-hop::{network}::{address}")

    def endpoint_mtu(self, end: str) -> int:
        """The declared MTU of 'node:interface', else its network's."""
        interface = self.interface(end)
        if interface is None:
            raise KeyError(end)
        return interface.mtu or self.networks[interface.network].mtu


def split_end(end: str) -> tuple[str, str]:
    """'web1:eth0' -> ('web1', 'eth0'); 'br-a' -> ('br-a', '')."""
    node, _, interface = end.partition(":")
    return node, interface


def link_name(link: Link) -> str:
    """The entity name of a link: its ends in order, so that swapping them changes nothing."""
    return "--".join(sorted(link.ends))


def derived_mac(topology: str, end: str) -> str:
    """A stable, locally administered unicast MAC (IEEE 802c: second-least bit of the first octet set)."""
    digest = hashlib.blake2b(f"{topology}/{end}".encode(), digest_size=5).digest()
    return ":".join(f"{octet:02x}" for octet in b"\x02" + digest)


def device_name(topology: str, text: str, peer: str) -> str:
    """A stable device name of at most 15 characters: a readable start and a hash of the whole."""
    digest = hashlib.blake2b(f"{topology}/{text}/{peer}".encode(), digest_size=4).hexdigest()[:6]
    readable = re.sub(r"[^A-Za-z0-9]", "", text)[: IFNAME_MAX - 7] or "v"
    return f"{readable}-{digest}"


def entities(topology: Topology) -> tuple[str, ...]:
    """Every entity of a topology by the name that owners and sources use."""
    return (
        *(f"tenants/{name}" for name in topology.tenants),
        *(f"networks/{name}" for name in topology.networks),
        *(f"nodes/{name}" for name in topology.nodes),
        *(f"interfaces/{end}" for end in topology.endpoints()),
        *(f"links/{link_name(link)}" for link in topology.links),
        *(f"acls/{name}" for name in topology.acls),
        *(f"routers/{name}" for name in topology.routers),
    )
