"""Who should reach whom, which packets would show it, and what measured packets say. Pure.

Addresses overlap between tenants, so an answer proves nothing by its source address: every answer carries
the name of the endpoint that gave it, and what counts is that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, permutations
from typing import Literal

import networkx as nx

from vswitchctl.model.topology import Interface, Topology, Vm, split_end
from vswitchctl.topology.graph import attachments, segment
from vswitchctl.topology.routing import is_routed, router_of, ways_out

Pair = tuple[str, str]
"""Two endpoints: who asks, who answers; e.g. ('web1:eth0', 'web2:eth0')."""

Family = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Matrix:
    """What packets showed. `endpoints` in the document's order.

    reached: pairs that exchanged a packet both ways in every IP version that both have; two endpoints without
        a common one are judged by plain Ethernet frames.
    crossed: pairs of different networks between which any packet at all arrived.
    """

    endpoints: tuple[str, ...]
    reached: frozenset[Pair]
    crossed: frozenset[Pair] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """missing: expected and not reached. leaked: reached, or crossed, and not expected."""

    missing: frozenset[Pair]
    leaked: frozenset[Pair]

    def __bool__(self) -> bool:
        return bool(self.missing or self.leaked)


@dataclass(frozen=True, slots=True)
class Observations:
    """answered: (who asked, who answered, IP version). heard: (who sent, who heard) an Ethernet frame."""

    answered: frozenset[tuple[str, str, Family]]
    heard: frozenset[Pair]


def expected_pairs(topology: Topology) -> frozenset[Pair]:
    """Ordered pairs of endpoints that exchange packets: as `expect` says, else all that share a network
    or have a router between their networks.

    Without `expect` nothing is expected of endpoints with ACLs, which decide packet by packet. Of virtual
    machines nothing is ever expected: nobody inside answers for us.
    """
    if topology.expect is not None:
        groups: Iterable[Iterable[str]] = topology.expect.reachable
    else:
        groups = (group for network in topology.networks for group in _joined(topology, network))
    undecided = _undecided(topology)
    pairs = chain(
        (pair for group in groups for pair in permutations(group, 2)),
        routed_pairs(topology) if topology.expect is None else (),
    )
    return frozenset(pair for pair in pairs if undecided.isdisjoint(pair))


def _undecided(topology: Topology) -> frozenset[str]:
    """Endpoints whose ACLs, and no `expect`, say who reaches them; and guests, where nobody asks for us."""
    endpoints = topology.endpoints()
    guests = frozenset(end for end in endpoints if isinstance(topology.nodes[split_end(end)[0]], Vm))
    if topology.expect is not None:
        return guests
    return guests | {end for end, interface in endpoints.items() if interface.acls}


def _joined(topology: Topology, network: str) -> list[list[str]]:
    """The endpoints of a network, in the groups that its links join."""
    attached = attachments(topology, network)
    return [
        [end for end, switch in attached.items() if switch in part and topology.interface(end) is not None]
        for part in nx.connected_components(segment(topology, network))
    ]


def routed_pairs(topology: Topology) -> Mapping[Pair, frozenset[Family]]:
    """Ordered pairs of different networks of one router -> the IP versions in which they are routed."""
    routers, routable = router_of(topology), _routable(topology)
    network = {end: topology.endpoints()[end].network for end in routable}
    found = {}
    for a, b in permutations(routable, 2):
        if network[a] != network[b] and routers[network[a]] == routers[network[b]]:
            families = routable[a] & routable[b]
            if families:
                found[a, b] = families
    return found


def _routable(topology: Topology) -> Mapping[str, frozenset[Family]]:
    """Linked endpoint -> IP versions whose first address a gateway stands for, and that lead to it."""
    routers, out = router_of(topology), ways_out(topology)
    found: dict[str, frozenset[Family]] = {}
    for network in routers:
        linked = attachments(topology, network)
        for end, interface in topology.endpoints().items():
            if interface.network == network and end in linked and end in out:
                found[end] = frozenset(
                    family
                    for family, address in first_addresses(interface).items()
                    if family in out[end] and is_routed(topology.networks[network], address)
                )
    return found


def _families_between(topology: Topology) -> Callable[[Pair], frozenset[Family]]:
    """The IP versions in which a pair is judged: those that both have, and between networks are routed in."""
    endpoints, routed = topology.endpoints(), routed_pairs(topology)
    families = {end: frozenset(first_addresses(interface)) for end, interface in endpoints.items()}

    def between(pair: Pair) -> frozenset[Family]:
        a, b = pair
        if endpoints[a].network != endpoints[b].network and pair in routed:
            return routed[pair]
        return families[a] & families[b]

    return between


def first_addresses(interface: Interface) -> dict[Family, str]:
    """The first address of each IP version, without its prefix length."""
    found: dict[Family, str] = {}
    for text in interface.ip:
        address = ipaddress.ip_interface(text).ip
        found.setdefault(4 if address.version == 4 else 6, str(address))
    return found


def ip_targets(topology: Topology) -> dict[tuple[str, Family], frozenset[str]]:
    """(who asks, IP version) -> the addresses to ask: everybody else's, once each.

    An address that the asking namespace has itself is left out: such a packet would never leave it.
    """
    addresses = {end: first_addresses(interface) for end, interface in topology.endpoints().items()}
    own: dict[str, set[str]] = {}
    for end, interface in topology.endpoints().items():
        texts = (str(ipaddress.ip_interface(text).ip) for text in interface.ip)
        own.setdefault(split_end(end)[0], set()).update(texts)
    return {
        (end, family): frozenset(
            other[family] for name, other in addresses.items() if name != end and family in other
        )
        - own[split_end(end)[0]]
        for end, mine in addresses.items()
        for family in mine
    }


def expected_answers(topology: Topology, expected: frozenset[Pair]) -> frozenset[tuple[str, str, Family]]:
    """The answers that complete the expected pairs: in each IP version that both have and is routed."""
    between = _families_between(topology)
    return frozenset((*pair, family) for pair in expected for family in between(pair))


def judge(topology: Topology, seen: Observations) -> Matrix:
    """Observations -> matrix of pairs."""
    endpoints = topology.endpoints()
    network = {end: interface.network for end, interface in endpoints.items()}
    between = _families_between(topology)
    undecided = _undecided(topology)
    touched = {(asks, answers) for asks, answers, _ in seen.answered} | seen.heard
    return Matrix(
        endpoints=tuple(end for end in endpoints if not isinstance(topology.nodes[split_end(end)[0]], Vm)),
        reached=frozenset(
            pair
            for pair in permutations(endpoints, 2)
            if undecided.isdisjoint(pair) and _reached(pair, between(pair), seen)
        ),
        crossed=frozenset((a, b) for a, b in touched if network[a] != network[b]),
    )


def _reached(pair: Pair, common: frozenset[Family], seen: Observations) -> bool:
    asks, answers = pair
    if not common:
        return pair in seen.heard and (answers, asks) in seen.heard
    return all((asks, answers, family) in seen.answered for family in common)


def difference(matrix: Matrix, expected: frozenset[Pair]) -> Difference:
    """Where the packets differ from what was expected. False where they do not."""
    return Difference(
        missing=expected - matrix.reached,
        leaked=(matrix.reached | matrix.crossed) - expected,
    )
