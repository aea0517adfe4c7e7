"""The first command of the README, as a person runs it: twice, and then everything away again."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import ROOT, Stack, machine, run, until

QUICKSTART = ROOT / "scripts/quickstart"
SECONDS = 900
"""With the environment to be made first, where the tests run from another one."""


def quickstart(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(QUICKSTART), *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Directories of its own; whatever happens, what runs in them is stopped."""
    directory = Path(tempfile.mkdtemp(prefix="vq", dir="/tmp"))
    stack = Stack(directory)
    try:
        yield {**stack.env, "VSWITCHCTL_SYSTEM_OVS_RUNDIR": str(directory / "none")}
    finally:
        if stack.run_dir.exists():
            stack.call("down", "--purge")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(SECONDS)
def test_quickstart_shows_what_is_expected_and_leaves_nothing(environment: dict[str, str]) -> None:
    before = machine()
    for _ in range(2):
        done = quickstart(environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "11 endpoints" in done.stdout
        assert "all as expected" in done.stdout
        assert "What to try next" in done.stdout
    down = quickstart(environment, "--down")
    assert down.returncode == 0, down.stdout + down.stderr
    until(lambda: machine() == before, f"the machine is as it was: {before}, now {machine()}")
    run_dir = Path(environment["VSWITCHCTL_RUN_DIR"])
    assert not run_dir.exists() or not list(run_dir.iterdir())


def test_probe_fails_where_the_network_differs_from_what_is_expected(stack: Stack, tmp_path: Path) -> None:
    """Once because somebody expects less than there is, once because a link is down and nobody heals it."""
    text = (ROOT / "topologies/two-tenants.yaml").read_text()
    file = tmp_path / "two-tenants.yaml"
    file.write_text(text)
    stack.apply(file)
    stack.cli("probe", str(file))
    stack.cli("probe", "two-tenants")
    file.write_text(text.replace('"red-db2:eth0", "red-app:eth1"]', '"red-app:eth1"]'))
    done = stack.call("probe", str(file))
    assert done.returncode == 1
    assert "a packet from red-db1:eth0 arrived at red-db2:eth0, which nothing allows" in done.stderr
    stack.kill_daemon()
    run("ip", "-n", "red-db1", "link", "set", "eth0", "down")
    file.write_text(text)
    done = stack.call("probe", str(file))
    assert done.returncode == 1
    assert "red-db1:eth0 does not reach red-db2:eth0" in done.stderr
    assert "blue" not in done.stderr
    stack.cli("up")
    until(lambda: stack.in_sync("two-tenants"), "the daemon put it right")
    stack.cli("probe", "two-tenants")
