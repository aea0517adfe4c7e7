"""Tenants of every topology."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.views import TenantView

router = APIRouter(prefix="/tenants", tags=["tenants"])


@router.get("")
def tenants(service: ServiceDep) -> tuple[TenantView, ...]:
    """Tenants of every topology."""
    return service.tenants()
