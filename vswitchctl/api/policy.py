"""One ACL or group of a running topology, as its file has it: to read, put in place and remove.

A change is checked alone against the topology, and is stored, compiled and sent alone.
"""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Query, Request, Response

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.api.outcome import ACCEPTED, Generation, Wait, answer
from vswitchctl.api.service import Service
from vswitchctl.errors import NotFound
from vswitchctl.model.intent import PolicyChange
from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import Group, Name
from vswitchctl.topology.nearest import one_of

router = APIRouter(prefix="/topologies/{topology}", tags=["acls"])

SourceText = Annotated[str, Query(description="where it was written: 'file:line'", max_length=4096)]


@router.get("/acls/{name}", response_model_exclude_defaults=True)
def acl(topology: str, name: str, service: ServiceDep) -> tuple[Rule, ...]:
    """The rules of an ACL, as a topology file has them."""
    acls = service.document(topology).acls
    if name not in acls:
        raise NotFound(f"topology '{topology}' has no ACL '{name}'", one_of(name, acls, "the ACLs are"))
    return acls[name]


@router.put("/acls/{name}", **ACCEPTED)
async def put_acl(
    request: Request,
    topology: str,
    name: Name,
    rules: tuple[Rule, ...],
    *,
    service: ServiceDep,
    waiting: WaitingDep,
    wait: Wait = None,
    expected_generation: Generation = None,
    source: SourceText = "",
) -> Response:
    """Put an ACL in place; only its own rules are compiled and sent. The body is the list of its rules."""
    change = PolicyChange("acls", name, rules, source)
    return await _change(request, service, waiting, topology, change, wait, expected_generation)


@router.delete("/acls/{name}", **ACCEPTED)
async def delete_acl(
    request: Request,
    topology: str,
    name: str,
    *,
    service: ServiceDep,
    waiting: WaitingDep,
    wait: Wait = None,
    expected_generation: Generation = None,
) -> Response:
    """Remove an ACL that no interface names."""
    change = PolicyChange("acls", name, None)
    return await _change(request, service, waiting, topology, change, wait, expected_generation)


@router.get("/groups/{name}", response_model_exclude_defaults=True)
def group(topology: str, name: str, service: ServiceDep) -> Group:
    """A group, as a topology file has it."""
    groups = service.document(topology).groups
    if name not in groups:
        remedy = one_of(name, groups, "the groups are")
        raise NotFound(f"topology '{topology}' has no group '{name}'", remedy)
    return groups[name]


@router.put("/groups/{name}", **ACCEPTED)
async def put_group(
    request: Request,
    topology: str,
    name: Name,
    group: Group,
    *,
    service: ServiceDep,
    waiting: WaitingDep,
    wait: Wait = None,
    expected_generation: Generation = None,
    source: SourceText = "",
) -> Response:
    """Put a group in place; only the rules that name it are compiled and sent."""
    change = PolicyChange("groups", name, group, source)
    return await _change(request, service, waiting, topology, change, wait, expected_generation)


@router.delete("/groups/{name}", **ACCEPTED)
async def delete_group(
    request: Request,
    topology: str,
    name: str,
    *,
    service: ServiceDep,
    waiting: WaitingDep,
    wait: Wait = None,
    expected_generation: Generation = None,
) -> Response:
    """Remove a group that no rule names."""
    change = PolicyChange("groups", name, None)
    return await _change(request, service, waiting, topology, change, wait, expected_generation)


async def _change(
    request: Request,
    service: Service,
    waiting: CapacityLimiter,
    topology: str,
    change: PolicyChange,
    wait: float | None,
    expected: int | None,
) -> Response:
    operation = await in_thread(
        waiting, lambda: service.change_policy(topology, change, expected_generation=expected)
    )
    return await answer(request, service, waiting, operation, wait)
