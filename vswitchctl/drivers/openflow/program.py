"""A change to a bridge's flows: one atomic bundle, or for very many flows a run of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from struct import unpack_from

from os_ken.ofproto import ofproto_v1_4

from vswitchctl.drivers.openflow.channel import Channel, Reply
from vswitchctl.drivers.openflow.flow_mods import LONGEST, Mod, by_shape, flow_mods, message_length
from vswitchctl.drivers.openflow.observed import FlowFailure
from vswitchctl.drivers.openflow.wire import HEADER, Bundle, Kind, barrier, bundle_control
from vswitchctl.errors import ApplyError
from vswitchctl.model.flow import FlowKey, FlowTable

ATOMIC_UP_TO = 20_000
"""A change of at most this many flows is one bundle. More than that is the first programming of a bridge,
where nothing forwards yet: it goes as a run of smaller bundles, deletes last."""

RUN_OF = 1_000
"""Flows per bundle of a run: large bundles cost the switch more per flow."""

BUNDLE_ATTEMPTS = 5
"""After so many bundles with refused flows the rest goes flow by flow: a full table refuses each."""

Refused = dict[int, str]
"""Position in the change -> why the switch refused that flow."""


_TOO_LONG = "the flow is longer than an OpenFlow message of 64 kB"


def program(
    channel: Channel,
    add: FlowTable,
    remove: Collection[FlowKey],
    timeout: float,
    progress: Callable[[int], None],
) -> list[FlowFailure]:
    """Add and remove flows; those refused are left out and returned.

    Raises Unreachable when the session is lost, ApplyError when the switch refuses without naming a flow.
    """
    mods = by_shape([*add.items(), *((key, None) for key in remove)])
    failures = [FlowFailure(mod[0], _TOO_LONG) for mod in mods if message_length(mod) > LONGEST]
    if failures:
        mods = [mod for mod in mods if message_length(mod) <= LONGEST]
        progress(len(failures))
    if len(mods) <= ATOMIC_UP_TO:
        failures += _bundle(channel, mods, timeout)
        progress(len(mods))
        return failures
    return failures + _run(channel, mods, timeout, progress)


def _run(
    channel: Channel, mods: Sequence[Mod], timeout: float, progress: Callable[[int], None]
) -> list[FlowFailure]:
    """Many bundles in one stream, without waiting in between. A bundle that fails is done again by itself."""
    parts = [mods[start : start + RUN_OF] for start in range(0, len(mods), RUN_OF)]
    xids = channel.reserve(len(mods) + 2 * len(parts) + 1)
    ends = list(accumulate((len(part) + 2 for part in parts), initial=xids.start - 1))[1:]
    channel.send(_stream(parts, xids))
    failed: set[int] = set()
    for reply in channel.replies(xids[-1], timeout):
        part = bisect_left(ends, reply.xid)
        if reply.kind == Kind.ERROR and part < len(parts):
            failed.add(part)
        elif reply.kind == Kind.BUNDLE_CONTROL and part < len(parts) and reply.xid == ends[part]:
            progress(0 if part in failed else len(parts[part]))
    failures: list[FlowFailure] = []
    for part in sorted(failed):
        failures += _bundle(channel, parts[part], timeout)
        progress(len(parts[part]))
    return failures


def _stream(parts: Sequence[Sequence[Mod]], xids: range) -> Iterator[bytes | bytearray]:
    """Each part as open, flow-mods, commit; a barrier after all of them."""
    xid = xids.start
    for part in parts:
        end = xid + len(part) + 1
        yield b"".join(
            (
                bundle_control(xid, xid, Bundle.OPEN_REQUEST),
                *flow_mods(part, xid + 1, xid),
                bundle_control(end, xid, Bundle.COMMIT_REQUEST),
            )
        )
        xid = end + 1
    yield barrier(xids[-1])


def _bundle(channel: Channel, mods: Sequence[Mod], timeout: float) -> list[FlowFailure]:
    failures: list[FlowFailure] = []
    for _ in range(BUNDLE_ATTEMPTS):
        if not mods:
            return failures
        refused = _try_bundle(channel, mods, timeout)
        failures += [FlowFailure(mods[position][0], why) for position, why in sorted(refused.items())]
        if not refused:
            return failures
        mods = [mod for position, mod in enumerate(mods) if position not in refused]
    refused = _one_by_one(channel, mods, timeout)
    return failures + [FlowFailure(mods[position][0], why) for position, why in sorted(refused.items())]


def _try_bundle(channel: Channel, mods: Sequence[Mod], timeout: float) -> Refused:
    """One bundle, committed if every flow was taken, else discarded."""
    xids = channel.reserve(len(mods) + 5)
    opened, first, staged, ended, done = xids[0], xids[1], xids[-3], xids[-2], xids[-1]
    bundle = opened
    channel.send([bundle_control(opened, bundle, Bundle.OPEN_REQUEST)])
    channel.send(flow_mods(mods, first, bundle))
    channel.send([barrier(staged)])
    refused = _refused(channel, first, len(mods), channel.replies(staged, timeout))
    end = Bundle.DISCARD_REQUEST if refused else Bundle.COMMIT_REQUEST
    channel.send([bundle_control(ended, bundle, end) + barrier(done)])
    return refused | _refused(channel, first, len(mods), channel.replies(done, timeout))


def _one_by_one(channel: Channel, mods: Sequence[Mod], timeout: float) -> Refused:
    """Without a bundle: each flow is taken or refused by itself."""
    if not mods:
        return {}
    xids = channel.reserve(len(mods) + 1)
    channel.send(flow_mods(mods, xids[0], None))
    channel.send([barrier(xids[-1])])
    return _refused(channel, xids[0], len(mods), channel.replies(xids[-1], timeout))


def _refused(channel: Channel, first: int, count: int, replies: Iterator[Reply]) -> Refused:
    """Errors by the position of their flow. Raises ApplyError where errors name no flow."""
    refused: Refused = {}
    other = ""
    for reply in replies:
        if reply.kind == Kind.ERROR:
            if 0 <= reply.xid - first < count:
                refused[reply.xid - first] = error_text(reply.data)
            else:
                other = error_text(reply.data)
    if other and not refused:
        raise ApplyError(f"bridge '{channel.bridge}' refused a bundle: {other}")
    return refused


def error_text(data: bytes) -> str:
    """An OFPT_ERROR in the standard's words: 'OFPET_BAD_ACTION OFPBAC_BAD_OUT_PORT'."""
    if len(data) < HEADER.size + 4:
        return "an error that is cut off"
    kind, code = unpack_from(">HH", data, HEADER.size)
    if kind == ofproto_v1_4.OFPET_EXPERIMENTER:
        return f"Open vSwitch extension error {code}: ovs-vswitchd.log says more"
    return f"{ofproto_v1_4.ofp_error_type_to_str(kind)} {ofproto_v1_4.ofp_error_code_to_str(kind, code)}"
