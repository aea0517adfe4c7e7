"""Pure functions that need not run again while they are asked about the same objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A pure function that keeps its last result for as long as the arguments are the same objects.

    It looks at identity and never at equality, so asking costs the same however large the arguments are.
    Arguments are positional, and nobody may alter them afterwards.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._known: tuple[tuple[object, ...], T] | None = None

    def __call__(self, *args: Any) -> T:
        """Raises whatever the function raises."""
        known = self._known
        if known is None or not same(known[0], args):
            self._known = known = args, self._function(*args)
        return known[1]


class Steady(Generic[T]):
    """Gives the former object back where the new one is equal, so that what depends on it stays, too."""

    def __init__(self) -> None:
        self._former: T | None = None

    def __call__(self, new: T) -> T:
        if self._former is None or self._former != new:
            self._former = new
        return self._former


def same(some: tuple[object, ...], others: tuple[object, ...]) -> bool:
    """Whether both hold the same objects, in the same places."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))
