"""Private namespaces, Open vSwitch instances and databases for tests: nothing shared between two of them.

`ovs-vsctl`, `ovs-ofctl`, `ovs-appctl` and `ip` are independent witnesses of what the product did.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyroute2 import netns

SCHEMA_DIR = Path("/usr/share/openvswitch")
COMMAND_SECONDS = 60
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

# Daemons detach. Where init reaps nothing (containers) they would stay as zombies, so we become their parent.
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(*argv: str, env: Mapping[str, str] | None = None, check: bool = True) -> str:
    """The output of a command; on failure an AssertionError that holds what it said."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
    return done.stdout


def unique(prefix: str) -> str:
    """A name that no parallel test run has: at most 15 characters where the prefix has at most 7."""
    return f"{prefix}{secrets.token_hex(4)}"


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A private directory with a path short enough for Unix sockets (108 bytes, unix(7))."""
    path = Path(tempfile.mkdtemp(prefix="vt", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def wait_exit(pid: int, seconds: float) -> bool:
    """Wait until the process is gone, and reap it; False when it is still there after `seconds`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        ended = bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)
    if ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return ended


def end_process(pid: int, program: str) -> None:
    """SIGTERM, then SIGKILL, to a process that we started, if it is still that program."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            if Path(f"/proc/{pid}/exe").resolve().name != program:
                return
            os.kill(pid, number)
        except (ProcessLookupError, FileNotFoundError):
            return
        if wait_exit(pid, 10):
            return


class HostNamespace:
    """A network namespace that plays the host: its devices meet those of no other test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a command inside; its output."""
        return run("nsenter", f"--net={self.path}", *argv, check=check)

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Put the calling thread, and the threads it starts meanwhile, inside. Files stay the same."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.setns(self.name)
            try:
                yield
            finally:
                netns.setns(back)
        finally:
            os.close(back)

    def processes(self) -> list[int]:
        """The processes inside."""
        return [int(pid) for pid in run("ip", "netns", "pids", self.name).split()]


@contextlib.contextmanager
def host_namespace() -> Iterator[HostNamespace]:
    """A fresh namespace with loopback up; removed at the end with every device in it."""
    host = HostNamespace(unique("vt-h-"))
    run("ip", "netns", "add", host.name)
    try:
        host.run("ip", "link", "set", "lo", "up")
        yield host
    finally:
        run("ip", "netns", "del", host.name)


class Ovs:
    """A private Open vSwitch: own directory, database and ovs-vswitchd, in the namespace `host`."""

    def __init__(self, rundir: Path, host: HostNamespace, dummy: bool = False) -> None:
        self.rundir = rundir
        self.host = host
        self.dummy = dummy
        self.socket = rundir / "db.sock"
        self.db = f"unix:{self.socket}"
        self.env = os.environ | {
            "OVS_RUNDIR": str(rundir),
            "OVS_DBDIR": str(rundir),
            "OVS_LOGDIR": str(rundir),
        }

    def start_database(self) -> None:
        """Start ovsdb-server; an existing database file is kept."""
        database = self.rundir / "conf.db"
        if not database.exists():
            run("ovsdb-tool", "create", str(database), str(SCHEMA_DIR / "vswitch.ovsschema"))
        self._start("ovsdb-server", f"--remote=punix:{self.socket}", str(database))
        self.vsctl("--no-wait", "init")

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd; it returns when the configuration is applied."""
        self._start("ovs-vswitchd", *(["--enable-dummy=override"] if self.dummy else []), self.db)

    def _start(self, program: str, *args: str) -> None:
        run(
            *("nsenter", f"--net={self.host.path}", program, "--detach", "--no-chdir"),
            *("--pidfile", "--log-file", "-vconsole:off", *args),
            env=self.env,
        )

    def start(self) -> None:
        self.start_database()
        self.start_vswitchd()

    def stop(self) -> None:
        """End both. Bridges of the netdev datapath lose their devices with the namespace or with vswitchd."""
        self.end("ovs-vswitchd")
        self.end("ovsdb-server")

    def pid(self, program: str) -> int | None:
        """The process id from the pidfile, or None where there is none."""
        try:
            return int((self.rundir / f"{program}.pid").read_text())
        except FileNotFoundError:
            return None

    def end(self, program: str) -> None:
        """Stop 'ovs-vswitchd' or 'ovsdb-server' as a service would: forwarding state is lost, rows stay."""
        pid = self.pid(program)
        if pid is not None:
            end_process(pid, program)

    def kill(self, program: str) -> None:
        """kill -9 of one of the two, as a crash would."""
        pid = self.pid(program)
        assert pid is not None, f"{program} does not run"
        os.kill(pid, signal.SIGKILL)
        assert wait_exit(pid, 10)

    def vsctl(self, *args: str, check: bool = True) -> str:
        return run("ovs-vsctl", "--timeout=30", f"--db={self.db}", *args, env=self.env, check=check).strip()

    def ofctl(self, *args: str, check: bool = True) -> str:
        return run("ovs-ofctl", "-O", "OpenFlow14", *args, env=self.env, check=check)

    def appctl(self, *args: str, check: bool = True) -> str:
        return run("ovs-appctl", *args, env=self.env, check=check)


@contextlib.contextmanager
def open_vswitch(host: HostNamespace, dummy: bool = False) -> Iterator[Ovs]:
    """A running private Open vSwitch. dummy: devices are simulated, so thousands of ports need none."""
    with short_directory() as directory:
        ovs = Ovs(directory, host, dummy)
        try:
            ovs.start()
            yield ovs
        finally:
            ovs.stop()


@contextlib.contextmanager
def database(schema: Path) -> Iterator[Path]:
    """A private ovsdb-server with one database of this schema; gives the path of its socket."""
    with short_directory() as directory:
        socket, file = directory / "db.sock", directory / "test.db"
        env = os.environ | {"OVS_RUNDIR": str(directory), "OVS_LOGDIR": str(directory)}
        run("ovsdb-tool", "create", str(file), str(schema))
        try:
            run(
                *("ovsdb-server", "--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off"),
                *(f"--remote=punix:{socket}", str(file)),
                env=env,
            )
            yield socket
        finally:
            pidfile = directory / "ovsdb-server.pid"
            if pidfile.exists():
                end_process(int(pidfile.read_text()), "ovsdb-server")
