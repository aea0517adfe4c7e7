"""What `ofproto/trace` prints, parsed: ovs-vswitchd(8), as Open vSwitch 3.1 has it. Pure.

It is read line by line. A line that means nothing here is passed over, so that other versions may say more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

_RULE = re.compile(r"^( *)(\d+)\. (?:(No match)\.|(?:(.*), )?priority (\d+)(?:, cookie (0x[0-9a-f]+))?)")
_BRIDGE = re.compile(r'^( *)bridge\("([^"]+)"\)$')
_OUTPUT = re.compile(r"(?:-> output port is |output:)(\d+)$")
_TAG = re.compile(r"set_field:(\d+)(?:/\w+)?->vlan_vid$")
_FORK = re.compile(r"forked pipeline will be resumed at table (\d+)")
_SECTION = re.compile(r"\n={20,}\n([^\n]*)\n={20,}\n")
_COMMIT = re.compile(r"ct\(commit(?:,force)?,zone=(\d+)")
_FIELD = re.compile(r"(?:NXM_NX|NXM_OF|OXM_OF)_(\w+)")


class Step(NamedTuple):
    """A flow that was met. priority: None where none matched. actions: in the order they were carried out."""

    bridge: str
    table: int
    match: str
    priority: int | None
    cookie: int
    actions: tuple[str, ...]


class Output(NamedTuple):
    """A copy that leaves the bridge, with a VLAN tag or without. step: the flow that sent it, from 0."""

    bridge: str
    port: int
    vid: int | None
    step: int


class Fork(NamedTuple):
    """Where the packet goes on after conntrack: on which bridge, in which table, and as what flow."""

    bridge: str
    table: int
    flow: str
    step: int


@dataclass(frozen=True, slots=True)
class Traced:
    """One way through, up to conntrack. final: the packet afterwards. commits: zones that remember it."""

    flow: str
    final: str
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    forks: tuple[Fork, ...]
    commits: frozenset[int]


@dataclass
class _Level:
    """A bridge that the packet is on. Patch ports lead from within one to another.

    step: the last flow met. bodies: how far the actions of a flow are indented -> that flow.
    """

    bridge: str
    indent: int
    vid: int | None
    step: int = -1
    fresh: bool = False
    bodies: dict[int, int] = field(default_factory=dict)


@dataclass
class _Reader:
    in_port: int
    steps: list[Step] = field(default_factory=list)
    actions: list[list[str]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    forks: list[tuple[str, int, int]] = field(default_factory=list)
    levels: list[_Level] = field(default_factory=list)

    def line(self, line: str) -> None:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if bridge := _BRIDGE.match(line):
            self._enter(len(bridge[1]), bridge[2])
        elif self.levels and text.strip("-"):
            self._leave(indent)
            if rule := _RULE.match(line):
                self._rule(rule)
            elif text.startswith(">>"):
                if "skipping output" in text and self.outputs:
                    self.outputs.pop()
            else:
                self._action(text, indent)

    def _leave(self, indent: int) -> None:
        """What is indented no more than a bridge's title is of the bridge around it."""
        while len(self.levels) > 1 and indent <= self.levels[-1].indent:
            self.levels.pop()

    def _enter(self, indent: int, bridge: str) -> None:
        self._leave(indent)
        self.levels.append(_Level(bridge, indent, self.levels[-1].vid if self.levels else None))

    def _rule(self, found: re.Match[str]) -> None:
        level = self.levels[-1]
        level.step, level.fresh = len(self.steps), True
        missed = found[3] is not None
        self.steps.append(
            Step(
                level.bridge,
                int(found[2]),
                found[4] or "",
                None if missed else int(found[5]),
                int(found[6] or "0", 16),
                (),
            )
        )
        self.actions.append([])

    def _action(self, text: str, indent: int) -> None:
        level = self.levels[-1]
        if level.fresh:
            level.bodies[indent], level.fresh = level.step, False
        of = level.bodies.get(indent, level.bodies.get(indent - 1, level.step))
        if fork := _FORK.search(text):
            self.forks.append((level.bridge, int(fork[1]), of))
        if output := _OUTPUT.search(text):
            self.outputs.append(Output(level.bridge, int(output[1]), level.vid, of))
        elif text.upper() == "IN_PORT":
            self.outputs.append(Output(level.bridge, self.in_port, level.vid, of))
        if tag := _TAG.match(text):
            level.vid = int(tag[1]) & 0xFFF
        elif text == "pop_vlan":
            level.vid = None
        done = self.actions[of] if of >= 0 else []
        # Open vSwitch says `drop` of every action that compiles to nothing of its own, as ct does.
        if not text.startswith("->") and not (text == "drop" and done and done[-1].startswith("ct(")):
            done.append(_FIELD.sub(lambda name: name[1].lower(), text))


