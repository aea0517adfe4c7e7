"""What a read of a bridge gives, what a refused flow is, and how both come out of a switch's bytes.

Bytes from a switch are untrusted: every length is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct

from vswitchctl.model.flow import CountedFlow, FlowKey, FlowTable
from vswitchctl.pipeline.cookies import LEARNED_RULE, MAGIC, MASK

_RULE = 0xFFFF
_LEARNED = MAGIC | LEARNED_RULE

_STATS = Struct(">HB9x2s6s4xQ16x2xH")
"""ofp_flow_stats, OpenFlow 1.4.1 section 7.3.5.2: length, table, priority, timeouts and flags, cookie,
match length. The skipped parts are durations, importance, counters and the match type."""

_STATS_HEAD = 48
"""Bytes of ofp_flow_stats before its match."""


class MalformedReplyError(ValueError):
    """A switch's message does not hold what its lengths promise."""


@dataclass(frozen=True, slots=True)
class FlowFailure:
    """A flow that the switch refused; the rest of its change was applied."""

    key: FlowKey
    message: str


@dataclass(frozen=True, slots=True)
class ObservedFlows:
    """A bridge's flows. owned: with our cookie magic. foreign: of others. learned: how many it learned."""

    owned: FlowTable = field(default_factory=dict)
    foreign: FlowTable = field(default_factory=dict)
    learned: int = 0


_COUNTS = Struct(">H22xQQQ")
"""ofp_flow_stats again: length, cookie, packets, bytes."""


def add_counts(counts: dict[int, tuple[int, int]], body: bytes) -> None:
    """Add to (packets, bytes) by cookie those of the flows of ours in a multipart body.

    Raises MalformedReplyError on lengths that cannot be.
    """
    at = 0
    while at < len(body):
        if len(body) - at < _STATS_HEAD + 8:
            raise MalformedReplyError(f"{len(body) - at} bytes are no ofp_flow_stats")
        length, cookie, packets, octets = _COUNTS.unpack_from(body, at)
        if not _STATS_HEAD + 8 <= length <= len(body) - at:
            raise MalformedReplyError(f"flow of {length} bytes, {len(body) - at} left")
        if cookie & MASK == MAGIC:
            before = counts.get(cookie, (0, 0))
            counts[cookie] = before[0] + packets, before[1] + octets
        at += length


def parse_flow_stats(bodies: Iterable[bytes]) -> ObservedFlows:
    """The flows in multipart bodies. Raises MalformedReplyError on lengths that cannot be."""
    owned: FlowTable = {}
    foreign: FlowTable = {}
    learned = 0
    unpack, head = _STATS.unpack_from, _STATS_HEAD
    for body in bodies:
        at, end = 0, len(body)
        while at < end:
            if end - at < head + 8:
                raise MalformedReplyError(f"{end - at} bytes are no ofp_flow_stats")
            length, table, priority, rest, cookie, match_length = unpack(body, at)
            instructions = at + head + (match_length + 7 & ~7)
            stop = at + length
            if match_length < 4 or instructions > stop or stop > end:
                raise MalformedReplyError(
                    f"flow of {length} bytes with a match of {match_length}, {end - at} left"
                )
            ours = cookie & MASK == MAGIC
            if ours and cookie & _RULE == LEARNED_RULE:
                learned += 1
            else:
                key = b"%c%b%b" % (table, priority, body[at + 52 : at + head + match_length])
                value = body[at + 24 : at + 32] + rest + body[instructions:stop]
                (owned if ours else foreign)[key] = value
            at = stop
    return ObservedFlows(owned, foreign, learned)


_COUNTED = Struct(">HBxII2s6s4x8sQQ2xH")
"""ofp_flow_stats whole: length, table, seconds, nanoseconds, priority, timeouts and flags, cookie, packets,
bytes, match length. The skipped parts are importance and the match type."""


class FlowDump:
    """Every flow of a bridge with its counters, also those of others and those that the switch learned.

    The switch's own bytes: a flow is parsed when somebody comes to it, each time anew. May be shared.
    """

    def __init__(self, bodies: Iterable[bytes]) -> None:
        """Raises MalformedReplyError on lengths that cannot be."""
        self._bodies = tuple(bodies)
        for body in self._bodies:
            _check(body)

    def __iter__(self) -> Iterator[CountedFlow]:
        unpack, head = _COUNTED.unpack_from, _STATS_HEAD
        for body in self._bodies:
            at = 0
            while at < len(body):
                length, table, seconds, nanoseconds, priority, rest, cookie, packets, octets, match = unpack(
                    body, at
                )
                key = b"%c%b%b" % (table, priority, body[at + 52 : at + head + match])
                value = cookie + rest + body[at + head + (match + 7 & ~7) : at + length]
                yield CountedFlow(key, value, packets, octets, seconds + nanoseconds / 1e9)
                at += length


def _check(body: bytes) -> None:
    at, end = 0, len(body)
    while at < end:
        if end - at < _STATS_HEAD + 8:
            raise MalformedReplyError(f"{end - at} bytes are no ofp_flow_stats")
        length, match = _LENGTHS.unpack_from(body, at)
        if match < 4 or at + _STATS_HEAD + (match + 7 & ~7) > at + length or at + length > end:
            raise MalformedReplyError(f"flow of {length} bytes with a match of {match}, {end - at} left")
        at += length


_LENGTHS = Struct(">H48xH")
"""ofp_flow_stats again: length, match length."""
