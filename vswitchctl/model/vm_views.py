"""What the REST API says of virtual machines: frozen pydantic models. No I/O."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from vswitchctl.model.topology import NicMac
from vswitchctl.model.views import Status, View


class NicView(View):
    """A NIC of a domain: where it is, and where a topology wants it."""

    mac: str
    type: str = Field("", description="of the <interface> in libvirt's XML: ethernet, bridge, network, ...")
    model: str = ""
    source: str = Field("", description="the network, bridge or device that the XML names")
    portgroup: str = ""
    mtu: int = Field(0, description="0 where the XML does not say")
    link_up: bool = True
    device: str = Field("", description="its TAP; empty where it has none now")
    bridge: str = Field("", description="the bridge that its TAP is a port of now")
    topology: str = Field("", description="the topology that declares it; empty where none does")
    entity: str = ""
    network: str = Field("", description="the declared network")
    status: Status | None = Field(None, description="of the declared interface; null where none is declared")
    reason: str = ""
    addresses: tuple[str, ...] = ()
    addresses_from: Literal["", "topology", "lease", "agent", "arp"] = Field(
        "", description="who says so; only the topology's are held against what the guest sends"
    )


class VmView(View):
    """A domain, or one that a topology names and nobody defined yet: its uuid and state are empty."""

    domain: str
    uuid: str = ""
    uri: str = ""
    state: str = ""
    problem: str = Field("", description="what of its XML could not be understood")
    nics: tuple[NicView, ...] = ()


class LibvirtNetworkView(View):
    """A network of libvirt's, or a Linux bridge that neither libvirt nor a topology made (uri is empty)."""

    name: str
    uri: str = ""
    active: bool = True
    forward: str = Field("", description="nat, route, bridge, ...; empty for an isolated one")
    bridge: str = ""
    kind: Literal["", "linux-bridge", "openvswitch"] = ""
    portgroups: tuple[str, ...] = ()
    topology: str = Field("", description="the topology that its bridge is a node of")
    problem: str = ""


class NicRequest(View):
    """A NIC to attach."""

    mac: NicMac
    model: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] = "virtio"
    config: bool = Field(False, description="in the domain's configuration, too, for its next start")
