"""What may be asked about flows. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FlowSource = Literal["observed", "desired", "diff"]
FlowSort = Literal["table", "packets", "bytes", "rate", "age", "none"]


@dataclass(frozen=True, slots=True)
class FlowQuery:
    """Every condition that is given must hold; None and () are none.

    bridge: all of ours without. table: by name or number. port: an end ('web1:eth0'), a device or a link.
    network, tenant, acl, port: plain, or 'topology/name'. rule: of the ACL, or of the entity the number.
    cookie: a number, with a mask behind a slash. match: 'field=value' texts; a flow fits that *would match*
    such a packet. packet: headers of a whole one in the form of ovs-fields(7): what it lacks, it has not.
    sort: `table` is table, priority and match; `none` as they come. window: seconds to measure rates over.
    """

    bridge: str | None = None
    table: str | None = None
    topology: str | None = None
    tenant: str | None = None
    network: str | None = None
    port: str | None = None
    entity: str | None = None
    acl: str | None = None
    rule: int | None = None
    cookie: str | None = None
    match: tuple[str, ...] = ()
    packet: str | None = None
    source: FlowSource = "observed"
    sort: FlowSort = "table"
    limit: int | None = None
    window: float | None = None
