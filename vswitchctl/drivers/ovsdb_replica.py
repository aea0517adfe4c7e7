"""A live replica of the part of Open vSwitch's database that we use, and transactions on it.

One thread (ovsdbapp's) owns the connection. Readers take the lock for as long as they look at rows;
waiters sleep on a condition variable that the thread signals after every change.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import ovs.poller
from ovs.db import idl as ovs_idl
from ovsdbapp.backend.ovs_idl import connection, idlutils
from ovsdbapp.exceptions import TimeoutException

from vswitchctl.errors import Unreachable
from vswitchctl.ovsidl import adopt, use_poll

FIRST_CONTACT_SECONDS: Final = 2.0
"""How long the first call waits for the connection that the constructor started."""

BACKOFF_MS: Final = 1000
"""Between two attempts to connect; the least that ovs.reconnect takes."""

_STRINGS: Final = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
_OPTIONAL_STRING: Final = {"key": "string", "min": 0, "max": 1}


def _set(key: object, least: int = 0, most: int | str = "unlimited") -> dict[str, Any]:
    return {"type": {"key": key, "min": least, "max": most}}


def _references(table: str, least: int = 0) -> dict[str, Any]:
    return _set({"type": "uuid", "refTable": table}, least)


SCHEMA: Final[dict[str, Any]] = {
    "name": "Open_vSwitch",
    "tables": {
        "Open_vSwitch": {
            "bridges": _references("Bridge"),
            "next_cfg": {"type": "integer"},
            "cur_cfg": {"type": "integer"},
            "datapath_types": _set("string"),
            "ovs_version": {"type": _OPTIONAL_STRING},
        },
        "Bridge": {
            "name": {"type": "string"},
            "datapath_type": {"type": "string"},
            "fail_mode": {"type": _OPTIONAL_STRING},
            "controller": _set("uuid"),
            "protocols": _set("string"),
            "stp_enable": {"type": "boolean"},
            "rstp_enable": {"type": "boolean"},
            "mcast_snooping_enable": {"type": "boolean"},
            "other_config": {"type": _STRINGS},
            "external_ids": {"type": _STRINGS},
            "ports": _references("Port"),
        },
        "Port": {
            "name": {"type": "string"},
            "interfaces": _references("Interface", 1),
            "tag": _set("integer", 0, 1),
            "trunks": _set("integer", 0, 4096),
            "vlan_mode": {"type": _OPTIONAL_STRING},
            "qos": {"type": {"key": {"type": "uuid", "refTable": "QoS"}, "min": 0, "max": 1}},
            "external_ids": {"type": _STRINGS},
        },
        "QoS": {"type": {"type": "string"}, "external_ids": {"type": _STRINGS}},
        "Interface": {
            "name": {"type": "string"},
            "type": {"type": "string"},
            "options": {"type": _STRINGS},
            "ofport": _set("integer", 0, 1),
            "error": {"type": _OPTIONAL_STRING},
            "external_ids": {"type": _STRINGS},
        },
    },
}
"""The columns we read or write, as ovs-vswitchd.conf.db(5) types them: all that is replicated.

Carried here rather than fetched, so that a daemon that starts before Open vSwitch connects by itself later.
"""


def _idl_schema() -> dict[str, Any]:
    # Elsewhere ovsdb-server removes a row that nothing refers to; in these tables it stays.
    tables = {
        name: {"columns": columns, "isRoot": name in ("Open_vSwitch", "QoS")}
        for name, columns in SCHEMA["tables"].items()
    }
    return {"name": SCHEMA["name"], "version": "8.0.0", "tables": tables}


class _Idl(connection.OvsdbIdl):  # type: ignore[misc]
    """The replica. `on_run(changed)` follows every run that changed rows or the connection's state."""

    _session: Any

    def __init__(self, remote: str, on_run: Callable[[], None], on_row: Callable[[UUID], None]) -> None:
        schema = ovs_idl.SchemaHelper(None, _idl_schema())
        schema.register_all()
        super().__init__(remote, schema, leader_only=False)
        self._session = adopt(self._session)
        self._session.reconnect.set_backoff(BACKOFF_MS, BACKOFF_MS)
        self._on_run = on_run
        self._on_row = on_row
        self._was_ready = False

    @property
    def ready(self) -> bool:
        """Connected, and the replica is complete."""
        return bool(self._session.is_connected() and self.state == self.IDL_S_MONITORING)

    def cooperative_yield(self) -> None:
        """Nothing: ovsdbapp sleeps here for every row, which only green threads need."""

    def run(self) -> bool:
        changed = bool(super().run())
        ready = self.ready
        if changed or ready != self._was_ready:
            self._was_ready = ready
            self._on_run()
        return changed

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        self._on_row(row.uuid)


