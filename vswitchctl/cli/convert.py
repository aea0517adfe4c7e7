"""convert: the same topology in another format."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vswitchctl.cli.context import FileArgument, OutOption
from vswitchctl.cli.document import read_document
from vswitchctl.cli.output import print_text


class Format(StrEnum):
    YAML = "yaml"
    JSON = "json"
    GRAPHML = "graphml"
    NODE_LINK = "node-link"


def register(app: typer.Typer) -> None:
    app.command()(convert)


def convert(
    file: FileArgument,
    to: Annotated[Format, typer.Option("--to", help="The format to write.")],
    output: OutOption = None,
) -> None:
    """Write a topology file in another format. Comments do not survive."""
    from vswitchctl.topology import networkx_io

    dumps = {
        Format.YAML: networkx_io.dump_yaml,
        Format.JSON: networkx_io.dump_json,
        Format.GRAPHML: networkx_io.dump_graphml,
        Format.NODE_LINK: networkx_io.dump_node_link,
    }
    text = dumps[to](read_document(file).topology)
    if output is None:
        print_text(text)
    else:
        output.write_text(text, encoding="utf-8")
