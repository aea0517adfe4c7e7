"""Flow tables on paper: an interpreter of OpenFlow bytes, and a whole topology of bridges that run it.

An independent witness: matches and actions are decoded by os-ken, not by our own code. It knows the part of
OpenFlow that the pipeline uses, and fails on anything else.
"""

from __future__ import annotations

import contextlib
import os

os.environ.setdefault("OSKEN_HUB_TYPE", "native")

import re
import struct
from base64 import b64decode
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from os_ken.ofproto import ofproto_v1_4_parser as parser

from vswitchctl.compiler.compile import compile_topology, provisional
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.model.domains import Vif, VifKey, VmFacts
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.intent import Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.state import DesiredState, Facts
from vswitchctl.model.topology import Bridge, LinuxBridge, Topology, Vm, split_end
from vswitchctl.pipeline.app import load_apps

BROADCAST = "ff:ff:ff:ff:ff:ff"
CLONE, OUTPUT_TRUNC = 42, 39
"""NXAST_CLONE and NXAST_OUTPUT_TRUNC, which os-ken does not decode either."""

LEARN2 = 45
"""NXAST_LEARN2, which os-ken does not decode: its cookie and limit count, and what it learns is taken for
what openflow_apps/learning.py says."""

IN_PORT = 0xFFFFFFF8
"""OFPP_IN_PORT."""

LIMIT = 2000
"""Deliveries until a frame counts as running in a circle."""


class _Over(Exception):
    """A meter drops the packet: nothing that comes after it is done, but for what a clone sets apart."""


class Loop(AssertionError):
    """A frame does not stop."""


EXPERIMENTAL = 0x88B5
"""An ethertype that no table knows."""

ND_EXTENSIONS = {f"field_{0x1000 << 7 | 1}": "nd_reserved", f"field_{0x1000 << 7 | 2}": "nd_options_type"}
"""os-ken's names for fields that it does not know, by class and number."""
OXM_NAMES = {**ND_EXTENSIONS, "nd_tll": "ipv6_nd_tll"}


@dataclass(frozen=True)
class Frame:
    """fields: what else it holds, by os-ken's names; what is not named is 0, as Open vSwitch has it."""

    src: str
    dst: str
    vid: int | None = None
    fields: tuple[tuple[str, int], ...] = (("eth_type", EXPERIMENTAL),)

    def value(self, name: str) -> int:
        return dict(self.fields).get(name, 0)

    def having(self, name: str, value: int) -> Frame:
        """With one field set."""
        if name in ("eth_src", "eth_dst"):
            return replace(self, **{name[4:]: value.to_bytes(6, "big").hex(":")})
        return replace(self, fields=tuple(sorted((dict(self.fields) | {name: value}).items())))


@dataclass
class _State:
    frame: Frame
    in_port: int
    regs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    out: list[tuple[int, Frame]] = field(default_factory=list)


def _number(value: Any) -> int:
    """A MAC, an IP address or a number as a number."""
    if isinstance(value, bytes):
        return int.from_bytes(value, "big")
    if not isinstance(value, str):
        return int(value)
    if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", value):
        return int(value.replace(":", ""), 16)
    return int(ip_address(value))


def _field_name(name: str) -> str:
    """os-ken's name of a field, whether by its OpenFlow or its Nicira header."""
    return OXM_NAMES.get(name, name.removesuffix("_nxm"))


_Bits = tuple[tuple[str, int, int, int], ...]
"""(field, offset, width, value) of each part of a learned flow."""


@dataclass(frozen=True)
class _Rule:
    table: int
    priority: int
    match: tuple[tuple[str, int, int | None], ...]
    instructions: tuple[Any, ...]


