"""Changes to namespaces and links: pipelined requests, each answer matched to the change that asked.

Nothing without our mark is touched. A mark is there as soon as the thing can be seen under its name: a
namespace gets its alias before its name, and a new link is in the group UNFINISHED until it has its alias.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel, message
from vswitchctl.drivers.netlink.channel import EVENTS, Channel, in_thread
from vswitchctl.drivers.netlink.reader import Contents, End, ends_by_owner, paired
from vswitchctl.model.plan import Action, Change, Failure, Kind
from vswitchctl.model.state import ROOT, LinuxBridgeSpec, NamespaceSpec, RouteSpec, VethEnd, VethSpec

NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""Answers of a kernel without IPv6, where there is no link-local address to prevent."""


@dataclass(slots=True)
class _Batch:
    """Requests for one namespace, and which change each belongs to."""

    changes: list[Change] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    tolerated: list[frozenset[int]] = field(default_factory=list)

    def add(self, change: Change, request: bytes, tolerated: Iterable[int] = ()) -> None:
        self.changes.append(change)
        self.requests.append(request)
        self.tolerated.append(frozenset(tolerated))


class Writer:
    """One call of `apply`. channels: namespace -> channel; new ones are added, closed ones taken out."""

    def __init__(
        self, channels: dict[str, Channel], contents: dict[str, Contents], foreign: frozenset[str]
    ) -> None:
        self._channels = channels
        self._contents = contents
        self._foreign = foreign
        self._ends = ends_by_owner(contents)
        self._failed: dict[int, Failure] = {}
        self._routes: dict[str, tuple[Change, frozenset[RouteSpec]]] = {}
        self.touched: set[str] = {ROOT}

    def failures(self) -> list[Failure]:
        return list(self._failed.values())

    # -- additions and changes ---------------------------------------------------------------------------

    def up(self, changes: Sequence[Change]) -> None:
        """Additions and changes, whatever the starting point."""
        self._clear_unfinished()
        by_kind: dict[Kind, list[Change]] = defaultdict(list)
        for change in changes:
            by_kind[change.kind].append(change)
        self._namespaces(by_kind[Kind.NAMESPACE])
        self._linux_bridges(by_kind[Kind.LINUX_BRIDGE])
        self._veths(by_kind[Kind.VETH])
        self._set_routes()

    def _clear_unfinished(self) -> None:
        """Devices that a crash left between being made and being marked."""
        left = [link for link in self._contents[ROOT].links.values() if link.group == message.UNFINISHED]
        for link in left:
            if not link.alias:
                self._channels[ROOT].run([message.delete_link(link.name)])

    def _run(
        self, namespace: str, batch: _Batch, say: Callable[[Change, OSError], str] | None = None
    ) -> None:
        if not batch.requests:
            return
        self.touched.add(namespace)
        answers = self._channels[namespace].run(batch.requests)
        for change, error, tolerated in zip(batch.changes, answers, batch.tolerated, strict=True):
            if error is not None and error.errno not in tolerated:
                self._fail(change, say(change, error) if say else _refused(change, error))

    def _fail(self, change: Change, text: str) -> None:
        self._failed.setdefault(id(change), Failure(change, text))

    def _good(self, changes: Iterable[Change]) -> Iterator[Change]:
        return (change for change in changes if id(change) not in self._failed)

    def _namespaces(self, changes: Sequence[Change]) -> None:
        new = [change for change in changes if change.action is Action.ADD]
        if new:
            in_thread(lambda: self._make_namespaces(new))
        for change in self._good(changes):
            spec: NamespaceSpec = change.desired
            if change.action is Action.CHANGE:
                batch = _Batch()
                batch.add(
                    change, message.set_link("", index=message.LO_INDEX, alias=spec.owner.alias, up=True)
                )
                self._run(str(change.key), batch)
            self._routes[str(change.key)] = (change, spec.routes)

    def _make_namespaces(self, changes: Sequence[Change]) -> None:
        """In a thread of its own: it moves from one new namespace to the next."""
        for change in changes:
            name = str(change.key)
            if name in self._foreign or name in self._channels:
                self._fail(
                    change, f"a namespace '{name}' exists and is not ours; rename the node or remove it"
                )
                continue
            try:
                self._channels[name] = _new_namespace(name, change.desired)
            except OSError as error:
                self._fail(change, _refused(change, error))
            self.touched.add(name)

    def _linux_bridges(self, changes: Sequence[Change]) -> None:
        batch = _Batch()
        for change in changes:
            if change.action is Action.ADD:
                batch.add(change, message.new_bridge(str(change.key), change.desired.mtu))
        self._run(ROOT, batch, _taken)
        batch = _Batch()
        for change in self._good(changes):
            spec: LinuxBridgeSpec = change.desired
            batch.add(
                change,
                message.set_link(str(change.key), alias=spec.owner.alias, mtu=spec.mtu, up=True, group=0),
            )
        self._run(ROOT, batch)

    def _veths(self, changes: Sequence[Change]) -> None:
        fresh = [change for change in changes if not self._in_place(change)]
        self._delete_remnants(fresh)
        self._make(fresh)
        root, inside = _Batch(), defaultdict[str, _Batch](_Batch)
        for change in self._good(changes):
            for end in (change.desired.a, change.desired.b):
                self._set_end(change, end, inside[end.namespace] if end.namespace else root)
        self._run(ROOT, root)
        for namespace, batch in inside.items():
            self._run(namespace, batch)
        for change in self._good(changes):
            for end in (change.desired.a, change.desired.b):
                self._set_checksum(change, end)

    def _in_place(self, change: Change) -> bool:
        """Whether both ends are where they belong, so that setting their attributes is enough."""
        ends = self._ends.get(str(change.key), [])
        spec: VethSpec = change.desired
        wanted = [(end.namespace, end.name) for end in (spec.a, spec.b)]
        return paired(ends) and [(end.spec.namespace, end.spec.name) for end in ends] == wanted

    def _delete_remnants(self, changes: Sequence[Change]) -> None:
        batches = defaultdict[str, _Batch](_Batch)
        for change in changes:
            for end in self._ends.get(str(change.key), []):
                # The other end may have taken it along.
                batches[end.spec.namespace].add(change, message.delete_link(end.spec.name), {errno.ENODEV})
        for namespace, batch in batches.items():
            self._run(namespace, batch)

    def _make(self, changes: Sequence[Change]) -> None:
        descriptors: dict[str, int] = {}
        batch = _Batch()
        try:
            for change in self._good(changes):
                first, second = change.desired.a, change.desired.b
                try:
                    peer = message.Peer(second.name, second.mtu, second.mac, _descriptor(second, descriptors))
                except OSError as error:
                    self._fail(change, f"namespace '{second.namespace}': {error.strerror}")
                    continue
                batch.add(change, message.new_veth(first.name, first.mtu, first.mac, peer))
                self.touched.add(second.namespace)
            self._run(ROOT, batch, _taken)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)

    def _set_end(self, change: Change, end: VethEnd, batch: _Batch) -> None:
        channel = self._channels.get(end.namespace)
        if channel is None:
            self._fail(change, f"namespace '{end.namespace}' is not there")
            return
        before = self._before(change, end)
        if not end.namespace and not end.addresses:
            batch.add(change, message.no_link_local(end.name), NO_IPV6)
        try:
            master = (
                channel.index(end.master) if end.master else (0 if before and before.spec.master else None)
            )
            index = channel.index(end.name)
        except OSError as error:
            self._fail(change, f"device '{end.master or end.name}': {error.strerror}")
            return
        alias = change.desired.owner.alias
        mtu = end.mtu if before is not None else None  # a new one was made with it
        mac = end.mac if before is not None else None
        batch.add(
            change,
            message.set_link(end.name, alias=alias, up=True, mtu=mtu, mac=mac, master=master, group=0),
        )
        there = before.spec.addresses if before is not None else frozenset()
        for text in sorted(there - end.addresses):
            batch.add(change, message.address(index, text, add=False), {errno.EADDRNOTAVAIL})
        for text in sorted(end.addresses - there):
            batch.add(change, message.address(index, text, add=True))

    def _before(self, change: Change, end: VethEnd) -> End | None:
        """The end as it was, where it was kept."""
        if not self._in_place(change):
            return None
        ends = self._ends[str(change.key)]
        return next(
            found for found in ends if found.spec.name == end.name and found.spec.namespace == end.namespace
        )

    def _set_checksum(self, change: Change, end: VethEnd) -> None:
        before = self._before(change, end)
        is_on = before.spec.tx_checksum if before is not None else True
        if end.namespace and end.tx_checksum != is_on:
            try:
                kernel.set_tx_checksum(self._channels[end.namespace].fileno(), end.name, end.tx_checksum)
            except OSError as error:
                self._fail(change, f"transmit checksum offload of '{end.name}': {error.strerror}")

    def _set_routes(self) -> None:
        """After the links: a route needs its gateway's subnet, and goes with its device."""
        for namespace in self.touched - {ROOT} - self._routes.keys():
            if namespace in self._contents and self._contents[namespace].routes:
                self._keep_routes(namespace)
        for namespace, (change, wanted) in self._routes.items():
            there = self._routes_now(namespace) if wanted or namespace in self._contents else frozenset()
            batch = _Batch()
            for spec in sorted(there - wanted, key=str):
                batch.add(change, message.route(spec, add=False), {errno.ESRCH})
            for spec in sorted(wanted - there, key=str):
                batch.add(change, message.route(spec, add=True))
            self._run(namespace, batch, _no_route)

    def _keep_routes(self, namespace: str) -> None:
        """Put back what the kernel dropped while an interface was made anew."""
        for spec in sorted(self._contents[namespace].routes - self._routes_now(namespace), key=str):
            # What cannot be put back shows as a difference when the namespace is read next.
            self._channels[namespace].run([message.route(spec, add=True)])

    def _routes_now(self, namespace: str) -> frozenset[RouteSpec]:
        found = map(message.parse_route, self._channels[namespace].dump(rtnl.RTM_GETROUTE))
        return frozenset(spec for spec in found if spec is not None)

    # -- removals ----------------------------------------------------------------------------------------

    def down(self, changes: Sequence[Change]) -> None:
        """Removals: links all at once, then the names of namespaces."""
        by_namespace: dict[str, dict[str, Change]] = defaultdict(dict)
        for change in changes:
            if change.kind is Kind.LINUX_BRIDGE:
                by_namespace[ROOT][str(change.key)] = change
            for end in self._ends.get(str(change.key), []) if change.kind is Kind.VETH else []:
                by_namespace[end.spec.namespace][end.spec.name] = change
        # From the root namespace first: what goes there takes its other end along.
        for namespace in sorted(by_namespace):
            self._delete_together(namespace, by_namespace[namespace])
        for change in changes:
            if change.kind is Kind.NAMESPACE:
                self._drop(change)

    def _delete_together(self, namespace: str, doomed: dict[str, Change]) -> None:
        batch = _Batch()
        for name, change in doomed.items():
            batch.add(change, message.set_link(name, group=message.DOOMED), {errno.ENODEV})
        self._run(namespace, batch)
        (error,) = self._channels[namespace].run([message.delete_group(message.DOOMED)])
        if error is not None and error.errno != errno.ENODEV:
            for change in doomed.values():
                self._fail(change, _refused(change, error))

    def _drop(self, change: Change) -> None:
        name = str(change.key)
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.close()
        try:
            kernel.drop_namespace(name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._fail(change, _refused(change, error))


def _new_namespace(name: str, spec: NamespaceSpec) -> Channel:
    """Moves the calling thread into a new namespace, marks it, then names it. Raises OSError."""
    kernel.unshare()
    channel = Channel(EVENTS)
    try:
        (error,) = channel.run(
            [message.set_link("", index=message.LO_INDEX, alias=spec.owner.alias, up=True)]
        )
        if error is not None:
            raise error
        kernel.name_namespace(name)
    except OSError:
        channel.close()
        raise
    return channel


def _descriptor(end: VethEnd, opened: dict[str, int]) -> int | None:
    """A descriptor of the end's namespace, None for the root's; opened once."""
    if end.namespace == ROOT:
        return None
    if end.namespace not in opened:
        opened[end.namespace] = os.open(kernel.NETNS_DIR / end.namespace, os.O_RDONLY | os.O_CLOEXEC)
    return opened[end.namespace]


def _refused(change: Change, error: OSError) -> str:
    return f"the kernel refused {change.kind} '{change.name}': {error.strerror}"


def _taken(change: Change, error: OSError) -> str:
    if error.errno != errno.EEXIST:
        return _refused(change, error)
    spec: Any = change.desired
    name = change.key if change.kind is Kind.LINUX_BRIDGE else f"{spec.a.name}' or '{spec.b.name}"
    return f"a device '{name}' exists and is not ours; rename the node or remove the device"


def _no_route(change: Change, error: OSError) -> str:
    return f"a route of namespace '{change.name}' was refused: {error.strerror}"
