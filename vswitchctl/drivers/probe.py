"""Real packets between all endpoints of an applied topology, to see who reaches whom.

Every endpoint gets sockets inside its own network namespace, bound to its own device: one UDP socket for
each IP version, which asks everybody and answers with its endpoint's name, and one for plain Ethernet frames,
which may arrive where no address leads. A socket stays in the namespace it was opened in, so one loop serves
them all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vswitchctl.errors import RetryableError, UserError
from vswitchctl.model.topology import Namespace, Topology
from vswitchctl.topology.reachability import (
    Family,
    Matrix,
    Observations,
    Pair,
    difference,
    expected_pairs,
    first_addresses,
    ip_targets,
    judge,
)

NETNS_DIR = Path("/run/netns")
"""Where named network namespaces are: ip-netns(8)."""

QUIET = 1.0
"""Seconds to wait for a packet that should not come; on one host one takes less than a millisecond."""
PATIENCE = 6.0
"""Seconds to wait for packets that should come: IPv6 addresses take up to 2 s to become usable (RFC 4862)."""
RETRY = 0.2
"""Seconds between two rounds of questions."""

PORTS = range(49152, 65536)
"""Dynamic ports, RFC 6335 section 6."""
ETHERTYPE = 0x88B5
"""IEEE 802 local experimental ethertype 1 (IEEE 802, table 12-3)."""
MIN_FRAME = 60
"""Octets of the shortest Ethernet frame, without its check sequence (IEEE 802.3 3.2.8)."""
BROADCAST = b"\xff" * 6
BUFFER = 1 << 20

Address = tuple[Any, ...]
"""A socket address as the socket module gives it; its shape depends on the family."""

_HEADER = struct.Struct("!4s8scI")
"""Magic, the run's nonce, kind, number of the question; an endpoint's name follows."""
_MAGIC = b"vswp"
_ASK, _ANSWER, _FRAME = b"?", b"!", b"#"

_NOT_NOW = {
    errno.EAGAIN,
    errno.ENOBUFS,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EADDRNOTAVAIL,
    errno.ENETDOWN,
    errno.ECONNREFUSED,
    errno.EPERM,
}
"""What the kernel says where no packet can leave, or not yet: another round, or the pair is not reached."""

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_LIBC = ctypes.CDLL(None, use_errno=True)


def probe(
    topology: Topology,
    expected: frozenset[Pair] | None = None,
    *,
    quiet: float = QUIET,
    patience: float = PATIENCE,
) -> Matrix:
    """Ask all pairs at once. Takes `quiet` seconds where all that is expected answers, else `patience`.

    expected: what to be patient for; as `expected_pairs` says where None. The topology must be applied.
    Raises UserError where an endpoint's namespace or device is not there, or the caller is not root.
    """
    expected = expected_pairs(topology) if expected is None else expected
    with ExitStack() as stack:
        exchange = _Exchange(topology, *_open_all(topology, stack), stack)
        start = time.monotonic()
        while True:
            exchange.round(RETRY)
            elapsed = time.monotonic() - start
            matrix = judge(topology, exchange.seen())
            missing = difference(matrix, expected).missing
            if elapsed >= (patience if missing else quiet):
                return matrix


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An endpoint's sockets, bound to its device inside its namespace."""

    name: str
    mac: bytes
    udp: dict[Family, socket.socket]
    frames: socket.socket


def _open_all(topology: Topology, stack: ExitStack) -> tuple[list[_Endpoint], int]:
    """Sockets for every endpoint, and the UDP port that is free for all of them. Closed with the stack."""
    for port in secrets.SystemRandom().sample(PORTS, 5):
        with ExitStack() as attempt, ThreadPoolExecutor(1) as thread:
            try:
                # A network namespace belongs to a thread, and this one ends here.
                endpoints = thread.submit(_open_on, topology, port, attempt).result()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            stack.push(attempt.pop_all())
            return endpoints, port
    raise RetryableError("none of five random UDP ports was free in every namespace", "try again")


def _open_on(topology: Topology, port: int, stack: ExitStack) -> list[_Endpoint]:
    found = []
    for name, node in topology.nodes.items():
        if isinstance(node, Namespace) and node.interfaces:
            _enter(name)
            found += [
                _open(f"{name}:{device}", device, first_addresses(interface), port, stack)
                for device, interface in node.interfaces.items()
            ]
    return found


