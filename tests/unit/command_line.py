"""Runs the real command line as a person does: a process of its own, in a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from served_api import DEADLINE, topology

COMMAND = (sys.executable, "-m", "vswitchctl.cli.main")

CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """A place to run commands in: a socket that is the daemon's, and files beside it."""

    socket: Path
    directory: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ
        }
        return {**kept, "VSWITCHCTL_API_SOCKET": str(self.socket), "TERM": "xterm-256color", **self.variables}

    def run(self, *arguments: str, stdin: str = "") -> Result:
        """In a pipe, with text to read."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.environment(),
            timeout=DEADLINE,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def on_terminal(self, *arguments: str, columns: int = 80, typed: str = "") -> Result:
        """On a terminal of its own; output and errors come as one text, with colours."""
        with terminal(self, arguments, columns) as (process, master):
            os.write(master, typed.encode())
            text = read_all(master)
            return Result(process.wait(DEADLINE), text, "")

    def write(self, name: str, text: str) -> str:
        (self.directory / name).write_text(text)
        return name

    def write_topology(self, name: str = "pair", bridges: tuple[str, ...] = ("br-a",)) -> str:
        return self.write(f"{name}.yaml", yaml.safe_dump(topology(name, bridges), sort_keys=False))


@contextlib.contextmanager
def terminal(
    command_line: CommandLine, arguments: Sequence[str], columns: int
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command on a new terminal that it controls; yields it with the terminal's other side."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        with subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=command_line.directory,
            env=command_line.environment(),
            start_new_session=True,
        ) as process:
            os.close(slave)
            try:
                yield process, master
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
    finally:
        os.close(master)


def read_all(master: int) -> str:
    """What the terminal shows until its last user is gone (Linux then answers EIO)."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks).decode()


def plain(text: str) -> str:
    """The text without colours and cursor movements."""
    return CONTROL_SEQUENCE.sub("", text).replace("\r", "")
