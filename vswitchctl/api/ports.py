"""Ports of our bridges."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.views import PortView

router = APIRouter(prefix="/ports", tags=["ports"])


@router.get("")
def ports(service: ServiceDep) -> tuple[PortView, ...]:
    """Ports of our bridges."""
    return service.ports()
