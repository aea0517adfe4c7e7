"""Topology files on their way to the daemon. A Python file is executed here and never there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vswitchctl.cli.output import print_findings
from vswitchctl.errors import UserError

if TYPE_CHECKING:
    from vswitchctl.model.views import TopologyDocument
    from vswitchctl.topology.document import Document


def load_file(file: Path) -> Document:
    """Everything about the file, its errors too. Raises UserError where it is a directory."""
    from vswitchctl.topology.load import load

    if file.is_dir():
        raise UserError(f"{file} is a directory", "name a topology file in it")
    return load(file, run_python=True)


def read_document(file: Path) -> TopologyDocument:
    """The file's topology; warnings go to standard error. Raises InvalidTopology with every error."""
    from vswitchctl.model.views import TopologyDocument

    document = load_file(file)
    topology = document.require()
    print_findings(document.warnings)
    return TopologyDocument(topology=topology, sources=document.sources)
