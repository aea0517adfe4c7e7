"""A whole vswitchctl, as a person would start it: `vswitchctl up`, in directories of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOPOLOGIES = ROOT / "topologies"
PATIENCE = 60.0
"""Seconds that a wait for something certain may take on a slow machine."""


def run(*argv: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0 or not check, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
    return done.stdout


def until(true: Callable[[], Any], what: str) -> None:
    """Ask again and again until it holds: an outside witness has no event to wait for."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)


class Stack:
    """The embedded default. `cli` is the command as typed; `vsctl` and `ofctl` are witnesses."""

    def __init__(self, directory: Path) -> None:
        self.run_dir = directory / "run"
        self.state_dir = directory / "state"
        self.env = {
            **os.environ,
            "VSWITCHCTL_RUN_DIR": str(self.run_dir),
            "VSWITCHCTL_STATE_DIR": str(self.state_dir),
        }

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`vswitchctl ARGUMENTS`, whatever its exit code."""
        argv = [sys.executable, "-m", "vswitchctl.cli.main", *arguments]
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=180, check=False)

    def cli(self, *arguments: str, code: int = 0) -> str:
        """`vswitchctl ARGUMENTS`, which must exit with `code`."""
        done = self.call(*arguments)
        said = f"vswitchctl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == code, f"{said}\n{self.log()}"
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.cli(*arguments, "--json", code=code))

    def apply(self, file: Path) -> None:
        self.cli("apply", str(file), "--yes")

    def vsctl(self, *arguments: str, check: bool = True) -> str:
        return run(
            "ovs-vsctl", "--timeout=20", f"--db=unix:{self.rundir}/db.sock", *arguments, check=check
        ).strip()

    def ofctl(self, *arguments: str) -> str:
        env = {**os.environ, "OVS_RUNDIR": str(self.rundir)}
        return run("ovs-ofctl", "-O", "OpenFlow14", *arguments, env=env)

    @property
    def rundir(self) -> Path:
        return self.run_dir / "ovs"

    def in_sync(self, name: str) -> bool:
        views = self.json("show", "topologies")
        return any(view["name"] == name and view["status"] == "in-sync" for view in views)

    def daemon_pid(self) -> int:
        return int((self.run_dir / "daemon.pid").read_text())

    def kill_daemon(self) -> None:
        """kill -9, and wait until it is gone."""
        pid = self.daemon_pid()
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        import select

        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(10_000)
        os.close(handle)

    def log(self) -> str:
        file = self.state_dir / "daemon.log"
        return "\n".join(file.read_text().splitlines()[-40:]) if file.exists() else "no daemon log"


def machine() -> dict[str, list[str]]:
    """What a leak would show in: links, namespaces, processes of Open vSwitch and of ours."""
    links = sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link", "show")))
    spaces = Path("/run/netns")
    names = sorted(path.name for path in spaces.iterdir()) if spaces.exists() else []
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if "ovs" in command.split(" ")[0] or "vswitchctl.cli.main run" in command:
                processes.append(command)
    return {"links": links, "namespaces": names, "processes": sorted(processes)}


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A running one; afterwards everything it holds is destroyed, stopped and checked for leaks."""
    before = machine()
    directory = Path(tempfile.mkdtemp(prefix="vs", dir="/tmp"))
    it = Stack(directory)
    try:
        it.cli("up")
        yield it
        for view in it.json("show", "topologies"):
            it.cli("destroy", view["name"], "--yes")
    finally:
        it.cli("down", "--purge")
        shutil.rmtree(directory, ignore_errors=True)
    until(lambda: machine() == before, f"the machine is as it was: {before}, now {machine()}")
