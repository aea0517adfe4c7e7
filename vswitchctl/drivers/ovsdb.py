"""Open vSwitch's own database: bridges and ports read from a live replica, changed in one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from vswitchctl.drivers.ovsdb_changes import ChangeWriter, in_order
from vswitchctl.drivers.ovsdb_replica import Outcome, Replica
from vswitchctl.drivers.ovsdb_rows import RowReader, Snapshot
from vswitchctl.errors import Unreachable
from vswitchctl.model.plan import Change, Failure
from vswitchctl.model.state import ObservedOvs, PortKey

Progress = Callable[[int], None]
"""Called with how many changes more are done."""

CALL_SECONDS: Final = 10.0
"""How long one call may take before the database counts as unreachable."""

_ONE_ROW_ERRORS: Final = frozenset(
    {"constraint violation", "domain error", "range error", "referential integrity violation"}
)
"""Errors of RFC 7047 sections 4.1.3 and 5.2 that one row causes: without it the others pass."""


class OvsdbDriver:
    """Bridges and ports of Open vSwitch at `remote` ('unix:/run/openvswitch/db.sock').

    on_change is called, by another thread, after any change we watch and whenever the connection comes or
    goes. Connects by itself, and again after a loss; while there is no connection calls raise Unreachable.
    Safe to call from several threads.
    """

    def __init__(
        self, remote: str, on_change: Callable[[], None] | None = None, timeout: float = CALL_SECONDS
    ) -> None:
        self._reader = RowReader()
        self._snapshot: Snapshot | None = None
        self._confirm_cfg = 0
        self._replica = Replica(remote, on_change, self._reader.forget, timeout)

    def read(self) -> ObservedOvs:
        """What Open vSwitch holds; the same object as last time where nothing changed. Raises Unreachable."""
        return self._current().observed

    @property
    def version(self) -> str:
        """Of ovs-vswitchd, e.g. '3.1.0'; '' until it ran once. Raises Unreachable."""
        return self._current().version

    def apply(self, changes: Sequence[Change], progress: Progress | None = None) -> list[Failure]:
        """Make changes of kinds BRIDGE and PORT: all in one transaction, but for those that are refused.

        Does not wait for ovs-vswitchd: see `wait_ofports` and `wait_applied`. Raises Unreachable, in which
        case any part may have happened: read again.
        """
        failures: list[Failure] = []
        pending = [in_order(changes)] if changes else []
        while pending:
            batch = pending.pop()
            refused, outcome = self._transact(batch)
            if outcome.error is not None and len(batch) > 1 and _one_row(outcome.error):
                half = len(batch) // 2
                pending += [batch[half:], batch[:half]]
                continue
            failures += refused
            if outcome.error is not None:
                named = {id(failure.change) for failure in refused}
                reason = _reason(outcome.error)
                failures += [Failure(change, reason) for change in batch if id(change) not in named]
            elif outcome.next_cfg is not None:
                self._confirm_cfg = outcome.next_cfg
            if progress is not None:
                progress(len(batch))
        return failures

    def wait_ofports(self, keys: Collection[PortKey], timeout: float) -> dict[PortKey, int]:
        """The OpenFlow numbers of these ports, once each has one or an error, or after `timeout` seconds.

        One that is not in the database is not waited for: its addition was refused, or somebody removed it.
        Numbers and errors count once ovs-vswitchd has applied our last transaction: before, they may be those
        of an earlier configuration. What is missing in the answer has none: `read().errors` says why.
        Raises Unreachable.
        """
        deadline = time.monotonic() + timeout
        while True:
            snapshot = self._current()
            ofports, errors = snapshot.observed.ofports, snapshot.observed.errors
            there = snapshot.observed.owned.ports
            settled = self._applied(snapshot) and all(
                key in ofports or key in errors or key not in there for key in keys
            )
            if settled or not self._replica.wait_past(snapshot.seqno, deadline):
                return {key: ofports[key] for key in keys if key in ofports}

    def wait_applied(self, timeout: float) -> bool:
        """Wait until ovs-vswitchd has applied our last transaction (Open_vSwitch.cur_cfg).

        False where it has not within `timeout` seconds: it is busy or does not run. Raises Unreachable.
        """
        deadline = time.monotonic() + timeout
        while True:
            snapshot = self._current()
            if self._applied(snapshot):
                return True
            if not self._replica.wait_past(snapshot.seqno, deadline):
                return False

    def close(self) -> None:
        """End the connection and its thread."""
        self._replica.close()

    def _applied(self, snapshot: Snapshot) -> bool:
        # A database made anew starts to count anew, so what we wait for may lie beyond what was ever asked.
        return snapshot.cur_cfg >= min(self._confirm_cfg, snapshot.next_cfg)

    def _current(self) -> Snapshot:
        self._replica.require_contact()
        snapshot = self._snapshot
        if snapshot is not None and snapshot.seqno == self._replica.seqno:
            return snapshot
        with self._replica.locked():
            return self._refresh()

    def _refresh(self) -> Snapshot:
        """Under the lock."""
        seqno = self._replica.seqno
        if self._snapshot is None or self._snapshot.seqno != seqno:
            self._snapshot = self._reader.snapshot(self._replica.tables, seqno)
        return self._snapshot

    def _transact(self, changes: Sequence[Change]) -> tuple[list[Failure], Outcome]:
        writer: ChangeWriter | None = None

        def build(transaction: Any) -> None:
            nonlocal writer
            if not self._replica.tables["Open_vSwitch"].rows:
                raise Unreachable(
                    f"Open vSwitch's database at {self._replica.remote} is empty",
                    "start ovs-vswitchd once, or run 'ovs-vsctl --no-wait init'",
                )
            writer = ChangeWriter(transaction, self._replica.tables, self._refresh())
            writer.write(changes)

        outcome = self._replica.write(build)
        return (writer.refused if writer else []), outcome


def _one_row(error: str) -> bool:
    return json.loads(error).get("error") in _ONE_ROW_ERRORS


def _reason(error: str) -> str:
    """OVSDB's error object as one line (RFC 7047 section 3.1)."""
    answer = json.loads(error)
    details = answer.get("details")
    return f"Open vSwitch's database refused it: {answer.get('error')}{f': {details}' if details else ''}"
