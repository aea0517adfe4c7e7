"""Addresses of a device of ours, from those there to those wanted."""

from __future__ import annotations

import errno

from vswitchctl.drivers.netlink import message
from vswitchctl.drivers.netlink.requests import Batch
from vswitchctl.model.plan import Change


def set_addresses(
    change: Change, index: int, wanted: frozenset[str], there: frozenset[str], batch: Batch
) -> None:
    """The new come before the old go: with its last address a device loses its routes, whosever they are."""
    stale, new = there - wanted, wanted - there
    # But IPv6 has each address once, whatever its prefix.
    hosts = {text.partition("/")[0] for text in new}
    first = {text for text in stale if ":" in text and text.partition("/")[0] in hosts}
    if stale:
        batch.add(change, message.promote_secondaries(index))
    for add, texts in ((False, first), (True, new), (False, stale - first)):
        for text in sorted(texts):
            tolerated = () if add else (errno.EADDRNOTAVAIL,)
            batch.add(change, message.address(index, text, add=add), tolerated, f"address {text}")
