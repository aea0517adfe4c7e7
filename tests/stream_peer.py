"""One end of a stream: a UDP packet a millisecond over IPv4 and IPv6, numbered, and a count of what comes in.

Runs inside a namespace: stream_peer.py PORT OWN4 PEER4 OWN6 PEER6. On standard input: 'stop' ends the sending
and is answered by the numbers sent; 'count N4 N6' takes in what is still on its way, up to the numbers that
the other end sent, and is answered by what became of them.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections import Counter

PERIOD = 1_000_000
"""Nanoseconds between two packets of a family."""

BEHIND = 20 * PERIOD
"""One that was not scheduled for longer than this leaves packets out: a burst would be another test."""

BUFFER = 1 << 25
"""Octets: 30 s of packets, so that a receiver that is not scheduled loses none."""

SILENCE = 3.0
"""Seconds without a packet after which those that are missing are lost."""

SO_RCVBUFFORCE = 33
"""asm-generic/socket.h."""


class Family:
    """One of the two: its socket, the numbers sent, and those seen."""

    def __init__(self, own: str, peer: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self.socket.bind((own, port))
        self.socket.connect((peer, port))
        self.socket.setblocking(False)
        self.sent = 0
        self.refused = 0
        self.seen: Counter[int] = Counter()
        self.last = 0
        self.gap = 0

    def send(self) -> None:
        try:
            self.socket.send(struct.pack("!Q", self.sent) + bytes(24))
            self.sent += 1
        except OSError:
            self.refused += 1

    def take(self) -> None:
        while True:
            try:
                (number,) = struct.unpack_from("!Q", self.socket.recv(64))
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # the other end was not there yet
            now = time.monotonic_ns()
            if self.last:
                self.gap = max(self.gap, now - self.last)
            self.last = now
            self.seen[number] += 1

    def result(self, sent: int) -> dict[str, object]:
        missing = [number for number in range(self.first, sent) if number not in self.seen]
        return {
            "received": len(self.seen),
            "lost": len(missing),
            "missing": missing[:20],
            "duplicated": sum(self.seen.values()) - len(self.seen),
            "longest_gap_ms": round(self.gap / 1e6, 1),
        }

    @property
    def first(self) -> int:
        """Before the first packet arrived both ends were not there yet."""
        return min(self.seen, default=0)


def main() -> None:
    port = int(sys.argv[1])
    families = [Family(*sys.argv[2:4], port), Family(*sys.argv[4:6], port)]
    poll = select.poll()
    for waiting in (sys.stdin, *(family.socket for family in families)):
        poll.register(waiting, select.POLLIN)
    due = time.monotonic_ns()
    began = False
    while True:
        now = time.monotonic_ns()
        if now - due > BEHIND:
            due = now
        while due <= now:
            for family in families:
                family.send()
            due += PERIOD
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, (due - time.monotonic_ns()) / 1e6))}
        for family in families:
            family.take()
        if not began and all(len(family.seen) > 50 for family in families):
            began = True
            print("flowing", flush=True)
        if sys.stdin.fileno() in ready:
            sys.stdin.readline()
            break
    print(json.dumps([family.sent for family in families]), flush=True)
    poll.unregister(sys.stdin)
    numbers = [int(word) for word in sys.stdin.readline().split()[1:]]
    while any(sent - 1 not in family.seen for family, sent in zip(families, numbers, strict=True)):
        if not poll.poll(SILENCE * 1000):
            break
        for family in families:
            family.take()
    print(
        json.dumps([family.result(sent) for family, sent in zip(families, numbers, strict=True)]), flush=True
    )


main()
