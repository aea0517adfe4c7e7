"""Read a topology from a file, a text or a graph; every finding at once, each with its place."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path as FilePath
from typing import Final, Literal

from vswitchctl.topology.assemble import assemble
from vswitchctl.topology.document import Document
from vswitchctl.topology.graph_source import is_node_link, node_link_data
from vswitchctl.topology.graphml import read_graphml
from vswitchctl.topology.json_source import read_json
from vswitchctl.topology.python_source import run_file
from vswitchctl.topology.source import MAX_BYTES, Place, Source, Unreadable, decode
from vswitchctl.topology.yaml_source import read_yaml

Format = Literal["yaml", "json", "graphml"]

FORMATS: Final[dict[str, Format]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".graphml": "graphml"}
_KNOWN: Final = ".yaml, .yml, .json, .graphml and .py"


def load(path: str | FilePath, *, run_python: bool = False) -> Document:
    """The document in a file, its format by its suffix. Never raises for what is in the file.

    run_python: a '.py' file is a program and is run only where the caller allows it: the command line does,
    the daemon never.
    """
    path = FilePath(path)
    source = Source(Place(str(path)))
    if path.suffix == ".py":
        return run_file(path) if run_python else _refused(source)
    text = read_text(path, source, FORMATS)
    return assemble(source) if text is None else load_text(text, FORMATS[path.suffix], str(path))


def load_text(text: str, format: Format = "yaml", name: str = "topology") -> Document:
    """The document in a text; `name` stands for the file in findings and sources."""
    if format == "graphml":
        return assemble(read_graphml(text, name))
    source = read_json(text, name) if format == "json" else read_yaml(text, name)
    if format == "json" and is_node_link(source.data):
        node_link_data(source)
    return assemble(source)


def read_text(path: FilePath, source: Source, formats: Collection[str]) -> str | None:
    """The text of a file with one of these suffixes. None, with a finding, where it cannot be read."""
    if path.suffix not in formats:
        source.error(0, (), f"unknown format '{path.suffix}'", f"the formats are {_spoken(formats)}")
        return None
    try:
        return decode(_read(path), source)
    except Unreadable:
        return None
    except OSError as error:
        source.error(
            0, (), f"cannot be read: {error.strerror or error}", "check the path and its permissions"
        )
        return None


def _spoken(formats: Collection[str]) -> str:
    return _KNOWN if formats is FORMATS else " and ".join(formats)


def _read(path: FilePath) -> bytes:
    """At most one byte more than a document may have: a huge file costs no memory."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _refused(source: Source) -> Document:
    remedy = "use the command line for it, or write the topology as YAML"
    source.error(0, (), "a Python file is a program, which is not run here", remedy)
    return assemble(source)
