"""The driver: keeps sessions with the bridges, reads their flows and changes them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from openflow_apps.session import Send, Sessions
from vswitchctl.drivers.openflow.channel import Channel
from vswitchctl.drivers.openflow.meters import ObservedMeters, program_meters, read_meters
from vswitchctl.drivers.openflow.observed import (
    FlowDump,
    FlowFailure,
    MalformedReplyError,
    ObservedFlows,
    add_counts,
    parse_flow_stats,
)
from vswitchctl.drivers.openflow.packets import Handler, PacketIns
from vswitchctl.drivers.openflow.portions import ALL_TABLES, Portion, add_table_counts, portions
from vswitchctl.drivers.openflow.program import error_text, program
from vswitchctl.drivers.openflow.wire import (
    HEADER,
    WHOLE_COOKIE,
    Kind,
    barrier,
    flow_request,
    flush_zone,
    table_request,
)
from vswitchctl.errors import ApplyError, Unreachable
from vswitchctl.model.flow import FlowKey, FlowTable
from vswitchctl.model.meter import MeterValue

SESSION_TIMEOUT = 5.0
"""Seconds to wait for a session that is being taken up."""

REPLY_TIMEOUT = 30.0
"""Seconds of silence after which a switch counts as unreachable."""

LONGEST_REST = 0.01
"""Seconds between two portions of flows: some hundred turns of ovs-vswitchd's main loop."""

_MULTIPART_BODY = HEADER.size + 8


