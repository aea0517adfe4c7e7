"""Checks of links: both ends exist, the kind is possible, and nothing is joined twice or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import networkx as nx

from vswitchctl.model.topology import (
    Bridge,
    EndpointNode,
    LinuxBridge,
    Namespace,
    Node,
    Uplink,
    Vm,
    link_name,
    split_end,
)
from vswitchctl.topology.graph import partitions
from vswitchctl.topology.source import Path, shown
from vswitchctl.topology.subject import Issue, Subject, WiredLink


def ends_exist(subject: Subject) -> Iterator[Issue]:
    for number, link in enumerate(subject.topology.links):
        for at, end in enumerate(link.ends):
            yield from _end(subject, end, ("links", number, "ends", at))


def _end(subject: Subject, end: str, path: Path) -> Iterator[Issue]:
    nodes = subject.topology.nodes
    name, interface = split_end(end)
    if subject.is_broken("nodes", name) or subject.node_of(end) is not None:
        return
    node = nodes.get(name)
    if node is None:
        remedy = subject.suggestion(name, nodes, "the nodes are") or "declare it under 'nodes'"
        yield Issue(path, f"unknown node {shown(name)}", remedy)
    elif not isinstance(node, EndpointNode):
        yield Issue(path, f"'{name}' is {_a(node)}, and has no interfaces to name", f"write '{name}'")
    elif not node.interfaces:
        yield Issue(path, f"{_what(node)} '{name}' has no interfaces", "add one under its 'interfaces'")
    elif not interface:
        first = next(iter(node.interfaces))
        yield Issue(
            path, f"'{name}' is a {_what(node)}, so its end names an interface", f"write '{name}:{first}'"
        )
    else:
        remedy = subject.suggestion(interface, node.interfaces, f"the interfaces of '{name}' are")
        yield Issue(path, f"{_what(node)} '{name}' has no interface {shown(interface)}", remedy)


def _what(node: Namespace | Vm) -> str:
    return "virtual machine" if isinstance(node, Vm) else "namespace"


def _a(node: Node) -> str:
    return {"bridge": "a bridge", "linux-bridge": "a Linux bridge", "uplink": "an uplink"}.get(
        node.kind, node.kind
    )


def kinds_possible(subject: Subject) -> Iterator[Issue]:
    for wired in subject.wired:
        yield from _possible(wired)


def _possible(wired: WiredLink) -> Iterator[Issue]:
    a, b = wired.a, wired.b
    first, second = wired.link.ends
    if first == second:
        yield Issue(wired.path, f"a link from '{first}' to itself", "name two different nodes")
    elif isinstance(a, EndpointNode) and isinstance(b, EndpointNode):
        yield Issue(
            wired.path, "a link between two endpoints, with no bridge to switch it", "link both to one bridge"
        )
    elif isinstance(a, Uplink) or isinstance(b, Uplink):
        yield from _uplink(wired)
    elif isinstance(a, Vm) or isinstance(b, Vm):
        yield from _vm(wired)
    elif wired.link.kind == "patch":
        yield from _patch(wired)


def _uplink(wired: WiredLink) -> Iterator[Issue]:
    for end, node, other in wired.nodes:
        partner = wired.b if node is wired.a else wired.a
        if isinstance(node, Uplink) and not isinstance(partner, Bridge):
            message = f"uplink '{end}' is linked to '{other}', which is no Open vSwitch bridge"
            yield Issue(wired.path, message, "link it to a node of 'kind: bridge'")
            return
    if wired.link.kind != "auto":
        message = f"an uplink is a device that is there, so no {wired.link.kind} can be made for it"
        yield Issue((*wired.path, "kind"), message, "leave 'kind' out")


def _vm(wired: WiredLink) -> Iterator[Issue]:
    """libvirt makes the TAP."""
    if wired.link.kind != "auto":
        message = f"a virtual machine comes with a TAP, so no {wired.link.kind} can be made for it"
        yield Issue((*wired.path, "kind"), message, "leave 'kind' out")


def _patch(wired: WiredLink) -> Iterator[Issue]:
    path = (*wired.path, "kind")
    for end, node, _ in wired.nodes:
        if not isinstance(node, Bridge):
            message = f"a patch joins two Open vSwitch bridges, and '{end}' is none"
            yield Issue(path, message, "leave 'kind' out, or write 'kind: veth'")
            return
    if isinstance(wired.a, Bridge) and isinstance(wired.b, Bridge) and wired.a.datapath != wired.b.datapath:
        message = f"a patch joins bridges of one datapath, '{wired.a.datapath}' is not '{wired.b.datapath}'"
        yield Issue(path, message, "give both the same 'datapath', or write 'kind: veth'")


def no_duplicates(subject: Subject) -> Iterator[Issue]:
    """A link is known by its ends, so there is one between two ends."""
    seen: set[str] = set()
    for wired in subject.wired:
        name = link_name(wired.link)
        if name in seen:
            a, b = wired.link.ends
            message = f"'{a}' and '{b}' are linked already"
            yield Issue(wired.path, message, "remove one of the two; parallel links add no path")
        seen.add(name)


def endpoints_linked_once(subject: Subject) -> Iterator[Issue]:
    """An interface is one end of one veth pair, an uplink one port of one bridge."""
    count: Counter[str] = Counter()
    bridges: dict[str, str] = {}
    names: set[str] = set()
    for wired in subject.wired:
        if link_name(wired.link) in names:
            continue
        names.add(link_name(wired.link))
        for end, node, other in wired.nodes:
            if not isinstance(node, EndpointNode | Uplink) or other == end:
                continue
            count[end] += 1
            if count[end] > 1:
                what = "uplink" if isinstance(node, Uplink) else "interface"
                message = f"{what} '{end}' is linked to '{bridges[end]}' already"
                yield Issue(
                    wired.path, message, f"an {what} has one link; remove this one, or add another {what}"
                )
            bridges.setdefault(end, other)


def everything_linked(subject: Subject) -> Iterator[Issue]:
    if subject.lacks("links"):
        return
    named = {end for link in subject.topology.links for end in link.ends}
    for placed in subject.interfaces:
        if placed.end not in named:
            message = f"interface '{placed.end}' is linked to nothing"
            yield Issue(placed.path, message, f'add a link: {{ends: ["{placed.end}", BRIDGE]}}', "warning")
    for name, node in subject.topology.nodes.items():
        if isinstance(node, Uplink) and name not in named:
            message = f"uplink '{name}' is linked to nothing"
            yield Issue(("nodes", name), message, f"add a link: {{ends: [{name}, BRIDGE]}}")


def linux_bridges_match(subject: Subject) -> Iterator[Issue]:
    """A Linux bridge knows no tags: it is one network, and so is all that is linked to it."""
    for wired in subject.wired:
        for end, node, other in wired.nodes:
            partner = wired.b if node is wired.a else wired.a
            if not isinstance(node, LinuxBridge):
                continue
            if isinstance(partner, EndpointNode):
                interface = subject.topology.interface(other)
                network = interface.network if interface else node.network
            elif isinstance(partner, LinuxBridge):
                network = partner.network
            else:
                continue
            if network != node.network:
                message = (
                    f"Linux bridge '{end}' carries network '{node.network}', and '{other}' is in '{network}'"
                )
                yield Issue(wired.path, message, "link what is in one network, or use an Open vSwitch bridge")
                break


def linux_bridge_loops(subject: Subject) -> Iterator[Issue]:
    """Linux bridges run without STP here, so a loop of them alone is a broadcast storm nobody ends."""
    joined: nx.Graph = nx.Graph()
    for wired in subject.wired:
        a, b = wired.link.ends
        if (
            not (isinstance(wired.a, LinuxBridge) and isinstance(wired.b, LinuxBridge))
            or a == b
            or joined.has_edge(a, b)
        ):
            continue
        if a in joined and b in joined and nx.has_path(joined, a, b):
            ring = ", ".join(f"'{name}'" for name in nx.shortest_path(joined, a, b))
            message = f"the Linux bridges {ring} form a loop that no Open vSwitch bridge can break"
            yield Issue(wired.path, message, "remove this link, or make one of them 'kind: bridge'")
        else:
            joined.add_edge(a, b)


def networks_whole(subject: Subject) -> Iterator[Issue]:
    """Endpoints of one network with no path between them."""
    if subject.lacks("links") or subject.lacks("nodes") or subject.lacks("networks"):
        return
    for name in subject.topology.networks:
        parts = partitions(subject.topology, name)
        if len(parts) > 1:
            listed = " | ".join([*(_part(part) for part in parts[:4]), *(["..."] if len(parts) > 4 else [])])
            message = f"network '{name}' falls into {len(parts)} parts with no path between them: {listed}"
            remedy = "link a bridge of one part to a bridge of the other"
            yield Issue(("networks", name), message, remedy, "warning")


def _part(part: frozenset[str]) -> str:
    names = sorted(part)
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
