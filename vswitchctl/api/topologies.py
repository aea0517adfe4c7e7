"""Topologies: list, read, plan, apply, destroy. Custom verbs follow a colon (google AIP-136)."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.api.check import check
from vswitchctl.api.outcome import ACCEPTED, Generation, Wait, answer
from vswitchctl.api.service import Service
from vswitchctl.errors import NotFound, UserError
from vswitchctl.model.topology import Topology
from vswitchctl.model.views import (
    OperationView,
    PlanView,
    TopologyDetail,
    TopologyDocument,
    TopologyView,
)

router = APIRouter(prefix="/topologies", tags=["topologies"])


def _known(service: Service, name: str) -> Topology | None:
    try:
        return service.document(name)
    except NotFound:
        return None


@router.get("")
def topologies(service: ServiceDep) -> tuple[TopologyView, ...]:
    """Every stored topology."""
    return service.topologies()


@router.post(":plan")
def plan(document: TopologyDocument, service: ServiceDep, flows: bool = False) -> PlanView:
    """What an apply of this document would do now. `flows` lists each flow change too."""
    check(document, _known(service, document.topology.name))
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
    **ACCEPTED,
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
        check(document, _known(service, name))
        return service.apply(document, expected_generation=expected_generation)

    operation = await in_thread(waiting, start)
    return await answer(request, service, waiting, operation, wait)


@router.delete(
    "/{name}",
    **ACCEPTED,
)
async def destroy(
    request: Request, name: str, service: ServiceDep, waiting: WaitingDep, wait: Wait = None
) -> Response:
    """Remove the document and everything that it made."""
    operation = await in_thread(waiting, lambda: service.destroy(name))
    return await answer(request, service, waiting, operation, wait)
