"""The daemon's own check of a posted document: a client may have sent anything."""

from __future__ import annotations

from vswitchctl.compiler.budget import acl_costs, over_budget
from vswitchctl.errors import InvalidTopology
from vswitchctl.model.topology import Topology, link_name
from vswitchctl.model.views import TopologyDocument
from vswitchctl.topology.source import Path, Place, place_of_source
from vswitchctl.topology.validate import validate


def check(document: TopologyDocument) -> None:
    """Raises InvalidTopology with every error of the document, each at its place in the sender's file."""

    def place(path: Path) -> Place:
        return place_of_source(document.sources.get(_entity(document.topology, path), ""))

    findings = validate(document.topology, place)
    errors = tuple(finding for finding in findings if finding.severity == "error")
    # What something costs is known only of what is whole.
    errors = errors or tuple(over_budget(acl_costs(document.topology), place))
    if errors:
        raise InvalidTopology(errors)


def _entity(topology: Topology, path: Path) -> str:
    """('nodes', 'web1', 'interfaces', 'eth0', 'ip') -> 'interfaces/web1:eth0'; 'topology' for the whole."""
    match path:
        case ("nodes", str(node), "interfaces", str(interface), *_):
            return f"interfaces/{node}:{interface}"
        case ("links", int(number), *_):
            return f"links/{link_name(topology.links[number])}"
        case ("nodes" | "networks" | "tenants" | "acls" | "routers" as section, str(name), *_):
            return f"{section}/{name}"
        case _:
            return "topology"
