"""What the REST API asks of the daemon, which implements this Protocol; the routers know nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vswitchctl.model.intent import PolicyChange
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.topology import Topology
from vswitchctl.model.trace import TraceRequest, TraceView
from vswitchctl.model.views import (
    AclLogLine,
    AclRuleView,
    BridgeView,
    FlowView,
    HostView,
    LinkView,
    OperationView,
    PlanView,
    PortView,
    TenantView,
    TopologyDetail,
    TopologyDocument,
    TopologyView,
)
from vswitchctl.model.vm_views import LibvirtNetworkView, NicRequest, VmView


class Service(Protocol):
    """Every method is safe to call from any thread and may block. Errors are VswitchctlError subclasses."""

    def topologies(self) -> tuple[TopologyView, ...]:
        """Every stored topology."""

    def topology(self, name: str) -> TopologyDetail:
        """One stored topology with its document and the status of each entity. Raises NotFound."""

    def plan(self, document: TopologyDocument, *, flows: bool = False) -> PlanView:
        """What an apply of `document` would do now. flows=True gives each flow change as a ChangeView too."""

    def plan_destroy(self, name: str) -> PlanView:
        """What a destroy would do now. Raises NotFound."""

    def apply(self, document: TopologyDocument, *, expected_generation: int | None = None) -> OperationView:
        """Store the document and start to make the host match it; returns at once.

        expected_generation: the stored generation the caller planned against (0: none was stored).
        Raises Conflict where another generation is stored by now, or a device belongs to somebody else.
        """

    def document(self, topology: str) -> Topology:
        """A stored topology as it was applied, without a look at what became of it. Raises NotFound."""

    def change_policy(
        self, topology: str, change: PolicyChange, *, expected_generation: int | None = None
    ) -> OperationView:
        """Put one ACL or group in place, or remove it, at the cost of that alone; else as `apply`.

        Raises InvalidTopology where the topology would not be valid with it, NotFound, Conflict.
        """

    def destroy(self, name: str) -> OperationView:
        """Remove the document and start to remove what it made; returns at once. Raises NotFound."""

    def operation(self, operation_id: str) -> OperationView:
        """Raises NotFound."""

    def wait_operation(self, operation_id: str, seen: OperationView | None, timeout: float) -> OperationView:
        """Block until the operation differs from `seen`, or `timeout` seconds passed. Raises NotFound.

        seen=None returns at once.
        """

    def hosts(self) -> tuple[HostView, ...]: ...

    def bridges(self) -> tuple[BridgeView, ...]: ...

    def ports(self) -> tuple[PortView, ...]: ...

    def links(self) -> tuple[LinkView, ...]: ...

    def tenants(self) -> tuple[TenantView, ...]: ...

    def acls(self, topology: str | None = None) -> tuple[AclRuleView, ...]:
        """Every rule of every topology, or of one, with its counters. Raises NotFound, Unreachable."""

    def acl_log(self, after: int = 0, timeout: float = 0.0) -> tuple[AclLogLine, ...]:
        """Lines above a number that are still kept; waits for one for up to `timeout` seconds.

        A number that was not reached since the daemon started stands for the beginning.
        """

    def flows(self, query: FlowQuery) -> Iterator[FlowView]:
        """The flows asked for, made as they are taken. Raises NotFound, UserError, Unreachable at once."""

    def trace(self, request: TraceRequest) -> TraceView:
        """What becomes of a packet, by the switch's own trace. Raises NotFound, UserError, Unreachable."""

    def vms(self) -> tuple[VmView, ...]:
        """Every domain of libvirt's with its NICs, and those that topologies name and nobody defined yet."""

    def libvirt_networks(self) -> tuple[LibvirtNetworkView, ...]:
        """libvirt's networks, and the Linux bridges of others."""

    def discover(self, name: str, tenant: str) -> Topology:
        """What runs now and no topology declares, as a topology whose plan has no changes."""

    def attach(self, domain: str, request: NicRequest) -> None:
        """Attach a NIC to a domain, by its name or UUID. Raises NotFound, UserError, Unreachable."""

    def detach(self, domain: str, mac: str, *, config: bool) -> None:
        """Ask a domain's guest to let go of a NIC. Raises NotFound, UserError, Unreachable."""
