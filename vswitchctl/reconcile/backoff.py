"""Per-entity back-off: a failing entity is tried again later and less often, and blocks nobody else. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from vswitchctl.model.state import Owner

FIRST, LONGEST = 0.5, 30.0
"""Seconds until the first and until every later retry at the most."""


@dataclass(slots=True)
class BackOff:
    """`now` is a monotonic time in seconds throughout."""

    _tries: dict[Owner, int] = field(default_factory=dict)
    _due: dict[Owner, float] = field(default_factory=dict)

    def failed(self, owner: Owner, now: float) -> None:
        tries = self._tries.get(owner, 0)
        self._tries[owner] = tries + 1
        self._due[owner] = now + min(LONGEST, FIRST * 2.0**tries)

    def succeeded(self, owner: Owner) -> None:
        self._tries.pop(owner, None)
        self._due.pop(owner, None)

    def forget(self, topology: str) -> None:
        """Start afresh for every entity of a topology, e.g. because it was edited."""
        for owner in [owner for owner in self._tries if owner.topology == topology]:
            self.succeeded(owner)

    def waiting(self, owner: Owner, now: float) -> bool:
        return self._due.get(owner, now) > now

    def next_due(self) -> float | None:
        """When the next retry is due, or None where nothing failed."""
        return min(self._due.values(), default=None)
