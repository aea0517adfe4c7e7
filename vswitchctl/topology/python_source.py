"""A Python file that defines `topology`: a program, which only the command line runs, for its own user."""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path as FilePath
from typing import Any

import networkx as nx

from vswitchctl.model.topology import Topology
from vswitchctl.topology.assemble import assemble
from vswitchctl.topology.builder import TopologyBuilder
from vswitchctl.topology.document import Document
from vswitchctl.topology.networkx_io import load_networkx, plain
from vswitchctl.topology.source import Place, Source, mark, shown


def run_file(path: FilePath) -> Document:
    """Runs the file and takes its `topology`: a TopologyBuilder, a Topology or a networkx graph."""
    source = Source(Place(str(path)))
    path.open("rb").close()  # an unreadable file is the caller's OSError, not an error of the program
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's program may raise anything; it is reported
        source.error(
            _line_of(error, str(path)),
            (),
            f"the program failed: {_named(error)}",
            "run it with python3 to see more",
        )
        return assemble(source)
    if "topology" not in names:
        source.error(
            0, (), "the file defines no 'topology'", "end it with 'topology = TopologyBuilder(...)...'"
        )
        return assemble(source)
    return document_of(names["topology"], source)


def document_of(value: Any, source: Source) -> Document:
    """The Document of a builder, a Topology or a networkx graph."""
    if isinstance(value, TopologyBuilder):
        return value.document()
    if isinstance(value, nx.Graph):
        return load_networkx(value, source.place.file)
    if isinstance(value, Topology):
        source.data = mark(plain(value), source.place)
    else:
        message = f"'topology' is {shown(type(value).__name__)}"
        source.error(0, (), message, "make it a TopologyBuilder, a Topology or a networkx graph")
    return assemble(source)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(str(error), quoted=False)}"


def _line_of(error: BaseException, file: str) -> int:
    """The last line of the user's own file that the error passed."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == file), 0)
