"""One ACL or group from a file: alone, as it stands in a topology file, or out of a topology file."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any, Final, Literal

from vswitchctl.errors import InvalidTopology
from vswitchctl.model.intent import PolicyChange
from vswitchctl.topology.document import in_order
from vswitchctl.topology.json_source import read_json
from vswitchctl.topology.load import read_text
from vswitchctl.topology.shape import check_shape
from vswitchctl.topology.source import MarkedDict, MarkedList, Place, Source
from vswitchctl.topology.yaml_source import read_yaml

SUFFIXES: Final = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json}


def load_entry(path: FilePath, section: Literal["acls", "groups"], name: str) -> PolicyChange:
    """The ACL (a list of rules) or group (a mapping) in a file, or the one of that name in a topology file.

    Raises InvalidTopology with everything that is wrong with its shape. What it means is for the daemon,
    which has the rest of the topology.
    """
    source = Source(Place(str(path)))
    text = read_text(path, source, SUFFIXES)
    if text is not None:
        source = SUFFIXES[path.suffix](text, str(path))
    data = _entry(source.data, section, name)
    if data is None and not source.findings:
        source.error(
            0, (section,), f"there is no '{name}'", f"write it under '{section}', or alone in a file"
        )
    if source.findings:
        raise InvalidTopology(in_order(source.findings))
    shape = check_shape(_around(data, section, name, source.place), source.place)
    if shape.topology is None or shape.findings:
        raise InvalidTopology(in_order(shape.findings))
    place = data.place if isinstance(data, MarkedDict | MarkedList) else source.place
    return PolicyChange(section, name, getattr(shape.topology, section)[name], str(place))


def _entry(data: Any, section: str, name: str) -> Any:
    """data: of a file. The entry itself, or the one of that name where the file is a whole topology."""
    if isinstance(data, MarkedDict) and section in data:
        entries = data[section]
        return entries.get(name) if isinstance(entries, MarkedDict) else None
    return data


def _around(data: Any, section: str, name: str, place: Place) -> MarkedDict:
    """A topology of nothing but this entry."""
    entries, whole = MarkedDict(place), MarkedDict(place)
    entries.put(name, data, place)
    whole.put("name", "entry", place)
    whole.put(section, entries, place)
    return whole
