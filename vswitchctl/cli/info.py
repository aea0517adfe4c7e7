"""version and schema: what this installation is, and what it reads."""

from __future__ import annotations

import typer

from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import print_json, print_text


def register(app: typer.Typer) -> None:
    app.command()(version)
    app.command()(schema)


def version(json: JsonOption = False) -> None:
    """Print the version."""
    from vswitchctl import __version__

    if json:
        print_json({"version": __version__})
    else:
        print_text(f"vswitchctl {__version__}")


def schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    from vswitchctl.topology.schema import json_schema_text

    print_text(json_schema_text())
