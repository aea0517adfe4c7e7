"""Checks of TUN nodes: the device has a name of its own, and what comes out of it may go on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from vswitchctl.model.topology import Interface, Tun
from vswitchctl.topology.check_names import device_problem
from vswitchctl.topology.source import Path, shown
from vswitchctl.topology.subject import Issue, Subject


def devices(subject: Subject) -> Iterator[Issue]:
    """A device's name, and no interface's."""
    for name, node in subject.topology.nodes.items():
        if not isinstance(node, Tun):
            continue
        path: Path = ("nodes", name, "device")
        problem = device_problem(node.device)
        if problem is not None:
            yield Issue(path, *problem)
        elif node.device in node.interfaces:
            message = f"{shown(node.device)} is an interface of '{name}' already"
            yield Issue(path, message, "give the TUN device another name, e.g. tun0")


def sources(subject: Subject) -> Iterator[Issue]:
    """Port security would drop what comes from behind the TUN device, unless that is allowed."""
    for name, node in subject.topology.nodes.items():
        if not isinstance(node, Tun) or not node.interfaces:
            continue
        for text in node.ip:
            subnet = ipaddress.ip_interface(text).network
            if not any(_passes(interface, subnet) for interface in node.interfaces.values()):
                first = next(iter(node.interfaces))
                message = f"no interface of '{name}' may send from {subnet}, where its TUN device leads"
                remedy = f"allow it: {first}: {{allowed: [{{ip: {subnet}}}]}}"
                yield Issue(("nodes", name, "ip"), message, remedy, "warning")


def _passes(interface: Interface, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    if not interface.port_security or not interface.ip:
        return True
    allowed = [ipaddress.ip_network(pair.ip) for pair in interface.allowed if pair.ip is not None]
    return any(subnet.version == one.version and subnet.subnet_of(one) for one in allowed)  # type: ignore[arg-type]
