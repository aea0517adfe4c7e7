"""How routers reach the daemon, and threads for calls that wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, Request

from vswitchctl.api.service import Service

WAITING_CALLS = 256
"""Threads for callers that wait for an operation: their own, so that short calls always find one free."""

T = TypeVar("T")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


def _waiting(request: Request) -> CapacityLimiter:
    limiter: CapacityLimiter = request.app.state.waiting
    return limiter


WaitingDep = Annotated[CapacityLimiter, Depends(_waiting)]


async def in_thread(limiter: CapacityLimiter, call: Callable[[], T]) -> T:
    """Run a blocking call. A caller that goes away stops waiting; the thread ends with its own timeout."""
    return await anyio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
