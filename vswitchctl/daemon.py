"""The composition root: the one place where drivers, database, loop and API meet.

`run` is the daemon in the foreground. `up` and `down` are the embedded default around it: private databases
and switch where the machine runs none, and the daemon in the background.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from vswitchctl.api.app import create_app
from vswitchctl.api.server import serve
from vswitchctl.compiler.compile import Compiler
from vswitchctl.drivers.embedded import Embedded, end_process, read_pid, system_ovs_running
from vswitchctl.drivers.netlink import NetlinkDriver
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.drivers.ovsdb import OvsdbDriver
from vswitchctl.errors import UserError
from vswitchctl.intent.database import IntentDatabase
from vswitchctl.pipeline.app import load_apps
from vswitchctl.reconcile.loop import Loop
from vswitchctl.service import HostService
from vswitchctl.settings import Settings

LOG = logging.getLogger(__name__)

READY_FD = "VSWITCHCTL_READY_FD"
"""Environment variable: a descriptor on which `run` writes one line when it answers."""

Report = Callable[[str], None]


def system_datapath() -> bool:
    """Whether the openvswitch kernel module is loaded."""
    return Path("/sys/module/openvswitch").is_dir()


def run(settings: Settings) -> None:
    """Reconcile and answer until SIGTERM or SIGINT. Forwarding goes on without us."""
    _require_root()
    settings.make_directories()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    apps = load_apps()
    started: list[Loop] = []

    def mark(bridge: str | None = None) -> None:
        for loop in started:
            loop.mark(bridge)

    store = IntentDatabase(settings.intent_remote, on_change=mark, host=settings.host)
    netlink = NetlinkDriver(on_change=mark)
    ovs = OvsdbDriver(settings.ovs_remote, on_change=mark)
    openflow = OpenFlowDriver(settings.ovs_rundir, on_change=mark)
    loop = Loop(store, netlink, ovs, openflow, Compiler(apps), system_datapath)
    started.append(loop)
    thread = threading.Thread(target=loop.run, name="reconcile", daemon=True)
    thread.start()
    try:
        serve(
            create_app(HostService(settings.host, store, loop, apps)), settings.api_socket, ready=_say_ready
        )
    finally:
        loop.stop()
        thread.join(timeout=30)
        for driver in (openflow, ovs, netlink, store):
            driver.close()


def _say_ready() -> None:
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))


def up(settings: Settings, report: Report) -> None:
    """Start what is not running yet: databases, switch, daemon. Raises UserError saying what failed."""
    _require_root()
    settings.make_directories()
    embedded = Embedded(settings)
    report("intent database")
    embedded.up_intent()
    if system_ovs_running(settings):
        report("Open vSwitch of the system is running; using it")
    else:
        report("Open vSwitch (private)")
        embedded.up_ovs()
    if read_pid(_pidfile(settings), "vswitchctl") is not None:
        report("daemon is already running")
        return
    report("daemon")
    _spawn(settings)


def _spawn(settings: Settings) -> None:
    """The daemon in a session of its own; returns once it answers. Its output goes to the log."""
    log = settings.state_dir / "daemon.log"
    ready, tell = os.pipe()
    with log.open("ab") as output, os.fdopen(ready, "rb") as answer:
        os.fchmod(output.fileno(), 0o600)
        process = subprocess.Popen(
            [sys.executable, "-m", "vswitchctl.cli.main", "run"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[tell],
            env={**os.environ, **settings.environment(), READY_FD: str(tell)},
        )
        os.close(tell)
        if answer.readline() != b"ready\n":
            process.wait(timeout=30)
            raise UserError(f"the daemon ended at once: {_last_line(log)}", f"read {log}")
    pidfile = _pidfile(settings)
    pidfile.write_text(f"{process.pid}\n")
    pidfile.chmod(0o600)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def down(settings: Settings, purge: bool, report: Report) -> None:
    """Stop the daemon, then what `up` started. With `purge` the databases and logs go too."""
    _require_root()
    pid = read_pid(_pidfile(settings), "vswitchctl")
    if pid is not None:
        report("daemon")
        end_process(pid)
    _pidfile(settings).unlink(missing_ok=True)
    report("databases and switch")
    Embedded(settings).down(purge=purge)


def _pidfile(settings: Settings) -> Path:
    return settings.run_dir / "daemon.pid"


def _require_root() -> None:
    if os.geteuid() != 0:
        raise UserError("this needs root: it makes devices and namespaces", "run it with sudo")


__all__ = ["down", "run", "signal", "up"]
