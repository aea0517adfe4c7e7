"""flows: the flows of one bridge, each with the entity it came from."""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import console, print_json, print_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from vswitchctl.model.views import FlowView


class Source(StrEnum):
    OBSERVED = "observed"
    DESIRED = "desired"


def register(app: typer.Typer) -> None:
    app.command()(flows)


def flows(
    ctx: typer.Context,
    bridge: Annotated[str, typer.Argument(metavar="BRIDGE", help="A bridge of ours.")],
    source: Annotated[
        Source, typer.Option("--source", help="As read from the switch, or as compiled.")
    ] = Source.OBSERVED,
    json: JsonOption = False,
) -> None:
    """Show the flows of a bridge by table, each with the entity it is there for."""
    with context.client(ctx) as client:
        views = client.flows(bridge, source.value)
    if json:
        print_json(views)
        return
    terminal = console()
    for table, members in groupby(views, key=lambda view: view.table):
        if terminal.is_terminal:
            _print_coloured(terminal, table, members)
        else:
            # Rich takes 0.2 ms a line; a bridge may have 100,000 flows.
            print_text("\n".join((f"table {table}", *("".join(_parts(view)) for view in members))))


def _parts(view: FlowView) -> tuple[str, str, str, str]:
    """Priority, match, actions and entity, as they stand side by side in a line."""
    what = view.match or "any", f" -> {view.actions or 'drop'}"
    return f"  {view.priority:5} ", *what, f"  # {view.entity or view.cookie}"


def _print_coloured(terminal: Console, table: str, members: Iterable[FlowView]) -> None:
    from rich.text import Text

    terminal.print(Text(f"table {table}", style="bold"))
    for view in members:
        coloured = zip(_parts(view), ("dim", "cyan", "", "dim"), strict=True)
        terminal.print(Text.assemble(*coloured), soft_wrap=True)
