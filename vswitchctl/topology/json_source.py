"""JSON to marked data: an iterative reader (RFC 8259), since the standard library's tells no lines."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

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

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERALS: Final = {"true": True, "false": False, "null": None}
_LONGEST_INT = 18
"""Digits; an integer beyond that is out of every range here, and stays a text."""


class _Reader:
    """A cursor over the text with its line, and the stack of open containers."""

    def __init__(self, text: str, source: Source) -> None:
        self.text = text
        self.source = source
        self.at = 0
        self.counted_to = 0
        self.place = Place(source.place.file, 1)
        self.stack: list[tuple[MarkedDict | MarkedList, Path]] = []
        self.keys: list[tuple[str, Place]] = []
        self.values = 0

    def stop(self, message: str, remedy: str) -> Unreadable:
        self.source.error(self.place.line, self.path(), message, remedy)
        return Unreadable()

    def path(self) -> Path:
        if not self.stack:
            return ()
        container, path = self.stack[-1]
        if isinstance(container, MarkedList):
            return (*path, len(container))
        return (*path, self.keys[-1][0]) if self.keys[-1][0] else path

    def peek(self) -> str:
        """The next character that is not a space; '' at the end. Keeps the line."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        lines = self.text.count("\n", self.counted_to, self.at)
        self.counted_to = self.at
        if lines:
            self.place = Place(self.source.place.file, self.place.line + lines)
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str, instead: str) -> None:
        if self.peek() != wanted:
            raise self.stop(
                f"{instead} is missing before {self.here()}", "JSON is strict: check commas and brackets"
            )
        self.at += 1

    def here(self) -> str:
        rest = self.text[self.at : self.at + 12].split("\n", 1)[0]
        return shown(rest) if rest else "the end"

    def string(self) -> str:
        try:
            text, self.at = scanstring(self.text, self.at + 1, True)
        except json.JSONDecodeError as error:
            raise self.stop(
                f"not a JSON string: {error.msg}", "a string ends with '\"' on its line"
            ) from error
        return str(text)

    def scalar(self, first: str) -> Any:
        if first == '"':
            return self.string()
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            whole = number.group()
            if number.group(1) or number.group(2):
                return float(whole)
            return int(whole) if len(whole) <= _LONGEST_INT else whole
        word = _WORD.match(self.text, self.at)
        if word and word.group() in _LITERALS:
            self.at = word.end()
            return _LITERALS[word.group()]
        raise self.stop(
            f"a value is missing before {self.here()}", "texts stand in double quotes; no comma ends a list"
        )

    def read(self) -> Any:
        """The value of the whole text. Raises Unreadable."""
        root = self._value()
        while self.stack:
            container, _ = self.stack[-1]
            done = self._list(container) if isinstance(container, MarkedList) else self._dict(container)
            if done:
                self._close()
        if self.peek():
            raise self.stop(
                f"{self.here()} stands after the end of the document", "one file holds one topology"
            )
        return root

    def _value(self) -> Any:
        """A scalar, or a container that is now open on the stack."""
        self.values += 1
        if self.values > MAX_NODES:
            raise self.stop(f"more than {MAX_NODES:,} values", "split it into several topologies")
        first = self.peek()
        if first not in ("{", "["):
            return self.scalar(first)
        if len(self.stack) >= MAX_DEPTH:
            raise self.stop(f"nested more than {MAX_DEPTH} levels deep", "a topology needs 7")
        container = MarkedDict(self.place) if first == "{" else MarkedList(self.place)
        self.stack.append((container, self.path()))
        self.keys.append(("", self.place))
        self.at += 1
        return container

    def _close(self) -> None:
        self.at += 1
        self.stack.pop()
        self.keys.pop()

    def _list(self, items: MarkedList) -> bool:
        if self.peek() == "]":
            return True
        if items:
            self.take(",", "a comma")
            self.peek()
        depth, place = len(self.stack), self.place
        value = self._value()
        items.put(value, place)
        return len(self.stack) == depth and self.peek() == "]"

    def _dict(self, pairs: MarkedDict) -> bool:
        self.keys[-1] = ("", self.place)
        if self.peek() == "}":
            return True
        if pairs:
            self.take(",", "a comma")
        if self.peek() != '"':
            raise self.stop(
                f"a key is missing before {self.here()}",
                "keys stand in double quotes; no comma ends a mapping",
            )
        place = self.place
        key = self.string()
        self.keys[-1] = (key, place)
        self.take(":", "a colon")
        self.peek()
        depth, value_place = len(self.stack), self.place
        if key in pairs:
            self._twice(pairs, key, place)
        value = self._value()
        if key in pairs:
            pass
        else:
            container = isinstance(value, MarkedDict | MarkedList)
            pairs.put(key, value, place if container else value_place)
        return len(self.stack) == depth and self.peek() == "}"

    def _twice(self, pairs: MarkedDict, key: str, place: Place) -> None:
        path = self.path()
        first = pairs.places[key].line
        self.source.error(
            place.line,
            path,
            f"key {shown(key)} stands twice, first in line {first}",
            "remove one, or give it another name",
        )


def read_json(text: str, file: str) -> Source:
    """Marked data of a JSON text; `data` is None where it could not be read; a finding says why."""
    source = Source(Place(file))
    try:
        require_text(text, source)
        source.data = _Reader(text, source).read()
    except Unreadable:
        source.data = None
    return source
