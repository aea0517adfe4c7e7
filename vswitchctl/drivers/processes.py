"""Daemons by their pidfiles: is it really that program, and end it without ever hitting another one."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Final

TERM_SECONDS: Final = 10.0
"""Between SIGTERM and SIGKILL."""

KILL_SECONDS: Final = 10.0
"""How long the kernel may take to take down a killed process."""


def read_pid(pidfile: Path, program: str) -> int | None:
    """The live process that the pidfile names, or None.

    A number left behind may be another program's by now, so its command line must show `program`, started
    for this very pidfile ('--pidfile=PIDFILE'); of a Python program its script or module ('-m PROGRAM...').
    """
    try:
        pid = int(pidfile.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if _shows([os.fsdecode(argument) for argument in arguments], program, pidfile) else None


def _shows(arguments: list[str], program: str, pidfile: Path) -> bool:
    name = Path(arguments[0]).name
    if name == program:
        return f"--pidfile={pidfile}" in arguments
    script = arguments[1:3]
    return name.startswith("python") and any(
        Path(text).name == program or text.partition(".")[0] == program for text in script
    )


def wait_exit(pid: int, seconds: float) -> bool:
    """Wait until the process has ended; False where it still runs after `seconds`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def end_process(pid: int, seconds: float = TERM_SECONDS) -> bool:
    """SIGTERM, and SIGKILL after `seconds`; returns once it has ended. False where even that did not help."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, KILL_SECONDS)):
            signal.pidfd_send_signal(handle, number)
            if poll.poll(patience * 1000):
                return True
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
    return False
