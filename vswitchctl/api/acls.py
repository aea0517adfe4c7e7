"""Rules of ACLs, with their counters, and the log of those that have one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.model.views import AclLogLine, AclRuleView

LONGEST_WAIT = 5.0
"""Seconds. Also how long a waiting thread outlives its caller."""

After = Annotated[int, Query(ge=0, description="the number of the last line already seen")]
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds to wait for a line where none is")]

router = APIRouter(tags=["acls"])


@router.get("/acls")
def acls(service: ServiceDep) -> tuple[AclRuleView, ...]:
    """Every rule of every topology, and what it was hit by."""
    return service.acls()


@router.get("/acls/log")
async def acl_log(
    service: ServiceDep, waiting: WaitingDep, after: After = 0, wait: Wait = 0.0
) -> tuple[AclLogLine, ...]:
    """The packets that logged rules met, oldest first. To follow it, ask again after the last number."""
    return await in_thread(waiting, lambda: service.acl_log(after, wait))


@router.get("/topologies/{name}/acls")
def topology_acls(name: str, service: ServiceDep) -> tuple[AclRuleView, ...]:
    """The rules of one topology, and what they were hit by."""
    return service.acls(name)
