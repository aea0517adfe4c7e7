"""Did you mean ...: the nearest known name to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

MOST_LISTED = 8
"""Names listed where none is near."""

MOST_COMPARED = 2000
"""Names compared; difflib takes about 10 us for each."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, or None where none is near."""
    candidates = list(known)[:MOST_COMPARED]
    lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(name[:64].lower(), lower, n=1, cutoff=0.6)
    return lower[found[0]] if found else None


def one_of(name: str, known: Collection[str], introduction: str) -> str:
    """'did you mean 'x'?', else the known names behind an introduction, else ''."""
    near = nearest(name, known)
    if near is not None:
        return f"did you mean '{near}'?"
    return (
        f"{introduction} {', '.join(list(known)[:MOST_LISTED])}" if 0 < len(known) <= MOST_LISTED * 2 else ""
    )
