"""What is refused before anything is touched, and what is worth a warning. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from vswitchctl.compiler.wiring import datapath_type
from vswitchctl.errors import Conflict, InvalidTopology, NotFound
from vswitchctl.model.domains import VifKey, VmFacts
from vswitchctl.model.intent import Intent, Stored, claims
from vswitchctl.model.meter import meter_id
from vswitchctl.model.state import Facts, ObservedNetlink, ObservedOvs, Owner
from vswitchctl.model.topology import Bridge, LinuxBridge, Topology, Uplink, Vm, split_end
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
        elif kind == "vif":
            continue  # libvirt's, and ours to plug
        elif _is_external(topology, entity):
            if name in netlink.devices and name not in netlink.foreign_bridges:
                problems.append(f"{entity}: device '{name}' is no Linux bridge of somebody else's")
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


def _is_external(topology: Topology, entity: str) -> bool:
    node = topology.nodes[entity.removeprefix("nodes/")]
    return isinstance(node, LinuxBridge) and node.external


def refuse_bypassed(topology: Topology, vms: VmFacts) -> None:
    """Raise Conflict where policy is declared for a NIC whose frames never pass the switch."""
    problems = []
    for name, node in topology.nodes.items():
        if not isinstance(node, Vm):
            continue
        for mac, interface in node.interfaces.items():
            vif = vms.vif(VifKey(node.domain, mac))
            policy = "ACLs" if interface.acls else "limits" if interface.qos or interface.storm else None
            if vif.status == "bypasses" and policy and not interface.bypass:
                problems.append(f"interfaces/{name}:{mac}: its {policy} cannot be enforced, for {vif.reason}")
    if problems:
        raise Conflict(
            _few(problems, "; "),
            "give the domain a NIC of type ethernet, bridge or network, or say 'bypass: true'",
        )


def refuse_taken_nics(topology: Topology, intent: Intent, vms: VmFacts) -> None:
    """Raise Conflict where one NIC is declared twice, by its domain's name and by its UUID."""
    seen: dict[tuple[str, str], str] = {}
    others = [stored.topology for name, stored in sorted(intent.items()) if name != topology.name]
    for one in (*others, topology):
        nodes = [(name, node) for name, node in one.nodes.items() if isinstance(node, Vm)]
        for name, node in nodes:
            for mac in node.interfaces:
                vm = vms.vif(VifKey(node.domain, mac)).vm
                where = f"{one.name}/interfaces/{name}:{mac}"
                if vm and seen.setdefault((vm, mac), where) != where:
                    raise Conflict(
                        f"{where} is the same NIC as {seen[vm, mac]}", "declare each NIC of a domain once"
                    )


def _few(texts: Sequence[str], separator: str = ", ") -> str:
    """The first of them, and how many more there are: an error is one line."""
    more = f"{separator}and {len(texts) - FEW} more" if len(texts) > FEW else ""
    return separator.join(texts[:FEW]) + more


def _is_foreign(name: str, names: Mapping[str, Owner | None], ovs: ObservedOvs) -> bool:
    # The local port of an Open vSwitch bridge of ours is a device without our alias.
    return name in names and names[name] is None and name not in ovs.owned.bridges


def warnings_of(topology: Topology, netlink: ObservedNetlink, facts: Facts) -> tuple[str, ...]:
    found = [str(finding) for finding in validate(topology) if finding.severity == "warning"]
    for name, node in topology.nodes.items():
        if isinstance(node, Uplink) and node.interface not in netlink.devices:
            found.append(f"nodes/{name}: there is no device '{node.interface}' yet; its port waits for it")
    return (*found, *_checksums(topology, facts))


def _checksums(topology: Topology, facts: Facts) -> Iterator[str]:
    """The userspace datapath takes a partial checksum as it is, and only the guest can turn that off."""
    for link in topology.links:
        for end, other in (link.ends, link.ends[::-1]):
            name, mac = split_end(end)
            vm, bridge = topology.nodes[name], topology.nodes.get(other)
            if not isinstance(vm, Vm) or not isinstance(bridge, Bridge):
                continue
            left = facts.vms.vif(VifKey(vm.domain, mac)).host_checksum
            if left and datapath_type(bridge, facts) == "netdev":
                yield (
                    f"interfaces/{end}: its guest may leave TCP and UDP checksums to the host, and bridge "
                    f"'{other}' is on the userspace datapath, which sends them out wrong; add <driver><host "
                    "csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver> to its XML"
                )


def find(intent: Intent, name: str) -> Stored:
    if name not in intent:
        raise NotFound(f"no topology '{name}'", f"topologies are: {', '.join(sorted(intent)) or 'none'}")
    return intent[name]
