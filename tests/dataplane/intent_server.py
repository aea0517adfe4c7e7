"""A private ovsdb-server with the intent database, in a file or as a cluster of one, that tests can end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instances import end_process, run, short_directory, wait_exit

from vswitchctl.intent.server import DATABASE, schema_path


class IntentServer:
    """`.remote` for clients; `.start()`, `.kill()`, `.freeze()`, `.thaw()`; `.transact()` is the witness."""

    def __init__(self, directory: Path, clustered: bool, schema: Path) -> None:
        self.directory = directory
        self.remote = f"unix:{directory}/db.sock"
        self._file = directory / "intent.db"
        self._pidfile = directory / "ovsdb-server.pid"
        self._env = os.environ | {"OVS_RUNDIR": str(directory), "OVS_LOGDIR": str(directory)}
        if clustered:
            # ovsdb-tool(1): the address is for other members of the cluster; this one never has any.
            run("ovsdb-tool", "create-cluster", str(self._file), str(schema), f"unix:{directory}/raft.sock")
        else:
            run("ovsdb-tool", "create", str(self._file), str(schema))

    @property
    def pid(self) -> int:
        return int(self._pidfile.read_text())

    def start(self) -> None:
        run(
            *("ovsdb-server", "--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off"),
            *(f"--remote=punix:{self.directory}/db.sock", str(self._file)),
            env=self._env,
        )

    def kill(self) -> None:
        """kill -9, as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        assert wait_exit(self.pid, 10)
        self._pidfile.unlink()  # the number may be another process's from now on

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        if self._pidfile.exists():
            self.thaw()
            end_process(self.pid, "ovsdb-server")

    def transact(self, *operations: dict[str, Any]) -> list[Any]:
        """The raw results of one transaction, by ovsdb-client."""
        request = json.dumps([DATABASE, *operations])
        answer = run("ovsdb-client", "--timeout=30", "transact", self.remote, request, env=self._env)
        results: list[Any] = json.loads(answer)
        return results

    def rows(self, table: str) -> list[dict[str, Any]]:
        (selected,) = self.transact({"op": "select", "table": table, "where": []})
        found: list[dict[str, Any]] = selected["rows"]
        return found

    def versions(self, *tables: str) -> dict[tuple[str, str], str]:
        """(table, row's UUID) -> `_version`, which changes with every write to it (RFC 7047 section 3.2)."""
        return {(table, row["_uuid"][1]): row["_version"][1] for table in tables for row in self.rows(table)}


@contextlib.contextmanager
def intent_server(clustered: bool = False, schema: Path | None = None) -> Iterator[IntentServer]:
    with short_directory() as directory:
        server = IntentServer(directory, clustered, schema or schema_path())
        try:
            server.start()
            yield server
        finally:
            server.end()
