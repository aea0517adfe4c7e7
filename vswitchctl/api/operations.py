"""Operations: an apply or a destroy under way, as a document or as a stream of documents."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.api.service import Service
from vswitchctl.model.views import OperationState, OperationView

HEARTBEAT = 5.0
"""Seconds after which an unchanged operation is sent again, so that either side notices a lost peer.

Also how long a waiting thread outlives its caller."""

EventsWait = Annotated[
    float | None, Query(ge=0, description="seconds after which the stream ends while the operation runs on")
]

router = APIRouter(prefix="/operations", tags=["operations"])


@router.get("/{operation_id}")
def operation(operation_id: str, service: ServiceDep) -> OperationView:
    """The operation as it stands."""
    return service.operation(operation_id)


@router.get(
    "/{operation_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "one OperationView per line, until the operation ends",
            "content": {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/OperationView"}}},
        }
    },
)
async def events(
    operation_id: str, service: ServiceDep, waiting: WaitingDep, wait: EventsWait = None
) -> StreamingResponse:
    """Every change of the operation as NDJSON, the current state first; the last line is its end.

    An unchanged operation is repeated every 5 s.
    """
    first = await in_thread(waiting, lambda: service.operation(operation_id))
    return StreamingResponse(_lines(service, waiting, first, wait), media_type="application/x-ndjson")


async def _lines(
    service: Service, waiting: CapacityLimiter, first: OperationView, wait: float | None
) -> AsyncIterator[str]:
    deadline = math.inf if wait is None else time.monotonic() + wait
    view = first
    yield view.model_dump_json() + "\n"
    while view.state is OperationState.RUNNING and (left := deadline - time.monotonic()) > 0:
        view = await _next(service, waiting, view, left)
        yield view.model_dump_json() + "\n"


async def wait_for_end(
    service: Service, waiting: CapacityLimiter, operation: OperationView, seconds: float
) -> OperationView:
    """The operation when it ended, or as it stands after `seconds`."""
    deadline = time.monotonic() + seconds
    view = operation
    while view.state is OperationState.RUNNING and (left := deadline - time.monotonic()) > 0:
        view = await _next(service, waiting, view, left)
    return view


async def _next(
    service: Service, waiting: CapacityLimiter, seen: OperationView, left: float
) -> OperationView:
    timeout = min(left, HEARTBEAT)
    return await in_thread(waiting, lambda: service.wait_operation(seen.id, seen, timeout))
