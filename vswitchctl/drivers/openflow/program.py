"""A change to a bridge's flows: one atomic bundle, or for very many flows a run of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from struct import unpack_from

from os_ken.ofproto import ofproto_v1_4

from vswitchctl.drivers.openflow.channel import Channel, Reply
from vswitchctl.drivers.openflow.observed import FlowFailure
from vswitchctl.drivers.openflow.wire import (
    HEADER,
    Bundle,
    Kind,
    Mod,
    barrier,
    bundle_control,
    by_shape,
    flow_mods,
)
from vswitchctl.errors import ApplyError
from vswitchctl.model.flow import FlowKey, FlowTable

ATOMIC_UP_TO = 20_000
"""A change of at most this many flows is one bundle. Above it, chunks of this size follow one
another, deletes last: so many at once is the first programming of a bridge, where nothing forwards yet."""

BUNDLE_ATTEMPTS = 5
"""After so many bundles with refused flows the rest goes flow by flow: a full table refuses each."""

Refused = dict[int, str]
"""Position in the change -> why the switch refused that flow."""


def program(
    channel: Channel,
    add: FlowTable,
    remove: Collection[FlowKey],
    timeout: float,
    progress: Callable[[int], None] | None,
) -> list[FlowFailure]:
    """Add and remove flows; those refused are left out and returned.

    Raises Unreachable when the session is lost, ApplyError when the switch refuses without naming a flow.
    """
    failures: list[FlowFailure] = []
    for chunk in _chunks(add, remove):
        failures += _bundle(channel, chunk, timeout)
        if progress is not None:
            progress(len(chunk))
    return failures


def _chunks(add: FlowTable, remove: Collection[FlowKey]) -> Iterator[list[Mod]]:
    deletes: list[Mod] = [(key, None) for key in remove]
    if len(add) + len(deletes) <= ATOMIC_UP_TO:
        yield by_shape([*add.items(), *deletes])
        return
    for mods in (by_shape(list(add.items())), by_shape(deletes)):
        rest = iter(mods)
        while chunk := list(islice(rest, ATOMIC_UP_TO)):
            yield chunk


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