class OpenFlowDriver:
    """Flows of the bridges below one Open vSwitch run directory.

    on_change(bridge) is called, from a session's thread, when somebody else changed its flows and when its
    session came or went; it must do no I/O. Calls for different bridges may run at once.
    on_packet(packet) is called, from a thread of its own, with each packet that a flow of ours sends up, and
    gives the frames that answer it. Without it no packet comes up.
    """

    def __init__(
        self,
        rundir: Path,
        on_change: Callable[[str], None] | None = None,
        on_packet: Handler | None = None,
    ) -> None:
        self._rundir = rundir
        self._on_change = on_change or (lambda bridge: None)
        self._channels: dict[str, Channel] = {}
        self._wanted: frozenset[str] = frozenset()
        self._changed = threading.Condition()
        self._locks: dict[str, threading.Lock] = {}
        self._packets = None if on_packet is None else PacketIns(on_packet, self._send_packet)
        self._sessions = Sessions(rundir, self)

    def connect(self, bridges: Collection[str]) -> None:
        """Keep a session with each of these and with no other. Returns at once; sessions lost come again."""
        with self._changed:
            self._wanted = frozenset(bridges)
            self._locks = {name: self._locks.get(name, threading.Lock()) for name in self._wanted}
        self._sessions.want(bridges)

    def connected(self, bridge: str) -> bool:
        with self._changed:
            return bridge in self._channels

    def reach(self, bridge: str) -> None:
        """Wait for a session: what changes from now on comes by `on_change`. Raises Unreachable."""
        with self._channel(bridge):
            pass

    def read(self, bridge: str, timeout: float = REPLY_TIMEOUT) -> ObservedFlows:
        """Every flow of the bridge. timeout: seconds of silence. Raises Unreachable.

        Where there are many it is no moment's picture: what others change meanwhile comes by `on_change`.
        """
        with self._channel(bridge) as channel, self._readable(bridge):
            return parse_flow_stats(self._everything(channel, timeout))

    def dump(self, bridge: str) -> FlowDump:
        """Every flow of the bridge with its counters, of whomever it is. Raises Unreachable."""
        with self._channel(bridge) as channel, self._readable(bridge):
            return FlowDump(self._everything(channel, REPLY_TIMEOUT))

    def _everything(self, channel: Channel, timeout: float) -> Iterator[bytes]:
        xid = channel.reserve(1).start
        channel.send([table_request(xid)])
        counts: dict[int, int] = {}
        for body in self._bodies(channel, xid, timeout):
            add_table_counts(counts, body)
        yield from self._in_turn(channel, portions(counts), timeout)

    def read_of(self, bridge: str, cookies: Collection[int], timeout: float = REPLY_TIMEOUT) -> ObservedFlows:
        """The bridge's flows of these cookies alone: costs what they are. Raises Unreachable."""
        if not cookies:
            return ObservedFlows()
        with self._channel(bridge) as channel, self._readable(bridge):
            xids = channel.reserve(len(cookies))
            wanted = zip(xids, sorted(cookies), strict=True)
            channel.send([b"".join(flow_request(x, ALL_TABLES, c, WHOLE_COOKIE) for x, c in wanted)])
            return parse_flow_stats(self._bodies(channel, xids[-1], timeout))

    def counts(self, bridge: str, tables: Collection[int]) -> dict[int, tuple[int, int]]:
        """(packets, bytes) of our flows in these tables, added up by cookie. Raises Unreachable."""
        found: dict[int, tuple[int, int]] = {}
        with self._channel(bridge) as channel, self._readable(bridge):
            xids = channel.reserve(len(tables))
            channel.send([b"".join(flow_request(*pair) for pair in zip(xids, tables, strict=True))])
            for body in self._bodies(channel, xids[-1], REPLY_TIMEOUT):
                add_counts(found, body)
        return found

    def apply(
        self,
        bridge: str,
        add: FlowTable,
        remove: Collection[FlowKey],
        progress: Callable[[int], None] | None = None,
    ) -> list[FlowFailure]:
        """Add (or replace) and remove flows in one atomic bundle; returns the flows that the switch refused.

        Only flows with our cookie magic are removed. Raises Unreachable, or ApplyError where the switch
        refuses without naming a flow.
        """
        with self._channel(bridge) as channel:
            return program(channel, add, remove, REPLY_TIMEOUT, progress or (lambda count: None))

    def read_meters(self, bridge: str) -> ObservedMeters:
        """Every meter of the bridge. Raises Unreachable, or ApplyError where its datapath has none."""
        with self._channel(bridge) as channel:
            return read_meters(channel, REPLY_TIMEOUT)

    def apply_meters(
        self, bridge: str, put: Mapping[int, MeterValue], there: Collection[int], remove: Collection[int]
    ) -> dict[int, str]:
        """Add or modify (those in `there`) and remove meters: id -> why the switch refused it.

        A meter that is removed takes the flows with it that still use it. Raises Unreachable.
        """
        with self._channel(bridge) as channel:
            return program_meters(channel, put, there, remove, REPLY_TIMEOUT)

    def flush_zones(self, bridge: str, zones: Collection[int]) -> None:
        """Forget every connection in these conntrack zones of the bridge's datapath.

        Raises Unreachable, or ApplyError where the switch refuses.
        """
        with self._channel(bridge) as channel:
            xids = channel.reserve(len(zones) + 1)
            requests = [flush_zone(xid, zone) for xid, zone in zip(xids, zones, strict=False)]
            channel.send([b"".join(requests) + barrier(xids[-1])])
            errors = [r for r in channel.replies(xids[-1], REPLY_TIMEOUT) if r.kind == Kind.ERROR]
        if errors:
            raise ApplyError(
                f"bridge '{bridge}' does not empty a conntrack zone: {error_text(errors[0].data)}"
            )

    def close(self) -> None:
        """End every session and the threads that kept them."""
        self._sessions.close()
        if self._packets is not None:
            self._packets.close()

    # -- called by the sessions --------------------------------------------------------------------------

    def session_up(self, bridge: str, send: Send) -> None:
        packets = self._packets
        channel = Channel(bridge, send, self._on_change, None if packets is None else packets.put)
        channel.monitor()
        if packets is not None:
            channel.ask_for_packets()
        # First, for who waits for the session then reads, and needs to read no second time because of it.
        self._on_change(bridge)
        with self._changed:
            self._channels[bridge] = channel
            self._changed.notify_all()

    def session_down(self, bridge: str) -> None:
        with self._changed:
            channel = self._channels.pop(bridge, None)
        if channel is not None:
            channel.lost()
            self._on_change(bridge)

    def message(self, bridge: str, kind: int, xid: int, data: bytes) -> bool:
        channel = self._channels.get(bridge)
        return channel is not None and channel.message(kind, xid, data)

    # -- inside ------------------------------------------------------------------------------------------

    def _send_packet(self, bridge: str, packet_out: bytes) -> None:
        with self._changed:
            channel = self._channels.get(bridge)
        if channel is not None:
            channel.send_packet(packet_out)

    @contextlib.contextmanager
    def _channel(self, bridge: str) -> Iterator[Channel]:
        """The bridge's session for one thread at a time. Raises Unreachable."""
        deadline = time.monotonic() + SESSION_TIMEOUT
        with self._changed:
            lock = self._locks.get(bridge)
            if lock is None:
                raise Unreachable(f"no OpenFlow session with bridge '{bridge}' is wanted")
        with lock:
            with self._changed:
                while bridge not in self._channels:
                    if not self._changed.wait(deadline - time.monotonic()):
                        raise self._no_session(bridge)
                channel = self._channels[bridge]
            yield channel

    def _no_session(self, bridge: str) -> Unreachable:
        return Unreachable(
            f"no OpenFlow session with bridge '{bridge}' at {self._rundir / bridge}.mgmt",
            "see that ovs-vswitchd runs and that the bridge's protocols allow OpenFlow14",
        )

    def _in_turn(self, channel: Channel, wanted: Sequence[Portion], timeout: float) -> Iterator[bytes]:
        """The bodies of all portions' answers, asked for one by one.

        ovs-vswitchd takes up to 50 requests before it looks at its ports again (ofproto/connmgr.c), and then
        takes 32 packets of each port (NETDEV_MAX_BURST). So one request alone is under way, and after its
        answer the ports have the switch for as long as that took, but no longer than it needs.
        """
        rested = 0.0
        for xid, portion in zip(channel.reserve(len(wanted)), wanted, strict=True):
            channel.rest(rested - time.monotonic())
            asked = time.monotonic()
            channel.send([flow_request(xid, *portion)])
            bodies = list(self._bodies(channel, xid, timeout))
            answered = time.monotonic()
            rested = answered + min(answered - asked, LONGEST_REST)
            yield from bodies

    def _bodies(self, channel: Channel, last: int, timeout: float) -> Iterator[bytes]:
        """What follows the head of each multipart reply, up to the end of number `last`."""
        for reply in channel.replies(last, timeout):
            if reply.kind == Kind.ERROR:
                raise ApplyError(
                    f"bridge '{channel.bridge}' does not tell its flows: {error_text(reply.data)}"
                )
            if reply.kind != Kind.MULTIPART_REPLY or len(reply.data) < _MULTIPART_BODY:
                raise MalformedReplyError(f"message type {reply.kind} in answer to a flow request")
            yield reply.data[_MULTIPART_BODY:]

    @contextlib.contextmanager
    def _readable(self, bridge: str) -> Iterator[None]:
        """Of a switch whose answers cannot be read there is nothing to know: Unreachable."""
        try:
            yield
        except MalformedReplyError as error:
            raise Unreachable(f"bridge '{bridge}' sent flows that cannot be read: {error}") from error
