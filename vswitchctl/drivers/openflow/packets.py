"""Packets that the switch sends up, and frames for it to send: read off at once, answered in a thread.

Bytes from a switch are untrusted: every length is checked before it is used. What comes faster than it is
answered pushes out the oldest; the session never waits.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from struct import error as StructError
from struct import pack, unpack_from

from vswitchctl.drivers.openflow.wire import HEADER, NICIRA, Kind, message
from vswitchctl.pipeline.fields import BY_HEADER, HAS_MASK
from vswitchctl.pipeline.punt import PacketIn, PacketOut, opcode_of

LOG = logging.getLogger(__name__)

WAITING = 1024
"""Packets that wait to be answered, at most: about a second's worth of what the switch lets through."""

RATE, BURST = 1000, 50
"""Packets a second that a bridge sends up, and at once: what Linux allows itself of ICMP messages
(icmp_msgs_per_sec and icmp_msgs_burst in its Documentation/networking/ip-sysctl.rst)."""

PACKET_OUT_XID = 0x80000000
"""Nobody waits for what becomes of a frame sent: the number of all of them, above those of requests."""

OFPM_CONTROLLER = 0xFFFFFFFE
"""OpenFlow 1.4.1 section 7.3.4.4: the meter of everything that goes to a controller."""

_PACKET_IN2, _SET_PACKET_IN_FORMAT, _FORMAT = 30, 16, 2
"""NXT_PACKET_IN2, NXT_SET_PACKET_IN_FORMAT and NXPIF_NXT_PACKET_IN2, nicira-ext.h."""

_PACKET, _TABLE, _COOKIE, _METADATA, _USERDATA = 0, 3, 4, 6, 7
"""nx_packet_in2_prop_type, nicira-ext.h."""

_NO_BUFFER = 0xFFFFFFFF
_ADD, _MODIFY = 0, 1
_PKTPS, _METER_BURST, _DROP = 2, 4, 1
"""ofp_meter_mod_command, ofp_meter_flags and ofp_meter_band_type, section 7.3.4.4."""

Handler = Callable[[PacketIn], Iterable[PacketOut]]
Send = Callable[[str, bytes], None]


def set_packet_in_format(xid: int) -> bytes:
    """Send packets up as NXT_PACKET_IN2, the one form that holds userdata."""
    return message(Kind.EXPERIMENTER, xid, pack(">III", NICIRA, _SET_PACKET_IN_FORMAT, _FORMAT))


def set_config(xid: int) -> bytes:
    """A management session gets packets once it has said how much of one it takes: all (section 7.3.2)."""
    return message(Kind.SET_CONFIG, xid, pack(">HH", 0, 0xFFFF))


def limit(xid: int, modify: bool) -> bytes:
    """Make, or set right, the meter of what goes up."""
    band = pack(">HHIII", _DROP, 16, RATE, BURST, 0)
    command = _MODIFY if modify else _ADD
    return message(Kind.METER_MOD, xid, pack(">HHI", command, _PKTPS | _METER_BURST, OFPM_CONTROLLER) + band)


def packet_out(sent: PacketOut) -> bytes:
    """OFPT_PACKET_OUT, section 7.3.6."""
    head = pack(">IIH6x", _NO_BUFFER, sent.in_port, len(sent.actions))
    return message(Kind.PACKET_OUT, PACKET_OUT_XID, head + sent.actions + sent.data)


def is_packet_in(kind: int, data: bytes) -> bool:
    """Whether a message holds a packet, in our form or in the standard's."""
    if kind == Kind.PACKET_IN:
        return True
    nicira = (NICIRA, _PACKET_IN2)
    return kind == Kind.EXPERIMENTER and len(data) >= 16 and unpack_from(">II", data, 8) == nicira


def parse_packet_in(bridge: str, data: bytes) -> PacketIn | None:
    """The packet of an NXT_PACKET_IN2 that a flow of ours sent up; None for any other, or malformed ones."""
    try:
        found = dict(_properties(data[HEADER.size + 8 :]))
        opcode = opcode_of(found.get(_USERDATA, b""))
        if opcode is None or data[1] != Kind.EXPERIMENTER:
            return None
        packet = found[_PACKET]
        cookie = int.from_bytes(found.get(_COOKIE, b"")[4:], "big")
        table = int.from_bytes(found.get(_TABLE, b"")[:1], "big")
        fields = dict(_fields(found.get(_METADATA, b"")))
    except (StructError, LookupError, ValueError):
        return None
    return PacketIn(bridge, opcode, cookie, table, fields, packet)


def _properties(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each property. Raises StructError or ValueError where one is cut off."""
    at = 0
    while at < len(data):
        kind, length = unpack_from(">HH", data, at)
        if not 4 <= length <= len(data) - at:
            raise ValueError(f"property of {length} bytes, {len(data) - at} left")
        yield kind, data[at + 4 : at + length]
        at += length + 7 & ~7


def _fields(data: bytes) -> Iterator[tuple[str, int]]:
    """(name, value) of each field that we know, masks left out. Raises StructError where one is cut off."""
    at = 0
    while at < len(data):
        (header,) = unpack_from(">I", data, at)
        length = header & 0xFF
        if at + 4 + length > len(data):
            raise ValueError(f"field of {length} bytes, {len(data) - at - 4} left")
        field = BY_HEADER.get(header & ~0x1FF)
        if field is not None and length == field.length * (2 if header & HAS_MASK else 1):
            yield field.name, int.from_bytes(data[at + 4 : at + 4 + field.length], "big")
        at += 4 + length


class PacketIns:
    """The queue of packets that came up, and the thread that has them answered.

    handle: who answers; it runs in this thread alone. send(bridge, message): how answers go out.
    """

    def __init__(self, handle: Handler, send: Send) -> None:
        self._handle = handle
        self._send = send
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="packet-ins", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many were pushed out by newer ones."""
        with self._changed:
            return self._dropped

    def put(self, bridge: str, data: bytes) -> None:
        """From a session's thread: returns at once."""
        with self._changed:
            if len(self._waiting) >= WAITING:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append((bridge, data))
            self._changed.notify()

    def close(self) -> None:
        """End the thread; what still waits is dropped."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            packet = parse_packet_in(*item)
            if packet is None:
                continue
            try:
                for answer in self._handle(packet):
                    self._send(packet.bridge, packet_out(answer))
            except (StructError, LookupError, ValueError) as error:
                LOG.warning(
                    "bridge '%s': a packet of %d bytes cannot be answered: %s",
                    *(packet.bridge, len(packet.data), error),
                )

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._waiting)
            return None if self._ending else self._waiting.popleft()
