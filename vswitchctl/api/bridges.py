"""Bridges: Open vSwitch and Linux bridges that we own."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.views import BridgeView

router = APIRouter(prefix="/bridges", tags=["bridges"])


@router.get("")
def bridges(service: ServiceDep) -> tuple[BridgeView, ...]:
    """Bridges: Open vSwitch and Linux bridges that we own."""
    return service.bridges()
