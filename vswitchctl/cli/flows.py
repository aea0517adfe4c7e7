"""flows: the flows of one bridge, each with the entity it came from."""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from typing import Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import console, print_json


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
    from rich.text import Text

    with context.client(ctx) as client:
        views = client.flows(bridge, source.value)
    if json:
        print_json(views)
        return
    terminal = console()
    for table, members in groupby(views, key=lambda view: view.table):
        terminal.print(Text(f"table {table}", style="bold"))
        for view in members:
            line = Text.assemble(
                (f"  {view.priority:5} ", "dim"),
                (view.match or "any", "cyan"),
                f" -> {view.actions or 'drop'}",
                (f"  # {view.entity or view.cookie}", "dim"),
            )
            terminal.print(line, soft_wrap=True)
