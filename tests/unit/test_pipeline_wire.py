"""The driver's bulk code: buffers of flow-mods, and replies taken apart whatever they hold."""

from __future__ import annotations

import contextlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.drivers.openflow.channel import drifted
from vswitchctl.drivers.openflow.flow_mods import Mod, by_shape, flow_mods, message_length
from vswitchctl.drivers.openflow.observed import (
    MalformedReplyError,
    ObservedFlows,
    add_counts,
    parse_flow_stats,
)
from vswitchctl.drivers.openflow.program import error_text
from vswitchctl.pipeline.cookies import MAGIC

MATCH = st.binary(min_size=0, max_size=40)
INSTRUCTIONS = st.integers(0, 5).flatmap(lambda n: st.binary(min_size=n * 8, max_size=n * 8))
MOD = st.tuples(
    st.tuples(st.binary(min_size=3, max_size=3), MATCH).map(b"".join),
    st.none() | st.tuples(st.binary(min_size=14, max_size=14), INSTRUCTIONS).map(b"".join),
)


def flow_mod(mod: Mod, xid: int, bundle: int | None) -> bytes:
    """Field by field, as OpenFlow 1.4.1 sections 7.3.4.1 and 7.3.9.6 have them."""
    key, value = mod
    match = pack(">HH", 1, len(key) + 1) + key[3:]
    match += bytes(-len(match) % 8)
    if value is None:
        head = pack(">QQ", MAGIC, 0xFF << 56) + key[:1] + b"\x04" + bytes(4) + key[1:3]
        body = head + b"\xff" * 12 + bytes(4) + match
    else:
        head = value[:8] + bytes(8) + key[:1] + b"\x00" + value[8:12] + key[1:3]
        body = head + b"\xff" * 12 + value[12:14] + bytes(2) + match + value[14:]
    message = pack(">BBHI", 5, 14, len(body) + 8, xid) + body
    if bundle is None:
        return message
    return pack(">BBHIIHH", 5, 34, len(message) + 16, xid, bundle, 0, 3) + message


@given(st.lists(MOD, max_size=60, unique_by=lambda mod: mod[0]), st.none() | st.integers(0, 0xFFFFFFFF))
def test_buffers_hold_each_flow_mod_in_turn(mods: list[Mod], bundle: int | None) -> None:
    ordered = by_shape(mods)
    assert sorted(ordered, key=repr) == sorted(mods, key=repr)
    sent = b"".join(flow_mods(ordered, 7, bundle))
    assert sent == b"".join(flow_mod(mod, 7 + number, bundle) for number, mod in enumerate(ordered))


@given(MOD)
def test_the_length_is_told_before(mod: Mod) -> None:
    assert message_length(mod) == len(flow_mod(mod, 1, 1))


def test_deletes_come_after_adds() -> None:
    delete, add = (bytes(3), None), (bytes(40), bytes(14))
    assert by_shape([delete, add]) == [add, delete]


def stats(mod: Mod) -> bytes:
    """The flow as ofp_flow_stats, section 7.3.5.2."""
    key, value = mod
    assert value is not None
    match = pack(">HH", 1, len(key) + 1) + key[3:]
    match += bytes(-len(match) % 8)
    body = key[:1] + b"\0" + b"\x11" * 8 + key[1:3] + value[8:14] + bytes(4) + value[:8] + b"\x22" * 16
    body += match + value[14:]
    return pack(">H", len(body) + 2) + body


@given(st.lists(MOD.filter(lambda mod: mod[1] is not None), max_size=20, unique_by=lambda mod: mod[0]))
def test_flows_read_are_the_flows_sent(mods: list[Mod]) -> None:
    read = parse_flow_stats([b"".join(map(stats, mods[:5])), b"".join(map(stats, mods[5:]))])
    held = read.owned | read.foreign
    assert len(held) + read.learned == len(mods)
    assert held.items() <= dict(mods).items()
    assert all((value or b"")[0] == ord("v") for value in read.owned.values())
    assert all((value or b"v")[0] != ord("v") for value in read.foreign.values())


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_flow_stats_of_any_bytes_are_read_or_refused(bodies: list[bytes]) -> None:
    try:
        assert isinstance(parse_flow_stats(bodies), ObservedFlows)
    except MalformedReplyError as error:
        assert "bytes" in str(error)


def update(event: int, table: int = 80, length: int = 24) -> bytes:
    return pack(">HHB", length, event, table) + bytes(19)


@pytest.mark.parametrize(
    ("updates", "changed"),
    [
        (b"", False),
        (pack(">HHI", 8, 4, 1), False),
        (pack(">HHI", 8, 5, 0), False),
        (pack(">HHI", 8, 6, 0), True),
        (update(1), True),
        (update(2), True),
        (update(3), True),
        (update(1, table=81), False),
        (pack(">HHI", 8, 4, 1) + update(1, table=81) + update(2), True),
        (update(1, table=81, length=0), True),
        (b"\0", True),
    ],
    ids=[
        *("nothing", "our own", "paused", "resumed", "added", "removed", "modified", "learned"),
        *("several", "length 0", "cut off"),
    ],
)
def test_drift(updates: bytes, changed: bool) -> None:
    assert drifted(updates) is changed


def test_errors_are_told_in_the_words_of_the_standard() -> None:
    head = pack(">BBHI", 5, 1, 12, 1)
    assert "OFPET_BAD_ACTION" in error_text(head + pack(">HH", 2, 0))
    assert "OFPBAC_BAD_TYPE" in error_text(head + pack(">HH", 2, 0))
    assert "extension error 15" in error_text(head + pack(">HH", 0xFFFF, 15))
    assert "cut off" in error_text(head)
    assert "Unknown" in error_text(head + pack(">HH", 999, 999))


def counted(cookie: int, packets: int, octets: int) -> bytes:
    """ofp_flow_stats (section 7.3.5.2) of a flow without match and instructions."""
    return pack(">HBxIIHHHHH2xQQQHH4x", 56, 50, 0, 0, 1, 0, 0, 0, 0, cookie, packets, octets, 1, 4)


def test_what_hit_flows_is_added_up_by_cookie() -> None:
    counts: dict[int, tuple[int, int]] = {}
    add_counts(counts, counted(MAGIC | 1, 2, 100) + counted(5, 9, 9) + counted(MAGIC | 2, 1, 60))
    add_counts(counts, counted(MAGIC | 1, 3, 1 << 40))
    assert counts == {MAGIC | 1: (5, (1 << 40) + 100), MAGIC | 2: (1, 60)}


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda more: counted(MAGIC, 1, 1) + more))
def test_counts_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(MalformedReplyError):
        add_counts({}, body)
