"""What the REST API answers, and what the command line shows: frozen pydantic models. No I/O."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vswitchctl.model.topology import Topology


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Status(StrEnum):
    """in-sync: as declared. applying: work under way. pending: waits for something outside.

    bypasses: its frames do not pass the switch. failed: see the reason.
    stale: the daemon cannot read the outside system now, so it does not know.
    """

    IN_SYNC = "in-sync"
    APPLYING = "applying"
    PENDING = "pending"
    BYPASSES = "bypasses"
    FAILED = "failed"
    STALE = "stale"


class TopologyDocument(View):
    """The body of plan and apply: the document, and where each entity stands in its source."""

    topology: Topology
    sources: dict[str, str] = Field(default_factory=dict, description="entity path -> 'file:line'")


class ChangeView(View):
    action: Literal["add", "change", "remove"]
    kind: str = Field(description="namespace, linux-bridge, veth, tap, tun, bridge, port, meter, flow")
    name: str
    entity: str = Field(description="e.g. 'nodes/web1'")
    reason: str
    source: str | None = Field(None, description="'file:line' of the entity, where known")
    detail: str = Field("", description="what is set, or old -> new")


class FlowCount(View):
    """Flow changes are many, so a plan counts them per bridge; each stands in `changes` on request."""

    bridge: str
    add: int = 0
    change: int = 0
    remove: int = 0


class PlanView(View):
    """What an apply would do now. Empty `changes` and no flow counts: nothing."""

    topology: str
    generation: int = Field(description="the stored generation this plan was made against; 0 where none is")
    changes: tuple[ChangeView, ...]
    flows: tuple[FlowCount, ...] = ()
    warnings: tuple[str, ...] = ()
    foreign: tuple[str, ...] = Field((), description="objects of others on our bridges, left alone")

    @property
    def empty(self) -> bool:
        return not self.changes and not self.flows


class EntityStatus(View):
    entity: str
    status: Status
    reason: str = ""
    source: str | None = None


class TopologyView(View):
    name: str
    description: str = ""
    generation: int
    applied: int = Field(description="the generation last verified on this host")
    status: Status
    reason: str = ""
    nodes: int
    networks: int
    links: int


class TopologyDetail(View):
    view: TopologyView
    document: Topology
    tags: dict[str, int]
    entities: tuple[EntityStatus, ...]


class HostView(View):
    name: str
    status: Status
    reason: str = ""
    datapath: str = Field(description="the datapath type of bridges declared 'auto'")
    ovs_version: str = ""
    topologies: int = 0
    flows: int = 0
    last_sync_seconds: float | None = Field(None, description="how long the last reconciliation took")


class BridgeView(View):
    name: str
    kind: Literal["bridge", "linux-bridge"]
    topology: str
    datapath: str = ""
    ports: int = 0
    flows: int = 0
    foreign_flows: int = 0
    status: Status
    reason: str = ""


class PortView(View):
    bridge: str
    name: str
    ofport: int | None = None
    type: str = ""
    topology: str
    entity: str
    status: Status
    reason: str = ""


class LinkView(View):
    topology: str
    name: str
    a: str
    b: str
    kind: str
    cost: int
    devices: str = ""
    status: Status
    reason: str = ""


class TenantView(View):
    topology: str
    name: str
    networks: tuple[str, ...]
    namespaces: tuple[str, ...]
    endpoints: int
    status: Status
    reason: str = ""


class OperationState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class OperationView(View):
    """An apply or a destroy under way. done/total count changes; total grows while the plan becomes known."""

    id: str
    topology: str
    kind: Literal["apply", "destroy"]
    generation: int
    state: OperationState
    done: int = 0
    total: int = 0
    step: str = ""
    errors: tuple[str, ...] = ()
    seconds: float = 0.0


class FlowView(View):
    """A flow, as text and in words. Every field is there, unless the caller chose some.

    match and actions are as ovs-ofctl(8) has them; words say the same with names for numbers.
    """

    bridge: str = ""
    table: str = Field("", description="the table's name, its number where we have no such table")
    table_id: int = 0
    priority: int = 0
    match: str = ""
    actions: str = ""
    words: str = Field("", description="match and actions with the names of networks, ports and tables")
    cookie: str = ""
    entity: str = Field("", description="'topology/kind/name' that it is there for, '' where nobody knows")
    rule: int = Field(0, description="of an ACL the rule, of a router the route, from 1; 0: none of them")
    source: str | None = Field(None, description="'file:line' of the entity, where known")
    packets: int = 0
    bytes: int = 0
    packets_per_second: float | None = Field(None, description="where a window was asked for")
    bytes_per_second: float | None = Field(None, description="where a window was asked for")
    age: float = Field(0.0, description="seconds since the flow was added")
    idle_timeout: int = 0
    hard_timeout: int = 0
    drift: Literal["", "missing", "differs", "stale"] = Field(
        "", description="of source=diff: declared and not there, other than declared, no longer declared"
    )


class AclRuleView(View):
    """A rule of an ACL, and what it was hit by on all bridges of this host.

    Of a connection, packets of the side that opened it count, for they are held against the rules each time.
    """

    topology: str
    acl: str
    number: int = Field(description="its place in the ACL, from 1")
    direction: str
    action: str
    words: str = Field(description="what it matches")
    description: str = ""
    packets: int = 0
    bytes: int = 0
    source: str | None = Field(None, description="'file:line' of its ACL")


class AclLogLine(View):
    """A packet that a rule with a log met."""

    number: int = Field(description="counts from 1, anew with each start of the daemon")
    time: datetime
    topology: str
    acl: str
    rule: int = Field(description="its place in the ACL, from 1")
    verdict: str
    direction: str
    interface: str = Field("", description="whose rule it is: node:interface")
    bridge: str
    packet: str = Field(description="in words: protocol, source, destination, ports")
    description: str = ""
    left_out: int = Field(0, description="packets of the rule beyond its rate since its line before")


class Problem(View):
    """RFC 9457 problem document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    remedy: str = ""
    findings: tuple[dict[str, Any], ...] = ()
