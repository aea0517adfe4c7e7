"""The README's ```console blocks, run as they stand: what they print is what is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import ROOT, Stack
from tests.system.test_acl import apply_lan, example

COLUMNS = 110
"""How wide the README's terminal is."""


def commands() -> list[tuple[str, str]]:
    """(command, what it prints); a line of `...` stands for any lines."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def as_typed(stack: Stack, command: str, directory: Path) -> str:
    words = [word.replace("/run/vswitchctl/", f"{stack.run_dir}/") for word in shlex.split(command)]
    if words[0] == "vswitchctl":
        words[:1] = [sys.executable, "-m", "vswitchctl.cli.main"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**stack.env, "COLUMNS": str(COLUMNS), "PYTHONPATH": paths}
    done = subprocess.run(
        words, env=env, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_readme_shows_what_is_printed(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = commands()
    assert {shlex.split(command)[0] for command, _ in shown} == {"vswitchctl", "curl"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stack.env["PYTHONPATH"] = str(ROOT)
    apply_lan(stack, Path("web-acl.yaml"), example())
    for command, output in shown:
        wanted = ".*".join(map(re.escape, re.split(r"^\.\.\.$", output, flags=re.M)))
        printed = as_typed(stack, command, tmp_path)
        assert re.fullmatch(wanted, printed if printed.endswith("\n") else f"{printed}\n", re.S), (
            f"$ {command}\n{printed}"
        )
