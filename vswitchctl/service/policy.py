"""One ACL or group of a running topology: checked and stored alone, so that it costs what it is.

What stands for all interfaces with ACLs is worked out once for each topology, and anew when its nodes change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vswitchctl.compiler.budget import acl_costs, over_budget
from vswitchctl.errors import InvalidTopology
from vswitchctl.latest import Latest
from vswitchctl.model.intent import PolicyChange, Stored
from vswitchctl.topology.check_policy import concerned, users
from vswitchctl.topology.source import Path, Place, entity_of, place_of_source
from vswitchctl.topology.subject import Placed
from vswitchctl.topology.validate import validate_change


class PolicyStore(Protocol):
    """The intent database, as far as single ACLs and groups are concerned."""

    def write_policy(
        self,
        topology: str,
        change: PolicyChange,
        check: Callable[[Stored], None],
        *,
        expected_generation: int | None = None,
    ) -> Stored: ...


class PolicyWriter:
    """Thread-safe: what it keeps is one reference for each topology."""

    def __init__(self, store: PolicyStore) -> None:
        self._store = store
        self._users: dict[str, Latest[tuple[Placed, ...]]] = {}

    def write(self, topology: str, change: PolicyChange, *, expected_generation: int | None = None) -> Stored:
        """Raises InvalidTopology with all that speaks against the change, and what `write_policy` raises."""
        users_of = self._users.setdefault(topology, Latest(users))
        return self._store.write_policy(
            topology,
            change,
            lambda stored: refuse_invalid_change(stored, change, users_of(stored.topology.nodes)),
            expected_generation=expected_generation,
        )


def refuse_invalid_change(stored: Stored, change: PolicyChange, having: tuple[Placed, ...]) -> None:
    """Raises InvalidTopology. stored: with the change; all else in it is valid. having: its `users`."""
    topology = stored.topology

    def place(path: Path) -> Place:
        entity = entity_of(topology, path)
        return place_of_source(change.source if entity == change.entity else stored.sources.get(entity, ""))

    found = validate_change(topology, change.section, change.name, having, place)
    errors = tuple(finding for finding in found if finding.severity == "error")
    if not errors:
        names = [name for name in concerned(topology, change.section, change.name) if name in topology.acls]
        errors = tuple(over_budget(acl_costs(topology, names), place))
    if errors:
        raise InvalidTopology(errors)
