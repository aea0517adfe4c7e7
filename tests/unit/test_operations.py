"""An operation is settled by a pass that saw what it stored, and by no other."""

from __future__ import annotations

import threading

import pytest

from vswitchctl.errors import NotFound
from vswitchctl.model.state import Owner
from vswitchctl.model.views import OperationState, OperationView
from vswitchctl.operations import KEPT, Operations
from vswitchctl.reconcile.loop import Pass, Step
from vswitchctl.reconcile.work import Outcome

BROKEN = {Owner("t", "nodes/a"): "it broke"}


class Passes:
    """What `Operations` asks of the loop, driven by hand."""

    def __init__(self) -> None:
        self.state = Pass(), Step()
        self.number = 0
        self.marked = 0
        self._changed = threading.Condition()

    def begun(self) -> int:
        return self.number

    def mark(self) -> None:
        self.marked += 1

    def current(self) -> tuple[Pass, Step]:
        return self.state

    def wait(self, seen: tuple[Pass, Step], timeout: float) -> tuple[Pass, Step]:
        with self._changed:
            self._changed.wait_for(lambda: self.state != seen, timeout)
        return self.state

    def begin(self) -> None:
        self.number += 1

    def end(self, *, stale: str = "", changes: int = 0, **outcomes: Outcome) -> None:
        with self._changed:
            self.state = Pass(self.number, outcomes, stale=stale, changes=changes), Step()
            self._changed.notify_all()


def outcome(generation: int = 1, *, gone: bool = False, failed: bool = False, waits: bool = False) -> Outcome:
    failures, pending = (BROKEN if failed else {}), (BROKEN if waits else {})
    return Outcome(generation, not failed and not waits, failures, pending, gone)


@pytest.fixture
def passes() -> Passes:
    return Passes()


@pytest.fixture
def operations(passes: Passes) -> Operations:
    return Operations(passes)  # type: ignore[arg-type]


def started(operations: Operations, kind: str = "apply", generation: int = 1) -> OperationView:
    return operations.begin(kind, "t", generation, operations.moment())  # type: ignore[arg-type]


def test_the_loop_is_woken_and_the_operation_runs(operations: Operations, passes: Passes) -> None:
    view = started(operations)
    assert (view.state, passes.marked) == (OperationState.RUNNING, 1)


def test_done_by_the_next_pass_with_what_it_changed(operations: Operations, passes: Passes) -> None:
    view = started(operations)
    passes.begin()
    passes.end(t=outcome(), changes=7)
    done = operations.get(view.id)
    assert (done.state, done.done, done.total) == (OperationState.DONE, 7, 7)


def test_a_pass_that_had_begun_before_the_request_does_not_count(
    operations: Operations, passes: Passes
) -> None:
    passes.begin()
    view = started(operations)
    passes.end(t=outcome())
    assert operations.get(view.id).state is OperationState.RUNNING
    passes.begin()
    passes.end(t=outcome())
    assert operations.get(view.id).state is OperationState.DONE


def test_a_pass_between_request_and_write_counts_if_it_saw_the_write(
    operations: Operations, passes: Passes
) -> None:
    since = operations.moment()
    passes.begin()
    late = operations.begin("apply", "t", 2, since)
    passes.end(t=outcome(generation=1))
    assert operations.get(late.id).state is OperationState.RUNNING
    since = operations.moment()
    passes.begin()
    seen = operations.begin("apply", "t", 3, since)
    passes.end(t=outcome(generation=3))
    assert operations.get(seen.id).state is OperationState.DONE


def test_failures_are_told_by_entity(operations: Operations, passes: Passes) -> None:
    view = started(operations)
    passes.begin()
    passes.end(t=outcome(failed=True))
    failed = operations.get(view.id)
    assert (failed.state, failed.errors) == (OperationState.FAILED, ("nodes/a: it broke",))


def test_what_is_pending_is_waited_for(operations: Operations, passes: Passes) -> None:
    view = started(operations)
    passes.begin()
    passes.end(t=outcome(waits=True))
    waiting = operations.get(view.id)
    assert (waiting.state, waiting.errors) == (OperationState.RUNNING, ("nodes/a: it broke",))
    passes.begin()
    passes.end(t=outcome())
    assert operations.get(view.id).state is OperationState.DONE


def test_an_outside_that_cannot_be_read_fails_it(operations: Operations, passes: Passes) -> None:
    view = started(operations)
    passes.begin()
    passes.end(stale="Open vSwitch does not answer")
    assert operations.get(view.id).errors == ("Open vSwitch does not answer",)


def test_destroyed_meanwhile(operations: Operations, passes: Passes) -> None:
    view = started(operations)
    passes.begin()
    passes.end(t=outcome(gone=True))
    assert operations.get(view.id).errors == ("the topology was destroyed meanwhile",)


@pytest.mark.parametrize(
    ("after", "state"),
    [
        (outcome(gone=True), OperationState.DONE),
        (outcome(gone=True, failed=True), OperationState.FAILED),
        (outcome(), OperationState.RUNNING),
        (None, OperationState.DONE),
    ],
)
def test_a_destroy(
    operations: Operations, passes: Passes, after: Outcome | None, state: OperationState
) -> None:
    view = started(operations, "destroy")
    passes.begin()
    passes.end(**({} if after is None else {"t": after}))
    assert operations.get(view.id).state is state


def test_a_wait_ends_with_the_operation(operations: Operations, passes: Passes) -> None:
    view = operations.get(started(operations).id)

    def finish() -> None:
        passes.begin()
        passes.end(t=outcome())

    timer = threading.Timer(0.05, finish)
    timer.start()
    assert operations.wait(view.id, view, timeout=30).state is OperationState.DONE
    timer.join()


def test_the_oldest_are_forgotten(operations: Operations) -> None:
    first = started(operations)
    for _ in range(KEPT):
        started(operations)
    with pytest.raises(NotFound):
        operations.get(first.id)