class _Connection(connection.Connection):  # type: ignore[misc]
    """ovsdbapp's thread and queue of transactions, started without waiting for first contact."""

    def start(self) -> None:
        use_poll()
        self.poller = ovs.poller.Poller()
        self.is_running = True
        self.thread = threading.Thread(target=self.run, name="ovsdb", daemon=True)
        self.thread.start()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a transaction. error: the database's answer, a JSON text, where it refused.

    next_cfg: the configuration number that ovs-vswitchd confirms in cur_cfg; None where nothing changed.
    """

    error: str | None
    next_cfg: int | None


class _Write:
    """One transaction, run by the connection's thread; built again when a row it rests on has changed."""

    def __init__(self, idl: _Idl, build: Callable[[Any], None], deadline: float, lost: Unreachable) -> None:
        self.results: queue.Queue[Any] = queue.Queue(1)
        self.commands: tuple[str, ...] = ()
        self._idl = idl
        self._build = build
        self._deadline = deadline
        self._lost = lost

    def do_commit(self) -> Outcome:
        while True:
            self._require_contact()
            seqno = self._idl.change_seqno
            transaction = ovs_idl.Transaction(self._idl)
            try:
                self._build(transaction)
            except BaseException:
                transaction.abort()
                raise
            status = self._finish(transaction)
            if status == transaction.TRY_AGAIN:
                self._await_change(seqno)
            elif status == transaction.ERROR and self._idl.change_seqno != seqno:
                continue  # it may have been refused for what the replica did not show yet
            elif status == transaction.SUCCESS:
                return Outcome(None, transaction.get_increment_new_value())
            elif status == transaction.UNCHANGED:
                return Outcome(None, None)
            else:
                return Outcome(transaction.get_error(), None)

    def _finish(self, transaction: Any) -> Any:
        while (status := transaction.commit()) == transaction.INCOMPLETE:
            self._step(transaction)
        return status

    def _await_change(self, seqno: int) -> None:
        while self._idl.change_seqno == seqno:
            self._step(None)

    def _step(self, transaction: Any) -> None:
        """Take what the server sent; else sleep until it sends something."""
        self._idl.run()
        self._require_contact()
        poller = ovs.poller.Poller()
        self._idl.wait(poller)
        if transaction is not None:
            transaction.wait(poller)
        poller.timer_wait(int((self._deadline - time.monotonic()) * 1000) + 1)
        poller.block()

    def _require_contact(self) -> None:
        if not self._idl.ready or time.monotonic() > self._deadline:
            raise self._lost


class Replica:
    """The replica of the database at `remote` ('unix:PATH', 'tcp:ADDRESS:PORT'); connects again by itself.

    on_change: called by the connection's thread after any change and on every connect and loss; no I/O there.
    timeout: seconds that one call may take before it raises Unreachable.
    """

    def __init__(
        self,
        remote: str,
        on_change: Callable[[], None] | None,
        on_row: Callable[[UUID], None],
        timeout: float,
    ) -> None:
        self.remote = remote
        self._timeout = timeout
        self._on_change = on_change
        self._changed = threading.Condition()
        self._patience_until = time.monotonic() + FIRST_CONTACT_SECONDS
        self._idl = _Idl(remote, self._signal, on_row)
        self._connection = _Connection(self._idl, timeout)
        self._connection.start()

    @property
    def seqno(self) -> int:
        """Rises with every change of the replica."""
        return int(self._idl.change_seqno)

    @property
    def tables(self) -> Any:
        """Table name -> table with `.rows`. Only to be looked at while `locked`."""
        return self._idl.tables

    def require_contact(self) -> None:
        """Raise Unreachable unless the replica is live. Waits only for the very first contact."""
        if self._idl.ready:
            return
        with self._changed:
            patience = self._patience_until - time.monotonic()
            if patience <= 0 or not self._changed.wait_for(lambda: self._idl.ready, patience):
                raise self.lost()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Rows do not change inside. Raises Unreachable where the thread is stuck on a silent server."""
        if not self._connection.lock.acquire(timeout=self._timeout):
            raise self.lost()
        try:
            yield
        finally:
            self._connection.lock.release()

    def write(self, build: Callable[[Any], None]) -> Outcome:
        """Run one transaction. `build(transaction)` sets rows; it may be called again, from current rows.

        Raises Unreachable where the server is gone or silent; the transaction may then have happened or not.
        """
        self.require_contact()
        write = _Write(self._idl, build, time.monotonic() + self._timeout, self.lost())
        try:
            self._connection.queue_txn(write)
            result = write.results.get(timeout=self._timeout + 1)
        except (TimeoutException, queue.Empty) as error:
            raise self.lost() from error
        if isinstance(result, idlutils.ExceptionResult):
            raise result.ex
        if not isinstance(result, Outcome):
            raise self.lost()
        return result

    def wait_past(self, seqno: int, deadline: float) -> bool:
        """Sleep until the replica differs from `seqno` or is lost; False after the (monotonic) deadline."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._idl.change_seqno != seqno or not self._idl.ready, deadline - time.monotonic()
            )

    def lost(self) -> Unreachable:
        return Unreachable(
            f"Open vSwitch's database at {self.remote} does not answer",
            "start Open vSwitch ('systemctl start openvswitch-switch', or 'vswitchctl up' for a private one)",
        )

    def close(self) -> None:
        """End the thread and the connection."""
        self._connection.stop(self._timeout)

    def _signal(self) -> None:
        with self._changed:
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change()
