"""Rules of ACLs, with their counters."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.views import AclRuleView

router = APIRouter(tags=["acls"])


@router.get("/acls")
def acls(service: ServiceDep) -> tuple[AclRuleView, ...]:
    """Every rule of every topology, and what it was hit by."""
    return service.acls()


@router.get("/topologies/{name}/acls")
def topology_acls(name: str, service: ServiceDep) -> tuple[AclRuleView, ...]:
    """The rules of one topology, and what they were hit by."""
    return service.acls(name)
