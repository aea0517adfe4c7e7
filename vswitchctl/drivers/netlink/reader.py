"""What the kernel holds, one namespace at a time, and the state of the host put together from that."""

from __future__ import annotations

import errno
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.channel import Channel, within
from vswitchctl.drivers.netlink.message import LO_INDEX, get_link
from vswitchctl.drivers.netlink.parse import (
    TAP,
    Link,
    head,
    is_foreign_route,
    marked_addresses,
    parse_address,
    parse_link,
    parse_route,
)
from vswitchctl.errors import ApplyError
from vswitchctl.model.state import (
    ROOT,
    ROUTE_PROTOCOL,
    LinuxBridgeSpec,
    NamespaceSpec,
    NetlinkState,
    ObservedNetlink,
    Owner,
    RouteSpec,
    TapSpec,
    TunSpec,
    VethEnd,
    VethSpec,
    parse_alias,
)


@dataclass(frozen=True, slots=True)
class Contents:
    """One namespace. links: by device name. addresses: ifindex -> those with our mark.

    nsid: its id in the driver's namespace. unchecksummed: ifindexes of our veth ends without TX offload.
    forwarding: it forwards IPv4 and IPv6; asked only where there is a TUN device of ours.
    but_taps: the same object as long as nothing but TAPs is read again.
    """

    links: dict[str, Link] = field(default_factory=dict)
    addresses: Mapping[int, frozenset[str]] = field(default_factory=dict)
    routes: frozenset[RouteSpec] = frozenset()
    unchecksummed: frozenset[int] = frozenset()
    nsid: int | None = None
    by_index: dict[int, Link] = field(default_factory=dict)
    forwarding: bool = False
    but_taps: object = field(default_factory=object, compare=False)

    @property
    def owner(self) -> Owner | None:
        """Who a namespace is for: loopback's alias says it."""
        loopback = self.by_index.get(LO_INDEX)
        return parse_alias(loopback.alias) if loopback is not None else None

    @property
    def loopback_up(self) -> bool:
        return LO_INDEX in self.by_index and self.by_index[LO_INDEX].up

    def end(self, namespace: str, link: Link) -> VethEnd:
        """A veth end as a spec. The kernel's own choice of MAC is for the root namespace's ends alone."""
        master = self.by_index.get(link.master)
        return VethEnd(
            namespace,
            link.name,
            link.mtu,
            mac=link.mac if namespace != ROOT else None,
            # Open vSwitch's kernel datapath is a master too, and none of our concern.
            master=master.name if master is not None and master.kind == "bridge" else None,
            addresses=self.addresses.get(link.index, frozenset()),
            tx_checksum=link.index not in self.unchecksummed,
        )


def read_contents(channel: Channel, namespace: str) -> Contents:
    """Everything we look at in one namespace."""
    by_index = {link.index: link for link in map(parse_link, channel.dump(rtnl.RTM_GETLINK))}
    ends = [link for link in by_index.values() if link.kind == "veth" and link.owner is not None]
    has_tun = namespace != ROOT and any(link.tun and link.marked for link in by_index.values())
    addresses: dict[int, set[str]] = defaultdict(set)
    for address in marked_addresses(channel.dump(rtnl.RTM_GETADDR)) if ends or has_tun else ():
        addresses[address.index].add(address.text)
    routes: Iterable[RouteSpec | None] = ()
    if namespace != ROOT:
        routes = map(parse_route, channel.dump(rtnl.RTM_GETROUTE))
    return Contents(
        links={link.name: link for link in by_index.values()},
        addresses={index: frozenset(texts) for index, texts in addresses.items()},
        routes=frozenset(route for route in routes if route is not None),
        unchecksummed=frozenset(link.index for link in ends if not _tx_checksum(channel, link)),
        nsid=channel.nsid,
        by_index=by_index,
        forwarding=has_tun and _forwards(namespace),
    )


def read_taps(channel: Channel, before: Contents, indexes: Iterable[int]) -> Contents | None:
    """The root namespace with these devices read again; None where one of them is or was no TAP.

    A TAP has neither an address nor another end that we look at, so all else stays.
    """
    by_index = dict(before.by_index)
    for index in indexes:
        former, link = by_index.pop(index, None), _read_link(channel, index)
        if any(one is not None and (one.kind != TAP or one.tun) for one in (former, link)):
            return None
        if link is not None:
            by_index[index] = link
    return replace(before, by_index=by_index, links={link.name: link for link in by_index.values()})


