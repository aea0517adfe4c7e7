"""Changes for tests of Open vSwitch's database, as a plan would hold them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from vswitchctl.drivers.ovsdb import OvsdbDriver
from vswitchctl.model.plan import Action, Change, Kind
from vswitchctl.model.state import ObservedOvs, OvsBridgeSpec, OvsPortSpec, Owner, PortKey

TOPOLOGY = "lab"


def bridge(name: str, datapath_type: str = "netdev") -> OvsBridgeSpec:
    return OvsBridgeSpec(Owner(TOPOLOGY, f"nodes/{name}"), datapath_type)


def port(name: str, type: str = "", peer: str | None = None) -> OvsPortSpec:
    return OvsPortSpec(Owner(TOPOLOGY, f"links/{name}"), type, peer)


def _change(action: Action, key: str | PortKey, desired: Any, observed: Any) -> Change:
    kind = Kind.PORT if isinstance(key, PortKey) else Kind.BRIDGE
    owner = (desired or observed).owner
    return Change(kind, action, key, owner, desired, observed, "test")


def add(key: str | PortKey, desired: Any = None) -> Change:
    if desired is None:
        desired = port(key.name) if isinstance(key, PortKey) else bridge(key)
    return _change(Action.ADD, key, desired, None)


def remove(key: str | PortKey, observed: Any) -> Change:
    return _change(Action.REMOVE, key, None, observed)


def change(key: str | PortKey, desired: Any, observed: Any) -> Change:
    return _change(Action.CHANGE, key, desired, observed)


def remove_all(observed: ObservedOvs) -> list[Change]:
    """Everything we own, in no helpful order."""
    bridges = [remove(name, spec) for name, spec in observed.owned.bridges.items()]
    return bridges + [remove(key, spec) for key, spec in observed.owned.ports.items()]


class WatchedDriver(OvsdbDriver):
    """A driver whose changes a test can wait for: edits by others reach the replica a moment later."""

    def __init__(self, remote: str) -> None:
        self.changed = threading.Event()
        super().__init__(remote, on_change=self.changed.set)

    def read_until(self, holds: Callable[[ObservedOvs], object], seconds: float = 60.0) -> ObservedOvs:
        """What is observed once `holds`; an AssertionError where it never does."""
        deadline = time.monotonic() + seconds
        while True:
            self.changed.clear()
            observed = self.read()
            if holds(observed):
                return observed
            assert self.changed.wait(deadline - time.monotonic()), f"never held: {observed}"
