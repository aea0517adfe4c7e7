"""What is refused before anything is touched, and what is worth a warning. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from vswitchctl.errors import Conflict, InvalidTopology, NotFound
from vswitchctl.model.intent import Intent, Stored, claims
from vswitchctl.model.state import ObservedNetlink, ObservedOvs, Owner
from vswitchctl.model.topology import Topology, Uplink
from vswitchctl.topology.validate import validate


def refuse_invalid(topology: Topology) -> None:
    errors = tuple(finding for finding in validate(topology) if finding.severity == "error")
    if errors:
        raise InvalidTopology(errors)


def refuse_conflicts(topology: Topology, intent: Intent, netlink: ObservedNetlink, ovs: ObservedOvs) -> None:
    """Raise Conflict where a device is another topology's or somebody else's; nothing was touched."""
    taken = {
        claim: (name, entity)
        for name, stored in intent.items()
        if name != topology.name
        for claim, entity in claims(stored.topology)
    }
    problems = []
    for claim, entity in claims(topology):
        kind, _, name = claim.partition(":")
        if claim in taken:
            problems.append(
                f"{entity}: '{name}' belongs to {taken[claim][1]} of topology '{taken[claim][0]}'"
            )
        elif isinstance(topology.nodes[entity.removeprefix("nodes/")], Uplink):
            if name in ovs.names and ovs.names[name] is None:
                problems.append(f"{entity}: device '{name}' is already a port of somebody else's bridge")
        elif _is_foreign(
            name, netlink.namespaces if kind == "netns" else {**netlink.devices, **ovs.names}, ovs
        ):
            what = "namespace" if kind == "netns" else "device"
            problems.append(f"{entity}: a {what} '{name}' exists and is not ours")
    if problems:
        raise Conflict("; ".join(problems), "rename the node, or remove what has its name")


def _is_foreign(name: str, names: Mapping[str, Owner | None], ovs: ObservedOvs) -> bool:
    # The local port of an Open vSwitch bridge of ours is a device without our alias.
    return name in names and names[name] is None and name not in ovs.owned.bridges


def warnings_of(topology: Topology, netlink: ObservedNetlink) -> tuple[str, ...]:
    found = [str(finding) for finding in validate(topology) if finding.severity == "warning"]
    for name, node in topology.nodes.items():
        if isinstance(node, Uplink) and node.interface not in netlink.devices:
            found.append(f"nodes/{name}: there is no device '{node.interface}' yet; its port waits for it")
    return tuple(found)


def find(intent: Intent, name: str) -> Stored:
    if name not in intent:
        raise NotFound(f"no topology '{name}'", f"topologies are: {', '.join(sorted(intent)) or 'none'}")
    return intent[name]
