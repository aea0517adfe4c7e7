"""The driver: a cached view of the kernel that events keep true, and changes to what carries our mark."""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Callable, Sequence

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.channel import Channel, in_thread
from vswitchctl.drivers.netlink.reader import Contents, assemble, names_in_directory, read_contents
from vswitchctl.drivers.netlink.writer import Writer
from vswitchctl.model.plan import Action, Change, Failure
from vswitchctl.model.state import ROOT, ObservedNetlink

LOG = logging.getLogger(__name__)

DIRECTORY, STOP = "/run/netns", "/stop"
"""What the selector calls the watch on the directory of names and the pipe that ends it: no namespace has
such a name."""


class NetlinkDriver:
    """Namespaces and links of the network namespace that it is made in.

    `read` asks the kernel again only about namespaces that had an event. on_change() is called from a thread
    of the driver whenever there was one; it must do no I/O. Safe to call from several threads.
    """

    def __init__(self, on_change: Callable[[], None] | None = None) -> None:
        self._on_change = on_change or (lambda: None)
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._channels: dict[str, Channel] = {}
        self._contents: dict[str, Contents] = {}
        self._foreign: dict[str, tuple[int, int]] = {}
        self._dirty: set[str] = {ROOT, DIRECTORY}
        self._observed: ObservedNetlink | None = None
        kernel.prepare_netns_dir()
        self._directory = kernel.Inotify(kernel.NETNS_DIR)
        self._stop_read, self._stop_write = os.pipe()
        self._selector.register(self._directory, selectors.EVENT_READ, DIRECTORY)
        self._selector.register(self._stop_read, selectors.EVENT_READ, STOP)
        self._channels[ROOT] = Channel(rtnl.RTMGRP_LINK)
        self._selector.register(self._channels[ROOT].events, selectors.EVENT_READ, ROOT)
        self._thread = threading.Thread(target=self._watch, name="netlink", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch and close every socket."""
        os.write(self._stop_write, b".")
        self._thread.join()
        with self._lock:
            for name in list(self._channels):
                self._forget(name)
            self._selector.close()
            self._directory.close()
            os.close(self._stop_read)
            os.close(self._stop_write)

    def read(self) -> ObservedNetlink:
        """What the kernel holds; the same object as last time where no event came. Raises ApplyError."""
        with self._lock:
            self._take_events(0)
            if self._dirty or self._observed is None:
                self._refresh()
                self._observed = assemble(self._contents, frozenset(self._foreign))
            return self._observed

    def apply(
        self, changes: Sequence[Change], progress: Callable[[int], None] | None = None
    ) -> list[Failure]:
        """Make additions and changes, or removals: not both in one call. Touches only what is ours."""
        with self._lock:
            self.read()
            writer = Writer(self._channels, self._contents, frozenset(self._foreign))
            before = set(self._channels)
            try:
                if changes and changes[0].action is Action.REMOVE:
                    writer.down(changes)
                else:
                    writer.up(changes)
            finally:
                for name in set(self._channels) - before:
                    self._register(name)
                self._dirty |= writer.touched | {DIRECTORY}
            if progress is not None:
                progress(len(changes))
            return writer.failures()

    # -- events ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            self._selector.select()
            with self._lock:
                running, found = self._take_events(0)
            if not running:
                return
            if found:
                self._on_change()

    def _take_events(self, timeout: float) -> tuple[bool, bool]:
        """(whether to go on, whether anything happened): note what is dirty, throw the events away."""
        found = False
        for key, _ in self._selector.select(timeout):
            name = key.data
            if name == STOP:
                return False, found
            if name == DIRECTORY:
                found |= self._names_changed()
            elif name in self._channels and self._channels[name].drain():
                self._dirty.add(name)
                found = True
        return True, found

    def _names_changed(self) -> bool:
        found = False
        for name, went in self._directory.names():
            found = True
            self._dirty.add(DIRECTORY)
            if went and name in self._channels:
                # Our socket would keep a namespace alive that somebody else deleted.
                self._forget(name)
        return found

    # -- reading -----------------------------------------------------------------------------------------

    def _register(self, name: str) -> None:
        self._selector.register(self._channels[name].events, selectors.EVENT_READ, name)

    def _forget(self, name: str) -> None:
        channel = self._channels.pop(name, None)
        if channel is not None:
            self._selector.unregister(channel.events)
            channel.close()
        self._contents.pop(name, None)

    def _refresh(self) -> None:
        dirty, self._dirty = self._dirty, set()
        if DIRECTORY in dirty:
            dirty |= self._find_namespaces()
        for name in dirty & self._channels.keys():
            self._contents[name] = read_contents(self._channels[name], name)
            if name != ROOT and self._contents[name].owner is None:
                self._foreign[name] = names_in_directory().get(name, (0, 0))
                self._forget(name)

    def _find_namespaces(self) -> set[str]:
        """Open what is new under /run/netns, let go of what is gone; names to read."""
        there = names_in_directory()
        for name in self._channels.keys() - there.keys() - {ROOT}:
            self._forget(name)
        self._contents = {name: kept for name, kept in self._contents.items() if name in self._channels}
        self._foreign = {name: place for name, place in self._foreign.items() if there.get(name) == place}
        new = [name for name in there if name not in self._channels and name not in self._foreign]
        if not new:
            return set()
        in_thread(lambda: self._open(new, there))
        return set(new)

    def _open(self, names: Sequence[str], there: dict[str, tuple[int, int]]) -> None:
        """In a thread of its own: it moves from namespace to namespace."""
        for name in names:
            try:
                self._channels[name] = Channel.inside(name)
            except OSError as error:
                LOG.info("%s is no namespace that can be entered: %s", kernel.NETNS_DIR / name, error)
                self._foreign[name] = there[name]
            else:
                self._register(name)
