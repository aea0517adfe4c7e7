"""The cookie of a flow names the entity and rule it came from.

64 bits: 0x76 ('v') | 40 bits of BLAKE2b (RFC 7693) of the owner's text | 16 bits of rule number.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

from vswitchctl.errors import InternalError
from vswitchctl.model.state import Owner

MAGIC = 0x76 << 56
MASK = 0xFF << 56
RULE_BITS = 16

LEARNED_RULE = 0xFFFF
"""The rule number of flows that the switch makes itself by `learn`: ours, but never desired nor stale."""


@lru_cache(maxsize=65536)
def _base(text: str) -> int:
    digest = blake2b(text.encode(), digest_size=5).digest()
    return MAGIC | int.from_bytes(digest, "big") << RULE_BITS


def cookie(owner: Owner, rule: int = 0) -> int:
    """The cookie of an owner's rule. Raises InternalError where the number exceeds 16 bits."""
    if rule >> RULE_BITS:
        raise InternalError(f"rule number {rule} of '{owner.text}' exceeds {RULE_BITS} bits")
    return _base(owner.text) | rule


def is_ours(value: int) -> bool:
    return value & MASK == MAGIC


def rule_number(value: int) -> int:
    return value & ((1 << RULE_BITS) - 1)


def without_rule(value: int) -> int:
    """The cookie of the owner alone: the key of `DesiredState.cookies`."""
    return value >> RULE_BITS << RULE_BITS


def is_learned(value: int) -> bool:
    return is_ours(value) and rule_number(value) == LEARNED_RULE


def resolve(value: int, owners: Mapping[int, Owner]) -> tuple[Owner, int] | None:
    """(owner, rule number), or None where the cookie is not ours or its owner is gone."""
    owner = owners.get(without_rule(value)) if is_ours(value) else None
    return None if owner is None else (owner, rule_number(value))
