"""Topologies: list, read, plan, apply, destroy. Custom verbs follow a colon (google AIP-136)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Query, Request, Response

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.api.check import check
from vswitchctl.api.operations import wait_for_end
from vswitchctl.api.problems import operation_problem, problem_response
from vswitchctl.api.service import Service
from vswitchctl.errors import UserError
from vswitchctl.model.views import (
    OperationState,
    OperationView,
    PlanView,
    TopologyDetail,
    TopologyDocument,
    TopologyView,
)

router = APIRouter(prefix="/topologies", tags=["topologies"])

WAIT_MAX = 3600.0

Wait = Annotated[
    float | None,
    Query(ge=0, le=WAIT_MAX, description="seconds to wait for the end; 202 where it is not reached"),
]
Generation = Annotated[
    int | None,
    Query(
        ge=0, description="the stored generation the caller planned against; 409 where it is another by now"
    ),
]


@router.get("")
def topologies(service: ServiceDep) -> tuple[TopologyView, ...]:
    """Every stored topology."""
    return service.topologies()


@router.post(":plan")
def plan(document: TopologyDocument, service: ServiceDep, flows: bool = False) -> PlanView:
    """What an apply of this document would do now. `flows` lists each flow change too."""
    check(document)
    return service.plan(document, flows=flows)


@router.post("/{name}:plan-destroy")
def plan_destroy(name: str, service: ServiceDep) -> PlanView:
    """What a destroy would do now."""
    return service.plan_destroy(name)


@router.get("/{name}")
def topology(name: str, service: ServiceDep) -> TopologyDetail:
    """One topology: its document, and the status of each entity."""
    return service.topology(name)


@router.put(
    "/{name}",
    response_model=OperationView,
    status_code=HTTPStatus.ACCEPTED,
    responses={200: {"model": OperationView, "description": "done, where `wait` was given"}},
)
async def apply(
    request: Request,
    name: str,
    document: TopologyDocument,
    *,
    service: ServiceDep,
    waiting: WaitingDep,
    wait: Wait = None,
    expected_generation: Generation = None,
) -> Response:
    """Store the document and make every host match it."""

    def start() -> OperationView:
        if document.topology.name != name:
            raise UserError(
                f"the document is of '{document.topology.name}', the address of '{name}'",
                f"PUT it to /api/v1/topologies/{document.topology.name}",
            )
        check(document)
        return service.apply(document, expected_generation=expected_generation)

    operation = await in_thread(waiting, start)
    return await _answer(request, service, waiting, operation, wait)


@router.delete(
    "/{name}",
    response_model=OperationView,
    status_code=HTTPStatus.ACCEPTED,
    responses={200: {"model": OperationView, "description": "done, where `wait` was given"}},
)
async def destroy(
    request: Request, name: str, service: ServiceDep, waiting: WaitingDep, wait: Wait = None
) -> Response:
    """Remove the document and everything that it made."""
    operation = await in_thread(waiting, lambda: service.destroy(name))
    return await _answer(request, service, waiting, operation, wait)


async def _answer(
    request: Request, service: Service, waiting: CapacityLimiter, operation: OperationView, wait: float | None
) -> Response:
    view = await wait_for_end(service, waiting, operation, wait or 0.0)
    headers = {"Location": str(request.app.url_path_for("operation", operation_id=view.id))}
    if wait is not None and view.state is OperationState.FAILED:
        return problem_response(operation_problem(view), headers)
    ended = wait is not None and view.state is OperationState.DONE
    return Response(
        view.model_dump_json(),
        status_code=HTTPStatus.OK if ended else HTTPStatus.ACCEPTED,
        media_type="application/json",
        headers=headers,
    )
