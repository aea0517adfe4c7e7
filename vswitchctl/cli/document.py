"""Topology files on their way to the daemon. A Python file is executed here and never there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vswitchctl.cli.output import print_findings

if TYPE_CHECKING:
    from vswitchctl.model.views import TopologyDocument


def read_document(file: Path) -> TopologyDocument:
    """The file's topology; warnings go to standard error. Raises InvalidTopology with every error."""
    from vswitchctl.model.views import TopologyDocument
    from vswitchctl.topology.load import load

    document = load(file, run_python=True)
    topology = document.require()
    print_findings(document.warnings)
    return TopologyDocument(topology=topology, sources=document.sources)
