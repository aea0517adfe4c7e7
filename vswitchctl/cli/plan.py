"""plan: what an apply would do now; and how a plan looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import FileArgument, JsonOption
from vswitchctl.cli.document import read_document
from vswitchctl.cli.output import console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from vswitchctl.model.views import ChangeView, FlowCount, PlanView

CHANGES = 2
"""Exit code of a plan with changes, as `terraform plan -detailed-exitcode` has it."""

Action = Literal["add", "change", "remove"]

MARKS: dict[Action, tuple[str, str]] = {
    "add": ("+", "green"),
    "change": ("~", "yellow"),
    "remove": ("-", "red"),
}


def register(app: typer.Typer) -> None:
    app.command()(plan)


def plan(
    ctx: typer.Context,
    file: FileArgument,
    flows: Annotated[bool, typer.Option("--flows", help="List each flow change.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what an apply would change. Exit code 0: nothing, 2: something, 1: an error."""
    document = read_document(file)
    with context.client(ctx) as client:
        view = client.plan(document, flows=flows)
    if json:
        print_json(view)
    else:
        print_plan(console(), view)
    raise typer.Exit(0 if view.empty else CHANGES)


def print_plan(terminal: Console, view: PlanView) -> None:
    """The changes by kind, each with its reason and source; then one line that counts them."""
    from rich.table import Table
    from rich.text import Text

    for kind, changes in _by_kind(view.changes):
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=3)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for change in changes:
            mark, style = MARKS[change.action]
            table.add_row(Text(f"  {mark}", style=style), Text(change.name, style=style), _why(change))
        terminal.print(Text(kind, style="bold"))
        terminal.print(table)
    for count in view.flows:
        terminal.print(Text.assemble(("flows ", "bold"), f"on {count.bridge}: ", *_counts(count)))
    for warning in view.warnings:
        terminal.print(Text.assemble(("warning: ", "yellow"), warning))
    for name in view.foreign:
        terminal.print(Text.assemble(("not ours, left alone: ", "dim"), name))
    terminal.print(summary(view))


def summary(view: PlanView) -> str:
    """'Plan: 3 to add, 1 to change, 0 to remove, 42 flows'."""
    resources = [change.action for change in view.changes if change.kind != "flow"]
    parts = ", ".join(f"{resources.count(action)} to {action}" for action in MARKS)
    flows = sum(count.add + count.change + count.remove for count in view.flows)
    return f"Plan: {parts}, {flows} flow{'' if flows == 1 else 's'}"


def _by_kind(changes: tuple[ChangeView, ...]) -> Iterator[tuple[str, list[ChangeView]]]:
    kinds = dict.fromkeys(change.kind for change in changes)
    return ((kind, [change for change in changes if change.kind == kind]) for kind in kinds)


def _why(change: ChangeView) -> str:
    parts = (change.detail, change.reason, f"({change.source})" if change.source else "")
    return "  ".join(part for part in parts if part)


def _counts(count: FlowCount) -> list[tuple[str, str]]:
    numbers: dict[Action, int] = {"add": count.add, "change": count.change, "remove": count.remove}
    return [
        (f"{mark}{numbers[action]} ", style if numbers[action] else "dim")
        for action, (mark, style) in MARKS.items()
    ]
