"""How results and errors look: tables on a terminal, plain text in a pipe, one document for --json."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType
    from rich.text import Text

    from vswitchctl.errors import VswitchctlError

PIPE_WIDTH = 100_000
"""Columns where nobody looks: a pipe gets one line per row, however long."""

STATUS_STYLES = {
    "in-sync": "green",
    "applying": "cyan",
    "pending": "yellow",
    "bypasses": "yellow",
    "failed": "red",
    "stale": "magenta",
}


def console(*, err: bool = False, pipe_width: int = PIPE_WIDTH) -> Console:
    """Standard output or error. Colours on a terminal only, and not with NO_COLOR (no-color.org)."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else pipe_width
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def print_text(text: str) -> None:
    """Text as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_json(value: BaseModel | Sequence[BaseModel | dict[str, object]] | dict[str, object]) -> None:
    """One JSON document."""
    from pydantic_core import to_json

    print_text(to_json(value, indent=2).decode())


def error_line(message: str) -> None:
    """One line on standard error."""
    console(err=True).print(_labelled("error", "bold red", message), soft_wrap=True)


def warning_line(message: str) -> None:
    console(err=True).print(_labelled("warning", "yellow", message), soft_wrap=True)


def print_findings(findings: Iterable[object]) -> None:
    """Every finding of a document on a line of its own, on standard error."""
    for finding in findings:
        sys.stderr.write(f"{finding}\n")


def report_error(error: VswitchctlError, *, json: bool) -> None:
    """What went wrong and what to do: one line, or one for each finding; with --json a document too."""
    from vswitchctl.errors import InvalidTopology

    if json:
        print_json(_problem(error))
    if isinstance(error, InvalidTopology):
        print_findings(error.findings)
    else:
        error_line(" ".join(str(error).split()))


def _problem(error: VswitchctlError) -> dict[str, object]:
    from vswitchctl.errors import InvalidTopology

    findings = list(error.findings) if isinstance(error, InvalidTopology) else []
    return {"error": error.message, "remedy": error.remedy, "findings": findings}


def _labelled(label: str, style: str, message: str) -> Text:
    from rich.text import Text

    return Text.assemble((f"{label}: ", style), message)


def status_text(status: str) -> Text:
    from rich.text import Text

    return Text(status, style=STATUS_STYLES.get(status, ""))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[RenderableType]]) -> None:
    """A table as wide as it must be and never wider than the terminal: long cells fold, nothing is cut."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    terminal = console()
    with terminal.capture() as drawn:
        terminal.print(table)
    # Rich fills the last column with blanks: nothing that a reader of a pipe, or of a copy, wants.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in drawn.get().splitlines())
    sys.stdout.flush()
