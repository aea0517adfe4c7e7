"""probe: real packets between all endpoints, and the matrix of who reached whom beside the expected one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.document import read_document
from vswitchctl.cli.output import console, error_line, print_json, print_text

if TYPE_CHECKING:
    from rich.table import Table

    from vswitchctl.model.topology import Topology
    from vswitchctl.topology.reachability import Matrix, Pair

REACHED, NOT_REACHED, MISSING, LEAKED, SELF = "✓", "·", "✗", "!", " "


def register(app: typer.Typer) -> None:
    app.command()(probe)


def probe(
    ctx: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="An applied topology: its name, or its file.")
    ],
    json: JsonOption = False,
) -> None:
    """Send real packets between all endpoints. Exit code 1 where they differ from what is expected."""
    from vswitchctl.drivers import probe as driver
    from vswitchctl.topology.reachability import difference, expected_pairs

    topology = _topology(ctx, subject)
    expected = expected_pairs(topology)
    matrix = driver.probe(topology, expected)
    found = difference(matrix, expected)
    if json:
        print_json(_document(topology, matrix, expected))
    else:
        console().print(render(matrix, expected))
        print_text(f"{topology.name}: {_summary(matrix, expected)}")
    for asks, answers in sorted(found.missing):
        error_line(f"{asks} does not reach {answers}")
    for asks, answers in sorted(found.leaked):
        error_line(f"a packet from {asks} arrived at {answers}, which nothing allows")
    if found:
        raise typer.Exit(1)


def _topology(ctx: typer.Context, subject: str) -> Topology:
    if Path(subject).is_file():
        return read_document(Path(subject)).topology
    with context.client(ctx) as client:
        return client.topology(subject).document


def render(matrix: Matrix, expected: frozenset[Pair]) -> Table:
    """One row per asking endpoint: what was measured, and beside it what was expected. Columns by number."""
    from rich.table import Table
    from rich.text import Text

    def row(cells: list[str]) -> Text:
        text = Text()
        for cell in cells:
            text.append(f"{cell:>{width}} ", style=_STYLES.get(cell, ""))
        return text

    ends = matrix.endpoints
    width = len(str(len(ends)))
    numbers = row([str(number) for number, _ in enumerate(ends, 1)])
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("", justify="right")
    table.add_column("from \\ to", no_wrap=True)
    table.add_column(Text("measured\n") + numbers, no_wrap=True)
    table.add_column(Text("expected\n") + numbers, no_wrap=True)
    for number, asks in enumerate(ends, 1):
        measured = [_measured((asks, answers), matrix, expected) for answers in ends]
        wanted = [_wanted((asks, answers), expected) for answers in ends]
        table.add_row(str(number), asks, row(measured), row(wanted))
    return table


_STYLES = {REACHED: "green", NOT_REACHED: "dim", MISSING: "bold red", LEAKED: "bold red"}


def _wanted(pair: Pair, expected: frozenset[Pair]) -> str:
    if pair[0] == pair[1]:
        return SELF
    return REACHED if pair in expected else NOT_REACHED


def _measured(pair: Pair, matrix: Matrix, expected: frozenset[Pair]) -> str:
    if pair in expected:
        return REACHED if pair in matrix.reached else MISSING
    return LEAKED if pair in matrix.reached | matrix.crossed else _wanted(pair, expected)


def _summary(matrix: Matrix, expected: frozenset[Pair]) -> str:
    from vswitchctl.topology.reachability import difference

    found = difference(matrix, expected)
    count = len(matrix.endpoints)
    pairs = f"{count * (count - 1)} pairs of {count} endpoints probed"
    if not found:
        return f"{pairs}, {len(expected)} reach each other, all as expected"
    return f"{pairs}, {len(found.missing)} missing ({MISSING}), {len(found.leaked)} leaked ({LEAKED})"


def _document(topology: Topology, matrix: Matrix, expected: frozenset[Pair]) -> dict[str, object]:
    from vswitchctl.topology.reachability import difference

    found = difference(matrix, expected)
    return {
        "topology": topology.name,
        "endpoints": matrix.endpoints,
        "reached": sorted(matrix.reached),
        "expected": sorted(expected),
        "missing": sorted(found.missing),
        "leaked": sorted(found.leaked),
        "as_expected": not found,
    }
