"""The REST API over a MemoryService on a real unix socket, and documents to send to it."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from memory_service import MemoryService

from vswitchctl.api.app import create_app
from vswitchctl.api.server import ApiServer

DEADLINE = 30.0
"""Seconds after which a test that waits for an event fails."""


@dataclass(frozen=True)
class Served:
    service: MemoryService
    socket: Path
    http: httpx.Client


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name (unix(7): 108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="vsc-") as name:
        yield Path(name)


def http_client(socket: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(socket))
    return httpx.Client(transport=transport, base_url="http://test/api/v1", timeout=DEADLINE)


@contextlib.contextmanager
def running(server: ApiServer) -> Iterator[ApiServer]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(DEADLINE)
        yield server
    finally:
        server.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextlib.contextmanager
def served_api() -> Iterator[Served]:
    service = MemoryService()
    with short_directory() as directory:
        socket = directory / "api.sock"
        try:
            with running(ApiServer(create_app(service), socket)), http_client(socket) as http:
                yield Served(service, socket, http)
        finally:
            service.gate.set()


def topology(name: str = "pair", bridges: tuple[str, ...] = ("br-a",)) -> dict[str, Any]:
    """Two namespaces of one network, on the first bridge; further bridges in a row behind it."""
    return {
        "name": name,
        "tenants": {"red": {}},
        "networks": {"lan": {"tenant": "red", "subnets": ["10.1.0.0/24"]}},
        "nodes": {
            **{bridge: {"kind": "bridge"} for bridge in bridges},
            **{f"web{number}": namespace(f"10.1.0.{number}/24") for number in (1, 2)},
        },
        "links": [
            *({"ends": [f"web{number}:eth0", bridges[0]]} for number in (1, 2)),
            *({"ends": list(ends)} for ends in itertools.pairwise(bridges)),
        ],
    }


def namespace(ip: str) -> dict[str, Any]:
    return {"kind": "namespace", "tenant": "red", "interfaces": {"eth0": {"network": "lan", "ip": ip}}}


def document(**changed: Any) -> dict[str, Any]:
    """The body of plan and apply, with sources."""
    return {"topology": topology(**changed), "sources": {"nodes/web1": "pair.yaml:7"}}
