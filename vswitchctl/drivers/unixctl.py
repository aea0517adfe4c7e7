"""Commands to ovs-vswitchd on its control socket, as ovs-appctl(8) gives them, by ovs' own library."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import ovs.jsonrpc
import ovs.poller
import ovs.stream

from vswitchctl.errors import Unreachable, UserError
from vswitchctl.ovsidl.jsonrpc import Connection

ANSWER_SECONDS = 30.0
"""ovs-vswitchd answers between two turns of its main loop; a trace takes it some milliseconds."""

CONNECT_MS = 1000


class Unixctl:
    """One connection for each command: ovs-vswitchd may have been restarted since. Thread-safe."""

    def __init__(self, rundir: Path) -> None:
        self._rundir = rundir

    def __call__(self, command: str, *arguments: str) -> str:
        """What the command prints. Raises UserError where it is refused, Unreachable without an answer."""
        connection = self._connect()
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            request = ovs.jsonrpc.Message.create_request(command, list(arguments))
            error = connection.send(request)
            while not error:
                connection.run()
                error, message = connection.recv()
                if not error and message.id == request.id:
                    break
                if error in (0, errno.EAGAIN):
                    self._wait(connection, deadline)
                    error = 0
        finally:
            connection.close()
        if error:
            raise self._unreachable("ended the connection")
        if message.error is not None:
            raise UserError(f"ovs-vswitchd refuses {command}: {str(message.error).strip()}")
        return str(message.result)

    def _connect(self) -> Connection:
        try:
            pid = int((self._rundir / "ovs-vswitchd.pid").read_text())
        except (OSError, ValueError) as error:
            raise self._unreachable("does not run") from error
        path = self._rundir / f"ovs-vswitchd.{pid}.ctl"
        refused, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(f"unix:{path}"), CONNECT_MS)
        if refused:
            raise self._unreachable("takes no connection")
        return Connection(stream)

    def _wait(self, connection: Connection, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._unreachable(f"did not answer for {ANSWER_SECONDS:g} s")
        poller = ovs.poller.Poller()
        connection.wait(poller)
        connection.recv_wait(poller)
        poller.timer_wait(int(left * 1000) + 1)
        poller.block()

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(f"ovs-vswitchd of {self._rundir} {what}", "see that it runs, and its log")
