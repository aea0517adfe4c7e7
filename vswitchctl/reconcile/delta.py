"""The one keyed diff: what to add, change and remove so that observed becomes desired. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Delta(Generic[K, V]):
    """add: key -> desired. change: key -> (observed, desired). remove: key -> observed."""

    add: dict[K, V]
    change: dict[K, tuple[V, V]]
    remove: dict[K, V]

    def __bool__(self) -> bool:
        return bool(self.add or self.change or self.remove)


def diff(desired: Mapping[K, V], observed: Mapping[K, V]) -> Delta[K, V]:
    """Compare two keyed states; cost is one look-up per key of either side."""
    if desired == observed:
        return Delta({}, {}, {})
    add: dict[K, V] = {}
    change: dict[K, tuple[V, V]] = {}
    for key, value in desired.items():
        there = observed.get(key)
        if there is None:
            add[key] = value
        elif there != value:
            change[key] = (there, value)
    remove = {key: value for key, value in observed.items() if key not in desired}
    return Delta(add, change, remove)
