"""apply and destroy: show the plan, ask, start the operation, and follow it to its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import FileArgument, JsonOption, TimeoutOption, WaitOption, YesOption
from vswitchctl.cli.document import read_document
from vswitchctl.cli.output import console, error_line, print_json, print_text
from vswitchctl.cli.plan import print_plan
from vswitchctl.errors import RetryableError, UserError

if TYPE_CHECKING:
    from vswitchctl.cli.client import Client
    from vswitchctl.model.views import OperationView, PlanView

TIMEOUT = 300.0
"""Seconds: far above an apply of 1,000 namespaces, short enough for a script that waits for nothing."""

STEP_WIDTH = 30
"""Columns of the current step, so that the bar keeps its place on a terminal of 80."""


def register(app: typer.Typer) -> None:
    app.command()(apply)
    app.command()(destroy)


def apply(
    ctx: typer.Context,
    file: FileArgument,
    wait: WaitOption = True,
    yes: YesOption = False,
    timeout: TimeoutOption = TIMEOUT,
    json: JsonOption = False,
) -> None:
    """Make the host match a topology file. Shows the plan and asks first."""
    document = read_document(file)
    with context.client(ctx) as client:
        plan = client.plan(document)
        asked = _confirm(plan, f"Apply '{plan.topology}'?", yes, json)
        generation = plan.generation if asked else None
        operation = client.apply(document, expected_generation=generation)
        finish(client, operation, timeout if wait else None, json)


def destroy(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of an applied topology.")],
    wait: WaitOption = True,
    yes: YesOption = False,
    timeout: TimeoutOption = TIMEOUT,
    json: JsonOption = False,
) -> None:
    """Remove a topology and everything that it made. Shows the plan and asks first."""
    with context.client(ctx) as client:
        plan = client.plan_destroy(name)
        _confirm(plan, f"Destroy '{name}'?", yes, json)
        finish(client, client.destroy(name), timeout if wait else None, json)


def _confirm(plan: PlanView, question: str, yes: bool, json: bool) -> bool:
    """Show the plan and ask; whether somebody was asked. With --json standard output stays free."""
    print_plan(console(err=json), plan)
    if yes or plan.empty:
        return False
    if not sys.stdin.isatty():
        raise UserError("nobody is here to confirm this plan", "add --yes")
    if not typer.confirm(question, err=True):
        raise UserError("nothing was changed")
    return True


def finish(client: Client, operation: OperationView, timeout: float | None, json: bool) -> None:
    from vswitchctl.model.views import OperationState

    last = operation if timeout is None else _follow(client, operation, timeout)
    if json:
        print_json(last)
    elif last.state is OperationState.DONE:
        print_text(_done(last))
    elif last.state is OperationState.RUNNING:
        print_text(
            f"{last.topology}: {last.kind} started as {last.id}; see vswitchctl show topology {last.topology}"
        )
    for error in last.errors:
        error_line(error)
    if last.state is OperationState.FAILED:
        if not last.errors:
            error_line(
                f"{last.kind} of '{last.topology}' failed; see vswitchctl show topology {last.topology}"
            )
        raise typer.Exit(1)


def _done(last: OperationView) -> str:
    changes = f"{last.total} change{'' if last.total == 1 else 's'}, {last.seconds:.1f} s"
    state = "in sync" if last.kind == "apply" else "destroyed"
    return f"{last.topology}: {state} (generation {last.generation}, {changes})"


def _follow(client: Client, operation: OperationView, timeout: float) -> OperationView:
    """The operation's last state. Raises RetryableError where it takes longer than `timeout` seconds."""
    what = f"the {operation.kind} of '{operation.topology}'"
    follow = f"vswitchctl show topology {operation.topology}"
    try:
        last = _watch(client.events(operation.id, timeout), operation)
    except KeyboardInterrupt:
        error_line(f"interrupted; {what} goes on in the daemon: {follow}")
        raise typer.Exit(130) from None
    if last.state == "running":
        raise RetryableError(f"{what} is not done after {timeout:g} s; it goes on in the daemon", follow)
    return last


def _watch(events: Iterator[OperationView], operation: OperationView) -> OperationView:
    """The last event, with a progress bar on standard error meanwhile where that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    terminal = console(err=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    last = operation
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task(operation.kind, total=None)
        for last in events:
            step = (last.step or last.kind)[:STEP_WIDTH]
            bar.update(task, completed=last.done, total=last.total or None, description=step)
    return last
