"""The meaning of a topology: every semantic check, run over the whole document. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from vswitchctl.model.topology import Topology
from vswitchctl.topology import (
    check_addresses,
    check_links,
    check_names,
    check_policy,
    check_qos,
    check_references,
    check_routing,
    check_security,
    check_tuns,
    check_vms,
)
from vswitchctl.topology.document import Finding, in_order
from vswitchctl.topology.source import Path, Place, path_text
from vswitchctl.topology.subject import Issue, Placed, Subject

CHECKS: Final[tuple[Callable[[Subject], Iterator[Issue]], ...]] = (
    check_names.device_names,
    check_names.uplink_devices,
    check_names.descriptions,
    check_references.tenants_exist,
    check_references.networks_exist,
    check_references.tenants_match,
    check_references.vlan_tags,
    check_references.uplink_networks,
    check_references.uplinks_share,
    check_qos.profiles,
    check_references.expectations,
    check_links.ends_exist,
    check_links.kinds_possible,
    check_links.no_duplicates,
    check_links.endpoints_linked_once,
    check_links.everything_linked,
    check_links.linux_bridges_match,
    check_links.linux_bridge_loops,
    check_links.networks_whole,
    check_addresses.unique_macs,
    check_addresses.unique_ips,
    check_addresses.subnets_disjoint,
    check_addresses.subnets_usable,
    check_addresses.host_addresses,
    check_addresses.inside_subnets,
    check_addresses.routes,
    check_addresses.mtus,
    check_addresses.ipv6_mtus,
    check_security.enforceable,
    check_security.exemptions,
    check_security.allowed_pairs,
    check_security.learn_limits,
    check_policy.groups,
    check_policy.rules,
    check_policy.interfaces,
    check_qos.interfaces,
    check_policy.routed_peers,
    check_routing.gateways,
    check_routing.routers,
    check_routing.apart,
    check_routing.routes,
    check_routing.whole,
    check_routing.macs,
    check_tuns.devices,
    check_tuns.sources,
    check_vms.nics,
    check_vms.keys,
)


def issues(topology: Topology, broken: frozenset[str] = frozenset()) -> Iterator[Issue]:
    """Every issue, by check. broken: entities that the document has but `topology` lacks, being malformed."""
    subject = Subject(topology, broken)
    for check in CHECKS:
        yield from check(subject)


def validate(
    topology: Topology,
    place: Callable[[Path], Place] = lambda _: Place("topology"),
    broken: frozenset[str] = frozenset(),
) -> tuple[Finding, ...]:
    """Every semantic finding of a topology. place: where a path of the topology was written."""
    return in_order(_finding(issue, place(issue.path)) for issue in issues(topology, broken))


def validate_change(
    topology: Topology,
    section: str,
    name: str,
    having: Iterable[Placed],
    place: Callable[[Path], Place],
) -> tuple[Finding, ...]:
    """As `validate`, of a valid topology after the change of one ACL or group, at the cost of that alone.

    section: 'acls' or 'groups'. having: `check_policy.users` of its nodes.
    """
    found = check_policy.changed(Subject(topology), section, name, having)
    return in_order(_finding(issue, place(issue.path)) for issue in found)


def validate_edit(
    topology: Topology, known: Topology | None, place: Callable[[Path], Place] = lambda _: Place("topology")
) -> tuple[Finding, ...]:
    """The errors of a topology that takes the place of a valid one, and for an edit of its policy only them.

    Where nothing but ACLs and groups differs from `known`, only what these can have made wrong is looked for.
    """
    if known is None or not _same_layout(topology, known):
        return tuple(finding for finding in validate(topology, place) if finding.severity == "error")
    having = check_policy.users(topology.nodes)
    return in_order(
        finding
        for section in check_policy.SECTIONS
        for name in _differing(getattr(topology, section), getattr(known, section))
        for finding in validate_change(topology, section, name, having, place)
    )


def _same_layout(topology: Topology, known: Topology) -> bool:
    names = (name for name in Topology.model_fields if name not in check_policy.SECTIONS)
    return all(getattr(topology, name) == getattr(known, name) for name in names)


def _differing(some: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    return sorted(name for name in some.keys() | others.keys() if some.get(name) != others.get(name))


def _finding(issue: Issue, at: Place) -> Finding:
    return Finding(issue.severity, at.file, at.line, path_text(issue.path), issue.message, issue.remedy)
