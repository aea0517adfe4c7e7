"""The driver: what every connection told last, put together. It never waits for a libvirtd."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from vswitchctl.drivers.libvirt import events
from vswitchctl.drivers.libvirt.connection import Connection, Told
from vswitchctl.model.domains import ObservedDomains

CLOSE_SECONDS: Final = 5.0
"""How long a call under way may take to end."""


class LibvirtDriver:
    """Domains and networks behind these URIs, e.g. 'qemu:///system'. Reads only.

    on_change is called, by a thread of the driver, whenever `read` would give something else. A libvirtd may
    be absent or restart at any time: its URI is `silent` meanwhile, and what it told last stays.
    """

    def __init__(self, uris: Sequence[str], on_change: Callable[[], None] | None = None) -> None:
        if uris:
            events.ensure_running()
        self._lock = threading.Lock()
        self._kept: tuple[tuple[Told, ...], ObservedDomains] = ((), ObservedDomains())
        notify = on_change or (lambda: None)
        self._connections = [Connection(uri, notify) for uri in dict.fromkeys(uris)]

    def read(self) -> ObservedDomains:
        """The same object as last time where nothing changed. Never blocks, never raises."""
        told = tuple(connection.told for connection in self._connections)
        with self._lock:
            # Compared by identity: each change makes another object.
            if len(told) != len(self._kept[0]) or any(
                a is not b for a, b in zip(told, self._kept[0], strict=True)
            ):
                self._kept = (told, self._assemble(told))
            return self._kept[1]

    def _assemble(self, told: Sequence[Told]) -> ObservedDomains:
        uris = [connection.uri for connection in self._connections]
        return ObservedDomains(
            tuple(domain for one in told for _, domain in sorted(one.domains.items())),
            tuple(network for one in told for _, network in sorted(one.networks.items())),
            {uri: one.silent for uri, one in zip(uris, told, strict=True) if one.silent},
        )

    def close(self) -> None:
        """End every connection and its thread."""
        for connection in self._connections:
            connection.close(CLOSE_SECONDS)
