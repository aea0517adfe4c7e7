"""The API on a unix socket: mode 0600 from its first moment, and only for root and the daemon's own user."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import stat
import struct
import threading
from collections.abc import Callable, Generator, Iterator
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from vswitchctl.api.problems import MEDIA_TYPE
from vswitchctl.errors import Conflict, UserError
from vswitchctl.model.views import Problem
from vswitchctl.settings import SOCKET_PATH_MAX, answers

UCRED = struct.Struct("=iII")
"""struct ucred of unix(7): pid, uid, gid."""

GRACE_SECONDS = 2
"""How long open requests may run on after a stop; streams of operations would last for minutes."""

BACKLOG = 128

_log = logging.getLogger(__name__)


def bind_socket(path: Path) -> socket.socket:
    """A listening unix socket of mode 0600. A socket file that nobody answers on is replaced.

    Raises Conflict where a daemon answers there or the path is no socket, UserError where it cannot be made.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise UserError(
            f"{path}: a socket path has at most {SOCKET_PATH_MAX} bytes", "choose a shorter run_dir"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            _remove_stale(path)
            return _listen(path)
    except OSError as error:
        raise UserError(f"{path}: cannot make the API socket: {error.strerror}", "run it as root") from error


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Held from the probe to listen(), so that of two daemons started at once the second finds the first."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path} exists and is not a socket", "move it away, or choose another api_socket")
    if answers(path):
        raise Conflict(f"a daemon answers at {path} already", "stop it first: sudo vswitchctl down")
    path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux the file gets the descriptor's mode. umask(2) would change other threads' files too.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def peer_uid(connection: Any) -> int:
    """The user id of the process at the other end (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    uid: int = UCRED.unpack(credentials)[1]
    return uid


class PeerCheckedProtocol(H11Protocol):
    """HTTP for root and the daemon's own user alone, whatever became of the socket's mode."""

    allowed: frozenset[int] = frozenset({0, os.geteuid()})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        uid = peer_uid(transport.get_extra_info("socket"))
        super().connection_made(transport)
        if uid not in self.allowed:
            _log.warning("refused user id %d on the API socket", uid)
            transport.write(_forbidden(uid))
            transport.close()


def _forbidden(uid: int) -> bytes:
    body = Problem(
        title=HTTPStatus.FORBIDDEN.phrase,
        status=HTTPStatus.FORBIDDEN,
        detail=f"user id {uid} may not use this API",
        remedy="use sudo",
    ).model_dump_json()
    head = f"HTTP/1.1 403 Forbidden\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body.encode())}"
    return f"{head}\r\nconnection: close\r\n\r\n{body}".encode()


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Signals are the daemon's business: uvicorn would raise them again after its own end.
        yield


class ApiServer:
    """The API on one socket. `run()` blocks until `stop()`, which any thread or signal handler may call."""

    def __init__(self, app: FastAPI, socket_path: Path, *, ready: Callable[[], None] | None = None) -> None:
        """Bind at once, before anything else starts. Raises Conflict where the path is taken, UserError."""
        self.path = socket_path
        self._socket = bind_socket(socket_path)
        self._identity = _identity(socket_path)
        self.ready = threading.Event()
        self._tell_ready = ready
        config = uvicorn.Config(
            app,
            http=PeerCheckedProtocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = _Uvicorn(config, self._on_ready)

    def run(self) -> None:
        """Serve until stop(); then remove the socket file."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def _on_ready(self) -> None:
        self.ready.set()
        if self._tell_ready is not None:
            self._tell_ready()

    def stop(self) -> None:
        self._server.should_exit = True

    def close(self) -> None:
        """Close the listener and remove its file, where it is still this one."""
        self._socket.close()
        with _locked(self.path.parent):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def serve(app: FastAPI, socket_path: Path, *, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, from the main thread; returns normally. Raises Conflict, UserError.

    ready: called once, when requests are answered.
    """
    server = ApiServer(app, socket_path, ready=ready)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
