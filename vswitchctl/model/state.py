"""Resources on a host, desired or observed: one frozen value per resource, keyed. No I/O.

The keyed diff compares `desired[key] == observed[key]`, so a value holds exactly what we set and nothing
that the system adds by itself (ifindex, counters, link-local addresses, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vswitchctl.model.domains import VmFacts
from vswitchctl.model.flow import PartedTable

OWNER_PREFIX = "vswitchctl:"
OWNER_KEY = "vswitchctl"
"""`external_ids:vswitchctl=<topology>/<entity>` in OVSDB; `vswitchctl:<topology>/<entity>` as ifalias."""

ROUTE_PROTOCOL = 0x76
"""'v': rtm_protocol and ifa_proto of routes and addresses we set; rtnetlink(7), above RTPROT_STATIC."""

ROOT = ""
"""The network namespace that the daemon runs in."""


class Owner(NamedTuple):
    """The entity of a topology that a resource exists for, e.g. ('two-tenants', 'links/web1:eth0--br-a')."""

    topology: str
    entity: str

    @property
    def text(self) -> str:
        return f"{self.topology}/{self.entity}"

    @property
    def alias(self) -> str:
        return f"{OWNER_PREFIX}{self.topology}/{self.entity}"


def parse_owner(text: str) -> Owner | None:
    """'two-tenants/nodes/web1' -> Owner('two-tenants', 'nodes/web1'); None where it is not such a text."""
    topology, slash, entity = text.removeprefix(OWNER_PREFIX).partition("/")
    return Owner(topology, entity) if slash and topology and entity else None


def parse_alias(alias: str | None) -> Owner | None:
    """The owner an ifalias names, or None where the link is not ours."""
    return parse_owner(alias) if alias and alias.startswith(OWNER_PREFIX) else None


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """A route inside a namespace: destination in CIDR form and gateway address."""

    to: str
    via: str


@dataclass(frozen=True, slots=True)
class NamespaceSpec:
    """A named network namespace (/run/netns/NAME), loopback up, with its routes. The mark is lo's ifalias."""

    owner: Owner
    routes: frozenset[RouteSpec] = frozenset()
    loopback_up: bool = True