def _read_link(channel: Channel, index: int) -> Link | None:
    """None where it is gone. Raises ApplyError."""
    try:
        return parse_link(channel.ask(get_link(index)))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise ApplyError(f"the kernel does not show a device: {error.strerror}") from error


def _tx_checksum(channel: Channel, link: Link) -> bool:
    try:
        return kernel.tx_checksum(channel.fileno(), link.name)
    except OSError:  # gone since it was listed, for which there is an event
        return True


def _forwards(namespace: str) -> bool:
    found: list[bool] = []
    try:
        within(namespace, lambda: found.append(kernel.forwards()))
    except OSError:  # gone since it was listed, for which there is an event
        return False
    return found[0]


def concerns(contents: Contents | None, kind: int, body: bytes) -> bool:
    """Whether an event may change what `contents` led to; what others do to what is theirs does not."""
    if contents is None:
        return True
    if kind in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK):
        return _link_concerns(contents, kind, body)
    if kind in (rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR):
        return _address_concerns(contents, body)
    return kind in (rtnl.RTM_NEWROUTE, rtnl.RTM_DELROUTE) and not is_foreign_route(body)


def _link_concerns(contents: Contents, kind: int, body: bytes) -> bool:
    family, index = head(body)
    before = contents.by_index.get(index)
    if before is not None and (before.owner is not None or before.index == LO_INDEX):
        return True
    if before is not None and before.tun and before.marked:
        return True
    if family == socket.AF_UNSPEC and kind == rtnl.RTM_NEWLINK:
        return before is None or _seen(before) != _seen(parse_link(body))
    # A message of family AF_BRIDGE speaks of a port; the device stays.
    return family == socket.AF_UNSPEC and before is not None


def _seen(link: Link) -> tuple[str, str, bool, int, bool]:
    """What the state of the host says of a device that is not ours, of a TAP also where it is plugged."""
    tap = link.kind == TAP
    return link.name, link.alias, link.promiscuous, link.master if tap else 0, link.up and tap


