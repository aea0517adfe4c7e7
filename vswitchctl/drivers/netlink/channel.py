"""One netlink socket in one network namespace: many requests in one write, acknowledgements read after it."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from struct import pack_into

from pyroute2.netlink import NLM_F_DUMP_INTR, rtnl

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.message import NLMSG_DONE, NLMSG_ERROR, dump
from vswitchctl.drivers.netlink.parse import messages, parse_error
from vswitchctl.errors import ApplyError

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
"""netlink(7)."""

BATCH = 32768
"""Bytes of requests per write: less than the send buffer the kernel gives (net.core.wmem_default)."""

BUFFER = 32 << 20
"""Bytes of receive buffer: every acknowledgement of a batch, or a burst of events, waits there. A limit only:
what does not wait takes nothing."""

RECEIVE = 65536

TIMEOUT = 10.0
"""Seconds until a kernel that does not answer is an error."""

ROOT_EVENTS = rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_IFADDR | rtnl.RTMGRP_IPV6_IFADDR
EVENTS = ROOT_EVENTS | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE


def _socket(groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE, asm-generic/socket.h
    made.bind((0, groups))
    return made


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that may change its namespace, as it ends afterwards. Raises what it raised."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed on to the caller below
            raised.append(error)

    thread = threading.Thread(target=guarded, name="namespaces")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def within(namespace: str, do: Callable[[], None]) -> None:
    """Run something in a named namespace, in a thread of its own. Raises OSError."""
    descriptor = kernel.open_namespace(namespace)
    try:

        def inside() -> None:
            kernel.setns(descriptor)
            do()

        in_thread(inside)
    finally:
        os.close(descriptor)


class Channel:
    """Requests and events of the namespace that the calling thread is in. Not safe for several threads.

    nsid: the namespace's id in that of the driver, None where it has none. identity: what tells it from a
    later one of the same name.
    """

    nsid: int | None = None
    identity: tuple[int, int] = (0, 0)

    def __init__(self, groups: int) -> None:
        self.events = _socket(groups)
        self.events.setblocking(False)
        self._requests = _socket(0)
        self._requests.settimeout(TIMEOUT)
        self._requests.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._requests.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    @classmethod
    def inside(cls, descriptor: int) -> Channel:
        """In the namespace of a descriptor; call it `in_thread`. Raises OSError."""
        kernel.setns(descriptor)
        return cls(EVENTS)

    def close(self) -> None:
        self.events.close()
        self._requests.close()

    def fileno(self) -> int:
        """A socket of this namespace, for ioctls."""
        return self._requests.fileno()

    def index(self, device: str) -> int:
        """The device's ifindex. Raises OSError where there is none."""
        return kernel.interface_index(self.fileno(), device)

    def run(self, requests: Sequence[bytes]) -> list[OSError | None]:
        """Send all; the kernel's answer to each, in order. Raises ApplyError where it does not answer."""
        answers: list[OSError | None] = []
        at = 0
        while at < len(requests):
            size, stop = 0, at
            while stop < len(requests) and (stop == at or size + len(requests[stop]) <= BATCH):
                size += len(requests[stop]) + 3 & ~3
                stop += 1
            answers += self._batch(requests[at:stop])
            at = stop
        return answers

    def _batch(self, requests: Sequence[bytes]) -> list[OSError | None]:
        first = self._sequence + 1
        self._sequence += len(requests)
        self._send(requests, first)
        answers: dict[int, OSError | None] = {}
        while len(answers) < len(requests):
            for kind, flags, sequence, body in messages(self._receive()):
                if kind == NLMSG_ERROR and sequence >= first:
                    answers[sequence] = parse_error(flags, body)
        return [answers[sequence] for sequence in range(first, first + len(requests))]

    def ask(self, request: bytes) -> bytes:
        """Send one request; the body of the message it is answered with. Raises OSError where refused."""
        self._sequence += 1
        self._send([request], self._sequence)
        answer = b""
        while True:
            for kind, flags, sequence, body in messages(self._receive()):
                if sequence != self._sequence:
                    continue
                if kind != NLMSG_ERROR:
                    answer = body
                    continue
                error = parse_error(flags, body)
                if error is not None:
                    raise error
                return answer

    def dump(self, kind: int) -> list[bytes]:
        """The bodies of every link, address or route. Raises ApplyError."""
        while True:
            bodies, interrupted = self._dump(kind)
            if not interrupted:
                return bodies

    def _dump(self, kind: int) -> tuple[list[bytes], bool]:
        """(bodies, whether something changed meanwhile, so that some may be missing or there twice)."""
        self._sequence += 1
        self._send([dump(kind)], self._sequence)
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for answer, flags, sequence, body in messages(self._receive()):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if answer == NLMSG_DONE:
                    return bodies, interrupted
                error = parse_error(flags, body) if answer == NLMSG_ERROR else None
                if error is not None:
                    raise ApplyError(f"the kernel does not list its devices: {error.strerror}")
                bodies.append(body)

    def _send(self, requests: Sequence[bytes], sequence: int) -> None:
        buffer = bytearray()
        for request in requests:
            at = len(buffer)
            buffer += request + bytes(-len(request) % 4)
            pack_into("=I", buffer, at + 8, sequence)
            sequence += 1
        self._requests.send(buffer)

    def _receive(self) -> bytes:
        try:
            return self._requests.recv(RECEIVE)
        except TimeoutError as error:
            raise ApplyError(f"the kernel did not answer a netlink request within {TIMEOUT:.0f} s") from error
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            raise ApplyError("the kernel's answers to netlink requests did not fit the buffer") from error

    def drain(self, look: Callable[[int, bytes], None]) -> bool:
        """Take all waiting events, and look at each (type, body); whether the kernel had to drop some."""
        dropped = False
        while True:
            try:
                data = self.events.recv(RECEIVE)
            except BlockingIOError:
                return dropped
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                dropped = True
                continue
            for kind, _, _, body in messages(data):
                look(kind, body)