@dataclass(frozen=True, slots=True)
class LinuxBridgeSpec:
    """A Linux bridge in the root namespace, up; without STP, and flooding multicast (no snooping)."""

    owner: Owner
    mtu: int
    up: bool = True
    stp: bool = False
    multicast_snooping: bool = False


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a veth pair, up. `namespace` is ROOT ('') or a namespace name.

    mac:  None where the kernel chooses. addresses: CIDR texts. master: a Linux bridge in the root namespace.
    tx_checksum: False where frames enter a userspace datapath (which takes the partial checksum as it is).
    """

    namespace: str
    name: str
    mtu: int
    mac: str | None = None
    master: str | None = None
    addresses: frozenset[str] = frozenset()
    tx_checksum: bool = True


@dataclass(frozen=True, slots=True)
class VethSpec:
    """A veth pair. Both ends carry the owner as ifalias; ends are in a stable order."""

    owner: Owner
    a: VethEnd
    b: VethEnd


@dataclass(frozen=True, slots=True)
class TunSpec:
    """A persistent TUN device in a namespace of ours, up, which forwards IPv4 and IPv6.

    The mark is its ifalias. user: the user id that may open it, None for root alone. kept: it stays when the
    program closes it.
    """

    owner: Owner
    name: str
    mtu: int
    addresses: frozenset[str] = frozenset()
    user: int | None = None
    up: bool = True
    kept: bool = True
    forwarding: bool = True


@dataclass(frozen=True, slots=True)
class TapSpec:
    """A TAP of a virtual machine's that is our port, or one of a Linux bridge that we put it into; up.

    master: that Linux bridge, '' for none. The mark is its ifalias, with `former`: the Linux bridge it was
    taken from and goes back to, '' for none.
    """

    owner: Owner
    former: str = ""
    master: str = ""
    up: bool = True


@dataclass(frozen=True, slots=True)
class OvsBridgeSpec:
    """An Open vSwitch bridge: fail_mode=secure, no controller, mac-learning nowhere but in our flows.

    drift: what was altered by hand, e.g. 'fail_mode=standalone'; '' in every desired bridge.
    """

    owner: Owner
    datapath_type: str
    drift: str = ""


class PortKey(NamedTuple):
    bridge: str
    name: str


@dataclass(frozen=True, slots=True)
class VifMarks:
    """What a virtual machine's port says of it, in external_ids of its Interface (ovs-vswitchd.conf.db(5)).

    domain: its name, for when libvirt cannot be asked.
    former: the Open vSwitch bridge, and VLAN, where libvirt had put the port, and where it goes back,
    'theirs tag=5'; '' for none.
    """

    iface_id: str
    attached_mac: str
    vm_id: str
    domain: str
    former: str = ""


@dataclass(frozen=True, slots=True)
class OvsPortSpec:
    """A port with one interface of the same name. type '' is a device of the system, 'patch' has a `peer`.

    vif: of a virtual machine's port.
    drift: what was altered by hand, e.g. 'tag=5'; '' in every desired port.
    """

    owner: Owner
    type: str = ""
    peer: str | None = None
    drift: str = ""
    vif: VifMarks | None = None


@dataclass(frozen=True, slots=True)
class NetlinkState:
    """What the kernel holds. Keys: namespace, bridge or TAP name; of a TUN its namespace, of a veth pair the
    owner's text.
    """

    namespaces: dict[str, NamespaceSpec] = field(default_factory=dict)
    linux_bridges: dict[str, LinuxBridgeSpec] = field(default_factory=dict)
    veths: dict[str, VethSpec] = field(default_factory=dict)
    taps: dict[str, TapSpec] = field(default_factory=dict)
    tuns: dict[str, TunSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OvsState:
    """What Open vSwitch holds."""

    bridges: dict[str, OvsBridgeSpec] = field(default_factory=dict)
    ports: dict[PortKey, OvsPortSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something on the host that is not ours: reported, never touched."""

    kind: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ObservedNetlink:
    """`owned` carries our mark. `broken` are veth pairs of ours with an end missing: key -> surviving ends.

    devices: every device name in the root namespace -> owner or None (for conflicts and for uplinks).
    namespaces: every name under /run/netns -> owner or None.
    unopened: devices in the root namespace that nobody listens to in promiscuous mode, as a switch does.
    taps: every TUN or TAP device in the root namespace -> the Linux bridge it is a port of, '' for none.
    foreign_bridges: Linux bridges in the root namespace that are not ours.
    """

    owned: NetlinkState
    broken: dict[str, tuple[VethEnd, ...]]
    devices: dict[str, Owner | None]
    namespaces: dict[str, Owner | None]
    unopened: frozenset[str] = frozenset()
    taps: Mapping[str, str] = field(default_factory=dict)
    foreign_bridges: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ObservedOvs:
    """`owned` carries our mark. ofports: of every port of an owned bridge that has one (> 0).

    errors: Interface.error texts. names: every bridge and port name -> owner or None.
    datapath_types: what this vswitchd offers. foreign: bridges, and ports on our bridges, of others.
    foreign_ports: port of somebody else -> its bridge and VLAN, 'theirs tag=5'.
    """

    owned: OvsState
    ofports: dict[PortKey, int]
    errors: dict[PortKey, str]
    names: dict[str, Owner | None]
    datapath_types: frozenset[str]
    foreign: tuple[Foreign, ...]
    foreign_ports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remark:
    """Why an entity is not all that was declared, where nothing failed and nothing waits for it."""

    status: Literal["pending", "stale", "bypasses"]
    reason: str


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything a host should hold. `flows`: bridge name -> its flow table.

    cookies: cookie without its rule number -> owner, so that every flow explains itself.
    pending: owner -> why something of it is not there yet (an ofport not assigned, ...).
    meters: bridge name -> meter id -> its value (`model/meter.py`). meter_owners: (bridge, id) -> owner.
    remarks: of virtual machines that do not run, ...: nothing waits for these.
    """

    netlink: NetlinkState = field(default_factory=NetlinkState)
    ovs: OvsState = field(default_factory=OvsState)
    flows: dict[str, PartedTable] = field(default_factory=dict)
    cookies: Mapping[int, Owner] = field(default_factory=dict)
    pending: dict[Owner, str] = field(default_factory=dict)
    meters: dict[str, dict[int, bytes]] = field(default_factory=dict)
    meter_owners: dict[tuple[str, int], Owner] = field(default_factory=dict)
    remarks: dict[Owner, Remark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What compile needs to know of the host, and nothing else.

    ofports: (bridge, port) -> OpenFlow port number. system_datapath: the openvswitch kernel module is usable.
    vms: virtual machines, and where their NICs are. linux_bridges: those of others.
    """

    ofports: Mapping[PortKey, int] = field(default_factory=dict)
    system_datapath: bool = False
    vms: VmFacts = field(default_factory=VmFacts)
    linux_bridges: frozenset[str] = frozenset()
