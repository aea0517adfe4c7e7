"""Plain data that remembers where each part of it was written, and what every reader of text shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vswitchctl.model.topology import Topology, link_name
from vswitchctl.topology.document import Finding

MAX_BYTES = 16 * 2**20
"""A document of 10,000 endpoints takes about 2 MiB; beyond this a file is refused before it is read."""

MAX_NODES = 1_000_000
"""Values of a document after aliases are expanded; 10,000 endpoints have about 200,000."""

MAX_DEPTH = 32
"""Levels of nesting; a topology has 7. Keeps recursion over the data far from Python's own limit (1,000)."""

Path = tuple[str | int, ...]

_WORD = re.compile(r"[\w:/-]+")

_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What is not a printable character: YAML 1.2, production 1."""


class Place(NamedTuple):
    """A line of a file; line 0 where there are no lines."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class MarkedDict(dict[str, Any]):
    """A mapping with its own place and the place of each key."""

    __slots__ = ("place", "places")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, Place] = {}

    def put(self, key: str, value: Any, place: Place) -> None:
        self[key] = value
        self.places[key] = place

    def without(self, key: str) -> MarkedDict:
        copy = MarkedDict(self.place)
        for name, value in self.items():
            if name != key:
                copy.put(name, value, self.places[name])
        return copy


class MarkedList(list[Any]):
    """A sequence with its own place and the place of each item."""

    __slots__ = ("place", "places")

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []

    def put(self, value: Any, place: Place) -> None:
        self.append(value)
        self.places.append(place)


@dataclass(slots=True)
class Source:
    """What a reader makes of a text: data (None where it could not be read), and what it found wrong."""

    place: Place
    data: Any = None
    findings: list[Finding] = field(default_factory=list)

    def error(self, line: int, path: Path, message: str, remedy: str = "") -> None:
        self.findings.append(Finding("error", self.place.file, line, path_text(path), message, remedy))


class Unreadable(Exception):
    """Reading cannot go on; the finding that says so is in the source already."""


def mark(value: Any, place: Place, depth: int = 0) -> Any:
    """Plain Python data with one place for all of it. Raises ValueError where it is nested too deep."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        marked = MarkedDict(place)
        for key, item in value.items():
            marked.put(str(key), mark(item, place, depth + 1), place)
        return marked
    if isinstance(value, list | tuple | set | frozenset):
        items = MarkedList(place)
        for item in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            items.put(mark(item, place, depth + 1), place)
        return items
    return value


def has(data: Any, step: str | int) -> bool:
    """Whether marked data holds such a key or item."""
    if isinstance(data, MarkedDict):
        return isinstance(step, str) and step in data
    return isinstance(data, MarkedList) and isinstance(step, int) and step < len(data)


def place_of(data: Any, path: Path, otherwise: Place) -> Place:
    """The place of the deepest part of the path that is there."""
    place = data.place if isinstance(data, MarkedDict | MarkedList) else otherwise
    for step in path:
        if not has(data, step):
            break
        place = data.places[step]
        data = data[step]
    return place


def path_text(path: Path) -> str:
    """('links', 0, 'ends') -> 'links[0].ends'."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + shown(step, quoted=not _WORD.fullmatch(step))
    return text


def shown(value: object, *, quoted: bool = True) -> str:
    """A value in a message: short, on one line, without control characters."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:80])
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"'{text}'" if quoted and isinstance(value, str) else text


def decode(raw: bytes, source: Source) -> str:
    """UTF-8 text. Raises Unreadable, with a finding that names the line, where it is not such a text."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        source.error(1, (), "the file is in UTF-16", "save it as UTF-8")
        raise Unreadable
    if len(raw) > MAX_BYTES:
        source.error(0, (), *too_large(len(raw)))
        raise Unreadable
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        source.error(line, (), f"byte 0x{raw[error.start]:02x} is not UTF-8", "save the file as UTF-8 text")
        raise Unreadable from error


def require_text(text: str, source: Source) -> None:
    """Raises Unreadable where the text is empty, too large, or holds characters no text has."""
    if len(text) > MAX_BYTES:
        source.error(0, (), *too_large(len(text)))
        raise Unreadable
    found = _UNREADABLE.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        code = f"U+{ord(found.group()):04X}"
        source.error(
            line, (), f"character {code} is not text", "is this a binary file? a topology is plain text"
        )
        raise Unreadable
    if not text.strip():
        source.error(0, (), "the file is empty", "a topology has at least a name: 'name: my-network'")
        raise Unreadable


def too_large(size: int) -> tuple[str, str]:
    """Message and remedy for a document of `size` bytes."""
    limit = MAX_BYTES // 2**20
    return (
        f"the document has {size / 2**20:.1f} MiB",
        f"at most {limit} MiB are read; split it into several topologies",
    )


def place_of_source(source: str) -> Place:
    """'web.yaml:7' -> Place('web.yaml', 7)."""
    file, colon, line = source.rpartition(":")
    return Place(file, int(line)) if colon and line.isdecimal() else Place(source or "topology")


def entity_of(topology: Topology, path: Path) -> str:
    """('nodes', 'web1', 'interfaces', 'eth0', 'ip') -> 'interfaces/web1:eth0'; 'topology' for the whole."""
    match path:
        case ("nodes", str(node), "interfaces", str(interface), *_):
            return f"interfaces/{node}:{interface}"
        case ("links", int(number), *_):
            return f"links/{link_name(topology.links[number])}"
        case ("nodes" | "networks" | "tenants" | "groups" | "acls" | "routers" as section, str(name), *_):
            return f"{section}/{name}"
        case _:
            return "topology"
