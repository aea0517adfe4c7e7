"""validate: everything wrong with a file, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli.context import FileArgument, JsonOption
from vswitchctl.cli.document import load_file
from vswitchctl.cli.output import print_findings, print_json, print_text

if TYPE_CHECKING:
    from vswitchctl.model.topology import Topology


def register(app: typer.Typer) -> None:
    app.command()(validate)


def validate(
    file: FileArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    json: JsonOption = False,
) -> None:
    """Check a topology file, without the daemon. Exit code 1 where it has errors."""
    document = load_file(file)
    valid = not document.errors and not (strict and document.warnings)
    if json:
        print_json({"file": str(file), "valid": valid, "findings": document.findings})
    else:
        print_findings(document.findings)
        if document.topology is not None and valid:
            print_text(f"{file}: {_summary(document.topology)}")
    if not valid:
        raise typer.Exit(1)


def _summary(topology: Topology) -> str:
    counts = (
        (len(topology.networks), "network"),
        (len(topology.nodes), "node"),
        (len(topology.links), "link"),
    )
    texts = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    return f"topology '{topology.name}' is valid: {texts}"
