"""Links of every topology."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.views import LinkView

router = APIRouter(prefix="/links", tags=["links"])


@router.get("")
def links(service: ServiceDep) -> tuple[LinkView, ...]:
    """Links of every topology."""
    return service.links()
