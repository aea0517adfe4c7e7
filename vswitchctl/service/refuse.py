"""What is refused before anything is touched, and what is worth a warning. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from vswitchctl.compiler.wiring import datapath_type
from vswitchctl.errors import Conflict, InvalidTopology, NotFound
from vswitchctl.model.intent import Intent, Stored, claims
from vswitchctl.model.meter import meter_id
from vswitchctl.model.state import Facts, ObservedNetlink, ObservedOvs, Owner
from vswitchctl.model.topology import Bridge, Topology, Uplink
from vswitchctl.topology.validate import validate, validate_edit

FEW = 4


def refuse_invalid(topology: Topology, known: Stored | None) -> None:
    """Raise InvalidTopology. known: what is stored of it, which is valid."""
    errors = validate_edit(topology, None if known is None else known.topology)
    if errors:
        raise InvalidTopology(errors)


def refuse_conflicts(topology: Topology, intent: Intent, netlink: ObservedNetlink, ovs: ObservedOvs) -> None:
    """Raise Conflict where a device is another topology's or somebody else's; nothing was touched."""
    taken = {
        claim: name
        for name, stored in intent.items()
        if name != topology.name
        for claim, _ in claims(stored.topology)
    }
    problems, theirs = [], defaultdict[str, list[str]](list)
    for claim, entity in claims(topology):
        kind, _, name = claim.partition(":")
        if claim in taken:
            theirs[taken[claim]].append(name)
        elif isinstance(topology.nodes[entity.removeprefix("nodes/")], Uplink):
            if name in ovs.names and ovs.names[name] is None:
                problems.append(f"{entity}: device '{name}' is already a port of somebody else's bridge")
        elif _is_foreign(
            name, netlink.namespaces if kind == "netns" else {**netlink.devices, **ovs.names}, ovs
        ):
            what = "namespace" if kind == "netns" else "device"
            problems.append(f"{entity}: a {what} '{name}' exists and is not ours")
    problems += [f"topology '{other}' already has {_few(names)}" for other, names in theirs.items()]
    if problems:
        raise Conflict(_few(problems, "; "), "rename the nodes, or remove what has their names")


def refuse_unenforced(topology: Topology, facts: Facts, most_meters: Callable[[str], int | None]) -> None:
    """Raise Conflict where a datapath does not do what the file asks for.

    most_meters: type of a datapath -> the highest id of a meter there, None where nobody can say yet.
    """
    if not topology.limited():
        return
    needed = meter_id(len(topology.limited()), 0)
    types = {datapath_type(node, facts) for node in topology.nodes.values() if isinstance(node, Bridge)}
    for kind in sorted(types):
        most = most_meters(kind)
        if most is not None and most < needed:
            said = f"has {most} meters, and the limits need ids up to {needed}" if most else "has no meters"
            raise Conflict(
                f"the {kind} datapath here {said}: max_rate, max_pps and storm would do nothing",
                "use 'datapath: netdev', which has them, or Linux 4.18 or later; or leave the limits out",
            )


def refuse_loss_of_tc(topology: Topology, ovs: ObservedOvs, filtered: Callable[[], Collection[str]]) -> None:
    """Raise Conflict where Open vSwitch would take away what others set up for frames that come in.

    What goes out it leaves alone (`KEEP_TC` in drivers/ovsdb_rows.py); for what comes in it knows no such
    way: https://github.com/openvswitch/ovs-issues/issues/210. filtered: devices with such settings.
    """
    uplinks = {name: node.interface for name, node in topology.nodes.items() if isinstance(node, Uplink)}
    coming = {name: device for name, device in uplinks.items() if device not in ovs.names}
    lost = filtered() if coming else ()
    for name, device in coming.items():
        if device in lost:
            raise Conflict(
                f"nodes/{name}: '{device}' has a qdisc for what comes in, "
                "and Open vSwitch takes that away when it opens a port",
                f"remove it yourself: tc qdisc del dev {device} ingress",
            )


def _few(texts: Sequence[str], separator: str = ", ") -> str:
    """The first of them, and how many more there are: an error is one line."""
    more = f"{separator}and {len(texts) - FEW} more" if len(texts) > FEW else ""
    return separator.join(texts[:FEW]) + more


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
