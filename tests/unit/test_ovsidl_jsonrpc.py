"""Messages of a stream, however its reads cut them: on a real socket pair."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ovs.jsonrpc import EOF, Message
from ovs.stream import Stream

from vswitchctl.ovsidl.jsonrpc import Connection

NOTE = {"method": "update", "params": ['büro } { " \\ \U0001f310', {"a": [1, None, True]}], "id": None}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    """(the server's end, our connection)."""
    server, client = socket.socketpair()
    client.setblocking(False)
    with server, client:
        yield server, Connection(Stream(client, "unix:test", 0))


def raw(value: Any) -> bytes:
    """As ovsdb-server writes it: UTF-8 as it is, no separator after it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def received(connection: Connection) -> Any:
    error, message = connection.recv()
    assert (error, message is None) in ((0, False), (errno.EAGAIN, True))
    return message


def test_every_cut_of_a_message(pair: tuple[socket.socket, Connection]) -> None:
    server, connection = pair
    data = raw(NOTE)
    for cut in range(1, len(data)):
        server.sendall(data[:cut])
        assert received(connection) is None
        server.sendall(data[cut:])
        message = received(connection)
        assert message.type == Message.T_NOTIFY
        assert message.params == NOTE["params"]


def test_byte_by_byte(pair: tuple[socket.socket, Connection]) -> None:
    server, connection = pair
    messages = []
    for byte in raw(NOTE) * 2:
        server.sendall(bytes([byte]))
        messages.append(received(connection))
    assert [message.params for message in messages if message is not None] == [NOTE["params"]] * 2
    assert messages[-1] is not None


def test_several_messages_in_one_read_and_a_part_of_the_next(pair: tuple[socket.socket, Connection]) -> None:
    server, connection = pair
    server.sendall(raw(NOTE) * 3 + raw(NOTE)[:-1])
    server.sendall(b"}")
    assert [received(connection).params for _ in range(4)] == [NOTE["params"]] * 4
    assert received(connection) is None


@pytest.mark.parametrize("said", [b'{"method":}', b"{]}", b'{"strange":1}', b"[]}"])
def test_nonsense_ends_the_connection(said: bytes, pair: tuple[socket.socket, Connection]) -> None:
    server, connection = pair
    server.sendall(said)
    assert connection.recv() == (errno.EPROTO, None)


def test_what_is_not_utf8_ends_the_connection(pair: tuple[socket.socket, Connection]) -> None:
    server, connection = pair
    server.sendall(b'{"method":"\xff"}')
    assert connection.recv() == (errno.EILSEQ, None)


def test_the_end_of_the_stream(pair: tuple[socket.socket, Connection]) -> None:
    server, connection = pair
    server.sendall(raw(NOTE))
    server.close()
    assert received(connection).params == NOTE["params"]
    assert connection.recv() == (EOF, None)
