"""What libvirt's XML says of interfaces and networks. The XML is other people's: nothing in it raises."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Final

from vswitchctl.model.domains import DomainInterface

MAX_XML: Final = 4 * 1024 * 1024
"""Characters read of one document: what libvirt's own RPC passes as a string (VIR_NET_MESSAGE_STRING_MAX)."""

MAX_INTERFACES: Final = 256
"""NICs taken of one domain: more than its PCI slots hold."""

AGENT_CHANNEL: Final = "org.qemu.guest_agent.0"
"""The virtio serial port of QEMU's guest agent, by libvirt's convention."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TEXT_MAX: Final = 255


class Unreadable(ValueError):
    """A document that is not read, and why."""


class _Builder(ET.TreeBuilder):
    def doctype(self, *_: object) -> None:
        """libvirt writes none, and it could declare entities that grow without bounds."""
        raise Unreadable("it declares a DOCTYPE")


def read(text: str) -> ET.Element:
    """The root of a document. Raises Unreadable."""
    if len(text) > MAX_XML:
        raise Unreadable(f"it has more than {MAX_XML} characters")
    try:
        # No DOCTYPE passes the builder, so there are no entities to expand.
        root = ET.fromstring(text, ET.XMLParser(target=_Builder()))  # noqa: S314
    except ET.ParseError as error:
        raise Unreadable(f"it is not XML: {error}") from error
    if not isinstance(root, ET.Element):
        raise Unreadable("it has no element")
    return root


def _get(node: ET.Element | None, name: str) -> str:
    """An attribute, as one short line; '' where it is not there."""
    value = node.get(name, "") if node is not None else ""
    return "".join(c if c.isprintable() else "?" for c in value[:_TEXT_MAX])


@dataclass(frozen=True, slots=True)
class Interfaces:
    """found: those with a MAC. problem: what could not be understood, '' where all was.

    agent: a guest agent is connected.
    """

    found: tuple[DomainInterface, ...] = ()
    problem: str = ""
    agent: bool = False


def interfaces(text: str) -> Interfaces:
    """The interfaces of a domain's XML. Never raises."""
    try:
        root = read(text)
    except Unreadable as error:
        return Interfaces((), f"its XML cannot be read: {error}")
    nodes = root.findall("./devices/interface")
    found, problems = [], []
    for number, node in enumerate(nodes[:MAX_INTERFACES], 1):
        mac = _get(node.find("mac"), "address").lower()
        if _MAC.fullmatch(mac):
            found.append(_interface(node, mac))
        else:
            problems.append(
                f"NIC {number} has no MAC address" if not mac else f"NIC {number} has MAC '{mac}'"
            )
    if len(nodes) > MAX_INTERFACES:
        problems.append(f"it has {len(nodes)} NICs, of which {MAX_INTERFACES} are looked at")
    agent = root.find(f"./devices/channel/target[@name='{AGENT_CHANNEL}']")
    return Interfaces(tuple(found), "; ".join(problems[:4]), _get(agent, "state") == "connected")


def _interface(node: ET.Element, mac: str) -> DomainInterface:
    source, port = node.find("source"), node.find("virtualport")
    kind, model = _get(node, "type"), _get(node.find("model"), "type")
    return DomainInterface(
        mac=mac,
        type=_actual(kind, source, node),
        device=_get(node.find("target"), "dev"),
        model=model,
        source=_get(source, kind) or _get(source, "bridge") or _get(source, "dev"),
        bridge=_get(source, "bridge"),
        portgroup=_get(source, "portgroup"),
        virtualport=_get(port, "type"),
        interface_id=_get(port.find("parameters") if port is not None else None, "interfaceid"),
        mtu=_number(_get(node.find("mtu"), "size")),
        link_up=_get(node.find("link"), "state") != "down",
        host_checksum=model.startswith("virtio") and _get(node.find("driver/host"), "csum") != "off",
    )


def _actual(kind: str, source: ET.Element | None, node: ET.Element) -> str:
    """A network may be a pool of devices for macvtap or passthrough; live XML shows what it came down to."""
    if kind == "network" and source is not None:
        if _get(source, "mode"):
            return "direct"
        if source.find("address") is not None or node.find("source/address") is not None:
            return "hostdev"
    return kind


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= 6 else 0


@dataclass(frozen=True, slots=True)
class Network:
    """What the XML of a network says: see model.domains.LibvirtNetwork."""

    bridge: str = ""
    forward: str = ""
    virtualport: str = ""
    portgroups: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    problem: str = ""


def network(text: str) -> Network:
    """Never raises."""
    try:
        root = read(text)
    except Unreadable as error:
        return Network(problem=f"its XML cannot be read: {error}")
    forward = root.find("forward")
    return Network(
        bridge=_get(root.find("bridge"), "name"),
        # A <forward> without a mode means NAT: libvirt's network format.
        forward="" if forward is None else _get(forward, "mode") or "nat",
        virtualport=_get(root.find("virtualport"), "type"),
        portgroups=tuple(_get(node, "name") for node in root.findall("portgroup")[:MAX_INTERFACES]),
        subnets=tuple(filter(None, map(_subnet, root.findall("ip")[:MAX_INTERFACES]))),
    )


def _subnet(node: ET.Element) -> str:
    """'10.1.0.0/24' of an <ip>; '' where it is none."""
    address, length = _get(node, "address"), _get(node, "prefix") or _get(node, "netmask")
    try:
        return str(ip_interface(f"{address}/{length}" if length else address).network)
    except ValueError:
        return ""
