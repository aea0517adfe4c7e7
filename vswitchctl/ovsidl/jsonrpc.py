"""JSON-RPC for ovs' Idl with the standard library's JSON parser.

ovs' own is a character loop in Python where its C extension is not built: a topology of 1,000 interfaces is a
megabyte of rows, 0.7 s there and 0.02 s here. It also loses a multi-byte character that two reads split.
"""

from __future__ import annotations

import codecs
import errno
import json
from collections import deque
from typing import Any

from ovs import jsonrpc

READ_BYTES = 1 << 18
"""At most this much in one read: about what a Unix socket buffers (net.core.wmem_default)."""


class Connection(jsonrpc.Connection):  # type: ignore[misc]
    """One stream of messages. Messages follow each other without a separator (RFC 7047 section 4)."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._bytes_to_text = codecs.getincrementaldecoder("utf-8")()
        self._pieces: list[str] = []
        self._whole: deque[jsonrpc.Message] = deque()

    def recv(self) -> tuple[int, Any]:
        """(0, message), or (errno, None): EAGAIN where no message is whole yet."""
        while not self._whole and not self.status:
            error, data = self.stream.recv(READ_BYTES)
            if error == errno.EAGAIN:
                return error, None
            if error or not data:
                self.error(error or jsonrpc.EOF)
            else:
                self.received_bytes += len(data)
                self._take(data)
        return (0, self._whole.popleft()) if self._whole else (self.status, None)

    def recv_wait(self, poller: Any) -> None:
        if self.status or self._whole:
            poller.immediate_wake()
        else:
            self.stream.recv_wait(poller)

    def _take(self, data: bytes) -> None:
        """Add bytes; only where they end like a message can the last one be whole, so only then look."""
        try:
            self._pieces.append(self._bytes_to_text.decode(data))
        except UnicodeDecodeError:
            self.error(errno.EILSEQ)
            return
        if not data.endswith(b"}"):
            return
        text = "".join(self._pieces)
        start = 0
        try:
            while start < len(text):
                value, start = _DECODER.raw_decode(text, start)
                self._whole.append(_message(value))
        except json.JSONDecodeError as error:
            if error.pos < len(text) and not error.msg.startswith("Unterminated string"):
                self.error(errno.EPROTO)
        except ValueError:
            self.error(errno.EPROTO)
        self._pieces = [text[start:]]


_DECODER = json.JSONDecoder()


def _message(value: Any) -> Any:
    """Raises ValueError where it is no JSON-RPC message (then ovs gives a text that says why)."""
    message = jsonrpc.Message.from_json(value)
    if not isinstance(message, jsonrpc.Message):
        raise ValueError(message)
    return message


class Session(jsonrpc.Session):  # type: ignore[misc]
    """ovs' reconnecting session on our connections."""

    rpc: Any

    def run(self) -> None:
        super().run()
        if self.rpc is not None and not isinstance(self.rpc, Connection):
            self.rpc = Connection(self.rpc.stream)  # made within run() and not used yet


def adopt(session: jsonrpc.Session) -> Session:
    """Our session in place of an ovs one that has not been run yet."""
    adopted = Session(session.reconnect, None, session.remotes)
    adopted.pick_remote()
    return adopted
