"""What the reconcile loop sees of the outside: read what we own, apply changes. Nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from vswitchctl.model.flow import FlowKey, FlowTable
from vswitchctl.model.intent import Intent
from vswitchctl.model.plan import Change, Failure
from vswitchctl.model.state import ObservedNetlink, ObservedOvs, PortKey

Progress = Callable[[int], None]
"""Called with how many changes more are done."""


class Netlink(Protocol):
    """The kernel's namespaces and links. `read` is cheap while no event has said otherwise."""

    def read(self) -> ObservedNetlink: ...

    def apply(self, changes: Sequence[Change], progress: Progress | None = None) -> list[Failure]: ...


class Ovs(Protocol):
    """Open vSwitch's database."""

    @property
    def version(self) -> str: ...

    def read(self) -> ObservedOvs: ...

    def apply(self, changes: Sequence[Change], progress: Progress | None = None) -> list[Failure]: ...

    def wait_ofports(self, keys: Collection[PortKey], timeout: float) -> Mapping[PortKey, int]: ...

    def wait_applied(self, timeout: float) -> bool: ...


class ObservedFlows(Protocol):
    """A bridge's flows as read back: ours, and how many of others and of the switch's own learning."""

    @property
    def owned(self) -> FlowTable: ...

    @property
    def foreign(self) -> FlowTable: ...

    @property
    def learned(self) -> int: ...


class FlowFailure(Protocol):
    """A flow the switch refused."""

    @property
    def key(self) -> FlowKey: ...

    @property
    def message(self) -> str: ...


class OpenFlow(Protocol):
    """The flow tables of our bridges, over their OpenFlow sessions."""

    def connect(self, bridges: Collection[str]) -> None: ...

    def reach(self, bridge: str) -> None: ...

    def read(self, bridge: str) -> ObservedFlows: ...

    def read_of(self, bridge: str, cookies: Collection[int]) -> ObservedFlows: ...

    def counts(self, bridge: str, tables: Collection[int]) -> Mapping[int, tuple[int, int]]: ...

    def apply(
        self, bridge: str, add: FlowTable, remove: Collection[FlowKey], progress: Progress | None = None
    ) -> Sequence[FlowFailure]: ...

    def flush_zones(self, bridge: str, zones: Collection[int]) -> None: ...


class IntentStore(Protocol):
    """The intent database, as far as the loop is concerned."""

    def read(self) -> Intent: ...

    def report(self, topology: str, generation: int, status: str, reason: str) -> None: ...
