"""What the kernel holds, read once and again only where an event says so."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.channel import Channel
from vswitchctl.drivers.netlink.message import LO_INDEX, Link, parse_address, parse_link, parse_route
from vswitchctl.model.state import (
    ROOT,
    LinuxBridgeSpec,
    NamespaceSpec,
    NetlinkState,
    ObservedNetlink,
    Owner,
    RouteSpec,
    VethEnd,
    VethSpec,
    parse_alias,
)


@dataclass(frozen=True, slots=True)
class End:
    """A veth end of ours as it is."""

    owner: Owner
    spec: VethEnd
    index: int
    peer: int
    up: bool


@dataclass(frozen=True, slots=True)
class Contents:
    """One namespace. ends: by device name."""

    links: dict[str, Link] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)
    routes: frozenset[RouteSpec] = frozenset()

    @property
    def owner(self) -> Owner | None:
        """Who a namespace is for: loopback's alias says it."""
        return next((parse_alias(link.alias) for link in self.links.values() if link.index == LO_INDEX), None)

    @property
    def loopback_up(self) -> bool:
        return any(link.up for link in self.links.values() if link.index == LO_INDEX)


def read_contents(channel: Channel, namespace: str) -> Contents:
    """Everything we look at in one namespace."""
    links = {link.name: link for link in map(parse_link, channel.dump(rtnl.RTM_GETLINK))}
    names = {link.index: name for name, link in links.items()}
    addresses: dict[int, set[str]] = defaultdict(set)
    routes: frozenset[RouteSpec] = frozenset()
    if namespace != ROOT:
        for found in map(parse_address, channel.dump(rtnl.RTM_GETADDR)):
            if found is not None:
                addresses[found[0]].add(found[1])
        parsed = map(parse_route, channel.dump(rtnl.RTM_GETROUTE))
        routes = frozenset(route for route in parsed if route is not None)
    ends = {}
    for name, link in links.items():
        owner = parse_alias(link.alias) if link.kind == "veth" else None
        if owner is not None:
            ends[name] = _end(channel, namespace, link, owner, names, frozenset(addresses[link.index]))
    return Contents(links, ends, routes)


def _end(
    channel: Channel,
    namespace: str,
    link: Link,
    owner: Owner,
    names: dict[int, str],
    addresses: frozenset[str],
) -> End:
    inside = namespace != ROOT
    spec = VethEnd(
        namespace,
        link.name,
        link.mtu,
        mac=link.mac if inside else None,
        master=names.get(link.master) if link.master else None,
        addresses=addresses,
        # Offload matters where frames are made: on the endpoint's side.
        tx_checksum=kernel.tx_checksum(channel.fileno(), link.name) if inside else True,
    )
    return End(owner, spec, link.index, link.peer, link.up)


def names_in_directory() -> dict[str, tuple[int, int]]:
    """Name under /run/netns -> (device, inode) of what it stands for: the inode is the namespace's."""
    found = {}
    for entry in os.scandir(kernel.NETNS_DIR):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            found[entry.name] = (status.st_dev, status.st_ino)
    return found


def assemble(contents: dict[str, Contents], foreign: frozenset[str]) -> ObservedNetlink:
    """The state of the host from that of its namespaces. foreign: names of namespaces that are not ours."""
    root = contents[ROOT]
    state = NetlinkState()
    broken: dict[str, tuple[VethEnd, ...]] = {}
    for link in root.links.values():
        owner = parse_alias(link.alias)
        if owner is not None and link.kind == "bridge":
            state.linux_bridges[link.name] = LinuxBridgeSpec(owner, link.mtu, up=link.up)
    for name, inside in contents.items():
        if name != ROOT and inside.owner is not None:
            state.namespaces[name] = NamespaceSpec(
                inside.owner, inside.routes, loopback_up=inside.loopback_up
            )
    for key, ends in ends_by_owner(contents).items():
        if whole(ends):
            state.veths[key] = VethSpec(ends[0].owner, ends[0].spec, ends[1].spec)
        else:
            broken[key] = tuple(end.spec for end in ends)
    return ObservedNetlink(
        owned=state,
        broken=broken,
        devices={link.name: parse_alias(link.alias) for link in root.links.values()},
        namespaces={
            **{name: inside.owner for name, inside in contents.items() if name != ROOT},
            **dict.fromkeys(foreign),
        },
    )


def ends_by_owner(contents: dict[str, Contents]) -> dict[str, list[End]]:
    """Owner's text -> its ends, by (namespace, name)."""
    found: dict[str, list[End]] = defaultdict(list)
    for inside in contents.values():
        for end in inside.ends.values():
            found[end.owner.text].append(end)
    for ends in found.values():
        ends.sort(key=lambda end: (end.spec.namespace, end.spec.name))
    return found


def paired(ends: list[End]) -> bool:
    """Two ends, and each is the other's."""
    return len(ends) == 2 and ends[0].peer == ends[1].index and ends[1].peer == ends[0].index


def whole(ends: list[End]) -> bool:
    """A pair that frames can cross."""
    return paired(ends) and all(end.up for end in ends)
