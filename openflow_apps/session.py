"""OpenFlow sessions with local bridges: os-ken keeps them, whoever listens gets the bytes.

os-ken does the handshake, features, echo and the rest of the protocol. Each wanted bridge is reached at its
management socket `<rundir>/<bridge>.mgmt`; a session lost is taken up again with back-off. Nothing listens on
TCP. Messages that the listener claims never become os-ken objects: that is what makes bulk work fast.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from struct import error as StructError
from typing import Any, Protocol

os.environ["OSKEN_HUB_TYPE"] = "native"  # before os-ken is imported: real threads, nothing monkey-patched

from os_ken.base.app_manager import AppManager, OSKenApp
from os_ken.controller.controller import Datapath
from os_ken.controller.handler import MAIN_DISPATCHER
from os_ken.controller.ofp_handler import OFPHandler
from os_ken.exception import OSKenException
from os_ken.ofproto import ofproto_parser, ofproto_v1_4, ofproto_v1_4_parser

LOG = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0
"""Seconds until the next attempt after a session ended; doubled each time until the longest."""

Send = Callable[[bytes | bytearray], bool]
"""Queues bytes of whole messages; blocks while the queue is full; False when the session is over."""


SEND_TIMEOUT = 30.0
"""Seconds that a switch may take to read one buffer (about 1 MB) before its session is given up."""

HOSTILE = (OSKenException, StructError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What os-ken's parsers and handlers raise on a peer that does not keep to the protocol: ends its session."""


class Listener(Protocol):
    """Who uses the sessions. All three are called from the session's thread and must not block for long."""

    def session_up(self, bridge: str, send: Send) -> None: ...

    def session_down(self, bridge: str) -> None: ...

    def message(self, bridge: str, kind: int, xid: int, data: bytes) -> bool:
        """A whole message of an established session. True claims it: os-ken then never parses it."""
        ...


class _UnixSocket:
    """A Unix socket as os-ken's Datapath expects one: it asks for TCP_NODELAY, which only TCP has."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def setsockopt(self, *_option: int) -> None:
        """Unix sockets delay nothing."""

    def close(self) -> None:
        """Shut down first, so that no other thread stays blocked on the socket."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class SwitchDatapath(Datapath):  # type: ignore[misc]
    """os-ken's datapath over a Unix socket, ending both of its threads when the switch goes."""

    def __init__(self, sock: socket.socket, bridge: str, listener: Listener) -> None:
        self.bridge = bridge
        self.listener = listener
        super().__init__(_UnixSocket(sock), bridge)
        sock.settimeout(SEND_TIMEOUT)

    def set_state(self, state: str) -> None:
        super().set_state(state)
        if state == MAIN_DISPATCHER:
            self.listener.session_up(self.bridge, self.send)

    def _recv_loop(self) -> None:
        try:
            super()._recv_loop()
        finally:
            self.close()
            self.send(b"", close_socket=True)  # wakes the send loop, which otherwise waits for ever


@ofproto_parser.register_msg_parser(ofproto_v1_4.OFP_VERSION)  # type: ignore[untyped-decorator]
def _parse(datapath: Any, version: int, kind: int, length: int, xid: int, buf: bytearray) -> Any:
    """In place of os-ken's own parser for OpenFlow 1.4: the listener may take the bytes as they are."""
    established = isinstance(datapath, SwitchDatapath) and datapath.state == MAIN_DISPATCHER
    if established and datapath.listener.message(datapath.bridge, kind, xid, bytes(buf[:length])):
        return None
    return ofproto_v1_4_parser.msg_parser(datapath, version, kind, length, xid, buf)


class SessionApp(OFPHandler):  # type: ignore[misc]
    """The os-ken app: its protocol handler, in OpenFlow 1.4 alone and without the TCP listeners."""

    OFP_VERSIONS = (ofproto_v1_4.OFP_VERSION,)

    def start(self) -> None:
        OSKenApp.start(self)


class _Apps:
    """os-ken has one set of apps per process: started for the first user, stopped after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def acquire(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                AppManager.get_instance().instantiate(SessionApp).start()

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                AppManager.get_instance().close()


_APPS = _Apps()


class _Session(threading.Thread):
    """One bridge's session: connect, serve until it ends, wait, again; until no longer wanted."""

    def __init__(self, path: Path, bridge: str, listener: Listener) -> None:
        super().__init__(name=f"openflow-{bridge}", daemon=True)
        self._path = path
        self._bridge = bridge
        self._listener = listener
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def run(self) -> None:
        delay = FIRST_DELAY
        while not self._ending.is_set():
            if self._serve():
                delay = FIRST_DELAY
            self._ending.wait(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    def stop(self) -> None:
        """End the session from any thread; `join` waits for it."""
        self._ending.set()
        with self._lock:
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> bool:
        """True when there was a session, which has ended."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(str(self._path))
            except OSError as error:
                LOG.debug("bridge '%s': no session at %s: %s", self._bridge, self._path, error)
                return False
            with self._lock:
                if self._ending.is_set():
                    return False
                self._socket = sock
            try:
                SwitchDatapath(sock, self._bridge, self._listener).serve()
            except HOSTILE as error:
                LOG.warning("bridge '%s': session ended: %s: %s", self._bridge, type(error).__name__, error)
            finally:
                with self._lock:
                    self._socket = None
                self._listener.session_down(self._bridge)
        return True


class Sessions:
    """Sessions with the wanted bridges below one Open vSwitch run directory."""

    def __init__(self, rundir: Path, listener: Listener) -> None:
        self._rundir = rundir
        self._listener = listener
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()
        _APPS.acquire()

    def want(self, bridges: Collection[str]) -> None:
        """Keep a session with each of these and with no other; returns at once."""
        with self._lock:
            dropped = [self._sessions.pop(name) for name in self._sessions.keys() - set(bridges)]
            for name in sorted(set(bridges) - self._sessions.keys()):
                self._sessions[name] = _Session(self._rundir / f"{name}.mgmt", name, self._listener)
                self._sessions[name].start()
        for session in dropped:
            session.stop()
        for session in dropped:
            session.join()

    def close(self) -> None:
        self.want(())
        _APPS.release()
