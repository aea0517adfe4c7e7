"""Hosts: state of this daemon's own host."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.views import HostView

router = APIRouter(prefix="/hosts", tags=["hosts"])


@router.get("")
def hosts(service: ServiceDep) -> tuple[HostView, ...]:
    """Hosts: state of this daemon's own host."""
    return service.hosts()
