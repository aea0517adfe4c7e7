"""What becomes of a packet, asked of the switch."""

from __future__ import annotations

from fastapi import APIRouter

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.model.trace import TraceRequest, TraceView

router = APIRouter(prefix="/trace", tags=["trace"])


@router.post("")
async def trace(request: TraceRequest, service: ServiceDep, waiting: WaitingDep) -> TraceView:
    """Every flow that a packet would meet on its way, and its answer on the way back, and who decided.

    Open vSwitch itself tells (`ofproto/trace`), from the flows as they are. Nothing is sent or changed.
    """
    return await in_thread(waiting, lambda: service.trace(request))
