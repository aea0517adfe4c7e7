"""Bad documents and every word that is said about them: `NAME.EXT` and `NAME.EXT.expected`.

Run this file as a program to write the expectations anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vswitchctl.errors import InvalidTopology
from vswitchctl.topology import Document, load

DOCUMENTS = Path(__file__).parent / "topology_errors"
WITHOUT_ERRORS = {"warnings-only.yaml"}


def bad_documents() -> list[str]:
    return sorted(path.name for path in DOCUMENTS.iterdir() if path.suffix != ".expected")


def said_of(name: str) -> tuple[Document, str]:
    """The document, and its findings as text; paths in it are relative to the directory of documents."""
    before = Path.cwd()
    os.chdir(DOCUMENTS)
    try:
        document = load(name)
    finally:
        os.chdir(before)
    return document, "".join(f"{finding}\n" for finding in document.findings)


def expected(name: str) -> Path:
    return DOCUMENTS / f"{name}.expected"


@pytest.mark.parametrize("name", bad_documents())
def test_says_exactly_this(name: str) -> None:
    document, said = said_of(name)
    assert said == expected(name).read_text()
    assert (document.topology is None) == (name not in WITHOUT_ERRORS)


@pytest.mark.parametrize("name", sorted(set(bad_documents()) - WITHOUT_ERRORS))
def test_nothing_can_be_applied_from_it(name: str) -> None:
    document, _ = said_of(name)
    with pytest.raises(InvalidTopology) as caught:
        document.require()
    assert caught.value.findings == document.errors


def test_each_expectation_has_its_document() -> None:
    assert len(bad_documents()) >= 35
    expectations = {path.name for path in DOCUMENTS.glob("*.expected")}
    assert expectations == {expected(name).name for name in bad_documents()}


if __name__ == "__main__":
    for bad in bad_documents():
        sys.stdout.write(f"{bad}\n")
        expected(bad).write_text(said_of(bad)[1])
