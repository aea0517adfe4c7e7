"""The driver: what every connection told last, put together. It never waits for a libvirtd."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final

import libvirt

from vswitchctl.drivers.libvirt import calls, events
from vswitchctl.drivers.libvirt.connection import Connection, Told
from vswitchctl.errors import Unreachable, UserError
from vswitchctl.model.domains import Addresses, Domain, ObservedDomains, VifKey

LOG = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 5.0
"""How long a call under way may take to end."""


@contextmanager
def _refusals(domain: Domain) -> Iterator[None]:
    """What libvirt refuses, in its own words."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise UserError(f"libvirt refuses it for domain '{domain.name}': {error}") from error


class LibvirtDriver:
    """Domains and networks behind these URIs, e.g. 'qemu:///system'. Changes only what a person asks for.

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

    def look_again(self, uuids: AbstractSet[str]) -> None:
        """See `reconcile.protocol.Domains`."""
        for connection in self._connections:
            connection.look_again(uuids & connection.told.domains.keys())

    # -- calls in the caller's thread, which may block for as long as libvirtd does ------------------------

    def addresses(self) -> dict[VifKey, Addresses]:
        """What libvirt knows of addresses of running domains, by UUID; nothing of one that does not say."""
        found = {}
        for domain in self.read().domains:
            if not domain.active:
                continue
            try:
                if domain.agent:  # asking it counts as writing
                    with calls.writable(domain) as own:
                        said = calls.addresses(own, agent=True)
                else:
                    said = calls.addresses(self._connection(domain).find(domain.uuid), agent=False)
            except (libvirt.libvirtError, Unreachable) as error:
                LOG.debug("addresses of domain %s: %s", domain.name, error)
                continue
            found.update({VifKey(domain.uuid, mac): one for mac, one in said.items()})
        return found

    def attach(self, name: str, mac: str, model: str, *, config: bool, checksums: bool) -> None:
        """Attach a NIC of type ethernet to the domain of this name or UUID: see `calls.attach`.

        Raises NotFound, UserError, Unreachable.
        """
        domain = calls.sole(self.read().domains, name)
        with _refusals(domain), calls.writable(domain) as found:
            calls.attach(found, domain, mac, model, config=config, checksums=checksums)

    def detach(self, name: str, mac: str, *, config: bool) -> None:
        """Detach a NIC from the domain of this name or UUID: see `calls.detach`. Raises as `attach`."""
        domain = calls.sole(self.read().domains, name)
        with _refusals(domain), calls.writable(domain) as found:
            calls.detach(found, domain, mac, config=config)

    def _connection(self, domain: Domain) -> Connection:
        return next(connection for connection in self._connections if connection.uri == domain.uri)

    def close(self) -> None:
        """End every connection and its thread."""
        for connection in self._connections:
            connection.close(CLOSE_SECONDS)
