"""Meters of a bridge: read back as bytes, added and modified before the flows that use them, removed after.

Bytes from a switch are untrusted: every length is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from struct import Struct

from vswitchctl.drivers.openflow.channel import Channel
from vswitchctl.drivers.openflow.observed import MalformedReplyError
from vswitchctl.drivers.openflow.program import error_text
from vswitchctl.drivers.openflow.wire import (
    HEADER,
    Kind,
    MeterCommand,
    barrier,
    meter_features_request,
    meter_mod,
    meter_request,
)
from vswitchctl.errors import ApplyError, Unreachable
from vswitchctl.model.meter import MeterValue, is_ours

VIRTUAL = 0xFFFF0000
"""Ids above OFPM_MAX, section 7.3.4.4: meters that the standard itself names (OFPM_CONTROLLER and others)."""

_CONFIG = Struct(">HHI")
"""ofp_meter_config: length, flags, id; bands follow."""

_MULTIPART_BODY = HEADER.size + 8


@dataclass(frozen=True, slots=True)
class ObservedMeters:
    """A bridge's meters. owned: with ids of ours. foreign: of others, but for those of the standard.

    most: the highest id that its datapath takes; 0 where it has no meters.
    """

    owned: Mapping[int, MeterValue] = field(default_factory=dict)
    foreign: Mapping[int, MeterValue] = field(default_factory=dict)
    most: int = 0


def parse_meter_config(bodies: Iterable[bytes], most: int = 0) -> ObservedMeters:
    """The meters in multipart bodies. Raises MalformedReplyError on lengths that cannot be."""
    owned: dict[int, MeterValue] = {}
    foreign: dict[int, MeterValue] = {}
    for body in bodies:
        at, end = 0, len(body)
        while at < end:
            if end - at < _CONFIG.size:
                raise MalformedReplyError(f"{end - at} bytes are no ofp_meter_config")
            length, flags, identifier = _CONFIG.unpack_from(body, at)
            if not _CONFIG.size <= length <= end - at:
                raise MalformedReplyError(f"meter of {length} bytes, {end - at} left")
            value = flags.to_bytes(2, "big") + body[at + _CONFIG.size : at + length]
            if is_ours(identifier):
                owned[identifier] = value
            elif identifier <= VIRTUAL:
                foreign[identifier] = value
            at += length
    return ObservedMeters(owned, foreign, most)


def read_meters(channel: Channel, timeout: float) -> ObservedMeters:
    """Every meter of the channel's bridge, and how many it can have. Raises Unreachable, ApplyError."""
    try:
        (features,) = _ask(channel, meter_features_request, timeout)
        most = int.from_bytes(features[:4], "big")
        return parse_meter_config(_ask(channel, meter_request, timeout), most)
    except MalformedReplyError as error:
        raise Unreachable(f"bridge '{channel.bridge}' sent meters that cannot be read: {error}") from error


def _ask(channel: Channel, request: Callable[[int], bytes], timeout: float) -> list[bytes]:
    """The bodies of a multipart's replies."""
    xid = channel.reserve(1).start
    channel.send([request(xid)])
    bodies = []
    for reply in channel.replies(xid, timeout):
        if reply.kind == Kind.ERROR:
            raise ApplyError(f"bridge '{channel.bridge}' does not tell its meters: {error_text(reply.data)}")
        bodies.append(reply.data[_MULTIPART_BODY:])
    return bodies


def program_meters(
    channel: Channel,
    put: Mapping[int, MeterValue],
    there: Collection[int],
    remove: Collection[int],
    timeout: float,
) -> dict[int, str]:
    """Add, modify and remove; id -> why the switch refused it. Raises Unreachable."""
    ids = [*put, *remove]
    xids = channel.reserve(len(ids) + 1)
    messages = [
        meter_mod(xid, MeterCommand.MODIFY if one in there else MeterCommand.ADD, one, put[one])
        if one in put
        else meter_mod(xid, MeterCommand.DELETE, one)
        for xid, one in zip(xids, ids, strict=False)
    ]
    channel.send([b"".join(messages), barrier(xids[-1])])
    errors = (reply for reply in channel.replies(xids[-1], timeout) if reply.kind == Kind.ERROR)
    return {ids[reply.xid - xids.start]: error_text(reply.data) for reply in errors if reply.xid < xids[-1]}