def parse_trace(text: str) -> Traced:
    """The first way of a trace. Those after conntrack are known by what they start from, and no more.

    Raises ValueError where the text is no trace.
    """
    first, *rest = _SECTION.split(f"\n{text}")
    flow = _after("Flow: ", first)
    if flow is None:
        raise ValueError(f"no trace: {text[:200]!r}")
    port = re.search(r"in_port=(\d+)", flow)
    reader = _Reader(int(port[1]) if port else 0)
    for line in first.split("\nFinal flow:")[0].split("\n"):
        reader.line(line)
    final = _after("Final flow: ", first) or "unchanged"
    # Open vSwitch follows forks in the order in which they were made, so ours are the first.
    ways = [
        _after("Flow: ", way) or flow
        for head, way in zip(rest[::2], rest[1::2], strict=False)
        if "recirc" in head
    ]
    forks = [
        Fork(bridge, table, way, step) for (bridge, table, step), way in zip(reader.forks, ways, strict=False)
    ]
    steps = [
        step._replace(actions=tuple(done)) for step, done in zip(reader.steps, reader.actions, strict=True)
    ]
    return Traced(
        flow,
        flow if final == "unchanged" else final,
        tuple(steps),
        tuple(reader.outputs),
        tuple(forks),
        frozenset(map(int, _COMMIT.findall(_after("Datapath actions: ", first) or ""))),
    )


def _after(word: str, text: str) -> str | None:
    found = re.search(rf"^{word}(.*)$", text, re.MULTILINE)
    return found[1] if found else None


_IDLE = frozenset({"eth", "recirc_id", "in_port", "vlan_tci", "dl_vlan", "dl_vlan_pcp", "vlan_tci1"})


def headers(flow: str, *, registers: bool = False) -> dict[str, str]:
    """Of a flow as a trace prints it: its fields in a form that a trace takes; '' for a protocol's word.

    Without what belongs to one bridge: port, tag, conntrack and, but for where they are wanted, registers.
    """
    words = dict(word.partition("=")[::2] for word in flow.split(","))
    six = "icmp6" in words
    ports = next((kind for kind in ("tcp", "udp", "sctp") if kind in words or f"{kind}6" in words), None)
    found = {}
    for name, value in words.items():
        if (
            name in _IDLE
            or name.startswith("ct_")
            or (name.startswith(("reg", "xreg", "metadata")) and not registers)
        ):
            continue
        if six and name in ("icmp_type", "icmp_code"):
            name = name.replace("icmp", "icmpv6")  # noqa: PLW2901  # printed as of ICMP, and refused so
        elif ports and name in ("tp_src", "tp_dst"):
            name = name.replace("tp", ports)  # noqa: PLW2901
        found[name] = value
    return found


def flow_text(fields: dict[str, str]) -> str:
    """Protocols' words first, for fields need them before."""
    words = sorted(fields.items(), key=lambda item: bool(item[1]))
    return ",".join(f"{name}={value}" if value else name for name, value in words)
