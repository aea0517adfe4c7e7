"""YAML to marked data, safely: no tags, bounded aliases and depth, every scalar that YAML 1.1 twists refused.

Built on PyYAML's event stream, which is iterative, instead of its composer, which recurses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from vswitchctl.topology.source import (
    MAX_DEPTH,
    MAX_NODES,
    MarkedDict,
    MarkedList,
    Path,
    Place,
    Source,
    Unreadable,
    require_text,
    shown,
)

_EVENTS: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Only its parser is used: nothing is ever constructed."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+")

_BOOLEAN = re.compile(r"(?i:yes|no|on|off|true|false)")
_SAID_ALIKE: Final = {"true": True, "false": False}
"""The booleans of YAML 1.1 that YAML 1.2 knows, too."""
_BASE60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_MAC = re.compile(r"[0-9]{2}(:[0-9]{2}){5}")
_OCTAL = re.compile(r"[-+]?0o?[0-9_]+")
_ODD_NUMBER = re.compile(r"[-+]?([1-9][0-9]*_[0-9_]*|0b[01_]+|[0-9]+[eE][-+]?[0-9]+)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")

_TRAPS: Final = (
    (_BOOLEAN, "a boolean, not a text, in YAML 1.1"),
    (_BASE60, "a number in base 60 in YAML 1.1"),
    (_OCTAL, "an octal number in YAML 1.1"),
    (_ODD_NUMBER, "a number to some YAML readers and a text to others"),
    (_DATE, "a date in YAML 1.1"),
)


def trap(text: str) -> tuple[str, str] | None:
    """What YAML 1.1 (its type repository) makes of an unquoted scalar against the writer's will.

    Message and remedy, or None for a scalar that every YAML reader takes alike.
    """
    shape = next((shape for shape, _ in _TRAPS if shape.fullmatch(text)), None)
    if shape is None or (shape is _BASE60 and text.startswith("0")) or text.strip("+-") == "0":
        return None
    what = "this MAC address" if _MAC.fullmatch(text) else shown(text)
    message = f"{what} without quotes is {dict(_TRAPS)[shape]}"
    written = shown(text, quoted=False)
    if shape is _OCTAL:
        return message, f'write {written.lstrip("+-0o") or 0}, or "{written}" for a text'
    return message, f'put it in quotes: "{written}"'


_NO_KEY: Final = object()
_DROPPED: Final = object()


@dataclass(slots=True)
class _Frame:
    """A collection under construction. size: values in it, aliases expanded. height: levels below it."""

    container: MarkedDict | MarkedList
    path: Path
    anchor: str | None = None
    key: Any = _NO_KEY
    key_place: Place | None = None
    merges: list[Any] = field(default_factory=list)
    size: int = 1
    height: int = 0


@dataclass(frozen=True, slots=True)
class _Anchored:
    value: Any
    size: int
    height: int


class _Composer:
    """Turns the events of one document into marked data."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stack: list[_Frame] = []
        self.anchors: dict[str, _Anchored] = {}
        self.open_anchors: set[str] = set()
        self.count = 0
        self.documents = 0
        self.place = source.place

    def feed(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if line != self.place.line:
            self.place = Place(self.source.place.file, line)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "")
        elif isinstance(event, yaml.DocumentStartEvent):
            self._document()

    def _stop(self, message: str, remedy: str) -> None:
        self.source.error(self.place.line, self._path(), message, remedy)
        raise Unreadable

    def _error(self, message: str, remedy: str) -> None:
        self.source.error(self.place.line, self._path(), message, remedy)

    def _document(self) -> None:
        self.documents += 1
        if self.documents > 1:
            self._stop("a second document starts here", "one file holds one topology; split it at the '---'")

    def _path(self) -> Path:
        if not self.stack:
            return ()
        frame = self.stack[-1]
        if isinstance(frame.container, MarkedList):
            return (*frame.path, len(frame.container))
        return (*frame.path, frame.key) if isinstance(frame.key, str) else frame.path

    def _counted(self, size: int) -> None:
        self.count += size
        if self.count > MAX_NODES:
            self._stop(
                f"the document grows beyond {MAX_NODES:,} values here",
                "use fewer aliases ('*name'), or split it into several topologies",
            )

    def _start(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._counted(1)
        if len(self.stack) >= MAX_DEPTH:
            self._stop(f"nested more than {MAX_DEPTH} levels deep", "a topology needs 7")
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._tag(event.tag, ("map",) if mapping else ("seq",))
        container = MarkedDict(self.place) if mapping else MarkedList(self.place)
        if event.anchor:
            self.open_anchors.add(event.anchor)
        self.stack.append(_Frame(container, self._path(), event.anchor))

    def _end(self) -> None:
        frame = self.stack.pop()
        if isinstance(frame.container, MarkedDict):
            self._merge(frame.container, frame)
        if frame.anchor:
            self.open_anchors.discard(frame.anchor)
            self.anchors[frame.anchor] = _Anchored(frame.container, frame.size, frame.height)
        self._value(frame.container, frame.size, frame.height, frame.container.place)

    def _alias(self, name: str) -> None:
        if name in self.open_anchors:
            self._stop(
                f"alias '*{name}' stands inside what it repeats",
                "an alias can only repeat what ended before it",
            )
        anchored = self.anchors.get(name)
        if anchored is None:
            self._stop(f"alias '*{name}' repeats nothing", f"mark the first one with '&{name}'")
            return
        if len(self.stack) + anchored.height > MAX_DEPTH:
            self._stop(f"aliases nest more than {MAX_DEPTH} levels deep", "a topology needs 7")
        self._counted(anchored.size)
        self._value(anchored.value, anchored.size, anchored.height, self.place)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._counted(1)
        is_key = (
            bool(self.stack)
            and isinstance(self.stack[-1].container, MarkedDict)
            and (self.stack[-1].key is _NO_KEY)
        )
        value = self._key_text(event) if is_key else self._resolve(event)
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(value, 1, 0)
        self._value(value, 1, 0, self.place)

    def _key_text(self, event: yaml.ScalarEvent) -> Any:
        if event.implicit[0] and event.tag is None and event.value == "<<":
            return event.value
        value = self._resolve(event, otherwise="")
        if value is None:
            self._error("a key is empty", "give it a name")
            return _DROPPED
        found = trap(event.value) if isinstance(value, bool) else None
        if found:
            self._error(*found)
        if isinstance(value, float):
            self._error(f"key {event.value} is a number", f'put it in quotes: "{event.value}"')
        return value if isinstance(value, str) else event.value

    def _resolve(self, event: yaml.ScalarEvent, otherwise: str = ", or write true or false") -> Any:
        """The value of a scalar: a text, an int, a float, a boolean or None; never anything else.

        otherwise: what to say beside the quotes where a boolean could be meant.
        """
        text = event.value
        self._tag(event.tag, ("str", "int", "float", "null"))
        quoted = event.tag is None and not event.implicit[0]
        if quoted or event.tag in ("!", f"{_TAG}str"):
            return text
        if text in _SAID_ALIKE:
            return _SAID_ALIKE[text]
        found = trap(text)
        if found:
            message, remedy = found
            self._error(message, remedy + (otherwise if _BOOLEAN.fullmatch(text) else ""))
            return text
        return _plain(text)

    def _tag(self, tag: str | None, allowed: tuple[str, ...]) -> None:
        if tag is None or tag == "!" or tag.removeprefix(_TAG) in allowed:
            return
        shown_tag = tag.replace(_TAG, "!!")
        self._error(f"the tag {shown(shown_tag)} is not read", "write plain values, without tags")

    def _value(self, value: Any, size: int, height: int, place: Place) -> None:
        if not self.stack:
            self.source.data = value
            return
        frame = self.stack[-1]
        frame.size += size
        frame.height = max(frame.height, height + 1)
        if isinstance(frame.container, MarkedList):
            frame.container.put(value, place)
        elif frame.key is _NO_KEY:
            self._key(frame, value, place)
        else:
            self._pair(frame, frame.container, value, place)

    def _key(self, frame: _Frame, value: Any, place: Place) -> None:
        frame.key_place = place
        if isinstance(value, MarkedDict | MarkedList):
            self._error("a key is a list or a mapping", "a key is a plain text; put braces in quotes")
            value = _DROPPED
        frame.key = value if value is _DROPPED or isinstance(value, str) else str(value)

    def _pair(self, frame: _Frame, container: MarkedDict, value: Any, place: Place) -> None:
        key, key_place = frame.key, frame.key_place or place
        if key is _DROPPED:
            pass
        elif key == "<<":
            frame.merges.append(value)
        elif key in container:
            first = container.places[key].line
            self.source.error(
                key_place.line,
                (*frame.path, key),
                f"key {shown(key)} stands twice, first in line {first}",
                "remove one, or give it another name",
            )
        else:
            container.put(key, value, place if not isinstance(value, MarkedDict | MarkedList) else key_place)
        frame.key = _NO_KEY

    def _merge(self, container: MarkedDict, frame: _Frame) -> None:
        """YAML's merge key: what the mapping does not say itself comes from the one merged in."""
        for merged in frame.merges:
            for other in merged if isinstance(merged, MarkedList) else [merged]:
                if not isinstance(other, MarkedDict):
                    self.source.error(
                        container.place.line,
                        frame.path,
                        "'<<' merges something that is not a mapping",
                        "name one: <<: *anchor",
                    )
                    continue
                for key, value in other.items():
                    if key not in container:
                        container.put(key, value, other.places[key])


def _plain(text: str) -> Any:
    """An unquoted scalar that is no trap. Numbers too long for any key stay texts."""
    if _NULL.fullmatch(text):
        return None
    if _INT.fullmatch(text):
        return int(text)
    if len(text) > 40:
        return text
    if _HEX.fullmatch(text):
        return int(text, 16)
    return (
        float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(text) else text
    )


def read_yaml(text: str, file: str) -> Source:
    """Marked data of a YAML text; `data` is None where it could not be read; a finding says why."""
    source = Source(Place(file))
    composer = _Composer(source)
    try:
        require_text(text, source)
        for event in yaml.parse(text, Loader=_EVENTS):
            composer.feed(event)
    except Unreadable:
        source.data = None
    except yaml.MarkedYAMLError as error:
        source.data = None
        _syntax(source, error, text)
    except yaml.YAMLError as error:
        source.data = None
        source.error(
            0,
            (),
            f"not YAML: {shown(str(error), quoted=False)}",
            "check the file in an editor that knows YAML",
        )
    return source


def _syntax(source: Source, error: yaml.MarkedYAMLError, text: str) -> None:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    lines = text.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        source.error(line, (), "a tab indents this line", "YAML indents by spaces only")
        return
    if "nesting depth" in (error.problem or ""):
        source.error(line, (), f"nested more than {MAX_DEPTH} levels deep", "a topology needs 7")
        return
    context = f" {error.context}" if error.context else ""
    source.error(
        line,
        (),
        f"not YAML:{context}{',' if context else ''} {error.problem}",
        "look at this line and the one before: indentation, quotes and brackets",
    )
