"""A database file of ovsdb-server: created, upgraded to a newer schema, written to while no server runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vswitchctl.errors import UserError

OVS_PACKAGE: Final = (
    "install it: 'apt-get install openvswitch-switch' (Debian, Ubuntu) or your system's package"
)

_SBIN: Final = ":/usr/local/sbin:/usr/sbin:/sbin"
"""Where the daemons are; not in everybody's PATH."""

TOOL_SECONDS: Final = 120.0


def find_program(name: str) -> str:
    """The path of a program of Open vSwitch. Raises UserError where it is not installed."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + _SBIN)
    if path is None:
        raise UserError(f"'{name}' is not installed", OVS_PACKAGE)
    return path


def prepare_database(file: Path, schema: Path, initial: Sequence[Mapping[str, object]] = ()) -> None:
    """Make `file` a database of `schema`: created, with the operations `initial`, or upgraded, or left.

    A file of a newer MINOR version stays (an older program works beside it); the file before an upgrade is
    kept as 'FILE.before-VERSION'. Raises UserError: a newer MAJOR version, or data the new schema refuses.
    """
    if not file.exists():
        _create(file, schema, initial)
        return
    have, want = _tool("db-version", str(file)).strip(), _tool("schema-version", str(schema)).strip()
    if _numbers(have)[0] > _numbers(want)[0]:
        raise UserError(
            f"{file} was written by a newer version (schema {have}, this one knows {want})",
            "install that newer version, or move the file away to start with an empty database",
        )
    if _numbers(have) < _numbers(want):
        _convert(file, schema, have)


def transact_file(file: Path, operations: Sequence[Mapping[str, object]]) -> None:
    """Run one transaction (RFC 7047 section 5.2) on a database file that no server has open."""
    database = _tool("db-name", str(file)).strip()
    answers = json.loads(_tool("transact", str(file), json.dumps([database, *operations])))
    errors = [answer for answer in answers if answer and "error" in answer]
    if errors:
        raise UserError(
            f"{file} refuses a write: {errors[0]}", "move the file away to start with an empty one"
        )


def _create(file: Path, schema: Path, initial: Sequence[Mapping[str, object]]) -> None:
    """Under another name first, so that a crash never leaves half a database."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    _tool("create", str(draft), str(schema))
    if initial:
        transact_file(draft, initial)
    draft.replace(file)
    file.with_name(f".{draft.name}.~lock~").unlink(missing_ok=True)


def _convert(file: Path, schema: Path, have: str) -> None:
    kept = file.with_name(f"{file.name}.before-{have}")
    shutil.copy2(file, kept)
    _tool("convert", str(file), str(schema))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _tool(command: str, *arguments: str) -> str:
    """The output of ovsdb-tool(1). Raises UserError with what it said."""
    done = subprocess.run(
        [find_program("ovsdb-tool"), command, *arguments],
        umask=0o077,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise UserError(
            f"ovsdb-tool {command} {arguments[0]} failed: {said[-1] if said else 'it said nothing'}",
            "check the file and the free space, or move the file away to start with an empty database",
        )
    return done.stdout
