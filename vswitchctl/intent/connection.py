"""The connection to the intent database: ovsdbapp's, but every wait is bounded and none holds the lock.

One thread per connection talks to ovsdb-server (RFC 7047) and keeps the replica. Other threads read the
replica under `lock`, and hand transactions over through ovsdbapp's queue. ovs' session reconnects by itself.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable
from threading import Condition, Thread
from typing import Any, ClassVar

from ovs.db import idl
from ovs.poller import POLLIN, Poller
from ovsdbapp import api, exceptions
from ovsdbapp.backend import ovs_idl
from ovsdbapp.backend.ovs_idl import connection, idlutils, transaction

from vswitchctl.errors import ApplyError, Conflict, InternalError, Unreachable, VswitchctlError
from vswitchctl.intent.server import DATABASE, schema_path
from vswitchctl.intent.tables import STATUS_COLUMNS, STATUS_TABLES, TOPOLOGY
from vswitchctl.ovsidl import adopt, use_poll

LOG = logging.getLogger(__name__)

BACKOFF_MS = (1000, 2000)
"""Between attempts to reconnect. The default goes up to 8 s; 1 s is the least (ovs/reconnect.py)."""

ATTEMPTS = 50
"""Of one write while others write too. In each round one of the contenders gets through."""

ENTITIES_PER_SECOND = 300
"""What a transaction stores or deletes at the least: so many give it a second more. It is usually 3,000."""

GRACE_SECONDS = 1.0
"""What the caller waits longer than the connection's thread, which knows better what went wrong."""

MAYBE_STORED = "; what was asked may have been stored or not"


class IntentIdl(connection.OvsdbIdl):  # type: ignore[misc]
    """The replica. `touched`: rows of intent that changed since the last `take_touched()`, by UUID, with the
    columns that did; None for a row that came or went.
    """

    _session: Any

    def __init__(self, remote: str) -> None:
        schema = idlutils.create_schema_helper(json.loads(schema_path().read_text(encoding="utf-8")))
        schema.register_all()
        super().__init__(remote, schema)
        self._session = adopt(self._session)
        self._session.reconnect.set_backoff(*BACKOFF_MS)
        self.touched: dict[Any, set[str] | None] = {}
        self.announced = True

    def cooperative_yield(self) -> None:
        """Nothing: ovsdbapp sleeps here for every row, which only green threads need."""

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Called for each changed row, in the connection's thread, with the lock held.

        updates: on a change, a row of the changed columns' old values.
        """
        if row._table.name in STATUS_TABLES or (updates is not None and set(updates._data) <= STATUS_COLUMNS):
            return
        columns = None if updates is None else set(updates._data)
        before = self.touched.get(row.uuid, columns)
        self.touched[row.uuid] = None if columns is None or before is None else columns | before
        self.announced = False

    def take_touched(self) -> dict[Any, set[str] | None]:
        """`touched`, emptied. The lock must be held."""
        touched, self.touched = self.touched, {}
        return touched

    def is_connected(self) -> bool:
        return bool(self._session.is_connected())

    @property
    def in_step(self) -> bool:
        """Connected, and the replica holds the whole database."""
        return bool(self.is_connected() and self.state == idl.Idl.IDL_S_MONITORING)


class IntentConnection(connection.Connection):  # type: ignore[misc]
    """Runs the replica's thread. on_change is called in it, without the lock, after intent has changed."""

    def __init__(self, remote: str, timeout: float, on_change: Callable[[], None] | None) -> None:
        use_poll()
        super().__init__(IntentIdl(remote), timeout)
        self.remote = remote
        self.updated = Condition(self.lock)
        self._on_change = on_change
        self._topologies: set[Any] = set()

    def start(self) -> None:
        """Start the thread; unlike ovsdbapp's it does not wait, for the server may well come later."""
        self.is_running = True
        self.thread = Thread(target=self.run, name="intent-db", daemon=True)
        self.thread.start()

    def run(self) -> None:
        while self.is_running:
            self.block()
            self.pump()
            request = self.txns.get_nowait()
            if request is not None:
                self._serve(request)
                self.txns.task_done()
        self.idl.close()
        late = self.txns.get_nowait()
        if late is not None:
            self._serve(late)

    def block(self, until: float | None = None) -> None:
        """Wait without the lock until the server or a caller has something for us, or `until` has come."""
        poller = Poller()
        self.idl.wait(poller)
        if until is None:
            poller.fd_wait(self.txns.alert_fileno, POLLIN)
        else:
            poller.timer_wait(max(0, int((until - time.monotonic()) * 1000)))
        poller.block()

    def pump(self) -> None:
        """Take in what the server sent, and wake whoever waits for it. For the connection's thread only."""
        with self.updated:
            try:
                self.idl.run()
            except Exception:  # whatever it was, the replica may have missed an update
                LOG.exception("the replica of the intent database failed; it is read anew")
                self.idl.force_reconnect()
            self.updated.notify_all()
            changed = self._intent_changed()
        if changed and self._on_change is not None:
            try:
                self._on_change()
            except Exception:  # a defect in the callback must not end the replica's thread
                LOG.exception("on_change of the intent database failed")

    def _intent_changed(self) -> bool:
        """True once for every batch of changes, also where a server came back with another database."""
        if not self.idl.in_step:
            return False
        topologies = set(self.idl.tables[TOPOLOGY.name].rows)
        changed = not self.idl.announced or topologies != self._topologies
        self.idl.announced, self._topologies = True, topologies
        return changed

    def _serve(self, request: IntentTransaction) -> None:
        try:
            request.results.put(request.do_commit())
        except Exception as error:  # noqa: BLE001 - it is raised again in the thread that asked
            request.results.put(idlutils.ExceptionResult(ex=error, tb=traceback.format_exc()))

    def wait_for_replica(self) -> None:
        """Wait until there is one, however old it may be. Raises Unreachable. The lock must be held."""
        self.updated.wait_for(lambda: self.idl.has_ever_connected() or not self.is_running, self.timeout)
        if not (self.is_running and self.idl.has_ever_connected()):
            raise self.unreachable()

    def unreachable(self, consequence: str = "", seconds: float | None = None) -> Unreachable:
        """What to tell a person when the time is up. seconds: which, where it is not the usual."""
        if not self.is_running:
            why = "this connection to it was closed"
        elif self.idl.server_tables is not None and not self.idl.has_ever_connected():
            why = f"a server is there, but it does not serve '{DATABASE}' with the schema of this version"
        elif not self.idl.in_step:
            why = "nothing answers there"
        else:
            why = f"the server there gave no answer within {seconds or self.timeout:g} s"
        return Unreachable(
            f"the intent database at {self.remote} is not reachable: {why}{consequence}",
            "'vswitchctl up' starts it; the log of its ovsdb-server says why it ended",
        )

    def close(self) -> None:
        """End the thread and the connection, after the write under way. What still waits gets Unreachable."""
        with self.updated:
            self.is_running = False
            self.updated.notify_all()
        self.txns.alert_notify()
        if self.thread is not None:
            self.thread.join()


