"""What the apps compile flows from: one bridge with its numbered ports, known MACs and flood sets. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vswitchctl.model.state import Owner


@dataclass(frozen=True, slots=True)
class Membership:
    """A port's part in one network.

    tag: the network's number in our registers. vid: the VLAN tag on the wire, None where untagged.
    flood: the port is in the network's broadcast tree. learn: sources seen here may be learned.
    limit: how many of them at most.
    """

    tag: int
    vid: int | None
    flood: bool
    learn: bool
    limit: int = 0


Prefix = tuple[int, int]
"""An address as an integer, and how many of its leading bits count."""


@dataclass(frozen=True, slots=True)
class AllowedSource:
    """A MAC that an endpoint may send from, and the addresses that go with it; none overlaps another.

    any_address: nothing was declared, so any address goes with it, and ipv4 and ipv6 are empty.
    """

    mac: int
    ipv4: tuple[Prefix, ...]
    ipv6: tuple[Prefix, ...]
    any_address: bool


@dataclass(frozen=True, slots=True)
class PortSecurity:
    """What the endpoint of a port may send. owner: its interface. sources: by MAC."""

    owner: Owner
    sources: tuple[AllowedSource, ...]
    dhcp_server: bool
    router: bool


@dataclass(frozen=True, slots=True)
class AddressTerm:
    """A peer by address. family: 4 or 6, and value and mask of that many bits; 0: a MAC of 48 bits."""

    family: int
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class AclRule:
    """A rule as flows need it.

    position: its place among the rules of its set, 0 first. number: the rule's in its ACL, from 1.
    families: the IP versions it can match. peers, ports: None for any. protocol: None for any.
    conjunction: a number that no other rule of the topology has; used where both lists are long.
    reject: denied, and the sender is told. log: the daemon is told.
    """

    owner: Owner
    number: int
    position: int
    inbound: bool
    allow: bool
    stateful: bool
    families: tuple[int, ...]
    protocol: int | None
    icmp_type: int | None
    peers: tuple[AddressTerm, ...] | None
    ports: tuple[tuple[int, int], ...] | None
    conjunction: int
    reject: bool = False
    log: bool = False

    @property
    def logs_opening(self) -> bool:
        """Of a connection that it allows, the packets that open it alone are logged."""
        return self.log and self.allow and self.stateful

    @property
    def families_apart(self) -> tuple[int, ...]:
        """IP versions that need flows of their own; (0,) where one flow is for both."""
        addressed = self.peers is not None and any(term.family for term in self.peers)
        return self.families if addressed or self.protocol is not None else (0,)


class Coverage(NamedTuple):
    """What a set of rules means for a port, whatever the rules are in detail.

    covers_in, covers_out: directions in which what no rule allows is denied. rejects_in, rejects_out:
    directions in which a rule rejects.
    """

    covers_in: bool
    covers_out: bool
    rejects_in: bool
    rejects_out: bool


@dataclass(frozen=True, slots=True)
class AclSet:
    """The ACLs of an interface, in order. number: 32 bits, made of their names alone. owner: the first."""

    number: int
    owner: Owner
    rules: tuple[AclRule, ...]

    def covers(self, inbound: bool) -> bool:
        return any(rule.inbound == inbound for rule in self.rules)

    @property
    def coverage(self) -> Coverage:
        """What its rules mean for every port that has it."""
        rejecting = [rule.inbound for rule in self.rules if rule.reject]
        return Coverage(
            self.covers(inbound=True), self.covers(inbound=False), True in rejecting, False in rejecting
        )


@dataclass(frozen=True, slots=True)
class PortAcl:
    """The policy of a port: its conntrack zone, the number of its set, and what that set means for it."""

    owner: Owner
    zone: int
    set: int
    coverage: Coverage


class Limit(NamedTuple):
    """Kilobits (of 1000 bits) or packets: so many per second, and how many at once."""

    rate: int
    burst: int


@dataclass(frozen=True, slots=True)
class PortLimits:
    """What a port may do. Each limit is a meter; None: no limit. to: towards the port's device.

    number: of the port among those with limits, from which its meters have their ids. dscp: 0 to 63, None
    where packets keep theirs. Rates in kilobits, all others in packets.
    """

    owner: Owner
    number: int
    rate_from: Limit | None = None
    packets_from: Limit | None = None
    rate_to: Limit | None = None
    packets_to: Limit | None = None
    broadcast: Limit | None = None
    multicast: Limit | None = None
    unknown_unicast: Limit | None = None
    dscp: int | None = None

    @property
    def limits_to(self) -> bool:
        return self.rate_to is not None or self.packets_to is not None

    @property
    def limits_groups(self) -> bool:
        return self.broadcast is not None or self.multicast is not None


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """A port with an OpenFlow number and the networks it takes part in.

    endpoint: exactly one declared endpoint is behind it. security: what it may send; None: anything.
    """

    ofport: int
    owner: Owner
    memberships: tuple[Membership, ...]
    endpoint: bool = False
    security: PortSecurity | None = None
    acl: PortAcl | None = None
    limits: PortLimits | None = None


@dataclass(frozen=True, slots=True)
class KnownMac:
    """A declared endpoint as this bridge reaches it. mac: 48-bit integer."""

    tag: int
    mac: int
    ofport: int
    owner: Owner


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """An address that a declared endpoint alone has. version: 4 or 6.

    ofport: the endpoint's port where it is on this bridge, else None.
    """

    tag: int
    version: int
    address: int
    mac: int
    ofport: int | None
    owner: Owner


@dataclass(frozen=True, slots=True)
class SwitchNetwork:
    """A network on this bridge. learns: somewhere it has endpoints that nobody declared.

    ageing: seconds until one of them that is silent is forgotten.
    gateway: the MAC of its gateway, where a router has it.
    apart: ports of the flood with limits at their other end, on another bridge.
    """

    tag: int
    owner: Owner
    learns: bool
    flood: tuple[int, ...]
    ageing: int = 300
    gateway: int | None = None
    apart: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutedNetwork:
    """A network of a router. mac: its gateway's. gateways: (version, address); subnets: (version, prefix)."""

    tag: int
    owner: Owner
    mac: int
    gateways: tuple[tuple[int, int], ...]
    subnets: tuple[tuple[int, Prefix], ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Whose address in a routed network has which MAC. version: 4 or 6."""

    tag: int
    version: int
    address: int
    mac: int
    owner: Owner


@dataclass(frozen=True, slots=True)
class SwitchRoute:
    """A static route. number: its place in the file, from 1. tag, gateway, mac: of the next hop's network."""

    number: int
    version: int
    prefix: Prefix
    tag: int
    gateway: int
    mac: int


@dataclass(frozen=True, slots=True)
class NextHop:
    """A router behind an uplink of this bridge whose MAC nobody declared: it is asked, and learned.

    mac: stands for its own in the network, until a packet leaves. gateway: (address, MAC), who asks.
    """

    tag: int
    version: int
    address: int
    mac: int
    gateway: tuple[int, int]
    ofport: int
    owner: Owner


@dataclass(frozen=True, slots=True)
class SwitchRouter:
    """A router, where packets enter its networks. number: 32 bits, made of its name alone."""

    number: int
    owner: Owner
    networks: tuple[RoutedNetwork, ...]
    routes: tuple[SwitchRoute, ...]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """One bridge. Every tuple is sorted, so that the same intent gives the same flows byte for byte."""

    name: str
    owner: Owner
    ports: tuple[SwitchPort, ...]
    macs: tuple[KnownMac, ...]
    networks: tuple[SwitchNetwork, ...]
    addresses: tuple[KnownAddress, ...] = ()
    acl_sets: tuple[AclSet, ...] = ()
    routers: tuple[SwitchRouter, ...] = ()
    next_hops: tuple[NextHop, ...] = ()
