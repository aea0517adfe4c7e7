"""The driver: a cached view of the kernel that events keep true, and changes to what carries our mark."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.channel import ROOT_EVENTS, Channel, in_thread
from vswitchctl.drivers.netlink.host import Host
from vswitchctl.drivers.netlink.message import get_nsid
from vswitchctl.drivers.netlink.parse import head, ingress_of, parse_nsid
from vswitchctl.drivers.netlink.reader import Assembler, concerns, read_contents, read_taps
from vswitchctl.drivers.netlink.remover import Remover
from vswitchctl.drivers.netlink.watch import URGENT, Mounts, Watch
from vswitchctl.drivers.netlink.writer import Writer
from vswitchctl.errors import ApplyError
from vswitchctl.model.plan import Action, Change, Failure, Kind
from vswitchctl.model.state import ROOT, ObservedNetlink

LOG = logging.getLogger(__name__)

DIRECTORY, MOUNTS, WAKE = "/run/netns", "/mounts", "/wake"
"""What the watch calls the directory of names, what is mounted there, and the pipe that wakes the thread: no
namespace has such a name."""

NO_NAMESPACE = frozenset({errno.ENOENT, errno.EINVAL})
"""Errors of open(2) and setns(2) for a name that is gone, or that stands for something else."""


LINK_EVENTS = (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK)

FEW_LINKS = 64
"""Up to so many are read one by one: each is a system call, and reading hundreds at once costs as much."""

GOING_SECONDS = 0.3
"""How long a name of ours without its namespace is taken for one that somebody is about to remove."""


class NetlinkDriver:
    """Namespaces and links of the network namespace that it is made in.

    Ours is a namespace whose loopback carries our mark, and which has an id in that network namespace: other
    daemons on the machine, in namespaces of their own, share the directory of names. A link is ours by its
    own mark. Made things are marked before anybody, or we after a crash, can take them for somebody else's.

    `read` asks the kernel again only about namespaces that had an event. on_change() is called from a thread
    of the driver whenever there was one, unless it came between an `apply` and the `read` after it; it must
    do no I/O. Safe to call from several threads.
    """

    def __init__(self, on_change: Callable[[], None] | None = None) -> None:
        self._on_change = on_change or (lambda: None)
        self._lock = threading.RLock()
        self._watch = Watch()
        self._host = Host()
        self._foreign: dict[str, tuple[int, int]] = {}
        self._going: dict[str, float] = {}
        self._dirty: set[str] = {ROOT, DIRECTORY}
        self._dirty_links: set[int] = set()
        self._assembler = Assembler()
        self._observed: ObservedNetlink | None = None
        self._news = False
        self._closing = False
        kernel.raise_file_limit()
        kernel.prepare_netns_dir()
        self._directory = kernel.Inotify(kernel.NETNS_DIR)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._mounts = Mounts()
        self._watch.add(self._directory, DIRECTORY)
        self._watch.add(self._mounts, MOUNTS, URGENT)
        self._watch.add(self._wake_read, WAKE)
        self._host.channels[ROOT] = Channel(ROOT_EVENTS)
        self._register(ROOT)
        self._thread = threading.Thread(target=self._follow, name="netlink", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch and close every socket. Once more is nothing."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._wake()
        self._thread.join()
        with self._lock:
            for name in list(self._host.channels):
                self._forget(name)
            self._watch.close()
            self._directory.close()
            self._mounts.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def read(self) -> ObservedNetlink:
        """What the kernel holds; the same object as last time where no event came. Raises ApplyError.

        A pair of ours that frames cannot cross is `broken`: an end is missing, down, or carries no mark.
        """
        with self._lock:
            self._take_events()
            if self._news:
                # The thread finds no event any more, and whoever waits for on_change would miss this one.
                self._wake()
            if self._dirty or self._dirty_links or self._observed is None:
                self._refresh()
                observed = self._assembler.assemble(self._host.contents, self._host.names)
                self._observed = self._observed if observed == self._observed else observed
            return self._observed

    def apply(
        self, changes: Sequence[Change], progress: Callable[[int], None] | None = None
    ) -> list[Failure]:
        """Make additions and changes, or removals: not both in one call. Touches only what is ours.

        Each change may start from anything: what is there already stays, what is in the way and ours goes.
        progress is called with how many changes more are done. Raises ApplyError where the kernel does not
        answer, in which case any part may have happened: read again.
        """
        removal = bool(changes) and changes[0].action is Action.REMOVE
        with self._lock:
            self._look_again(changes)
            self.read()
            changes, early = self._part_early(changes)
            before = set(self._host.channels)
            work = (Remover if removal else Writer)(self._host, progress or (lambda _: None))
            try:
                work.run(changes)
            finally:
                for name in self._host.channels.keys() - before:
                    self._register(name)
                for name in self._host.dropped:
                    self._forget(name)
                self._host.dropped.clear()
                self._touched(changes, work.touched)
            return [*early, *work.failures()]

    def ingress_filtered(self) -> frozenset[str]:
        """Devices in the root namespace with a qdisc for what comes in ('ingress' or 'clsact'), asked now.

        Raises ApplyError.
        """
        with self._lock:
            self.read()
            bodies = self._host.channels[ROOT].dump(rtnl.RTM_GETQDISC)
            links = self._host.contents[ROOT].by_index
            found = (links.get(index) for index in map(ingress_of, bodies) if index is not None)
            return frozenset(link.name for link in found if link is not None)

    # -- events ------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while True:
            ready = self._watch.ready(None)
            with self._lock:
                if self._closing:
                    return
                self._asleep()
                self._take_events(ready)
                news, self._news = self._news, False
            if news:
                self._on_change()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b".")
        except BlockingIOError:
            return  # it will wake up anyhow

    def _asleep(self) -> None:
        """Empty the pipe that wakes us: in the thread alone, lest another takes it for the thread."""
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def _take_events(self, ready: Collection[str] = ()) -> None:
        """Note what is dirty, throw the events away. On what is dirty already they are no news.

        ready: what the thread was woken for, as the mount table says only once that it changed.
        """
        for name in self._watch.ready(0).union(ready):
            if name == DIRECTORY:
                self._names_changed()
            elif name == MOUNTS:
                self._mounts_changed()
            elif name in self._host.channels:
                self._drain(name)

    def _drain(self, name: str) -> None:
        contents = self._host.contents.get(name)
        links: set[int] = set()

        def look(kind: int, body: bytes) -> None:
            if name in self._dirty or not concerns(contents, kind, body):
                return
            if name == ROOT and kind in LINK_EVENTS:
                links.add(head(body)[1])
            else:
                self._mark(name)

        if self._host.channels[name].drain(look):
            self._mark(name)
        self._news = self._news or not links <= self._dirty_links
        self._dirty_links |= links

    def _mark(self, name: str) -> None:
        self._news = self._news or name not in self._dirty
        self._dirty.add(name)

    def _touched(self, changes: Sequence[Change], namespaces: set[str]) -> None:
        """What we changed ourselves is read again; where that is TAPs, these alone."""
        links = self._host.contents[ROOT].links
        if all(change.kind is Kind.TAP and change.key in links for change in changes):
            self._dirty_links |= {links[change.key].index for change in changes}
        else:
            self._dirty |= namespaces | {DIRECTORY}

    def _names_changed(self) -> None:
        for name, went in self._directory.names():
            self._mark(DIRECTORY)
            if went:
                # Our socket would keep a namespace alive that somebody else deleted.
                self._forget(name)
                self._going.pop(name, None)

    def _mounts_changed(self) -> None:
        """A name has its namespace only after its file; either may come and go without the other."""
        there = {name: place for name, place in kernel.named_namespaces().items() if place is not None}
        known = {name: channel.identity for name, channel in self._host.channels.items() if name != ROOT}
        if there != known | self._foreign:
            self._mark(DIRECTORY)
        for name, place in known.items():
            if there.get(name) != place:
                self._forget(name)
                if name not in there:
                    self._going[name] = time.monotonic()

    def _part_early(self, changes: Sequence[Change]) -> tuple[Sequence[Change], list[Failure]]:
        """Leave out namespaces whose names somebody is removing just now.

        `ip netns del` unmounts and then unlinks; a namespace made between the two would make it fail.
        """
        now = time.monotonic()
        self._going = {name: since for name, since in self._going.items() if now - since < GOING_SECONDS}
        early = {c.key for c in changes if c.kind is Kind.NAMESPACE and c.key in self._going}
        if not early:
            return changes, []
        text = "somebody is removing the name '{}' just now"
        failures = [Failure(c, text.format(c.key)) for c in changes if c.key in early]
        return [change for change in changes if change.key not in early], failures

    def _look_again(self, changes: Sequence[Change]) -> None:
        """At somebody's namespaces whose names are wanted: nothing tells that one carries our mark again."""
        for change in changes:
            if change.kind is Kind.NAMESPACE and self._foreign.pop(str(change.key), None) is not None:
                self._dirty.add(DIRECTORY)

    # -- reading -----------------------------------------------------------------------------------------

    def _register(self, name: str) -> None:
        self._watch.add(self._host.channels[name].events, name)

    def _forget(self, name: str) -> None:
        channel = self._host.channels.pop(name, None)
        if channel is not None:
            self._watch.remove(channel.events)
            channel.close()
        self._host.contents.pop(name, None)

    def _refresh(self) -> None:
        dirty, self._dirty = self._dirty, set()
        links, self._dirty_links = self._dirty_links, set()
        try:
            if DIRECTORY in dirty:
                dirty |= self._find_namespaces()
            if links and ROOT not in dirty and not self._read_taps(links):
                dirty.add(ROOT)
            for name in dirty & self._host.channels.keys():
                self._read(name)
        except BaseException:
            self._dirty |= dirty
            self._dirty_links |= links
            raise

    def _read_taps(self, indexes: Collection[int]) -> bool:
        """Read these devices of the root namespace alone, where that is enough."""
        if len(indexes) > FEW_LINKS:
            return False
        found = read_taps(self._host.channels[ROOT], self._host.contents[ROOT], indexes)
        if found is not None:
            self._host.contents[ROOT] = found
        return found is not None

    def _read(self, name: str) -> None:
        channel = self._host.channels[name]
        contents = read_contents(channel, name)
        if name == ROOT or contents.owner is not None:
            self._host.contents[name] = contents
        else:
            self._disown(name, channel.identity)
            self._forget(name)

    def _disown(self, name: str, identity: tuple[int, int]) -> None:
        self._foreign[name] = identity
        self._host.names[name] = None

    def _find_namespaces(self) -> set[str]:
        """Open what is new under /run/netns, let go of what is gone; names to read."""
        there = kernel.named_namespaces()
        channels = self._host.channels
        for name in channels.keys() - {ROOT}:
            if there.get(name) != channels[name].identity:
                self._forget(name)
        self._foreign = {name: place for name, place in self._foreign.items() if there.get(name) == place}
        self._host.names.clear()
        self._host.names.update(dict.fromkeys(self._foreign))
        for name in (name for name, identity in there.items() if identity is None):
            owner = self._host.marked(name)
            if owner is not None:
                self._host.names[name] = owner
        new = {
            name: identity
            for name, identity in there.items()
            if identity is not None and name not in channels and name not in self._foreign
        }
        if new:
            in_thread(lambda: self._open(new))
        return set(new)

    def _open(self, new: dict[str, tuple[int, int]]) -> None:
        """In a thread of its own: it moves from namespace to namespace."""
        for name, identity in new.items():
            try:
                channel = self._enter(name)
            except OSError as error:
                if error.errno not in NO_NAMESPACE:
                    raise ApplyError(f"namespace '{name}' cannot be entered: {error.strerror}") from error
                channel = None
            if channel is None:
                self._disown(name, identity)
                continue
            channel.identity = identity
            self._host.channels[name] = channel
            self._register(name)

    def _enter(self, name: str) -> Channel | None:
        """A channel to a namespace that has an id in ours, else None. Raises OSError."""
        descriptor = kernel.open_namespace(name)
        try:
            nsid = parse_nsid(self._host.channels[ROOT].ask(get_nsid(descriptor)))
            if nsid is None:
                return None
            channel = Channel.inside(descriptor)
            channel.nsid = nsid
            return channel
        finally:
            os.close(descriptor)
