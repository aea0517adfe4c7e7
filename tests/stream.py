"""Streams of numbered packets between two namespaces, while something happens to the switch between them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PEER = Path(__file__).with_name("stream_peer.py")


@dataclass(frozen=True)
class End:
    """A namespace and its two addresses."""

    namespace: str
    ip: str
    ip6: str


@dataclass
class Result:
    """What became of the packets, by 'from > to, family'."""

    flows: dict[str, dict[str, object]] = field(default_factory=dict)
    overflows: int = 0

    @property
    def lost(self) -> int:
        return sum(int(str(flow["lost"])) for flow in self.flows.values())

    @property
    def duplicated(self) -> int:
        return sum(int(str(flow["duplicated"])) for flow in self.flows.values())

    def __str__(self) -> str:
        lines = [
            f"{name}: {f['received']} received, {f['lost']} lost, {f['duplicated']} twice, "
            f"longest gap {f['longest_gap_ms']} ms, missing {f['missing']}"
            for name, f in self.flows.items()
        ]
        return "\n".join(
            [*lines, f"frames that a full socket in front of a switch dropped: {self.overflows}"]
        )


@contextlib.contextmanager
def streaming(a: End, b: End, port: int = 7000) -> Iterator[Result]:
    """Packets both ways meanwhile; afterwards the result holds what became of them."""
    result = Result()
    with contextlib.ExitStack() as processes:
        peers = [processes.enter_context(_peer(*ends, port)) for ends in ((a, b), (b, a))]
        assert [_line(peer) for peer in peers] == ["flowing", "flowing"]
        before = overflows()
        yield result
        sent = [json.loads(_tell(peer, "stop")) for peer in peers]
        for (name, peer), others in zip(
            ((f"{b.namespace} > {a.namespace}", peers[0]), (f"{a.namespace} > {b.namespace}", peers[1])),
            reversed(sent),
            strict=True,
        ):
            found = json.loads(_tell(peer, "count {} {}".format(*others)))
            for family, counted in zip(("IPv4", "IPv6"), found, strict=True):
                result.flows[f"{name}, {family}"] = counted
        result.overflows = overflows() - before


@contextlib.contextmanager
def _peer(own: End, other: End, port: int) -> Iterator[subprocess.Popen[str]]:
    argv = ["ip", "netns", "exec", own.namespace, sys.executable, str(PEER), str(port)]
    argv += [own.ip, other.ip, own.ip6, other.ip6]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(peer: subprocess.Popen[str]) -> str:
    assert peer.stdout is not None
    return peer.stdout.readline().strip()


def _tell(peer: subprocess.Popen[str], words: str) -> str:
    assert peer.stdin is not None
    peer.stdin.write(f"{words}\n")
    peer.stdin.flush()
    return _line(peer)


def overflows() -> int:
    """Frames dropped as the packet sockets here were full, which are those of Open vSwitch's ports.

    skmem's d, ss(8). A loss that shows here is of a switch that was not scheduled, not of its flows.
    """
    said = subprocess.run(["ss", "-0nm"], capture_output=True, text=True, check=True).stdout
    return sum(int(dropped) for dropped in re.findall(r"skmem:\(.*?,d(\d+)\)", said))
