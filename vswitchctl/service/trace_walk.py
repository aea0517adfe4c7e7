"""Follows a packet through bridges by the switch's own traces: over veth pairs, and through conntrack.

A trace ends where the packet leaves to another bridge, and where conntrack takes it. It goes on by another
one: over a veth pair with the packet as it left; after conntrack, which Open vSwitch asks the user about, in
the table where it resumes, with what conntrack would say. So nothing here models what flows do.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vswitchctl.errors import Unreachable
from vswitchctl.model.state import OvsPortSpec, PortKey
from vswitchctl.pipeline.trace_text import Fork, Output, Step, Traced, flow_text, headers, parse_trace
from vswitchctl.service.names import HostNames
from vswitchctl.service.trace_packet import Packet

Appctl = Callable[..., str]
"""Calls ovs-vswitchd: command and arguments in, text out. Raises UserError, Unreachable."""

MOST_TRACES = 256
"""Of one packet. A flood of two hundred ports with conntrack each takes as many."""

NEW, ESTABLISHED, REPLY, UNTRACKED = "new|trk", "est|trk", "est|rpl|trk", "inv|trk"

VID_PRESENT = 0x1000
"""OFPVID_PRESENT, OpenFlow 1.4.1 section 7.2.3.8."""


Remembered = Mapping[int, tuple[str, int]]


class Asked(NamedTuple):
    """A time that conntrack was asked: in which zone, what it says, and the mark of the connection."""

    zone: int
    state: str
    mark: int
    known: bool


@dataclass
class Walk:
    """Where a packet came. ends: the last flow of each way that goes no further, as numbers of steps.

    reached: other ends of links -> the step that sent it there. commits: zones that remember the connection.
    ways: for each step the step before it, -1 at the start.
    """

    steps: list[Step] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    commits: set[int] = field(default_factory=set)

    def way_to(self, step: int) -> list[int]:
        """The steps up to this one, in order."""
        found = []
        while step >= 0:
            found.append(step)
            step = self.before[step]
        return found[::-1]


def of_answer(walk: Walk) -> dict[int, tuple[str, int]]:
    """What conntrack says of the answer to a packet that took this way."""
    return {
        one.zone: (ESTABLISHED if one.state == REPLY else REPLY, 0 if one.zone in walk.commits else one.mark)
        for one in walk.asked
        if one.zone in walk.commits or one.state in (ESTABLISHED, REPLY)
    }


class _Todo(NamedTuple):
    bridge: str
    flow: str
    table: int | None
    after: int


class Walker:
    """Traces one packet. remembered: zone -> state and mark of the connection that it is of."""

    def __init__(self, appctl: Appctl, names: HostNames, packet: Packet, remembered: Remembered) -> None:
        self._appctl = appctl
        self._names = names
        self._packet = packet
        self._remembered = remembered
        self._walk = Walk()
        self._todo: deque[_Todo] = deque()

    def from_port(self, bridge: str, port: int) -> Walk:
        """Where it comes to when it enters there. Raises Unreachable, UserError."""
        fields = {**self._packet.fields, "in_port": str(port)}
        self._todo.append(_Todo(bridge, flow_text(fields), None, -1))
        for _ in range(MOST_TRACES):
            if not self._todo:
                break
            self._trace(self._todo.popleft())
        return self._walk

    def _trace(self, todo: _Todo) -> None:
        if todo.table is None:
            text = self._appctl("ofproto/trace", todo.bridge, todo.flow)
        else:
            action = f"resubmit(,{todo.table})"
            text = self._appctl("ofproto/trace-packet-out", todo.bridge, todo.flow, action)
        try:
            traced = parse_trace(text)
        except ValueError as error:
            raise Unreachable(f"Open vSwitch traces in a form that is unknown here: {error}") from error
        offset = len(self._walk.steps)
        self._add(traced, todo.after)
        self._walk.commits |= traced.commits
        for fork in traced.forks:
            self._resume(fork, offset)
        goes_on = [self._leave(output, traced, offset) for output in traced.outputs]
        if not traced.forks and not any(goes_on) and traced.steps:
            self._walk.ends.append(offset + len(traced.steps) - 1)

    def _add(self, traced: Traced, after: int) -> None:
        """Steps follow each other, but for those of copies, which follow what made them."""
        for number, step in enumerate(traced.steps):
            self._walk.before.append(len(self._walk.steps) - 1 if number else after)
            self._walk.steps.append(step)

    def _leave(self, output: Output, traced: Traced, offset: int) -> bool:
        """True where the packet comes to something."""
        end = self._names.behind.get((output.bridge, output.port))
        if end is None:
            return False
        if end not in self._names.bridges:
            self._walk.reached.setdefault(end, offset + output.step)
            return True
        peer = self._across(output, end)
        if peer is not None:
            vid = 0 if output.vid is None else VID_PRESENT | output.vid
            fields = {**headers(traced.final), "in_port": str(peer), "vlan_tci": hex(vid)}
            self._todo.append(_Todo(end, flow_text(fields), None, offset + output.step))
        return True

    def _across(self, output: Output, end: str) -> int | None:
        """The port at the other bridge; None of a patch port, which the same trace goes through."""
        ports: Mapping[PortKey, OvsPortSpec] = self._names.ports
        owner = self._names.port_owners.get((output.bridge, output.port))
        for key, spec in ports.items():
            if key.bridge == end and spec.owner == owner and spec.type != "patch":
                return self._names.ofports.get(key)
        return None

    def _resume(self, fork: Fork, offset: int) -> None:
        found = re.search(r"ct_zone=(0x[0-9a-f]+|\d+)", fork.flow)
        zone = int(found[1], 0) if found else 0
        asked = self._conntrack(fork, zone)
        self._walk.asked.append(asked)
        port = re.search(r"in_port=(\d+)", fork.flow)
        fields = headers(fork.flow, registers=True) | {"in_port": port[1] if port else "0"}
        tracked = {"ct_state": asked.state, "ct_zone": str(zone), "ct_mark": hex(asked.mark)}
        if asked.state != UNTRACKED:
            tracked |= self._original(asked.state)
        flow = f"{flow_text(fields)},{flow_text(tracked)}"
        self._todo.append(_Todo(fork.bridge, flow, fork.table, offset + fork.step))

    def _original(self, state: str) -> dict[str, str]:
        """Of the packet that opened the connection."""
        found = self._packet.connection
        if found is None:
            return {}
        protocol, source, destination, first, second = found
        six = ":" in source
        if "rpl" in state:
            source, destination = destination, source
            if protocol in ("1", "58"):
                first = "8" if protocol == "1" else "128"
            else:
                first, second = second, first
        kind = "ct_ipv6" if six else "ct_nw"
        return {
            "ct_nw_proto": protocol, f"{kind}_src": source, f"{kind}_dst": destination,
            "ct_tp_src": first, "ct_tp_dst": second,
        }  # fmt: skip

    def _conntrack(self, fork: Fork, zone: int) -> Asked:
        """What it says of the packet: what it knows of such a connection, else what it would."""
        connection = self._packet.connection
        if connection is None:
            return Asked(zone, UNTRACKED, 0, known=False)
        if zone in self._remembered:
            return Asked(zone, *self._remembered[zone], known=False)
        ours = fork.bridge in self._names.bridges
        if ours and connection[0] not in ("1", "58"):  # an echo request has a number of its own each time
            kind = self._names.bridge(fork.bridge).datapath_type
            dump = self._appctl("dpctl/dump-conntrack", f"{kind}@ovs-{kind}", f"zone={zone}")
            for line in dump.splitlines():
                if known := of_connection(line, connection):
                    return Asked(zone, *known, known=True)
        return Asked(zone, NEW, 0, known=False)


_TUPLE = re.compile(r"(orig|reply)=\(src=([^,)]+),dst=([^,)]+),sport=(\d+),dport=(\d+)\)")
_WORDS = {"6": "tcp", "17": "udp", "132": "sctp"}


def of_connection(line: str, connection: tuple[str, str, str, str, str]) -> tuple[str, int] | None:
    """(state, mark) where a line of dpctl/dump-conntrack is of the packet's connection."""
    protocol, *ends = connection
    if not line.startswith(f"{_WORDS.get(protocol)},"):
        return None
    for side, *found in _TUPLE.findall(line):
        if found == ends:
            mark = re.search(r",mark=(\d+)", line)
            return (ESTABLISHED if side == "orig" else REPLY), int(mark[1]) if mark else 0
    return None
