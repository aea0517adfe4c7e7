"""From marked data to a Topology: what pydantic finds wrong with the shape, in plain words, with its place.

Where parts are malformed, the rest is kept, so that its meaning can be checked in the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import Interface, Namespace, Topology
from vswitchctl.topology.document import Finding
from vswitchctl.topology.nearest import nearest
from vswitchctl.topology.shape_words import in_words, kind_of
from vswitchctl.topology.source import MarkedDict, MarkedList, Path, Place, path_text, place_of

BOOLEANS: Final = {
    model: frozenset(name for name, field in model.model_fields.items() if field.annotation is bool)
    for model in (Interface, Namespace, Rule)
}
"""Keys that are true or false."""
NAMED_SECTIONS: Final = ("tenants", "networks", "nodes", "qos", "groups", "acls", "routers")
_PLACEHOLDER = "unnamed"
_ROUNDS = 4
"""Removing a malformed part can bring up what it hid; the third round finds nothing in any case known."""


@dataclass(slots=True)
class Shape:
    """topology: of the well-shaped parts, None where nothing is left. findings: every malformed part.

    broken: entities that are malformed ('nodes/web1', 'links/3'; 'nodes/*' for a whole section).
    links: the place of each link of `topology` in the document's list.
    """

    topology: Topology | None
    findings: list[Finding] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    links: tuple[int, ...] = ()


def check_shape(data: Any, place: Place) -> Shape:
    """Data of any kind to a Shape; never raises."""
    if not isinstance(data, MarkedDict):
        message = f"a topology is a mapping of keys, this is {kind_of(data)}"
        remedy = "start with 'name: my-network'"
        return Shape(None, [Finding("error", place.file, place.line or 1, "", message, remedy)])
    data = _without_nulls(data)
    findings = _booleans(data, place)
    data_now, broken, links = data, set[str](), list(range(_length(data.get("links"))))
    for _ in range(_ROUNDS):
        try:
            topology = Topology.model_validate(data_now)
        except ValidationError as error:
            details = error.errors(include_url=False)
            if data_now is data:
                findings += [finding for d in details for finding in _finding(d, data, place)]
            data_now, links = _survivors(data_now, details, broken, links)
        else:
            return Shape(topology, findings, frozenset(broken), tuple(links))
    return Shape(None, findings, frozenset(broken))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _without_nulls(data: MarkedDict) -> MarkedDict:
    """'tenants:' and 'red:' with nothing behind them mean an empty section and a tenant of its defaults."""
    clean = MarkedDict(data.place)
    for key, value in data.items():
        if value is None:
            continue
        if key == "tenants" and isinstance(value, MarkedDict):
            tenants = MarkedDict(value.place)
            for name, tenant in value.items():
                place = value.places[name]
                tenants.put(name, MarkedDict(place) if tenant is None else tenant, place)
            value = tenants  # noqa: PLW2901
        clean.put(key, value, data.places[key])
    return clean


def _booleans(data: MarkedDict, place: Place) -> list[Finding]:
    """pydantic takes true for 1 where a number is meant; few keys of interfaces and rules are booleans."""
    findings: list[Finding] = []
    walk: list[tuple[Path, Any]] = [((), data)]
    while walk:
        path, value = walk.pop()
        if isinstance(value, MarkedDict):
            walk += [((*path, key), item) for key, item in value.items() if not isinstance(item, str)]
        elif isinstance(value, MarkedList):
            walk += [
                ((*path, number), item) for number, item in enumerate(value) if not isinstance(item, str)
            ]
        elif isinstance(value, bool) and not _may_be_boolean(path):
            at = place_of(data, path, place)
            word = str(value).lower()
            message, remedy = (
                f"{word} is a boolean, and nothing here is one",
                f'write "{word}" in quotes for a text',
            )
            findings.append(Finding("error", at.file, at.line, path_text(path), message, remedy))
    return findings


def _may_be_boolean(path: Path) -> bool:
    """A key of an interface or rule that is one, or that is unknown, which is told another way."""
    match path:
        case ("nodes", _, "interfaces", _, str(key)):
            return key in BOOLEANS[Interface] or key not in Interface.model_fields
        case ("nodes", _, "external"):
            return True
        case ("nodes", _, str(key)):
            return key in BOOLEANS[Namespace]
        case ("acls", _, int(), str(key)):
            return key == "log" or key in BOOLEANS[Rule] or key not in Rule.model_fields
    return False


def _document_path(details: ErrorDetails, data: Any) -> Path:
    """pydantic's location without a union's tag, '[key]', and an index where no list was written."""
    path: list[str | int] = []
    missing = details["type"] in ("missing", "extra_forbidden")
    for number, step in enumerate(details["loc"]):
        if step == "[key]" or (number == 2 and details["loc"][0] == "nodes" and isinstance(step, str)):
            continue
        inside = isinstance(data, MarkedList) if isinstance(step, int) else isinstance(data, MarkedDict)
        if not inside:
            break
        known = (isinstance(data, MarkedDict) and step in data) or (
            isinstance(step, int) and step < len(data)
        )
        if not known:
            return (*path, step) if missing and details["type"] == "extra_forbidden" else tuple(path)
        path.append(step)
        data = data[step]
    return tuple(path)


def _finding(details: ErrorDetails, data: MarkedDict, place: Place) -> list[Finding]:
    path = _document_path(details, data)
    if isinstance(details["input"], bool) and not _may_be_boolean(path):
        return []
    message, remedy, inner = in_words(details)
    at = place_of(data, (*path, *inner), place)
    return [Finding("error", at.file, at.line, path_text((*path, *inner)), message, remedy)]


def _survivors(
    data: MarkedDict, details: list[ErrorDetails], broken: set[str], links: list[int]
) -> tuple[MarkedDict, list[int]]:
    """The data without its malformed parts; adds these to `broken`. An unknown key costs only itself."""
    gone: set[Path] = set()
    for error in details:
        path = _document_path(error, data)
        if error["type"] == "extra_forbidden":
            misspelt = nearest(str(path[0]), NAMED_SECTIONS) if len(path) == 1 else None
            broken |= {f"{misspelt}/*"} if misspelt else set()
            gone.add(path)
        elif len(path) > 1 and path[0] in NAMED_SECTIONS:
            broken.add(f"{path[0]}/{path[1]}")
            gone.add(path[:2])
        elif len(path) > 1 and isinstance(path[1], int):
            broken.add(f"{path[0]}/{links[path[1]]}")
            gone.add(path[:2])
        elif path and path[0] != "name":
            broken.add(f"{path[0]}/*")
            gone.add(path[:1])
        else:
            gone.add(("name",))
    kept: MarkedDict = _without(data, gone)
    if "name" not in kept:
        kept.put("name", _PLACEHOLDER, data.place)
    return kept, [number for at, number in enumerate(links) if ("links", at) not in gone]


def _without(data: Any, gone: set[Path]) -> Any:
    """A copy without what the paths name, in one pass; shares all that is on no path."""
    below: dict[str | int, set[Path]] = {}
    for path in gone:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(data, MarkedDict):
        mapping = MarkedDict(data.place)
        for key, value in data.items():
            if () not in below.get(key, ()):
                kept = _without(value, below[key]) if key in below else value
                mapping.put(key, kept, data.places[key])
        return mapping
    if isinstance(data, MarkedList):
        items = MarkedList(data.place)
        for number, value in enumerate(data):
            if () not in below.get(number, ()):
                kept = _without(value, below[number]) if number in below else value
                items.put(kept, data.places[number])
        return items
    return data
