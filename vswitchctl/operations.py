"""Applies and destroys under way: each follows the reconcile loop until its topology is settled.

An operation has no thread of its own: it is a question about the passes of the loop since it began, asked
anew whenever somebody waits for it. A topology is settled by the first pass that began after the operation
did, saw what it stored, and left it verified or with a failure; a `pending` one (a port that Open vSwitch has
not numbered, an uplink that is not plugged in) is waited for.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal

from vswitchctl.errors import NotFound
from vswitchctl.model.views import OperationState, OperationView
from vswitchctl.reconcile.loop import Loop, Pass, Step
from vswitchctl.reconcile.work import Outcome

KEPT = 256
"""Operations remembered; the oldest go first."""

FINISHED = OperationState.DONE, OperationState.FAILED


@dataclass(frozen=True, slots=True)
class _Operation:
    """Passes up to `since` did not see what was stored, those after `stored` did, those between may have."""

    view: OperationView
    since: int
    stored: int
    started: float


class Operations:
    """Thread-safe."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._all: OrderedDict[str, _Operation] = OrderedDict()

    def moment(self) -> int:
        """To take before storing a change: passes that have begun by then do not count for it."""
        return self._loop.begun()

    def begin(
        self, kind: Literal["apply", "destroy"], topology: str, generation: int, since: int
    ) -> OperationView:
        """Follow what the loop makes of a change that was stored after `since`, and wake the loop."""
        view = OperationView(
            id=uuid.uuid4().hex[:12],
            topology=topology,
            kind=kind,
            generation=generation,
            state=OperationState.RUNNING,
            step="waiting",
        )
        with self._lock:
            self._all[view.id] = _Operation(view, since, self._loop.begun(), time.monotonic())
            while len(self._all) > KEPT:
                self._all.popitem(last=False)
        self._loop.mark()
        return view

    def get(self, operation_id: str) -> OperationView:
        """As it stands now. Raises NotFound."""
        with self._lock:
            operation = self._all.get(operation_id)
            if operation is None:
                raise NotFound(
                    f"no operation '{operation_id}'", "the daemon forgets operations when it restarts"
                )
            if operation.view.state not in FINISHED:
                operation = replace(operation, view=_look(operation, *self._loop.current()))
                self._all[operation_id] = operation
            return operation.view

    def wait(self, operation_id: str, seen: OperationView | None, timeout: float) -> OperationView:
        """Block until it differs from `seen` in more than time, or for `timeout` seconds. Raises NotFound."""
        deadline = time.monotonic() + timeout
        while True:
            state = self._loop.current()
            view = self.get(operation_id)
            left = deadline - time.monotonic()
            if seen is None or left <= 0 or view.state in FINISHED:
                return view
            if view.model_copy(update={"seconds": seen.seconds}) != seen:
                return view
            self._loop.wait(state, left)


def _look(operation: _Operation, last: Pass, step: Step) -> OperationView:
    view = operation.view
    seconds = time.monotonic() - operation.started
    if last.number <= operation.since:
        return view.model_copy(
            update={"done": step.done, "total": step.total, "step": step.name, "seconds": seconds}
        )
    outcome = last.outcomes.get(view.topology)
    settled = _destroyed if view.kind == "destroy" else _applied
    state, errors = settled(view, outcome, last.number > operation.stored)
    if last.stale:
        state, errors = OperationState.FAILED, (last.stale,)
    total = max(view.total, last.changes)
    done = total if state in FINISHED else view.done
    return view.model_copy(
        update={
            "state": state,
            "errors": errors,
            "done": done,
            "total": total,
            "step": state.value,
            "seconds": seconds,
        }
    )


_Settled = tuple[OperationState, tuple[str, ...]]


def _destroyed(_view: OperationView, outcome: Outcome | None, seen: bool) -> _Settled:
    """seen: the pass certainly read the database after the change was stored."""
    if outcome is None:
        return (OperationState.DONE if seen else OperationState.RUNNING), ()
    if not outcome.gone:
        return OperationState.RUNNING, ()
    if outcome.verified:
        return OperationState.DONE, ()
    return OperationState.FAILED, _reasons(outcome)


def _applied(view: OperationView, outcome: Outcome | None, seen: bool) -> _Settled:
    if outcome is None or outcome.gone:
        if seen:
            return OperationState.FAILED, ("the topology was destroyed meanwhile",)
        return OperationState.RUNNING, ()
    if outcome.generation < view.generation and not seen:
        return OperationState.RUNNING, ()
    if outcome.failures:
        return OperationState.FAILED, _reasons(outcome)
    return (OperationState.DONE if outcome.verified else OperationState.RUNNING), _reasons(outcome)


def _reasons(outcome: Outcome) -> tuple[str, ...]:
    both = [*outcome.failures.items(), *outcome.pending.items()]
    return tuple(f"{owner.entity}: {reason}" for owner, reason in sorted(both))
