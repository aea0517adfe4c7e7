"""The REST API as one ASGI application."""

from __future__ import annotations

from typing import Any

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI

from vswitchctl import __version__
from vswitchctl.api import (
    acls,
    bridges,
    flows,
    hosts,
    links,
    operations,
    policy,
    ports,
    problems,
    tenants,
    topologies,
    trace,
    vms,
)
from vswitchctl.api.access import WAITING_CALLS
from vswitchctl.api.limits import BodyLimit
from vswitchctl.api.service import Service
from vswitchctl.model.views import Problem

PREFIX = "/api/v1"
NOUNS = (topologies, operations, hosts, bridges, ports, links, tenants, flows, acls, policy, vms, trace)


class RestApi(FastAPI):
    """FastAPI, whose OpenAPI document says that errors are `application/problem+json`."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            for operation in _operations(super().openapi()):
                content = operation["responses"]["default"]["content"]
                content[problems.MEDIA_TYPE] = content.pop("application/json")
        return super().openapi()


def create_app(service: Service) -> FastAPI:
    """The application over one Service; it serves `/api/v1` and `/openapi.json`."""
    app = RestApi(
        title="vswitchctl",
        version=__version__,
        docs_url=None,  # its page takes scripts from a foreign host
        redoc_url=None,
        description="Virtual networks declared as graphs: topologies, their state, and what changes.",
    )
    app.state.service = service
    app.state.waiting = CapacityLimiter(WAITING_CALLS)
    app.add_middleware(BodyLimit)
    problems.install(app)
    root = APIRouter(
        prefix=PREFIX,
        responses={"default": {"model": Problem, "description": "an RFC 9457 problem document"}},
    )
    for noun in NOUNS:
        root.include_router(noun.router)
    app.include_router(root)
    return app


def _operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]
