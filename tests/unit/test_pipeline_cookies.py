"""Cookies name the owner and rule, and nothing else is taken for ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.errors import InternalError
from vswitchctl.model.state import Owner
from vswitchctl.pipeline import cookies

OWNER = Owner("two-tenants", "interfaces/web1:eth0")


def test_a_cookie_is_the_same_for_ever() -> None:
    """Another value would rewrite every flow on an upgrade. The hash is what `b2sum -l 40` says."""
    assert hex(cookies.cookie(OWNER, 3)) == "0x76fe2fe92cc50003"


@given(st.integers(0, 0xFFFF))
def test_a_cookie_resolves_to_owner_and_rule(rule: int) -> None:
    owners = {cookies.cookie(OWNER): OWNER}
    assert cookies.resolve(cookies.cookie(OWNER, rule), owners) == (OWNER, rule)
    assert cookies.resolve(cookies.cookie(Owner("other", "nodes/a"), rule), owners) is None


@given(st.integers(0, (1 << 64) - 1))
def test_only_the_magic_makes_it_ours(value: int) -> None:
    assert cookies.is_ours(value) == (value >> 56 == ord("v"))
    assert cookies.is_learned(value) == (cookies.is_ours(value) and value & 0xFFFF == cookies.LEARNED_RULE)
    if not cookies.is_ours(value):
        assert cookies.resolve(value, {cookies.without_rule(value): OWNER}) is None


def test_a_rule_number_has_16_bits() -> None:
    for rule in (0x10000, -1):
        with pytest.raises(InternalError, match="exceeds 16 bits"):
            cookies.cookie(OWNER, rule)
