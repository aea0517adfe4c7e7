"""Checks of virtual machines: a NIC is declared once, and nothing is said of it that libvirt says itself."""

from __future__ import annotations

from collections.abc import Iterator

from vswitchctl.model.topology import Vm
from vswitchctl.topology.subject import Issue, Subject


def nics(subject: Subject) -> Iterator[Issue]:
    """A NIC, a domain's MAC address, is in one node."""
    seen: dict[tuple[str, str], str] = {}
    for placed in subject.interfaces:
        if not isinstance(placed.node, Vm):
            continue
        key = (placed.node.domain, str(placed.path[-1]))
        if key in seen:
            message = f"NIC {key[1]} of domain '{key[0]}' is '{seen[key]}' already"
            yield Issue(placed.path, message, "declare each NIC of a domain once")
        seen.setdefault(key, placed.end)


def keys(subject: Subject) -> Iterator[Issue]:
    """Its MAC is its name, and its MTU the domain's; and only a virtual machine can bypass the switch."""
    for placed in subject.interfaces:
        if not isinstance(placed.node, Vm):
            if placed.interface.bypass:
                message = f"'{placed.end}' is no virtual machine's, and never bypasses the switch"
                yield Issue((*placed.path, "bypass"), message, "remove the key")
            continue
        if placed.interface.mac is not None:
            message = "a virtual machine's interface is named by its MAC address, so 'mac' says it again"
            yield Issue((*placed.path, "mac"), message, "remove the key")
        if placed.interface.mtu is not None:
            message = "the MTU of a virtual machine's NIC is set in the domain's XML, and not here"
            yield Issue((*placed.path, "mtu"), message, "remove the key; in the XML it is <mtu size='...'/>")
