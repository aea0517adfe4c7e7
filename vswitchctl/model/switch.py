"""What the apps compile flows from: one bridge with its numbered ports, known MACs and flood sets. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class AclSet:
    """The ACLs of an interface, in order. number: 32 bits, made of their names alone. owner: the first."""

    number: int
    owner: Owner
    rules: tuple[AclRule, ...]

    def covers(self, inbound: bool) -> bool:
        return any(rule.inbound == inbound for rule in self.rules)

    def rejects(self, inbound: bool) -> bool:
        return any(rule.reject for rule in self.rules if rule.inbound == inbound)


@dataclass(frozen=True, slots=True)
class PortAcl:
    """The policy of a port. covers_in, covers_out: directions in which what no rule allows is denied.

    rejects_in, rejects_out: directions in which a rule rejects.
    """

    owner: Owner
    zone: int
    set: int
    covers_in: bool
    covers_out: bool
    rejects_in: bool = False
    rejects_out: bool = False


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
    """

    tag: int
    owner: Owner
    learns: bool
    flood: tuple[int, ...]
    ageing: int = 300


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
