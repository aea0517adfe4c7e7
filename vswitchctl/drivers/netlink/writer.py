"""Additions and changes: pipelined requests, each answer matched to the change that asked.

Nothing without our mark is touched. A mark is there as soon as the thing can be seen under its name: a
namespace gets its alias before its name, and a new link is in the group UNFINISHED until it has its alias.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Sequence

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel, message, taps, tuns
from vswitchctl.drivers.netlink.addresses import set_addresses
from vswitchctl.drivers.netlink.channel import EVENTS, Channel, in_thread
from vswitchctl.drivers.netlink.parse import parse_nsid, parse_route
from vswitchctl.drivers.netlink.placement import Placement, place, taken
from vswitchctl.drivers.netlink.reader import Contents, Place
from vswitchctl.drivers.netlink.requests import Batch, Work, refused
from vswitchctl.model.plan import Change, Kind
from vswitchctl.model.state import ROOT, LinuxBridgeSpec, NamespaceSpec, RouteSpec, VethEnd, VethSpec

ALIAS_MOST = 255
"""Bytes of an interface's alias: IFALIASZ of linux/if.h less the end."""

NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""Answers of a kernel without IPv6, where there is no link-local address to prevent."""


class Writer(Work):
    """Brings each resource to its desired state from anything. A pair is made anew only where it must be."""

    def run(self, changes: Sequence[Change]) -> None:
        by_kind: dict[Kind, list[Change]] = defaultdict(list)
        for change in changes:
            if len(change.owner.alias.encode()) > ALIAS_MOST:
                self.fail(change, _too_long(change))
                self.done(1)
            else:
                by_kind[change.kind].append(change)
        self._wanted_routes: dict[str, tuple[Change, frozenset[RouteSpec]]] = {}
        self._namespaces(by_kind[Kind.NAMESPACE])
        self._placement = self._place(by_kind[Kind.LINUX_BRIDGE], by_kind[Kind.VETH])
        self.delete(self._placement.doomed)
        self._linux_bridges(by_kind[Kind.LINUX_BRIDGE])
        self._veths(by_kind[Kind.VETH])
        taps.take(self, by_kind[Kind.TAP])
        self._replace_tuns(by_kind[Kind.TUN])
        tuns.make(self, by_kind[Kind.TUN])
        self._set_routes()
        self.done(len(by_kind[Kind.NAMESPACE]))

    # -- namespaces --------------------------------------------------------------------------------------

    def _namespaces(self, changes: Sequence[Change]) -> None:
        new = []
        for change in changes:
            name = str(change.key)
            if self.host.is_foreign(name):
                self.fail(change, _namespace_taken(name))
            elif name in self.host.channels:
                batch = Batch()
                batch.add(change, _loopback(change.desired))
                self.send(name, batch)
            else:
                new.append(change)
        if new:
            in_thread(lambda: self._make_namespaces(new))
        for change in self.good(changes):
            self._wanted_routes[str(change.key)] = (change, change.desired.routes)

    def _make_namespaces(self, changes: Sequence[Change]) -> None:
        """In a thread of its own: it moves from one new namespace to the next."""
        for change in changes:
            name = str(change.key)
            self.touched.add(name)
            try:
                self.host.channels[name] = self._new_namespace(name, change.desired)
            except FileExistsError:
                self.fail(change, _namespace_taken(name))
            except OSError as error:
                self.fail(change, refused(change, error))

    def _new_namespace(self, name: str, spec: NamespaceSpec) -> Channel:
        """Moves the calling thread into a new namespace, marks it, then names it. Raises OSError."""
        kernel.unshare()
        channel = Channel(EVENTS)
        try:
            (error,) = channel.run([_loopback(spec)])
            if error is not None:
                raise error
            channel.nsid = self._number()
            kernel.name_namespace(name, self.host.mark(spec.owner))
            channel.identity = kernel.identity(name)
        except OSError:
            channel.close()
            raise
        return channel

    def _number(self) -> int | None:
        """Give the calling thread's namespace an id in ours."""
        root = self.host.channels[ROOT]
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (error,) = root.run([message.new_nsid(descriptor)])
            if error is not None and error.errno != errno.EEXIST:
                raise error
            return parse_nsid(root.ask(message.get_nsid(descriptor)))
        finally:
            os.close(descriptor)

    # -- links -------------------------------------------------------------------------------------------

    def _place(self, bridges: Sequence[Change], veths: Sequence[Change]) -> Placement:
        placement = place(self.host, bridges, veths)
        kept = {end for pair in placement.pairs.values() for end in pair}
        for left in self.unfinished():
            # A crash may also come between marking the one end and the other.
            if left not in kept:
                placement.doomed.setdefault(left, None)
        for change, reason in placement.refused:
            self.fail(change, reason)
        return placement

    def _linux_bridges(self, changes: Sequence[Change]) -> None:
        made, batch = Batch(), Batch()
        for change in self.good(changes):
            if id(change) not in self._placement.bridges:
                made.add(change, message.new_bridge(str(change.key), change.desired.mtu))
        self.send(ROOT, made, taken)
        for change in self.good(changes):
            spec: LinuxBridgeSpec = change.desired
            name = str(change.key)
            batch.add(change, message.no_link_local(name), NO_IPV6)
            batch.add(change, message.plain_bridge(name))
            batch.add(change, message.set_link(name, alias=spec.owner.alias, mtu=spec.mtu, up=True, group=0))
        self.send(ROOT, batch)
        self._bridges_there(changes)
        self.done(len(changes))

    def _bridges_there(self, changes: Sequence[Change]) -> None:
        """The Linux bridges that links may be attached to: our own, and those declared to be others'."""
        links = self.host.contents[ROOT].links.values()
        there = {link.name for link in links if link.kind == "bridge"}
        good = {str(change.key) for change in self.good(changes)}
        self._masters = there - {str(change.key) for change in changes} | good

    def _veths(self, changes: Sequence[Change]) -> None:
        ready = [change for change in self.good(changes) if self._has_its_place(change)]
        self._make([change for change in ready if id(change) not in self._placement.pairs])
        batches = defaultdict[str, Batch](Batch)
        for change in self.good(ready):
            for end in _ends(change):
                self._set_end(change, end, batches[end.namespace])
        # The root namespace comes first, so that a link has a carrier when the end inside comes up.
        for namespace in sorted(batches):
            self.send(namespace, batches[namespace])
        for change in self.good(ready):
            for end in _ends(change):
                self._set_checksum(change, end)
        self.done(len(changes))

    def _has_its_place(self, change: Change) -> bool:
        """Whether the namespaces of both ends are ours and there, and their Linux bridges too."""
        for end in _ends(change):
            if end.namespace not in self.host.channels:
                self.fail(change, f"namespace '{end.namespace}' of '{end.name}' is not there, or not ours")
                return False
            if end.master is not None and end.master not in self._masters:
                self.fail(change, f"Linux bridge '{end.master}' of '{end.name}' is not there, or not ours")
                return False
        return True

    def _make(self, changes: Sequence[Change]) -> None:
        descriptors: dict[str, int] = {}
        batches = defaultdict[str, Batch](Batch)
        try:
            for change in changes:
                first, second = _ends(change)
                try:
                    descriptor = _descriptor(first, second, descriptors)
                except OSError as error:
                    self.fail(change, f"namespace '{second.namespace}': {error.strerror}")
                    continue
                peer = message.Peer(second.name, second.mtu, second.mac, descriptor)
                made = message.new_veth(first.name, first.mtu, first.mac, peer)
                batches[first.namespace].add(change, made)
                self.touched.add(second.namespace)
            for namespace, batch in batches.items():
                self.send(namespace, batch, taken)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)

    def _set_end(self, change: Change, end: VethEnd, batch: Batch) -> None:
        before = self._before(change, end)
        channel = self.host.channels[end.namespace]
        try:
            index = channel.index(end.name)
            master = channel.index(end.master) if end.master else None
        except OSError as error:
            self.fail(change, f"device '{end.name}' or its bridge is gone again: {error.strerror}")
            return
        if not end.namespace and not end.addresses:
            batch.add(change, message.no_link_local(end.name), NO_IPV6)
        attributes = message.set_link(
            end.name,
            alias=change.desired.owner.alias,
            up=True,
            # A new end was made with these.
            mtu=end.mtu if before is not None else None,
            mac=end.mac if before is not None else None,
            master=0 if before is not None and before.master and master is None else master,
            group=0,
        )
        batch.add(change, attributes)
        there = before.addresses if before is not None else frozenset[str]()
        set_addresses(change, index, end.addresses, there, batch)

    def _before(self, change: Change, end: VethEnd) -> VethEnd | None:
        """The end as it was, where it was kept."""
        kept = self._placement.pairs.get(id(change))
        if kept is None:
            return None
        found = kept[0] if end == change.desired.a else kept[1]
        return self.host.contents[end.namespace].end(end.namespace, found.link)

    def _set_checksum(self, change: Change, end: VethEnd) -> None:
        kept = self._placement.pairs.get(id(change))
        if kept is None and end.tx_checksum:
            return
        try:
            kernel.set_tx_checksum(self.host.channels[end.namespace].fileno(), end.name, end.tx_checksum)
        except OSError as error:
            self.fail(change, f"transmit checksum offload of '{end.name}': {error.strerror}")

    def _replace_tuns(self, changes: Sequence[Change]) -> None:
        """Delete those that are made anew."""
        doomed: dict[Place, Change | None] = {}
        for change in changes:
            if change.observed is not None and tuns.replaced(change.observed, change.desired):
                link = self.host.link(str(change.key), change.observed.name)
                if link is not None and link.marked == change.observed.owner:
                    doomed[Place(str(change.key), link)] = change
        self.delete(doomed)

    # -- routes ------------------------------------------------------------------------------------------

    def _set_routes(self) -> None:
        """After the links: a route needs its gateway's subnet, and goes with its device."""
        for namespace in self.touched - {ROOT} - self._wanted_routes.keys():
            if namespace in self.host.contents and self.host.contents[namespace].routes:
                self._keep_routes(namespace, self.host.contents[namespace])
        for namespace, (change, wanted) in self._wanted_routes.items():
            there = self._routes_now(namespace) if wanted or namespace in self.host.contents else frozenset()
            batch = Batch()
            for spec in sorted(there - wanted, key=str):
                batch.add(change, message.route(spec, add=False), {errno.ESRCH}, _route(spec))
            for spec in sorted(wanted - there, key=str):
                batch.add(change, message.route(spec, add=True), part=_route(spec))
            self.send(namespace, batch)

    def _keep_routes(self, namespace: str, before: Contents) -> None:
        """Put back what the kernel dropped while an interface was made anew."""
        lost = sorted(before.routes - self._routes_now(namespace), key=str)
        # What cannot be put back shows as a difference when the namespace is read next.
        self.host.channels[namespace].run([message.route(spec, add=True) for spec in lost])

    def _routes_now(self, namespace: str) -> frozenset[RouteSpec]:
        found = map(parse_route, self.host.channels[namespace].dump(rtnl.RTM_GETROUTE))
        return frozenset(spec for spec in found if spec is not None)


def _ends(change: Change) -> tuple[VethEnd, VethEnd]:
    spec: VethSpec = change.desired
    return spec.a, spec.b


def _loopback(spec: NamespaceSpec) -> bytes:
    return message.set_link("", index=message.LO_INDEX, alias=spec.owner.alias, up=True)


def _descriptor(home: VethEnd, end: VethEnd, opened: dict[str, int]) -> int | None:
    """A descriptor of the end's namespace, opened once; None where it is that of `home`."""
    if end.namespace == home.namespace:
        return None
    if end.namespace not in opened:
        opened[end.namespace] = kernel.open_namespace(end.namespace)
    return opened[end.namespace]


def _namespace_taken(name: str) -> str:
    return f"a namespace '{name}' exists and is not ours; rename the node or remove it"


def _route(spec: RouteSpec) -> str:
    return f"route {spec.to} via {spec.via}"


def _too_long(change: Change) -> str:
    alias = change.owner.alias
    return (
        f"the mark of {change.kind} '{change.name}' has {len(alias.encode())} bytes, and an alias holds "
        f"{ALIAS_MOST}; shorten the names of the topology and of its nodes"
    )
