"""One netlink socket in one network namespace: many requests in one write, acknowledgements read after it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from struct import pack_into

from pyroute2.netlink import rtnl

from vswitchctl.drivers.netlink import kernel
from vswitchctl.drivers.netlink.message import NLMSG_DONE, NLMSG_ERROR, dump, messages, parse_error
from vswitchctl.errors import ApplyError

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
"""netlink(7)."""

BATCH = 32768
"""Bytes of requests per write: less than the send buffer the kernel gives (net.core.wmem_default)."""

BUFFER = 4 << 20
"""Bytes of receive buffer: every acknowledgement of a batch, or a burst of events, waits there."""

RECEIVE = 65536

TIMEOUT = 10.0
"""Seconds until a kernel that does not answer is an error."""

EVENTS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_ROUTE
)


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


class Channel:
    """Requests and events of the namespace that the calling thread is in. Not safe for several threads."""

    def __init__(self, groups: int) -> None:
        self.events = _socket(groups)
        self.events.setblocking(False)
        self._requests = _socket(0)
        self._requests.settimeout(TIMEOUT)
        self._requests.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._requests.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    @classmethod
    def inside(cls, name: str) -> Channel:
        """In a named namespace; call it `in_thread`. Raises OSError."""
        descriptor = os.open(kernel.NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(descriptor)
        finally:
            os.close(descriptor)
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

    def dump(self, kind: int) -> list[bytes]:
        """The bodies of every link, address or route."""
        self._sequence += 1
        sequence = self._sequence
        self._send([dump(kind)], sequence)
        bodies: list[bytes] = []
        while True:
            for kind_, flags, number, body in messages(self._receive()):
                if number != sequence:
                    continue
                if kind_ == NLMSG_DONE:
                    return bodies
                error = parse_error(flags, body) if kind_ == NLMSG_ERROR else None
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

    def drain(self) -> bool:
        """Throw waiting events away; whether there were any (or so many that the kernel dropped some)."""
        found = False
        while True:
            try:
                self.events.recv(RECEIVE)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: events were lost, which only says once more that something changed
                found = True
                continue
            found = True
