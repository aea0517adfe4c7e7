"""The embedded default: a private intent database, and a private Open vSwitch where the system runs none.

Sockets and pidfiles live in run_dir, databases and logs in state_dir. Every call may be repeated, and repairs
what a crash left: the daemons are told from others by pidfile, program and command line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from ovs.unixctl.client import UnixctlClient

from vswitchctl.drivers.database_file import OVS_PACKAGE, find_program, prepare_database, transact_file
from vswitchctl.drivers.processes import end_process, read_pid, wait_exit
from vswitchctl.errors import UserError
from vswitchctl.settings import UNIX, Settings, answers, make_private

__all__ = ["Embedded", "end_process", "read_pid", "system_ovs_running"]

START_SECONDS: Final = 180.0
"""A daemon detaches once it works; with thousands of ports ovs-vswitchd takes its time for that."""

CLEANUP_SECONDS: Final = 120.0
"""For `exit --cleanup`: a port takes ovs-vswitchd about 14 ms to remove."""

OVS_SCHEMAS: Final = (
    Path("/usr/share/openvswitch/vswitch.ovsschema"),
    Path("/usr/local/share/openvswitch/vswitch.ovsschema"),
)
"""Where distributions, and `make install`, put Open vSwitch's schema."""


def system_ovs_running(settings: Settings) -> bool:
    """Whether we use an Open vSwitch that is not ours to start or stop, and its database answers."""
    remote = settings.ovs_remote
    if remote == settings.private_ovs_remote:
        return False
    return not remote.startswith(UNIX) or answers(Path(remote.removeprefix(UNIX)))


@dataclass(frozen=True, slots=True)
class _Daemon:
    """One process of ours. `arguments` come after those that every daemon of Open vSwitch has."""

    program: str
    rundir: Path
    statedir: Path
    name: str
    arguments: tuple[str, ...]
    unixctl: Path | None = None

    @property
    def pidfile(self) -> Path:
        return self.rundir / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.statedir / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        return read_pid(self.pidfile, self.program)

    @property
    def control(self) -> Path:
        """The unixctl socket: ovs-appctl(8) finds it by this name."""
        return self.unixctl or self.rundir / f"{self.program}.{self.pid}.ctl"

    def start(self) -> None:
        """Start it where it does not run; returns once it works. Raises UserError with its own last word."""
        if self.pid is not None:
            return
        self.pidfile.unlink(missing_ok=True)
        command = [
            find_program(self.program),
            *("--detach", "--no-chdir", f"--pidfile={self.pidfile}", f"--log-file={self.log}"),
            *("-vconsole:err", "-vsyslog:off", "-vfile:info"),
            *([f"--unixctl={self.unixctl}"] if self.unixctl else []),
            *self.arguments,
        ]
        places = {"OVS_RUNDIR": self.rundir, "OVS_LOGDIR": self.statedir, "OVS_DBDIR": self.statedir}
        environment = os.environ | {name: str(path) for name, path in places.items()}
        try:
            done = subprocess.run(
                command,
                env=environment,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"it was not ready after {START_SECONDS:.0f} s") from error
        if done.returncode != 0:
            raise self._failed(_last_line(done.stderr) or _last_line(_text(self.log)) or "it said nothing")

    def _failed(self, reason: str) -> UserError:
        return UserError(f"{self.program} ({self.name}) did not start: {reason}", f"read {self.log}")

    def stop(self) -> None:
        """End it, and remove its pidfile and sockets. Raises UserError where it cannot be ended."""
        pid = self.pid
        if pid is not None and not end_process(pid):
            raise UserError(
                f"{self.program} (process {pid}) does not end", "it hangs in the kernel; see 'dmesg'"
            )
        for path in (self.pidfile, self.unixctl):
            if path is not None:
                path.unlink(missing_ok=True)