def _decode(key: bytes, value: bytes) -> _Rule:
    fields = key[3:]
    match = struct.pack("!HH", 1, 4 + len(fields)) + fields
    match += bytes(-len(match) % 8)
    body = match + value[14:]
    priority, cookie = int.from_bytes(key[1:3], "big"), int.from_bytes(value[:8], "big")
    times = struct.unpack("!HHH", value[8:14])
    head = struct.pack("!HBxIIHHHHH2xQQQ", 48 + len(body), key[0], 0, 0, priority, *times, 0, cookie, 0, 0)
    stats = parser.OFPFlowStats.parser(head + body, 0)
    parts = []
    for name, wanted in stats.match.items():
        both = wanted if isinstance(wanted, tuple) else (wanted, None)
        parts.append((name, _number(both[0]), None if both[1] is None else _number(both[1])))
    return _Rule(stats.table_id, stats.priority, tuple(parts), tuple(stats.instructions))


class Switch:
    """One bridge's tables, with what it learned."""

    def __init__(self, flows: FlowTable) -> None:
        self.tables: dict[int, list[_Rule]] = defaultdict(list)
        for key, value in flows.items():
            rule = _decode(key, value)
            self.tables[rule.table].append(rule)
        for rules in self.tables.values():
            rules.sort(key=lambda rule: -rule.priority)
        self.learned: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}
        self.over: set[int] = set()
        self.metered: list[int] = []
        self.noted: dict[tuple[int, int, _Bits], _Bits] = {}
        self.learned_by: dict[tuple[tuple[str, int], ...], int] = {}

    def receive(self, frame: Frame, in_port: int) -> list[tuple[int, Frame]]:
        """Port and frame of each copy. over: meters that drop. metered: those that frames came by."""
        state = _State(frame, in_port)
        with contextlib.suppress(_Over):
            self._run(0, state)
        return state.out

    def _run(self, table: int, state: _State) -> None:
        if table == 81:
            self._consult_learned(state)
        if self.noted:
            self._consult_noted(table, state)
        following = [rule for rule in self.tables[table] if self._matches(rule, state)]
        if not following:
            return
        tied = [rule for rule in following if rule.priority == following[0].priority]
        assert len(tied) == 1, f"table {table}: two flows of one priority match {state}"
        for instruction in tied[0].instructions:
            if isinstance(instruction, parser.OFPInstructionGotoTable):
                self._run(instruction.table_id, state)
            elif isinstance(instruction, parser.OFPInstructionMeter):
                self.metered.append(instruction.meter_id)
                if instruction.meter_id in self.over:
                    raise _Over
            else:
                for action in instruction.actions:
                    self._act(action, state)

    def _value(self, name: str, state: _State) -> int:
        if name == "in_port":
            return state.in_port
        if name == "eth_src":
            return _number(state.frame.src)
        if name == "eth_dst":
            return _number(state.frame.dst)
        if name == "vlan_vid":
            return 0 if state.frame.vid is None else 0x1000 | state.frame.vid
        return state.regs[name] if name.startswith(("reg", "metadata")) else state.frame.value(name)

    def _set(self, name: str, value: int, state: _State) -> None:
        if name == "vlan_vid":
            state.frame = replace(state.frame, vid=value & 0xFFF)
        elif name == "in_port":
            state.in_port = value
        elif name.startswith(("reg", "metadata")):
            state.regs[name] = value
        else:
            state.frame = state.frame.having(name, value)

    def _matches(self, rule: _Rule, state: _State) -> bool:
        for name, value, mask in rule.match:
            got = self._value(name, state)
            if (got if mask is None else got & mask) != value:
                return False
        return True

    def _act(self, action: Any, state: _State) -> None:
        kind = type(action).__name__
        if kind == "OFPActionOutput":
            if action.port == IN_PORT:
                state.out.append((state.in_port, state.frame))
            elif action.port != state.in_port:
                state.out.append((action.port, state.frame))
        elif kind == "OFPActionPushVlan":
            state.frame = replace(state.frame, vid=0)
        elif kind == "OFPActionPopVlan":
            state.frame = replace(state.frame, vid=None)
        elif kind == "OFPActionSetField":
            value = b64decode(action.value) if action.key in ND_EXTENSIONS else action.value
            self._set(_field_name(action.key), _number(value), state)
        elif kind == "OFPActionDecNwTtl":
            self._dec_ttl(state)
        else:
            self._extension(kind, action, state)

    def _extension(self, kind: str, action: Any, state: _State) -> None:
        """An action of Open vSwitch."""
        if kind == "NXActionRegMove":
            source = self._value(_field_name(action.src_field), state)
            assert (action.src_ofs, action.dst_ofs) == (0, 0), action
            self._set(_field_name(action.dst_field), source, state)
        elif kind == "NXActionRegLoad":
            self._load(action, state)
        elif kind == "NXActionResubmitTable":
            self._run(action.table_id, state)
        elif kind == "NXActionLearn" or (kind == "NXActionUnknown" and action.subtype == LEARN2):
            self._learn(action, state)
        elif kind == "NXActionUnknown" and action.subtype == CLONE:
            self._clone(action.data, state)
        else:  # no connections are tracked here, so there are none to forget, and no daemon hears a copy
            unheard = {"NXActionCTClear", "NXActionController2"}
            assert kind in unheard, f"an action the pipeline should not use: {action}"

    def _load(self, action: Any, state: _State) -> None:
        offset, bits = action.ofs_nbits >> 6, (action.ofs_nbits & 63) + 1
        mask = ((1 << bits) - 1) << offset
        before = self._value(action.dst, state)
        self._set(action.dst, before & ~mask | action.value << offset, state)

    def _dec_ttl(self, state: _State) -> None:
        ttl = state.frame.value("nw_ttl")
        assert ttl > 1, "Open vSwitch ends the packet here, and tells the controller"
        state.frame = state.frame.having("nw_ttl", ttl - 1)

    def _clone(self, data: bytes, state: _State) -> None:
        """To a copy: registers and frame are as before, and a meter inside ends nothing outside."""
        frame, regs, at = state.frame, dict(state.regs), 6
        apart = False
        with contextlib.suppress(_Over):
            while at < len(data):
                action = parser.OFPAction.parser(data, at)
                if getattr(action, "subtype", None) == OUTPUT_TRUNC:
                    apart = True
                else:
                    self._act(action, state)
                at += int.from_bytes(data[at + 2 : at + 4], "big")
        assert apart, "without a shortened output Open vSwitch clones nothing in the datapath"
        state.frame, state.regs = frame, defaultdict(int, regs)

    def _learn(self, action: Any, state: _State) -> None:
        if type(action).__name__ == "NXActionLearn":
            self._note(action, state)
            return
        spec: bytes = action.data
        key = (("reg0", state.regs["reg0"] & 0xFFFF), ("eth_dst", _number(state.frame.src)))
        (cookie,), (limit,) = struct.unpack_from("!Q", spec, 6), struct.unpack_from("!I", spec, 22)
        if sum(other == cookie for other in self.learned_by.values()) < limit:
            self.learned[key] = {"reg1": state.in_port}
            self.learned_by[key] = cookie

    def _note(self, action: Any, state: _State) -> None:
        """A learned flow of any table: what it matches, and what it loads."""
        parts: dict[str, list[tuple[str, int, int, int]]] = {"NXFlowSpecMatch": [], "NXFlowSpecLoad": []}
        for spec in action.specs:
            if isinstance(spec.src, tuple):
                value = self._value(_field_name(spec.src[0]), state) >> spec.src[1] & (1 << spec.n_bits) - 1
            else:
                value = _number(spec.src)
            parts[type(spec).__name__].append((_field_name(spec.dst[0]), spec.dst[1], spec.n_bits, value))
        matches, loads = map(tuple, parts.values())
        self.noted[action.table_id, action.priority, matches] = loads

    def _consult_noted(self, table: int, state: _State) -> None:
        for (where, _, matches), loads in sorted(self.noted.items(), key=lambda one: -one[0][1]):
            if where == table and all(
                self._value(name, state) >> offset & (1 << bits) - 1 == value
                for name, offset, bits, value in matches
            ):
                for name, offset, bits, value in loads:
                    mask = (1 << bits) - 1 << offset
                    self._set(name, self._value(name, state) & ~mask | value << offset, state)
                return

    def _consult_learned(self, state: _State) -> None:
        key = (("reg0", state.regs["reg0"] & 0xFFFF), ("eth_dst", _number(state.frame.dst)))
        state.regs.update(self.learned.get(key, {}))


