"""One live session: requests are numbered, replies go to the exchange that awaits them, drift is reported."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from struct import Struct
from typing import NamedTuple

from vswitchctl.drivers.openflow.packets import (
    PACKET_OUT_XID,
    is_packet_in,
    limit,
    set_config,
    set_packet_in_format,
)
from vswitchctl.drivers.openflow.wire import HEADER, MORE, Kind, Multipart, monitor_request
from vswitchctl.errors import Unreachable
from vswitchctl.pipeline.tables import LEARNED_IDS

_REPLIES = frozenset({Kind.ERROR, Kind.MULTIPART_REPLY, Kind.BARRIER_REPLY, Kind.BUNDLE_CONTROL})

LOG = logging.getLogger(__name__)

_MAX_XID = 0x7FFFFFFF

_MONITOR_ID = 1

_ABBREVIATED, _PAUSED, _RESUMED = 4, 5, 6
"""ofp_flow_update_event, section 7.3.5.17: our own change; updates were lost; they continue."""

_UPDATE = Struct(">HHB")
"""ofp_flow_update_full: length, event, table."""

_MULTIPART = Struct(">HH4x")


class Reply(NamedTuple):
    """One message of the switch that answers us."""

    kind: int
    xid: int
    data: bytes


class Channel:
    """The bridge's session. One thread at a time asks; `message` runs in the session's."""

    def __init__(
        self,
        bridge: str,
        send: Callable[[bytes | bytearray], bool],
        on_drift: Callable[[str], None],
        on_packet: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.bridge = bridge
        self._send = send
        self._on_drift = on_drift
        self._on_packet = on_packet
        self._limit_xids = (0, 0)
        self._next_xid = 1
        self._monitor_xid = 0
        self._over = False
        self._awaited = range(0)
        self._replies: SimpleQueue[Reply | None] = SimpleQueue()

    def monitor(self) -> None:
        """Ask for events of what others do to the flows."""
        self._monitor_xid = self.reserve(1).start
        self._send(monitor_request(self._monitor_xid, _MONITOR_ID))

    def ask_for_packets(self) -> None:
        """Have packets sent up that flows of ours want answered, no more than so many a second."""
        xids = self.reserve(4)
        self._limit_xids = (xids[0], xids[1])
        # Which of the two is needed, a switch that was here before knows: the other one is refused.
        made, set_right = limit(xids[0], modify=False), limit(xids[1], modify=True)
        self._send(made + set_right + set_packet_in_format(xids[2]) + set_config(xids[3]))

    def send_packet(self, packet_out: bytes) -> None:
        """Without waiting for what becomes of it; lost where the session is over."""
        self._send(packet_out)

    def reserve(self, count: int) -> range:
        """Numbers for that many requests: their replies alone are awaited from now on. Raises Unreachable."""
        if self._next_xid + count > _MAX_XID:
            self._next_xid = 1
        xids = range(self._next_xid, self._next_xid + count)
        self._next_xid += count
        self._replies = SimpleQueue()
        self._awaited = xids
        if self._over:
            raise self._lost()
        return xids

    def send(self, buffers: Iterable[bytes | bytearray]) -> None:
        """Send whole messages; replies are collected meanwhile. Raises Unreachable without a session."""
        for buffer in buffers:
            if not self._send(buffer):
                raise self._lost()

    def replies(self, last: int, timeout: float) -> Iterator[Reply]:
        """Replies up to the end of number `last`. timeout: seconds of silence. Raises Unreachable."""
        while True:
            try:
                reply = self._replies.get(timeout=timeout)
            except Empty:
                raise Unreachable(
                    f"bridge '{self.bridge}' did not answer for {timeout:g} s",
                    "see whether ovs-vswitchd is busy or stopped",
                ) from None
            if reply is None:
                raise self._lost()
            yield reply
            if reply.xid == last and not _more(reply):
                return

    def rest(self, seconds: float) -> None:
        """Ask nothing for that long. Ends early, and raises Unreachable, where the session is lost."""
        with contextlib.suppress(Empty):
            if seconds > 0 and self._replies.get(timeout=seconds) is None:
                raise self._lost()

    def lost(self) -> None:
        """The session is over: whoever waits is told."""
        self._over = True
        self._replies.put(None)

    def message(self, kind: int, xid: int, data: bytes) -> bool:
        """A message of the switch; True where it is ours to handle."""
        if kind == Kind.MULTIPART_REPLY and _multipart(data)[0] == Multipart.FLOW_MONITOR:
            if drifted(data[HEADER.size + _MULTIPART.size :]):
                self._on_drift(self.bridge)
            return True
        if kind == Kind.ERROR and xid == self._monitor_xid:
            LOG.warning("bridge '%s' has no flow monitor: changes by others are not noticed", self.bridge)
            return True
        if is_packet_in(kind, data):
            if self._on_packet is not None:
                self._on_packet(self.bridge, data)
            return True
        if kind == Kind.ERROR and self._unawaited(xid):
            return True
        if xid in self._awaited:
            self._replies.put(Reply(kind, xid, data))
            return True
        return kind in _REPLIES and 0 < xid < self._next_xid  # too late: nobody awaits it any more

    def _unawaited(self, xid: int) -> bool:
        """Errors of what nobody waits for."""
        if xid == PACKET_OUT_XID:
            LOG.debug("bridge '%s' refused a frame", self.bridge)
        elif xid == self._limit_xids[1]:
            LOG.warning("bridge '%s' has no meter: packets come up without a limit", self.bridge)
        return xid in (PACKET_OUT_XID, *self._limit_xids)

    def _lost(self) -> Unreachable:
        return Unreachable(
            f"the OpenFlow session with bridge '{self.bridge}' was lost", "it is taken up again by itself"
        )


def _multipart(data: bytes) -> tuple[int, int]:
    """(type, flags) of a multipart reply; (-1, 0) where it is cut off."""
    if len(data) < HEADER.size + _MULTIPART.size:
        return -1, 0
    kind, flags = _MULTIPART.unpack_from(data, HEADER.size)
    return kind, flags


def _more(reply: Reply) -> bool:
    """Whether further parts of this multipart reply follow."""
    return reply.kind == Kind.MULTIPART_REPLY and bool(_multipart(reply.data)[1] & MORE)


def drifted(updates: bytes) -> bool:
    """Whether flow monitor updates tell of a change by others; tables that the switch fills do not count.

    What cannot be read counts as a change: reading the flows then finds out.
    """
    at = 0
    while at < len(updates):
        if len(updates) - at < 8:
            return True
        length, event, table = _UPDATE.unpack_from(updates, at)
        if length < 8 or event == _RESUMED:
            return True
        if event not in {_ABBREVIATED, _PAUSED} and table not in LEARNED_IDS:
            return True
        at += length
    return False
