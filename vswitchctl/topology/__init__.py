"""Topology documents: load, check, build, convert, draw. See docs/topology.md for the file format."""

from __future__ import annotations

from vswitchctl.topology.builder import TopologyBuilder
from vswitchctl.topology.document import Document, Finding
from vswitchctl.topology.load import load, load_text
from vswitchctl.topology.networkx_io import (
    dump_graphml,
    dump_json,
    dump_node_link,
    dump_yaml,
    from_networkx,
    load_networkx,
    to_networkx,
)
from vswitchctl.topology.validate import validate

__all__ = [
    "Document",
    "Finding",
    "TopologyBuilder",
    "dump_graphml",
    "dump_json",
    "dump_node_link",
    "dump_yaml",
    "from_networkx",
    "load",
    "load_networkx",
    "load_text",
    "to_networkx",
    "validate",
]
