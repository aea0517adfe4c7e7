"""Virtual machines of libvirt's: what there is, and NICs that are attached and detached."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from vswitchctl.api.access import ServiceDep
from vswitchctl.model.topology import Name, Topology
from vswitchctl.model.vm_views import LibvirtNetworkView, NicRequest, VmView

router = APIRouter(tags=["vms"])

Config = Annotated[bool, Query(description="in the domain's configuration, too, for its next start")]


@router.get("/vms")
def vms(service: ServiceDep) -> tuple[VmView, ...]:
    """Every domain with its NICs, and those that topologies name and nobody defined yet."""
    return service.vms()


@router.get("/vms:networks")
def networks(service: ServiceDep) -> tuple[LibvirtNetworkView, ...]:
    """libvirt's networks, and the Linux bridges of others."""
    return service.libvirt_networks()


@router.get("/vms:discover", response_model_exclude_defaults=True)
def discover(service: ServiceDep, name: Name = "discovered", tenant: Name = "local") -> Topology:
    """What runs now as a topology: its plan has no changes."""
    return service.discover(name, tenant)


@router.post("/vms/{domain}/nics", status_code=HTTPStatus.NO_CONTENT)
def attach(domain: str, request: NicRequest, service: ServiceDep) -> None:
    """Attach a NIC to a domain, named by its name or UUID. It is plugged where a topology wants it."""
    service.attach(domain, request)


@router.delete("/vms/{domain}/nics/{mac}", status_code=HTTPStatus.NO_CONTENT)
def detach(domain: str, mac: str, service: ServiceDep, config: Config = False) -> None:
    """Ask a domain's guest to let go of a NIC."""
    service.detach(domain, mac, config=config)
