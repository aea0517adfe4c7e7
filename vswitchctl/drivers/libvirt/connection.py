"""One connection to libvirt: opened again whenever it breaks, and read again where an event said so.

A thread of its own makes every call, for each may block as long as libvirtd is stuck. Whoever asks gets
what was told last.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

import libvirt

from vswitchctl.drivers.libvirt import xml
from vswitchctl.errors import Unreachable
from vswitchctl.model.domains import Domain, LibvirtNetwork

LOG = logging.getLogger(__name__)

KEEPALIVE_SECONDS: Final = 5
KEEPALIVE_COUNT: Final = 3
"""A libvirtd that is silent for this long, so often, counts as gone: what virsh does by default."""

FIRST_RETRY, LAST_RETRY = 0.25, 5.0
"""Seconds until the next try to connect, doubled each time: libvirt tells nobody that it is back."""

_STATES: Final = {
    libvirt.VIR_DOMAIN_NOSTATE: "no state",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "blocked",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended by the guest",
}
"""As virsh says them."""

_GONE: Final = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK})

_DOMAIN_EVENTS: Final = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a connection told last, by UUID. silent: why it does not answer now, '' where it does."""

    domains: dict[str, Domain] = field(default_factory=dict)
    networks: dict[str, LibvirtNetwork] = field(default_factory=dict)
    silent: str = ""


class Connection:
    """Follows one URI until `close`. on_change is called, by its thread, when `told` has become another."""

    def __init__(self, uri: str, on_change: Callable[[], None]) -> None:
        self.uri = uri
        self.told = Told(silent=f"libvirt at {uri} has not answered yet")
        self._on_change = on_change
        self._wake = threading.Condition()
        self._dirty: set[str] = set()
        self._all = True
        self._starting = False
        self._lost = ""
        self._closing = False
        self._delay = 0.0
        self._connection: Any = None
        self._thread = threading.Thread(target=self._follow, name=f"libvirt {uri}", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        """End the thread; a call that libvirtd does not answer is left to itself after `timeout` seconds."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout)

    def find(self, uuid: str) -> Any:
        """libvirt's own object of a domain, for calls in the caller's thread. Raises Unreachable."""
        connection = self._connection
        if connection is None:
            raise Unreachable(self.told.silent or f"libvirt at {self.uri} is not connected")
        return connection.lookupByUUIDString(uuid)

    def look_again(self, uuids: Collection[str]) -> None:
        """Read these domains soon, and those that run and did not; libvirt has no event for that yet."""
        with self._wake:
            self._dirty.update(uuids)
            self._starting = True
            self._wake.notify_all()

    # -- events, from libvirt's thread: no calls here ------------------------------------------------------

    def _domain_event(self, _connection: Any, domain: Any, *_: Any) -> None:
        self._mark(domain.UUIDString())

    def _network_event(self, *_: Any) -> None:
        self._mark(None)

    def _closed(self, _connection: Any, reason: int, _opaque: Any) -> None:
        with self._wake:
            said = {
                libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd closed the connection",
                libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd does not answer any more",
            }
            self._lost = said.get(reason, "the connection broke")
            self._wake.notify_all()

    def _mark(self, uuid: str | None) -> None:
        with self._wake:
            if uuid is None:
                self._all = True
            else:
                self._dirty.add(uuid)
            self._wake.notify_all()

    # -- the thread ----------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while self._await_work():
            try:
                self._work()
            except libvirt.libvirtError as error:
                self._fail(str(error))
        self._disconnect()

    def _await_work(self) -> bool:
        """Until there is something to read, or until the next try to connect is due; False at the end."""
        with self._wake:
            if self._connection is None:
                self._wake.wait_for(lambda: self._closing, self._delay)
                self._delay = min(max(self._delay * 2, FIRST_RETRY), LAST_RETRY)
            else:
                self._wake.wait_for(
                    lambda: self._closing or self._all or self._dirty or self._starting or self._lost
                )
            return not self._closing

    def _work(self) -> None:
        with self._wake:
            lost, self._lost = self._lost, ""
        if lost:
            self._fail(lost)
            return
        if self._connection is None:
            self._connect()
        with self._wake:
            everything, dirty, starting = self._all, self._dirty, self._starting
            self._all, self._dirty, self._starting = False, set(), False
        if starting and not everything:
            dirty |= self._begun()
        self._publish(self._read_all() if everything else self._read_some(dirty))

    def _connect(self) -> None:
        connection = libvirt.openReadOnly(self.uri)
        self._connection = connection
        try:
            connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        connection.registerCloseCallback(self._closed, None)
        for event in _DOMAIN_EVENTS:
            connection.domainEventRegisterAny(None, event, self._domain_event, None)
        try:
            event = libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE
            connection.networkEventRegisterAny(None, event, self._network_event, None)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
        with self._wake:
            self._all = True
        self._delay = 0.0
        LOG.info("connected to libvirt at %s", self.uri)

    def _fail(self, why: str) -> None:
        if not self.told.silent:
            LOG.warning("libvirt at %s: %s", self.uri, why)
        self._disconnect()
        self._publish(
            Told(self.told.domains, self.told.networks, f"libvirt at {self.uri} does not answer: {why}")
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except libvirt.libvirtError as error:
                LOG.debug("libvirt at %s: %s", self.uri, error)
        with self._wake:
            self._lost = ""

    def _publish(self, told: Told) -> None:
        if told != self.told:
            self.told = told
            self._on_change()

    # -- reading -------------------------------------------------------------------------------------------

    def _read_all(self) -> Told:
        domains = (self._domain(found) for found in self._connection.listAllDomains())
        return Told({d.uuid: d for d in domains if d is not None}, self._networks())

    def _begun(self) -> set[str]:
        """The domains that run and did not when they were last read."""
        running = self._connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return {found.UUIDString() for found in running} - {
            domain.uuid for domain in self.told.domains.values() if domain.active
        }

    def _read_some(self, uuids: set[str]) -> Told:
        domains = dict(self.told.domains)
        for uuid in uuids:
            domains.pop(uuid, None)
            try:
                found = self._domain(self._connection.lookupByUUIDString(uuid))
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _GONE:
                    raise
                continue
            if found is not None:
                domains[uuid] = found
        return Told(domains, self.told.networks)

    def _domain(self, found: Any) -> Domain | None:
        """None where it is gone again."""
        try:
            state, _ = found.state()
            text = found.XMLDesc(0)
            active = bool(found.isActive())
        except libvirt.libvirtError as error:
            if error.get_error_code() in _GONE:
                return None
            raise
        parts = xml.interfaces(text)
        words = _STATES.get(state, f"state {state}")
        return Domain(
            self.uri, found.name(), found.UUIDString(), words, active, parts.found, parts.problem, parts.agent
        )

    def _networks(self) -> dict[str, LibvirtNetwork]:
        try:
            listed = self._connection.listAllNetworks()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return {}
            raise
        networks = (self._network(found) for found in listed)
        return {network.uuid: network for network in networks if network is not None}

    def _network(self, found: Any) -> LibvirtNetwork | None:
        try:
            said = xml.network(found.XMLDesc(0))
            active = bool(found.isActive())
        except libvirt.libvirtError as error:
            if error.get_error_code() in _GONE:
                return None
            raise
        return LibvirtNetwork(
            self.uri, found.name(), found.UUIDString(), active,
            said.bridge, said.forward, said.virtualport, said.portgroups, said.subnets, said.problem,
        )  # fmt: skip
