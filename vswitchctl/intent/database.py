"""The intent database: what topologies are to be, shared by every daemon that ovsdb-server serves it to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from vswitchctl.intent.commands import (
    DeleteTopologyCommand,
    ReportCommand,
    WritePolicyCommand,
    WriteTopologyCommand,
)
from vswitchctl.intent.connection import IntentBackend
from vswitchctl.intent.replica import Replica
from vswitchctl.model.intent import Intent, PolicyChange, Stored
from vswitchctl.model.topology import Topology
from vswitchctl.model.views import Status

TIMEOUT_SECONDS = 5.0
"""For one call, all its retries included; longer for a topology of thousands of entities."""


class IntentDatabase:
    """Topologies in an OVSDB database, replicated into memory. Safe to call from any thread.

    It connects in the background, and again when ovsdb-server comes back. While that is away, reading goes
    on from the replica; writing waits for it up to `timeout` seconds, then raises Unreachable.
    """

    def __init__(
        self,
        remote: str,
        *,
        on_change: Callable[[], None] | None = None,
        host: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """remote: as ovsdb(7), e.g. 'unix:/run/vswitchctl/intent.sock', or several with commas for a cluster.

        on_change: called after intent has changed, whoever changed it (status reports are no change), in the
        connection's thread: it must return at once and must not write here. host: who claims and reports.
        """
        self.host = host or socket.gethostname()
        self._backend = IntentBackend(remote, timeout, on_change)
        self._connection = self._backend.ovsdb_connection
        self._replica = Replica(self._connection.idl)

    @property
    def connected(self) -> bool:
        """Whether the replica is up to date and writing is possible now."""
        return bool(self._connection.is_running and self._connection.idl.in_step)

    def read(self) -> Intent:
        """Every topology, as of one moment; the same object until something changes.

        Raises Unreachable where the database was never seen, InvalidTopology where its rows make none.
        """
        with self._reading():
            return self._replica.intent()

    def write(
        self, topology: Topology, sources: Mapping[str, str], *, expected_generation: int | None = None
    ) -> Stored:
        """Store a topology in one transaction; what was there of it and is no more is deleted.

        The generation rises by one where the topology differs from the stored one. Sources ('networks/red' ->
        'file:line') and the order of names are stored without that. expected_generation: 0 for 'not stored'.
        Raises Conflict where another generation is stored or a device belongs to another topology,
        InvalidTopology where a text cannot be stored, Unreachable, ApplyError.
        """
        command = WriteTopologyCommand(
            self._backend, self._replica, self.host, topology, sources, expected_generation
        )
        stored: Stored = command.execute(check_error=True, log_errors=False)
        return stored

    def write_policy(
        self,
        topology: str,
        change: PolicyChange,
        check: Callable[[Stored], None],
        *,
        expected_generation: int | None = None,
    ) -> Stored:
        """Put one ACL or group of a stored topology in place, or remove it, at the cost of that alone.

        check: raises what speaks against the topology with the change; what it saw is what is stored, for
        a client that was faster makes it be asked again. Counts generations as `write` does.
        Raises what `check` raises, NotFound, Conflict where another generation is stored, InvalidTopology,
        Unreachable, ApplyError.
        """
        command = WritePolicyCommand(
            self._backend, self._replica, topology, change, check, expected_generation
        )
        stored: Stored = command.execute(check_error=True, log_errors=False)
        return stored

    def delete(self, name: str) -> None:
        """Delete a topology and everything it holds. Raises NotFound, Unreachable, ApplyError."""
        with self._reading():
            part = self._replica.part(name)
            count = 0 if part is None else sum(1 for _ in part.walk())
        DeleteTopologyCommand(self._backend, self._replica, name, count).execute(
            check_error=True, log_errors=False
        )

    def report(self, topology: str, generation: int, status: str, reason: str) -> None:
        """Say what became of a topology on this host; nothing is written where it was said already.

        status: a `model.views.Status`. Of a topology that is gone nothing is written.
        Raises Unreachable, ApplyError.
        """
        said = (generation, Status(status).value, reason)
        if self.applied().get(topology) == said:
            return
        columns = dict(zip(("generation", "status", "reason"), said, strict=True))
        ReportCommand(self._backend, self._replica, self.host, topology, columns).execute(
            check_error=True, log_errors=False
        )

    def applied(self) -> Mapping[str, tuple[int, str, str]]:
        """Topology -> (generation, status, reason) as this host reported last. Raises Unreachable."""
        with self._reading():
            rows = self._replica.applied(self.host)
            return {name: (row.generation, row.status, row.reason) for name, row in rows.items()}

    def close(self) -> None:
        """Disconnect. Calls after this raise Unreachable."""
        self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._connection.lock:
            self._connection.wait_for_replica()
            yield