def _enter(namespace: str) -> None:
    """Move this thread into a named network namespace: setns(2), which Python has only from 3.12 on."""
    try:
        handle = os.open(NETNS_DIR / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(
            f"the namespace '{namespace}' is not on this host",
            "apply the topology first: vswitchctl apply FILE",
        ) from None
    try:
        if _LIBC.setns(handle, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            if code == errno.EPERM:
                raise UserError(f"only root may enter the namespace '{namespace}'", "try it with sudo")
            raise OSError(code, os.strerror(code), namespace)
    finally:
        os.close(handle)


def _open(name: str, device: str, families: Iterable[Family], port: int, stack: ExitStack) -> _Endpoint:
    """Raises UserError where the device is not there, OSError EADDRINUSE where the port is taken."""
    # Protocol 0 hears nothing; bind() then names device and ethertype at once, so no other device slips in.
    frames = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    udp: dict[Family, socket.socket] = {}
    try:
        frames.bind((device, ETHERTYPE))
        for family in families:
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            sock = udp[family] = stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
            if family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # What comes in by another device of the namespace is not for this endpoint, whatever its address.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
            sock.bind(("", port))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        raise UserError(f"the device of '{name}' is not on this host", "vswitchctl show says why") from None
    for sock in (frames, *udp.values()):
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return _Endpoint(name, frames.getsockname()[4], udp, frames)


class _Exchange:
    """Questions, answers and frames of one run; every packet of it carries the run's nonce."""

    def __init__(self, topology: Topology, endpoints: list[_Endpoint], port: int, stack: ExitStack) -> None:
        self._nonce = secrets.token_bytes(8)
        self._port = port
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._questions: list[tuple[str, Family, str]] = [
            (end, family, address)
            for (end, family), addresses in ip_targets(topology).items()
            if end in self._endpoints  # nobody asks for us inside a guest
            for address in sorted(addresses)
        ]
        self._open_questions = set(range(len(self._questions)))
        self._macs = {BROADCAST, *(endpoint.mac for endpoint in endpoints)}
        self._answered: set[tuple[str, str, Family]] = set()
        self._heard: set[Pair] = set()
        self._selector = stack.enter_context(selectors.DefaultSelector())
        for endpoint in endpoints:
            self._selector.register(endpoint.frames, selectors.EVENT_READ, (self._hear, endpoint, 0))
            for family, sock in endpoint.udp.items():
                self._selector.register(sock, selectors.EVENT_READ, (self._converse, endpoint, family))

    def seen(self) -> Observations:
        return Observations(frozenset(self._answered), frozenset(self._heard))

    def round(self, seconds: float) -> None:
        """Ask what is not answered yet, send every frame, then serve what comes in for `seconds`."""
        for number in sorted(self._open_questions):
            end, family, address = self._questions[number]
            self._send(self._endpoints[end], family, _ASK, number, (address, self._port))
        for endpoint in self._endpoints.values():
            self._send_frames(endpoint)
        end_of_round = time.monotonic() + seconds
        while (left := end_of_round - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                receive, endpoint, family = key.data
                for data, peer in _received(cast(socket.socket, key.fileobj)):
                    receive(endpoint, family, data, peer)

    def _send(self, endpoint: _Endpoint, family: Family, kind: bytes, number: int, to: Address) -> None:
        packet = _HEADER.pack(_MAGIC, self._nonce, kind, number) + endpoint.name.encode()
        with _unless_not_now():
            endpoint.udp[family].sendto(packet, to)

    def _send_frames(self, endpoint: _Endpoint) -> None:
        packet = _HEADER.pack(_MAGIC, self._nonce, _FRAME, 0) + endpoint.name.encode() + b"\0"
        for mac in self._macs - {endpoint.mac}:
            frame = mac + endpoint.mac + ETHERTYPE.to_bytes(2, "big") + packet
            with _unless_not_now():
                endpoint.frames.send(frame.ljust(MIN_FRAME, b"\0"))

    def _converse(self, endpoint: _Endpoint, family: Family, data: bytes, peer: Address) -> None:
        """Answer a question, or note an answer."""
        if (packet := self._parse(data)) is None:
            return
        kind, number, name = packet
        if kind == _ASK:
            self._send(endpoint, family, _ANSWER, number, peer)
        elif kind == _ANSWER:
            self._answered.add((endpoint.name, name, family))
            self._open_questions.discard(number)

    def _hear(self, endpoint: _Endpoint, _family: int, data: bytes, _peer: Address) -> None:
        packet = self._parse(data[14:])
        if packet is not None and packet[2] != endpoint.name:
            self._heard.add((packet[2], endpoint.name))

    def _parse(self, data: bytes) -> tuple[bytes, int, str] | None:
        """(kind, number, name) of a packet of this run, else None."""
        if len(data) < _HEADER.size:
            return None
        magic, nonce, kind, number = _HEADER.unpack_from(data)
        if magic != _MAGIC or nonce != self._nonce:
            return None
        return kind, number, data[_HEADER.size :].split(b"\0")[0].decode()


def _received(sock: socket.socket) -> Iterator[tuple[bytes, Address]]:
    """Everything that waits in the socket."""
    while True:
        try:
            yield sock.recvfrom(2048)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return


@contextmanager
def _unless_not_now() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_NOW:
            raise
