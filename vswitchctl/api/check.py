"""The daemon's own check of a posted document: a client may have sent anything."""

from __future__ import annotations

from vswitchctl.compiler.budget import acl_costs, over_budget
from vswitchctl.errors import InvalidTopology
from vswitchctl.model.topology import Topology
from vswitchctl.model.views import TopologyDocument
from vswitchctl.topology.source import Path, Place, entity_of, place_of_source
from vswitchctl.topology.validate import validate_edit


def check(document: TopologyDocument, known: Topology | None = None) -> None:
    """Raises InvalidTopology with every error of the document, each at its place in the sender's file.

    known: the stored topology that it takes the place of; what it has in common with it is valid.
    """

    def place(path: Path) -> Place:
        return place_of_source(document.sources.get(entity_of(document.topology, path), ""))

    errors = validate_edit(document.topology, known, place)
    # What something costs is known only of what is whole.
    errors = errors or tuple(over_budget(acl_costs(document.topology), place))
    if errors:
        raise InvalidTopology(errors)
