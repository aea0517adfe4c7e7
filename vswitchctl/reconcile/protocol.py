"""What the reconcile loop sees of the outside: read what we own, apply changes. Nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from vswitchctl.model.domains import Addresses, ObservedDomains, VifKey
from vswitchctl.model.flow import CountedFlow, FlowKey, FlowTable
from vswitchctl.model.intent import Intent
from vswitchctl.model.meter import MeterTable
from vswitchctl.model.plan import Change, Failure
from vswitchctl.model.state import ObservedNetlink, ObservedOvs, PortKey

Progress = Callable[[int], None]
"""Called with how many changes more are done."""


class Netlink(Protocol):
    """The kernel's namespaces and links. `read` is cheap while no event has said otherwise."""

    def read(self) -> ObservedNetlink: ...

    def ingress_filtered(self) -> frozenset[str]: ...

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


class ObservedMeters(Protocol):
    """A bridge's meters as read back: ours, those of others, and how many it can have."""

    @property
    def owned(self) -> MeterTable: ...

    @property
    def foreign(self) -> MeterTable: ...

    @property
    def most(self) -> int: ...


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

    def dump(self, bridge: str) -> Iterable[CountedFlow]:
        """May be gone through more than once, by several threads."""

    def counts(self, bridge: str, tables: Collection[int]) -> Mapping[int, tuple[int, int]]: ...

    def apply(
        self, bridge: str, add: FlowTable, remove: Collection[FlowKey], progress: Progress | None = None
    ) -> Sequence[FlowFailure]: ...

    def read_meters(self, bridge: str) -> ObservedMeters: ...

    def apply_meters(
        self, bridge: str, put: MeterTable, there: Collection[int], remove: Collection[int]
    ) -> Mapping[int, str]: ...

    def flush_zones(self, bridge: str, zones: Collection[int]) -> None: ...


class Domains(Protocol):
    """Virtual machines, as libvirt tells of them. `read` neither blocks nor raises."""

    def read(self) -> ObservedDomains: ...

    def look_again(self, uuids: AbstractSet[str]) -> None:
        """The kernel's TAPs do not agree with what was told: read these, and what has begun to run, soon.

        Does not block.
        """

    def addresses(self) -> Mapping[VifKey, Addresses]:
        """What is known of addresses of running domains, by UUID. May block."""

    def attach(self, name: str, mac: str, model: str, *, config: bool, checksums: bool) -> None:
        """Attach a NIC to the domain of this name or UUID. May block.

        checksums: the guest may leave them to the host. Raises NotFound, UserError, Unreachable.
        """

    def detach(self, name: str, mac: str, *, config: bool) -> None:
        """Detach one. May block. Raises as `attach`."""


class IntentStore(Protocol):
    """The intent database, as far as the loop is concerned."""

    def read(self) -> Intent: ...

    def report(self, topology: str, generation: int, status: str, reason: str) -> None: ...