def _address_concerns(contents: Contents, body: bytes) -> bool:
    address = parse_address(body)
    link = contents.by_index.get(address.index)
    # Link-local ones come and go by themselves, and say that the kernel set them.
    ours = link is not None and link.marked is not None
    return ours and address.protocol in (None, ROUTE_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Place:
    """A veth end: in which namespace, and what is there."""

    namespace: str
    link: Link


def ends_by_owner(contents: Mapping[str, Contents]) -> dict[str, list[Place]]:
    """Owner's text -> the veth ends that carry its mark, by (namespace, name)."""
    found: dict[str, list[Place]] = defaultdict(list)
    for namespace, inside in contents.items():
        for link in inside.links.values():
            if link.kind == "veth" and (owner := link.owner) is not None:
                found[owner.text].append(Place(namespace, link))
    for ends in found.values():
        ends.sort(key=lambda end: (end.namespace, end.link.name))
    return found


def are_peers(a: Place, b: Place, contents: Mapping[str, Contents]) -> bool:
    """Whether two veth ends are the two of one pair."""
    if a.link.kind != "veth" or b.link.kind != "veth":
        return False
    if (a.link.peer, b.link.peer) != (b.link.index, a.link.index):
        return False
    if a.namespace == b.namespace:
        return a.link.peer_nsid is None and b.link.peer_nsid is None
    if a.namespace == ROOT:
        return a.link.peer_nsid == contents[b.namespace].nsid
    if b.namespace == ROOT:
        return b.link.peer_nsid == contents[a.namespace].nsid
    return a.link.peer_nsid is not None and b.link.peer_nsid is not None


def _unmarked_peers(ends: Sequence[Place], contents: Mapping[str, Contents]) -> Iterator[Place]:
    """Devices in the root namespace without a mark whose other end is among these."""
    for end in ends:
        link = contents[ROOT].by_index.get(end.link.peer)
        if link is not None and link.owner is None and are_peers(Place(ROOT, link), end, contents):
            yield Place(ROOT, link)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Veth pairs of ours, by their owner's text. ends: devices that are ours though they have no mark."""

    whole: dict[str, VethSpec]
    broken: dict[str, tuple[VethEnd, ...]]
    ends: dict[str, Owner | None]


def pairs(contents: Mapping[str, Contents]) -> Pairs:
    """Those whose ends are in these namespaces."""
    found = Pairs({}, {}, {})
    for key, ends in ends_by_owner(contents).items():
        specs = tuple(contents[end.namespace].end(end.namespace, end.link) for end in ends)
        owner = ends[0].link.owner
        whole = len(ends) == 2 and are_peers(ends[0], ends[1], contents)
        if owner is not None and whole and all(end.link.up for end in ends):
            found.whole[key] = VethSpec(owner, *specs)
        else:
            found.broken[key] = specs
            # The other end of what is ours is ours, though its mark is gone.
            found.ends.update((end.link.name, owner) for end in _unmarked_peers(ends, contents))
    return found


class Assembler:
    """Puts the state of the host together again and again; while only TAPs change, pairs stay as they are."""

    def __init__(self) -> None:
        self._known: tuple[tuple[object, ...], Pairs] | None = None

    def assemble(
        self, contents: Mapping[str, Contents], names: Mapping[str, Owner | None]
    ) -> ObservedNetlink:
        """See `assemble`."""
        inputs = (*contents, *(inside.but_taps for inside in contents.values()))
        if self._known is None or self._known[0] != inputs:
            self._known = inputs, pairs(contents)
        return _assemble(contents, names, self._known[1])


def assemble(contents: Mapping[str, Contents], names: Mapping[str, Owner | None]) -> ObservedNetlink:
    """The state of the host from that of its namespaces.

    names: further ones under /run/netns, and whose they are: others', or ours but nothing mounted on them.
    """
    return _assemble(contents, names, pairs(contents))


def _assemble(
    contents: Mapping[str, Contents], names: Mapping[str, Owner | None], veths: Pairs
) -> ObservedNetlink:
    root = contents[ROOT]
    state = NetlinkState(namespaces=_namespaces(contents, names), veths=veths.whole)
    for link in root.links.values():
        if link.kind == "bridge" and (owner := link.owner) is not None:
            state.linux_bridges[link.name] = LinuxBridgeSpec(
                owner, link.mtu, up=link.up, stp=link.stp, multicast_snooping=link.multicast_snooping
            )
    taps = {link.name: _bridge_of(root, link) for link in root.links.values() if link.kind == TAP}
    for name, bridge in taps.items():
        mark = root.links[name].tap_mark
        if mark is not None:
            state.taps[name] = TapSpec(*mark, master=bridge, up=root.links[name].up)
    for namespace, inside in contents.items():
        if namespace != ROOT:
            state.tuns.update((namespace, tun) for tun in _tuns(inside))
    return ObservedNetlink(
        owned=state,
        broken=veths.broken,
        devices={link.name: link.owner for link in root.links.values()} | veths.ends,
        namespaces={**{name: spec.owner for name, spec in state.namespaces.items()}, **names},
        unopened=frozenset(link.name for link in root.links.values() if not link.promiscuous),
        taps=taps,
        foreign_bridges=frozenset(
            link.name for link in root.links.values() if link.kind == "bridge" and link.owner is None
        ),
    )


def _tuns(inside: Contents) -> Iterator[TunSpec]:
    for link in inside.links.values():
        if link.tun is not None and link.marked is not None:
            yield TunSpec(
                link.marked,
                link.name,
                link.mtu,
                inside.addresses.get(link.index, frozenset()),
                link.tun.user,
                up=link.up,
                kept=link.tun.kept,
                forwarding=inside.forwarding,
            )


def _bridge_of(contents: Contents, link: Link) -> str:
    """The Linux bridge that a device is a port of; Open vSwitch's kernel datapath is a master, too."""
    master = contents.by_index.get(link.master)
    return master.name if master is not None and master.kind == "bridge" else ""


def _namespaces(
    contents: Mapping[str, Contents], names: Mapping[str, Owner | None]
) -> dict[str, NamespaceSpec]:
    found = {
        name: NamespaceSpec(owner, loopback_up=False) for name, owner in names.items() if owner is not None
    }
    for name, inside in contents.items():
        if name != ROOT and (owner := inside.owner) is not None:
            found[name] = NamespaceSpec(owner, inside.routes, loopback_up=inside.loopback_up)
    return found
