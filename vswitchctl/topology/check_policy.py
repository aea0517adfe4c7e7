"""Checks of groups, ACLs, and the interfaces that name them: what could not be enforced is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network

from vswitchctl.model.policy import MAX_ACLS, MAX_RULES, Peer, Rule
from vswitchctl.model.topology import EndpointNode, Group, Node, Topology, split_end
from vswitchctl.topology.routing import router_of
from vswitchctl.topology.source import Path, shown
from vswitchctl.topology.subject import Issue, Placed, Subject, placed_interfaces

SECTIONS = ("groups", "acls")
"""The sections of a topology that nothing else of it depends on."""

PORTLESS = ("sctp", 132)
"""SCTP: conntrack of the userspace datapath knows its addresses and not its ports."""


def groups(subject: Subject) -> Iterator[Issue]:
    """Members exist and are of one tenant; an empty group would match nobody."""
    for name, group in subject.topology.groups.items():
        yield from _group(subject, group, ("groups", name))


def _group(subject: Subject, group: Group, path: Path) -> Iterator[Issue]:
    if not group.members and not group.addresses:
        yield Issue(path, "a group of nobody", "list 'members' (interfaces) or 'addresses' (subnets)")
    tenants: dict[str, str] = {}
    for number, end in enumerate(group.members):
        yield from _endpoint(subject, end, (*path, "members", number))
        tenant = _tenant(subject, end)
        if tenant is not None:
            tenants.setdefault(tenant, end)
    if len(tenants) > 1:
        (first, a), (second, b) = list(tenants.items())[:2]
        message = f"'{a}' is of tenant '{first}' and '{b}' of '{second}'"
        yield Issue((*path, "members"), message, "make a group for each tenant")


def _endpoint(subject: Subject, end: str, path: Path) -> Iterator[Issue]:
    if subject.topology.interface(end) is None and not subject.is_broken("nodes", split_end(end)[0]):
        known = [placed.end for placed in subject.interfaces]
        yield Issue(
            path, f"unknown endpoint {shown(end)}", subject.suggestion(end, known, "the endpoints are")
        )


def _tenant(subject: Subject, end: str) -> str | None:
    node = subject.topology.nodes.get(split_end(end)[0])
    return node.tenant if isinstance(node, EndpointNode) else None


def rules(subject: Subject) -> Iterator[Issue]:
    """Every rule names what exists, and can match something."""
    for name, acl in subject.topology.acls.items():
        yield from _acl(subject, acl, ("acls", name))


def _acl(subject: Subject, acl: Sequence[Rule], path: Path) -> Iterator[Issue]:
    if not acl:
        yield Issue(path, "an ACL without a rule", "add a rule, e.g. {direction: in, action: deny}")
    if len(acl) > MAX_RULES:
        yield Issue(path, f"{len(acl)} rules", f"at most {MAX_RULES} fit an ACL; an interface has several")
    for number, rule in enumerate(acl):
        yield from _rule(subject, rule, (*path, number))


def _rule(subject: Subject, rule: Rule, path: Path) -> Iterator[Issue]:
    where: Path = (*path, "from" if rule.direction == "in" else "to")
    if rule.stateful and rule.protocol in PORTLESS:
        yield Issue(
            (*path, "protocol"),
            "conntrack of the userspace datapath does not tell the ports of SCTP apart",
            "add 'stateful: false', and a rule for each direction",
        )
    for kind, name in rule.peer.named.items():
        if kind == "interface":
            yield from _endpoint(subject, name, (*where, kind))
        elif kind != "cidr":
            yield from subject.unknown(f"{kind}s", name, (*where, kind))
    family = {"icmp": 4, "icmpv6": 6}.get(str(rule.protocol))
    if rule.peer.network is not None:
        network = subject.network(rule.peer.network)
        if network is not None and not network.subnets:
            message = f"network '{rule.peer.network}' has no subnets, so nobody is known by its addresses"
            yield Issue((*where, "network"), message, "give it 'subnets'")
    if family and rule.peer.cidr is not None and ip_network(rule.peer.cidr).version != family:
        message = f"{rule.protocol} is never from or to {rule.peer.cidr}: a rule that matches nothing"
        yield Issue(path, message, "icmp is of IPv4 and icmpv6 of IPv6")


def interfaces(subject: Subject) -> Iterator[Issue]:
    """An interface with ACLs is on Open vSwitch, and its ACLs are of its own tenant and in order."""
    for placed in subject.interfaces:
        if placed.interface.acls:
            yield from _interface(subject, placed, (*placed.path, "acls"))
    yield from _behind_linux_bridges(subject)


def _interface(subject: Subject, placed: Placed, path: Path) -> Iterator[Issue]:
    for name in placed.interface.acls:
        yield from subject.unknown("acls", name, path)
    if len(placed.interface.acls) > MAX_ACLS:
        yield Issue(path, f"{len(placed.interface.acls)} ACLs", f"at most {MAX_ACLS} fit an interface")
    if len(set(placed.interface.acls)) < len(placed.interface.acls):
        yield Issue(path, "an ACL is named twice", "name each once")
    yield from _foreign(subject, placed, path)
    yield from _stateless_first(subject, placed, path)


def users(nodes: Mapping[str, Node]) -> tuple[Placed, ...]:
    """Interfaces that stand for all that have ACLs: one for each tenant and list of ACLs, the first."""
    found: dict[tuple[str, tuple[str, ...]], Placed] = {}
    for placed in placed_interfaces(nodes):
        if placed.interface.acls:
            found.setdefault((placed.node.tenant, placed.interface.acls), placed)
    return tuple(found.values())


def concerned(topology: Topology, section: str, name: str) -> tuple[str, ...]:
    """The ACLs that a change of one ACL or group concerns: itself, or those that name the group."""
    if section == "acls":
        return (name,)
    return tuple(
        acl for acl, rules in topology.acls.items() if any(rule.peer.group == name for rule in rules)
    )


def changed(subject: Subject, section: str, name: str, having: Iterable[Placed]) -> Iterator[Issue]:
    """What the change of one ACL or group in a valid topology can have made wrong, and nothing else.

    having: `users` of the topology's nodes, which cost a look at each of them and stay while these do.
    """
    topology = subject.topology
    acls = set(concerned(topology, section, name))
    if section == "groups" and name in topology.groups:
        yield from _group(subject, topology.groups[name], ("groups", name))
    for acl in sorted(acls):
        if acl in topology.acls:
            yield from _acl(subject, topology.acls[acl], ("acls", acl))
    for placed in having:
        if not acls.isdisjoint(placed.interface.acls):
            yield from _interface(subject, placed, (*placed.path, "acls"))


def _foreign(subject: Subject, placed: Placed, path: Path) -> Iterator[Issue]:
    for name in dict.fromkeys(placed.interface.acls):
        for rule in subject.topology.acls.get(name, ()):
            other = _peer_tenant(subject, rule.peer)
            if other is not None and other not in _reachable_tenants(subject, placed):
                yield Issue(
                    path,
                    f"ACL '{name}' names {', '.join(map(' '.join, rule.peer.named.items()))} "
                    f"of tenant '{other}', and this {placed.what} is of '{placed.node.tenant}'",
                    "tenants never exchange a packet: name a peer of its own tenant",
                )
                break


def _reachable_tenants(subject: Subject, placed: Placed) -> set[str]:
    """Its own, and those that a router of its network connects."""
    name = router_of(subject.topology).get(placed.interface.network)
    router = subject.topology.routers.get(name or "")
    return {placed.node.tenant} | (set() if router is None else {router.tenant, *router.connects})


def _peer_tenant(subject: Subject, peer: Peer) -> str | None:
    if peer.network is not None:
        network = subject.network(peer.network)
        return network.tenant if network is not None else None
    if peer.interface is not None:
        return _tenant(subject, peer.interface)
    group = subject.topology.groups.get(peer.group or "")
    return next((_tenant(subject, end) for end in group.members), None) if group is not None else None


def _stateless_first(subject: Subject, placed: Placed, path: Path) -> Iterator[Issue]:
    """Stateless rules are matched before conntrack is asked, so they cannot come after one that asks it."""
    stateful: dict[str, str] = {}
    for name in placed.interface.acls:
        for number, rule in enumerate(subject.topology.acls.get(name, ()), 1):
            if rule.stateful:
                stateful.setdefault(rule.direction, f"rule {number} of '{name}'")
            elif rule.direction in stateful:
                message = (
                    f"rule {number} of ACL '{name}' is stateless and would be matched before "
                    f"{stateful[rule.direction]}, which stands before it and is not"
                )
                yield Issue(path, message, "put stateless rules of a direction before its stateful ones")
                return


def routed_peers(subject: Subject) -> Iterator[Issue]:
    """A peer without declared addresses is known by its MAC, which no routed packet carries."""
    routers = router_of(subject.topology)
    for name, acl in subject.topology.acls.items():
        for number, rule in enumerate(acl):
            group = subject.topology.groups.get(rule.peer.group or "")
            ends = (rule.peer.interface,) if rule.peer.interface else group.members if group else ()
            for end in ends:
                interface = subject.topology.interface(end)
                if interface is not None and not interface.ip and interface.network in routers:
                    message = (
                        f"'{end}' declares no address, so it is known by its MAC alone, and what comes"
                        f" by router '{routers[interface.network]}' carries the gateway's"
                    )
                    key = "from" if rule.direction == "in" else "to"
                    yield Issue(("acls", name, number, key), message, f"give '{end}' its 'ip'")


def _behind_linux_bridges(subject: Subject) -> Iterator[Issue]:
    for end, linux in subject.behind_linux_bridges:
        interface = subject.topology.interface(end)
        if interface is not None and interface.acls:
            node, name = split_end(end)
            yield Issue(
                ("nodes", node, "interfaces", name, "acls"),
                f"'{end}' is behind Linux bridge '{linux}', which knows no ACLs",
                "link it to an Open vSwitch bridge",
            )
