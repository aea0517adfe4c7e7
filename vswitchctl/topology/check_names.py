"""Checks of names: what becomes a device, a namespace or a line of text must be able to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from vswitchctl.model.topology import IFNAME_MAX, Bridge, LinuxBridge, Namespace, Uplink, Vm
from vswitchctl.topology.source import Path, shown
from vswitchctl.topology.subject import Issue, Subject

RESERVED: Final = {
    "lo": "the loopback device",
    "all": "a name that sysctl net.*.conf takes for every device",
    "default": "a name that sysctl net.*.conf takes for new devices",
    "bonding_masters": "a file of the bonding driver in /sys/class/net",
    "ovs-system": "a device that Open vSwitch makes itself",
    "ovs-netdev": "a device that Open vSwitch makes itself",
}
_OVS_TUNNELS: Final = ("vxlan_sys_", "genev_sys_", "gre_sys", "erspan_sys", "geneve_sys_")
"""Devices that Open vSwitch makes for its tunnels: lib/dpif-netlink-rtnl.c, lib/netdev-vport.c."""

_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def device_problem(name: str) -> tuple[str, str] | None:
    """Why the kernel (net/core/dev.c: dev_valid_name) or Open vSwitch refuses such a device, and a remedy."""
    if len(name) > IFNAME_MAX:
        return (
            f"{shown(name)} has {len(name)} characters, and a device name at most {IFNAME_MAX}",
            "choose a shorter name",
        )
    if name in (".", "..") or re.search(r"[/:\s%]", name):
        return f"{shown(name)} cannot be a device name", "leave out '/', ':', '%' and spaces"
    if name in RESERVED:
        return f"{shown(name)} is {RESERVED[name]}", "choose another name"
    if name.startswith(_OVS_TUNNELS):
        return f"{shown(name)} is a device that Open vSwitch makes for tunnels", "choose another name"
    return None


def device_names(subject: Subject) -> Iterator[Issue]:
    """Bridges and uplinks are devices of the host; interfaces are devices of their namespace."""
    for name, node in subject.topology.nodes.items():
        problem = None
        path: Path = ("nodes", name)
        if isinstance(node, Bridge | LinuxBridge):
            problem = device_problem(name)
        elif isinstance(node, Uplink):
            problem, path = device_problem(node.interface), (*path, "interface")
        if problem:
            yield Issue(path, *problem)
    for placed in subject.interfaces:
        if isinstance(placed.node, Vm):
            continue  # named by its MAC address, which is no device
        problem = device_problem(str(placed.path[-1]))
        if problem:
            yield Issue(placed.path, *problem)


def uplink_devices(subject: Subject) -> Iterator[Issue]:
    """A device leads out once, and is not a bridge of the topology."""
    seen: dict[str, str] = {}
    for name, node in subject.topology.nodes.items():
        if not isinstance(node, Uplink):
            continue
        path = ("nodes", name, "interface")
        if node.interface in seen:
            message = f"device {shown(node.interface)} is the uplink '{seen[node.interface]}' already"
            yield Issue(path, message, "one device is one uplink; give it a 'trunk' for several networks")
        elif isinstance(subject.topology.nodes.get(node.interface), Bridge | LinuxBridge):
            yield Issue(
                path, f"{shown(node.interface)} is a bridge of this topology", "name a device of the host"
            )
        seen.setdefault(node.interface, name)


def descriptions(subject: Subject) -> Iterator[Issue]:
    """Control characters would reach terminals, and no XML can carry them."""
    topology = subject.topology
    described: list[tuple[Path, str]] = [((), topology.description)]
    for section in ("tenants", "networks", "nodes", "qos", "groups", "routers"):
        described += [
            ((section, name), entity.description) for name, entity in getattr(topology, section).items()
        ]
    described += [(("links", number), link.description) for number, link in enumerate(topology.links)]
    described += [(placed.path, placed.interface.description) for placed in subject.interfaces]
    for name, node in topology.nodes.items():
        if isinstance(node, Namespace):
            described += [
                (("nodes", name, "routes", n), route.description) for n, route in enumerate(node.routes)
            ]
    for name, router in topology.routers.items():
        described += [
            (("routers", name, "routes", n), route.description) for n, route in enumerate(router.routes)
        ]
    described += [
        (("acls", name, number), rule.description)
        for name, rules in topology.acls.items()
        for number, rule in enumerate(rules)
    ]
    if topology.expect is not None:
        described.append((("expect",), topology.expect.description))
    for path, text in described:
        found = _UNPRINTABLE.search(text)
        if found:
            code = f"U+{ord(found.group()):04X}"
            yield Issue((*path, "description"), f"control character {code} in a description", "remove it")
