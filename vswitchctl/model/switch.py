"""What the apps compile flows from: one bridge with its numbered ports, known MACs and flood sets. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from vswitchctl.model.state import Owner


@dataclass(frozen=True, slots=True)
class Membership:
    """A port's part in one network.

    tag: the network's number in our registers. vid: the VLAN tag on the wire, None where untagged.
    flood: the port is in the network's broadcast tree. learn: sources seen here may be learned.
    """

    tag: int
    vid: int | None
    flood: bool
    learn: bool


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """A port with an OpenFlow number and the networks it takes part in."""

    ofport: int
    owner: Owner
    memberships: tuple[Membership, ...]


@dataclass(frozen=True, slots=True)
class KnownMac:
    """A declared endpoint as this bridge reaches it. mac: 48-bit integer."""

    tag: int
    mac: int
    ofport: int
    owner: Owner


@dataclass(frozen=True, slots=True)
class SwitchNetwork:
    """A network on this bridge. learns: somewhere it has endpoints that nobody declared."""

    tag: int
    owner: Owner
    learns: bool
    flood: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """One bridge. Every tuple is sorted, so that the same intent gives the same flows byte for byte."""

    name: str
    owner: Owner
    ports: tuple[SwitchPort, ...]
    macs: tuple[KnownMac, ...]
    networks: tuple[SwitchNetwork, ...]
