"""The API's unix socket: who may use it, what stands in its place, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_service import MemoryService
from served_api import DEADLINE, document, http_client, running, served_api, short_directory

from vswitchctl.api.app import create_app
from vswitchctl.api.server import ApiServer, PeerCheckedProtocol, bind_socket
from vswitchctl.errors import Conflict, UserError
from vswitchctl.settings import SOCKET_PATH_MAX

SERVE = """
import sys
from pathlib import Path
from memory_service import MemoryService
from vswitchctl.api.app import create_app
from vswitchctl.api.server import serve

serve(create_app(MemoryService()), Path(sys.argv[1]), ready=lambda: print("ready", flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def path() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "run" / "api.sock"


def new_server(path: Path) -> ApiServer:
    return ApiServer(create_app(MemoryService()), path)


def test_the_socket_is_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        listener = bind_socket(path)
    finally:
        os.umask(before)
    with listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_socket_is_removed_at_the_end(path: Path) -> None:
    with running(new_server(path)):
        assert path.is_socket()
    assert list(path.parent.iterdir()) == []


def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    with running(new_server(path)), http_client(path) as http:
        assert http.get("/hosts").status_code == 200


def test_a_live_socket_is_left_alone(path: Path) -> None:
    with running(new_server(path)), http_client(path) as http:
        with pytest.raises(Conflict, match="a daemon answers at"):
            new_server(path)
        assert http.get("/hosts").status_code == 200


def test_of_two_daemons_started_at_once_one_binds(path: Path) -> None:
    path.parent.mkdir()
    outcomes: list[object] = []
    start = threading.Barrier(8)

    def bind() -> None:
        start.wait()
        try:
            outcomes.append(bind_socket(path))
        except Conflict as error:
            outcomes.append(error)

    threads = [threading.Thread(target=bind) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    bound = [outcome for outcome in outcomes if isinstance(outcome, socket.socket)]
    assert len(bound) == 1
    assert len(outcomes) == 8
    bound[0].close()


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(Conflict, match="is not a socket"):
        new_server(path)
    assert path.read_text() == "precious"


def test_the_end_leaves_a_successors_socket_alone(path: Path) -> None:
    first = new_server(path)
    path.unlink()
    with running(new_server(path)), http_client(path) as http:
        first.close()
        assert http.get("/hosts").status_code == 200


def test_a_path_too_long_for_a_socket_says_so(path: Path) -> None:
    with pytest.raises(UserError, match=f"at most {SOCKET_PATH_MAX} bytes"):
        bind_socket(path.parent / ("x" * SOCKET_PATH_MAX))


def test_another_user_is_refused_even_on_an_open_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeerCheckedProtocol, "allowed", frozenset({os.geteuid() + 1}))
    with running(new_server(path)), http_client(path) as http:
        answer = http.get("/hosts")
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert f"user id {os.geteuid()}" in answer.json()["detail"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_returns_on_a_signal(path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SERVE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=DEADLINE)
    assert (output, process.returncode) == ("ended\n", 0)
    assert not path.exists()


def test_an_open_stream_does_not_keep_the_daemon_from_stopping() -> None:
    with served_api() as api:
        api.service.gate.clear()
        operation = api.http.put("/topologies/pair", json=document()).json()
        stream = api.http.stream("GET", f"/operations/{operation['id']}/events")
        answer = stream.__enter__()
        lines = answer.iter_lines()
        next(lines)
    # served_api() has joined the server's thread: it did end.
    assert not api.socket.exists()