@dataclass
class LinuxSwitch:
    """A Linux bridge: learns, floods the rest."""

    ports: tuple[str, ...]
    learned: dict[str, str] = field(default_factory=dict)

    def receive(self, frame: Frame, port: str) -> list[str]:
        self.learned[frame.src] = port
        known = None if frame.dst == BROADCAST else self.learned.get(frame.dst)
        return [p for p in ([known] if known else self.ports) if p != port]


def all_running(topology: Topology) -> VmFacts:
    """Every virtual machine of a topology runs, and has its TAPs."""
    nics = [
        VifKey(node.domain, mac)
        for node in topology.nodes.values()
        if isinstance(node, Vm)
        for mac in node.interfaces
    ]
    return VmFacts({key: Vif(f"vnet{number}") for number, key in enumerate(nics)})


class Fabric:
    """A compiled topology: send a frame from an end and see who gets it, and how often."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        stored = Stored(
            topology,
            1,
            allocate_tags(topology, {}),
            zones=allocate_zones(topology, {}, ()),
            meters=allocate_meters(topology, {}),
        )
        apps = load_apps()
        running = Facts(vms=all_running(topology), linux_bridges=frozenset(topology.nodes))
        facts = provisional(compile_topology(stored, running, apps), running)
        self.desired: DesiredState = compile_topology(stored, facts, apps)
        wiring = compile_wiring(topology, facts)
        self.port = {where: facts.ofports[key] for where, key in wiring.ports.items()}
        self.towards = {(bridge, number): other for (bridge, other), number in self.port.items()}
        self.switches = {name: Switch(flows) for name, flows in self.desired.flows.items()}
        self.linux = {
            name: LinuxSwitch(tuple(self._neighbours(name)))
            for name, node in topology.nodes.items()
            if isinstance(node, LinuxBridge)
        }

    def _neighbours(self, name: str) -> list[str]:
        return [
            other
            for link in self.topology.links
            for end, other in (link.ends, link.ends[::-1])
            if end == name
        ]

    def send(self, end: str, frame: Frame) -> dict[str, int]:
        """End -> copies that arrived there. Raises Loop where the frame does not stop."""
        return dict(Counter(end for end, _ in self.deliver(end, frame)))

    def deliver(self, end: str, frame: Frame) -> list[tuple[str, Frame]]:
        """(end, the frame as it arrived there). Raises Loop where the frame does not stop."""
        got: list[tuple[str, Frame]] = []
        switch = self._neighbours(end)[0]
        queue = deque([(switch, end, frame)])
        for _ in range(LIMIT):
            if not queue:
                return got
            at, came_from, now = queue.popleft()
            for towards, leaves in self._forward(at, came_from, now):
                name = split_end(towards)[0]
                if isinstance(self.topology.nodes[name], Bridge | LinuxBridge):
                    queue.append((towards, at, leaves))
                else:
                    got.append((towards, leaves))
        raise Loop(f"{frame} from {end} does not stop in {self.topology.name}")

    def _forward(self, at: str, came_from: str, frame: Frame) -> list[tuple[str, Frame]]:
        if at in self.linux:
            return [(port, frame) for port in self.linux[at].receive(frame, came_from)]
        outputs = self.switches[at].receive(frame, self.port[at, came_from])
        return [(self.towards[at, number], leaves) for number, leaves in outputs]
