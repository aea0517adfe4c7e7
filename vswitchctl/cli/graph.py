"""graph: a topology as a drawing, of a file, or of what is applied with the status of each part."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import OutOption
from vswitchctl.cli.document import read_document
from vswitchctl.cli.output import console
from vswitchctl.errors import UserError

if TYPE_CHECKING:
    from vswitchctl.model.topology import Topology

DRAWING_WIDTH = 120
"""Columns of a drawing in a pipe, where no terminal says how many there are."""

DOCUMENT_SUFFIXES = frozenset({".yaml", ".yml", ".json", ".graphml", ".py"})


class Picture(StrEnum):
    TERMINAL = "terminal"
    SVG = "svg"
    PNG = "png"
    DOT = "dot"
    GRAPHML = "graphml"
    JSON = "json"


SUFFIXES = {f".{picture}": picture for picture in Picture if picture is not Picture.TERMINAL}


def register(app: typer.Typer) -> None:
    app.command()(graph)


def graph(
    ctx: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A topology file, or the name of an applied topology.")
    ],
    output: OutOption = None,
    picture: Annotated[
        Picture | None,
        typer.Option(
            "--format", help="By default that of --output's suffix, else a drawing for the terminal."
        ),
    ] = None,
) -> None:
    """Draw a topology: on the terminal, or as SVG, PNG, DOT, GraphML or node-link JSON."""
    chosen = picture or _by_suffix(output)
    if chosen is Picture.PNG and output is None and sys.stdout.isatty():
        raise UserError("a PNG is nothing for a terminal", "add -o topology.png")
    topology, statuses = _find(ctx, what)
    if chosen is Picture.TERMINAL and output is None:
        _draw(topology, statuses)
        return
    data = _render(topology, statuses, chosen)
    if output is not None:
        output.write_bytes(data)
    else:
        sys.stdout.buffer.write(data)


def _by_suffix(output: Path | None) -> Picture:
    if output is None:
        return Picture.TERMINAL
    if output.suffix not in SUFFIXES:
        raise UserError(
            f"{output}: no format has the suffix '{output.suffix}'", f"one of {', '.join(SUFFIXES)}"
        )
    return SUFFIXES[output.suffix]


def _find(ctx: typer.Context, what: str) -> tuple[Topology, dict[str, str]]:
    """The topology in a file, else of that name in the daemon, then with the status of each entity."""
    path = Path(what)
    if path.suffix in DOCUMENT_SUFFIXES or path.exists():
        return read_document(path).topology, {}
    with context.client(ctx) as client:
        detail = client.topology(what)
    return detail.document, {entity.entity: entity.status.value for entity in detail.entities}


def _draw(topology: Topology, statuses: dict[str, str]) -> None:
    from vswitchctl.topology.render_terminal import to_rich

    console(pipe_width=DRAWING_WIDTH).print(to_rich(topology, statuses))


def _render(topology: Topology, statuses: dict[str, str], picture: Picture) -> bytes:
    from vswitchctl.topology import networkx_io, render

    match picture:
        case Picture.SVG:
            return render.to_svg(topology, statuses).encode()
        case Picture.PNG:
            return render.to_png(topology, statuses)
        case Picture.DOT:
            return render.to_dot(topology, statuses).encode()
        case Picture.GRAPHML:
            return networkx_io.dump_graphml(topology).encode()
        case Picture.JSON:
            return networkx_io.dump_node_link(topology).encode()
        case Picture.TERMINAL:
            raise UserError("a drawing for the terminal is not for a file", f"one of {', '.join(SUFFIXES)}")
