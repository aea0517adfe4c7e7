"""Flows of one bridge, in words."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from vswitchctl.api.access import ServiceDep
from vswitchctl.api.service import FlowSource
from vswitchctl.model.views import FlowView

router = APIRouter(prefix="/flows", tags=["flows"])

_FLOWS = TypeAdapter(tuple[FlowView, ...])


@router.get("", response_model=tuple[FlowView, ...])
def flows(
    service: ServiceDep,
    bridge: Annotated[str, Query(description="the bridge's name")],
    source: Annotated[FlowSource, Query(description="as read from the switch, or as compiled")] = "observed",
) -> Response:
    """The flows of one bridge, each with the entity it came from."""
    # Serialized here: FastAPI would validate each of possibly 100,000 flows again first.
    return Response(_FLOWS.dump_json(service.flows(bridge, source=source)), media_type="application/json")
