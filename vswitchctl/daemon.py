"""The composition root: the one place where drivers, database, loop and API meet.

`run` is the daemon in the foreground. `up` and `down` are the embedded default around it: private databases
and switch where the machine runs none, and the daemon in the background.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vswitchctl.compiler.compile import Compiler
from vswitchctl.drivers.embedded import Embedded, end_process, read_pid, system_ovs_running
from vswitchctl.drivers.libvirt import LibvirtDriver
from vswitchctl.drivers.netlink import NetlinkDriver
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.drivers.ovsdb import OvsdbDriver
from vswitchctl.drivers.unixctl import Unixctl
from vswitchctl.errors import Conflict, InternalError, UserError
from vswitchctl.intent.database import IntentDatabase
from vswitchctl.model.intent import Intent
from vswitchctl.pipeline.app import App, load_apps
from vswitchctl.pipeline.punt import Answer, Opcode, PacketIn, PacketOut, answers_of
from vswitchctl.reconcile.loop import Loop
from vswitchctl.reconcile.protocol import IntentStore
from vswitchctl.service import AclLog, HostService
from vswitchctl.settings import Settings

LOG = logging.getLogger(__name__)

READY_FD = "VSWITCHCTL_READY_FD"
"""Environment variable: a descriptor on which `run` writes one line once it answers."""

STOP_SECONDS = 30.0
"""How long a pass under way may take to end."""

SWITCH_SECONDS = 0.001
"""After that long a compile lets a thread go on that a socket has woken; Python's own 5 ms for each of some
hundred messages were most of the time in which a bridge's flows are read."""

Report = Callable[[str], None]


def system_datapath() -> bool:
    """Whether the openvswitch kernel module is loaded."""
    return Path("/sys/module/openvswitch").is_dir()


def run(settings: Settings) -> None:
    """Reconcile and answer until SIGTERM or SIGINT. Forwarding goes on without us.

    The embedded intent database is started where it does not run. Open vSwitch is not: it would end with us.
    """
    _require_root()
    settings.make_directories()
    Embedded(settings).up_intent()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(SWITCH_SECONDS)
    with ExitStack() as stack:
        stack.enter_context(_only_one())
        apps = load_apps()
        mark = _Mark()
        store = IntentDatabase(settings.intent_remote, on_change=mark, host=settings.host)
        stack.callback(store.close)
        log = AclLog(store.read)
        loop = _loop(settings, store, apps, mark, stack, _answer_by(apps, log))
        thread = threading.Thread(target=_reconcile, args=[loop], name="reconcile", daemon=True)
        thread.start()
        stack.callback(thread.join, timeout=STOP_SECONDS)
        stack.callback(loop.stop)
        # FastAPI takes a while to import, and ovs-vswitchd as long to tell its flows: both at once.
        from vswitchctl.api.app import create_app
        from vswitchctl.api.server import serve

        app = create_app(HostService(settings.host, store, loop, apps, log, Unixctl(settings.ovs_rundir)))
        serve(app, settings.api_socket, ready=_say_ready)


def _reconcile(loop: Loop) -> None:
    """A daemon whose loop has ended must not look alive: end, and let the service start a new one."""
    try:
        loop.run()
    except BaseException:
        LOG.critical("the reconcile loop ended by a defect; the daemon ends with it", exc_info=True)
        os._exit(70)  # EX_SOFTWARE, sysexits.h


class _Mark:
    """What drivers call on an event: wakes the loop, once there is one."""

    loop: Loop | None = None

    def __call__(self, bridge: str | None = None) -> None:
        if self.loop is not None:
            self.loop.mark(bridge)


def _loop(
    settings: Settings,
    store: IntentStore,
    apps: Sequence[App],
    mark: _Mark,
    stack: ExitStack,
    on_packet: Answer | None = None,
) -> Loop:
    """The loop and its drivers, which `stack` closes. on_packet: who answers packets; None: nobody."""
    netlink = NetlinkDriver(on_change=mark)
    stack.callback(netlink.close)
    ovs = OvsdbDriver(settings.ovs_remote, on_change=mark)
    stack.callback(ovs.close)
    openflow = OpenFlowDriver(settings.ovs_rundir, on_change=mark, on_packet=on_packet)
    stack.callback(openflow.close)
    domains = LibvirtDriver(settings.libvirts, on_change=mark)
    stack.callback(domains.close)
    mark.loop = Loop(store, netlink, ovs, openflow, Compiler(apps), system_datapath, domains)
    return mark.loop


def _answer_by(apps: Sequence[App], log: AclLog) -> Answer:
    """The app that sent a packet up answers it; what is to be logged goes to the log."""
    answers: dict[int, Answer] = {**answers_of(apps), Opcode.LOG: log.note}

    def answer(packet: PacketIn) -> Iterable[PacketOut]:
        found = answers.get(packet.opcode)
        return () if found is None else found(packet)

    return answer


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the name of this network namespace's daemon: two would undo each other's work.

    An abstract socket (unix(7)) is seen by one network namespace alone, and goes with its process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as name:
        try:
            name.bind("\0vswitchctl")
        except OSError as error:
            raise Conflict(
                "a vswitchctl daemon already runs in this network namespace", "stop it: vswitchctl down"
            ) from error
        yield


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
    log, pidfile = settings.state_dir / "daemon.log", _pidfile(settings)
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
        pidfile.write_text(f"{process.pid}\n")
        pidfile.chmod(0o600)
        if answer.readline() != b"ready\n":
            process.wait(timeout=STOP_SECONDS)
            pidfile.unlink()
            raise UserError(f"the daemon ended at once: {_last_line(log)}", f"read {log}")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def down(settings: Settings, purge: bool, report: Report) -> None:
    """Stop the daemon, then what `up` started. Devices and namespaces stay for the next `up`.

    With `purge` every topology goes first, with all that it made, and the databases and logs after it.
    """
    _require_root()
    embedded = Embedded(settings)
    pid = read_pid(_pidfile(settings), "vswitchctl")
    if pid is not None:
        report("daemon")
        end_process(pid)
    _pidfile(settings).unlink(missing_ok=True)
    if purge:
        report("networks")
        settings.make_directories()
        if not system_ovs_running(settings):
            embedded.up_ovs()
        for reason in _remove_networks(settings):
            report(f"left as it is: {reason}")
    report("databases and switch")
    embedded.down(purge=purge)


class _NoIntent:
    """Nothing is declared: what the loop makes of it is the end of everything that carries our mark."""

    def read(self) -> Intent:
        return {}

    def report(self, topology: str, generation: int, status: str, reason: str) -> None:
        raise InternalError(f"topology '{topology}' is {status} at {generation}: {reason}; none is declared")


def _remove_networks(settings: Settings) -> list[str]:
    """Remove everything of ours from the host; gives what could not be removed, and why."""
    with ExitStack() as stack:
        stack.enter_context(_only_one())
        done = _loop(settings, _NoIntent(), load_apps(), _Mark(), stack).reconcile()
    failures = [f"{owner.text}: {text}" for o in done.outcomes.values() for owner, text in o.failures.items()]
    return [*([done.stale] if done.stale else []), *failures]


def _pidfile(settings: Settings) -> Path:
    return settings.run_dir / "daemon.pid"


def _require_root() -> None:
    if os.geteuid() != 0:
        raise UserError("this needs root: it makes devices and namespaces", "run it with sudo")
