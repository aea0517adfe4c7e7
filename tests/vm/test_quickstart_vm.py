"""`scripts/quickstart --vm` as a person runs it: twice, and then everything away again."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dataplane.instances import PR_SET_CHILD_SUBREAPER
from tests.system.conftest import ROOT, Stack, machine, until

SECONDS = 900
"""With the environment to be made first, where the tests run from another one."""


def quickstart(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(ROOT / "scripts/quickstart"), *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


def set_reaper(on: bool) -> None:
    """Whether orphans become ours. libvirt waits for QEMU to vanish, so init is to have them, which reaps."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Directories of its own; whatever happens, what runs in them is stopped."""
    directory = Path(tempfile.mkdtemp(prefix="vq", dir="/tmp"))
    stack = Stack(directory)
    environment = {**stack.env, "VSWITCHCTL_SYSTEM_OVS_RUNDIR": str(directory / "none")}
    set_reaper(False)
    try:
        yield environment
    finally:
        set_reaper(True)
        subprocess.run([str(ROOT / "scripts/quickstart-vm"), "down"], env=environment, check=False)
        if stack.run_dir.exists():
            stack.call("down", "--purge")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(SECONDS)
def test_quickstart_shows_guests_plugged_apart_and_limited_and_leaves_nothing(
    environment: dict[str, str],
) -> None:
    before = machine()
    for _ in range(2):
        done = quickstart(environment, "--vm")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("  ok      ") == 8, done.stdout
        assert "FAILED" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("red-guest", "blue-guest"))]
    assert [(row[0], row[1], row[4], row[6]) for row in rows] == [
        ("blue-guest", "running", "br-vm", "in-sync"),
        ("red-guest", "running", "br-vm", "in-sync"),
    ]
    down = quickstart(environment, "--down")
    assert down.returncode == 0, down.stdout + down.stderr
    until(lambda: machine() == before, f"the machine is as it was: {before}, now {machine()}")
    assert not list(Path("/run/libvirt").iterdir())
    assert not Path(environment["VSWITCHCTL_STATE_DIR"], "guests").exists()
