"""A topology's ACLs as flows need them: sets of rules with addresses in place of names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from vswitchctl.compiler.endpoints import Range, address_range, host_range, mac_number
from vswitchctl.model.policy import MAX_RULES, Peer, Rule
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import AclRule, AclSet, AddressTerm
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline import fields as f

Names = tuple[str, ...]

PROTOCOLS = {
    "tcp": f.PROTO_TCP,
    "udp": f.PROTO_UDP,
    "sctp": f.PROTO_SCTP,
    "icmp": f.PROTO_ICMP,
    "icmpv6": f.PROTO_ICMPV6,
}

FAMILIES = {"icmp": (4,), "icmpv6": (6,)}


def acl_sets(topology: Topology) -> dict[Names, AclSet]:
    """Every combination of ACLs that an interface names. Numbers come from names, so that they stay."""
    combinations = sorted({i.acls for i in topology.endpoints().values() if i.acls})
    sets, conjunctions = _Numbers(), _Numbers()
    found = {}
    for names in combinations:
        rules = tuple(
            rule
            for place, name in enumerate(names)
            for rule in acl_rules(topology, name, names, MAX_RULES * place, conjunctions)
        )
        found[names] = AclSet(sets.of(*names), Owner(topology.name, f"acls/{names[0]}"), rules)
    return found


class _Numbers:
    """32-bit numbers of texts: a hash, or the next free number where two have the same one."""

    def __init__(self) -> None:
        self._used: set[int] = {0}

    def of(self, *parts: str | int) -> int:
        text = "\0".join(map(str, parts)).encode()
        number = int.from_bytes(blake2b(text, digest_size=4).digest(), "big")
        while number in self._used:
            number = (number + 1) & 0xFFFFFFFF
        self._used.add(number)
        return number


def acl_rules(
    topology: Topology, acl: str, names: Names, first: int, conjunctions: _Numbers | None = None
) -> Iterator[AclRule]:
    """The rules of one ACL of the set `names`, at positions from `first`."""
    numbers = conjunctions or _Numbers()
    for index, rule in enumerate(topology.acls[acl]):
        yield _rule(topology, acl, index, first + index, rule, numbers.of(*names, acl, index))


def _rule(topology: Topology, acl: str, index: int, position: int, rule: Rule, conjunction: int) -> AclRule:
    protocol = rule.protocol
    peers = None if not rule.peer.named else tuple(distinct(peer_terms(topology, rule.peer)))
    return AclRule(
        Owner(topology.name, f"acls/{acl}"),
        index + 1,
        position,
        inbound=rule.direction == "in",
        allow=rule.action == "allow",
        stateful=rule.stateful,
        families=FAMILIES.get(str(protocol), (4, 6)),
        protocol=protocol if isinstance(protocol, int) else PROTOCOLS.get(protocol),
        icmp_type=rule.icmp_type,
        peers=peers,
        ports=tuple(port_masks(rule.ports)) or None,
        conjunction=conjunction,
        reject=rule.action == "reject",
        log=rule.log is not None,
    )


def peer_terms(topology: Topology, peer: Peer) -> Iterator[AddressTerm]:
    """The addresses that a peer stands for; none where its network or group has none."""
    ((kind, name),) = peer.named.items()
    if kind == "cidr":
        yield _term(address_range(name))
    elif kind == "network":
        yield from map(_term, map(address_range, topology.networks[name].subnets))
    elif kind == "interface":
        yield from _endpoint(topology, name)
    else:
        group = topology.groups[name]
        yield from map(_term, map(address_range, group.addresses))
        for member in group.members:
            yield from _endpoint(topology, member)


def _endpoint(topology: Topology, end: str) -> Iterator[AddressTerm]:
    """An interface by its declared addresses; by its MAC where it declares none."""
    interface = topology.interface(end)
    if interface is not None and interface.ip:
        yield from map(_term, map(host_range, interface.ip))
    else:
        yield AddressTerm(0, mac_number(topology.endpoint_mac(end)), (1 << 48) - 1)


def _term(found: Range) -> AddressTerm:
    return AddressTerm(found.version, found.address, found.mask)


def distinct(terms: Iterable[AddressTerm]) -> list[AddressTerm]:
    """In order, without those inside another. Neighbours are not joined, so one more changes no other."""
    kept: list[AddressTerm] = []
    for term in sorted(set(terms), key=lambda t: (t.family, t.value, t.mask)):
        last = kept[-1] if kept else None
        inside = (
            last is not None
            and last.family == term.family
            and last.mask & term.mask == last.mask
            and term.value & last.mask == last.value
        )
        if not inside:
            kept.append(term)
    return kept


def port_masks(ports: Iterable[int | str]) -> Iterator[tuple[int, int]]:
    """(value, mask) pairs that match these ports and ranges, and nothing else: at most 30 for a range."""
    spans = sorted(tuple(int(n) for n in str(port).split("-")) for port in ports)
    merged: list[list[int]] = []
    for span in spans:
        first, last = span[0], span[-1]
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(last, merged[-1][1])
        else:
            merged.append([first, last])
    for first, last in merged:
        at = first
        while at <= last:
            size = min(at & -at or 1 << 16, 1 << (last - at + 1).bit_length() - 1)
            yield at, 0x10000 - size
            at += size