class Embedded:
    """The private daemons of one run_dir and state_dir. Safe to use from several processes at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run, self._state = settings.run_dir, settings.state_dir
        self._ovs_run, self._ovs_state = settings.private_ovs_rundir, settings.state_dir / "ovs"
        self._intent = _Daemon(
            "ovsdb-server",
            self._run,
            self._state,
            "intent",
            (f"--remote=punix:{self._run / 'intent.sock'}", str(self._intent_file)),
            unixctl=self._run / "intent.ctl",
        )
        self._ovsdb = _Daemon(
            "ovsdb-server",
            self._ovs_run,
            self._ovs_state,
            "ovsdb-server",
            (f"--remote=punix:{self._ovs_run / 'db.sock'}", str(self._ovs_file)),
        )
        self._vswitchd = _Daemon(
            "ovs-vswitchd", self._ovs_run, self._ovs_state, "ovs-vswitchd", (settings.private_ovs_remote,)
        )

    @property
    def _intent_file(self) -> Path:
        return self._state / "intent.db"

    @property
    def _lock_file(self) -> Path:
        return self._run / "up.lock"

    @property
    def _ovs_file(self) -> Path:
        return self._ovs_state / "conf.db"

    def up_intent(self) -> None:
        """Start the intent database where it does not run; create or upgrade its file first.

        Nothing where `intent_remote` names another database. Raises UserError.
        """
        if self._settings.intent_remote != self._settings.private_intent_remote:
            return
        with self._exclusive():
            if self._intent.pid is None:
                schema = Path(str(files("vswitchctl.intent") / "vswitchctl.ovsschema"))
                prepare_database(self._intent_file, schema)
            _start_database(self._intent, self._run / "intent.sock")

    def up_ovs(self) -> None:
        """Start a private Open vSwitch, or the part of it that is missing. Raises UserError."""
        if self._settings.ovs_remote != self._settings.private_ovs_remote:
            raise UserError(
                f"Open vSwitch's database at {self._settings.ovs_remote} does not answer",
                "start that Open vSwitch, or unset VSWITCHCTL_OVS_REMOTE for a private one",
            )
        with self._exclusive():
            self._start_ovs()

    def down(self, purge: bool = False) -> None:
        """End what runs, and remove the private datapath's devices. With `purge` databases and logs go too.

        Raises UserError where a process does not end, or a crashed switch cannot be started to clean up.
        """
        if not self._run.is_dir():
            return self._purge() if purge else None
        with self._exclusive():
            self._stop_vswitchd()
            self._ovsdb.stop()
            self._intent.stop()
            _remove_sockets(self._ovs_run)
            (self._run / "intent.sock").unlink(missing_ok=True)
            if self._ovs_run.is_dir():
                self._ovs_run.rmdir()
            if purge:
                self._purge()
        return None

    def status(self) -> dict[str, int | None]:
        """Process id of each, None where it does not run: 'intent', 'ovsdb-server', 'ovs-vswitchd'."""
        return {daemon.name: daemon.pid for daemon in (self._intent, self._ovsdb, self._vswitchd)}

    def _start_ovs(self) -> None:
        for path in (self._ovs_run, self._ovs_state):
            make_private(path)
        if self._ovsdb.pid is None:
            prepare_database(self._ovs_file, _ovs_schema(), initial=[_insert_root()])
            transact_file(self._ovs_file, [_set_version(_ovs_version())])
        _start_database(self._ovsdb, self._ovs_run / "db.sock")
        self._vswitchd.start()

    def _stop_vswitchd(self) -> None:
        """Ask it to remove its datapath and devices; by signal where it does not listen.

        The tap devices of the netdev datapath are persistent. A clean exit takes the pidfile along, so one
        without its process tells of a crash: only another ovs-vswitchd knows which devices that one had.
        """
        if self._vswitchd.pid is None and self._vswitchd.pidfile.exists() and self._ovs_file.exists():
            self._start_ovs()
        pid = self._vswitchd.pid
        if pid is not None and _unixctl(self._vswitchd.control, "exit", "--cleanup"):
            wait_exit(pid, CLEANUP_SECONDS)
        self._vswitchd.stop()

    def _purge(self) -> None:
        """Only what we made: state_dir may be a directory that holds more."""
        for path in (self._intent_file, self._intent.log, self._state / "daemon.log"):
            path.unlink(missing_ok=True)
        for left in (*self._state.glob(".intent.db.~lock~"), *self._state.glob("intent.db.before-*")):
            left.unlink()
        shutil.rmtree(self._ovs_state, ignore_errors=True)
        self._lock_file.unlink(missing_ok=True)
        for directory in (self._state, self._run):
            with contextlib.suppress(OSError):
                directory.rmdir()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One `up` or `down` at a time per run_dir; the lock goes with the process."""
        make_private(self._run)
        make_private(self._state)
        lock = self._locked()
        try:
            yield
        finally:
            os.close(lock)

    def _locked(self) -> int:
        """A descriptor of the lock file, locked: of the one that is there, whatever a purge removed."""
        while True:
            lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), self._lock_file.stat()):
                    return lock
            os.close(lock)


def _start_database(daemon: _Daemon, socket: Path) -> None:
    """Start it where it does not run or nobody can reach it. Raises UserError."""
    if daemon.pid is not None and not answers(socket):
        daemon.stop()  # its socket was deleted
    daemon.start()
    if not answers(socket):  # ovsdb-server goes on without a socket that it cannot make
        reason = _last_line(_text(daemon.log))
        daemon.stop()
        raise UserError(f"nobody answers at {socket}: {reason}", f"read {daemon.log}")
    socket.chmod(0o600)


def _unixctl(socket: Path, command: str, *arguments: str) -> bool:
    """Run a command as ovs-appctl(8) does; False where nobody answers or it is refused."""
    error, client = UnixctlClient.create(str(socket))
    if error:
        return False
    try:
        error, refusal, _ = client.transact(command, list(arguments))
    finally:
        client.close()
    return not error and refusal is None


def _remove_sockets(rundir: Path) -> None:
    """What a killed daemon leaves: its sockets, and the bridges'."""
    if rundir.is_dir():
        for path in rundir.iterdir():
            path.unlink()


def _ovs_schema() -> Path:
    for path in OVS_SCHEMAS:
        if path.exists():
            return path
    raise UserError(f"Open vSwitch's schema is not at {OVS_SCHEMAS[0]}", OVS_PACKAGE)


def _ovs_version() -> str:
    """'3.1.0' of 'ovs-vswitchd (Open vSwitch) 3.1.0'; ovs-vswitchd leaves that column to its starter."""
    done = subprocess.run(
        [find_program("ovs-vswitchd"), "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.splitlines()[0].split()[-1]


def _insert_root() -> dict[str, object]:
    return {"op": "insert", "table": "Open_vSwitch", "row": {}}


def _set_version(version: str) -> dict[str, object]:
    return {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"ovs_version": version}}


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _last_line(text: str) -> str:
    """The last message, without a log line's time, number, module and level (ovs-appctl(8), vlog/set)."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].split("|", 4)[-1] if lines else ""