class IntentTransaction(transaction.Transaction):  # type: ignore[misc]
    """Commands that take effect together or not at all, computed anew when others wrote meanwhile.

    The deadline counts from the moment the caller asked, however long the queue, and is later the more
    entities the commands concern.
    """

    def __init__(self, backend: IntentBackend, connection_: IntentConnection) -> None:
        super().__init__(backend, connection_, connection_.timeout, check_error=True, log_errors=False)
        self._connection = connection_
        self._seconds = connection_.timeout
        self._deadline = time.monotonic() + self._seconds

    def commit(self) -> Any:
        if not self._connection.is_running:
            raise self._connection.unreachable()
        more = sum(command.entities for command in self.commands) // ENTITIES_PER_SECOND
        self._seconds += more
        self._deadline += more
        self.timeout = self._seconds + GRACE_SECONDS
        try:
            return super().commit()
        except exceptions.TimeoutException as error:
            raise self._connection.unreachable(MAYBE_STORED, self._seconds) from error

    def do_commit(self) -> list[Any]:
        """For the connection's thread. Raises what commands raise, Unreachable, Conflict, ApplyError."""
        replica = self._connection.idl
        for _ in range(ATTEMPTS):
            while not (replica.in_step and self._connection.is_running):
                self._turn()
            seqno = replica.change_seqno
            txn = self._attempt()
            if txn.commit() in (idl.Transaction.SUCCESS, idl.Transaction.UNCHANGED):
                return [command.result for command in self.commands]
            # Somebody wrote first: once the replica has that change, the commands see it and decide anew.
            refusal = _refusal(txn)
            while replica.change_seqno == seqno:
                self._turn(MAYBE_STORED, refusal)
        raise ApplyError(f"others changed the intent database {ATTEMPTS} times meanwhile", "try again")

    def _attempt(self) -> Any:
        """Run the commands on the replica as it is now and send the result; the ended ovs transaction."""
        with self._connection.lock:
            txn = idl.Transaction(self._connection.idl)
            try:
                for command in self.commands:
                    command.run_idl(txn)
            except BaseException:
                txn.abort()
                raise
            txn.commit()
        while txn.commit() == idl.Transaction.INCOMPLETE:
            self._turn(MAYBE_STORED)
        return txn

    def _turn(self, consequence: str = "", refusal: VswitchctlError | None = None) -> None:
        """Let the connection work until something happens.

        Where the deadline has passed it raises `refusal` if the server is there, else Unreachable.
        """
        if time.monotonic() >= self._deadline or not self._connection.is_running:
            if refusal is not None and self._connection.idl.in_step:
                raise refusal
            raise self._connection.unreachable(consequence, self._seconds)
        self._connection.block(self._deadline)
        self._connection.pump()


def _refusal(txn: Any) -> VswitchctlError:
    """What to raise if no change of others follows that explains a refused transaction.

    Raises ApplyError at once for a refusal that none can explain.
    """
    if txn.commit() != idl.Transaction.ERROR:
        return ApplyError("the intent database was changed by others meanwhile", "try again")
    error = json.loads(txn.get_error())
    said = f"{error.get('error')}: {error.get('details', '')}"
    if error.get("error") != "constraint violation":
        raise ApplyError(f"the intent database refused the change: {said}", "see the log of its ovsdb-server")
    if " for index on " not in error.get("details", ""):
        raise InternalError(f"the intent database refused the change: {said}")
    return Conflict(f"the intent database refused the change: {said}", "rename what is named there")


class IntentBackend(ovs_idl.Backend, api.API):  # type: ignore[misc]
    """ovsdbapp's API on a connection of its own (ovsdbapp's class shares one among all its objects)."""

    lookup_table: ClassVar[dict[str, Any]] = {}

    def __init__(self, remote: str, timeout: float, on_change: Callable[[], None] | None) -> None:
        self._own_connection = IntentConnection(remote, timeout, on_change)
        super().__init__(self._own_connection)

    @property
    def ovsdb_connection(self) -> IntentConnection:
        return self._own_connection

    @ovsdb_connection.setter
    def ovsdb_connection(self, connection_: IntentConnection) -> None:
        self._own_connection = connection_

    def create_transaction(self, *_: Any, **__: Any) -> IntentTransaction:
        return IntentTransaction(self, self._own_connection)
