"""The daemon's parts over a private Open vSwitch, with ports that are numbers without devices behind them.

Real are the intent database, the API on its socket, the loop, the compiler, the OpenFlow driver and
ovs-vswitchd's flow tables. Devices are taken for made as soon as they are wanted: ten thousand real ones
would take ovs-vswitchd hours, and what is measured makes none.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from estate import BRIDGE

from vswitchctl.api.app import create_app
from vswitchctl.api.server import ApiServer
from vswitchctl.cli.client import Client
from vswitchctl.compiler.compile import Compiler
from vswitchctl.drivers.embedded import Embedded
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.drivers.unixctl import Unixctl
from vswitchctl.intent.database import IntentDatabase
from vswitchctl.model.plan import Action, Change, Failure, Kind
from vswitchctl.model.state import NetlinkState, ObservedNetlink, ObservedOvs, OvsState, PortKey
from vswitchctl.pipeline.app import load_apps
from vswitchctl.reconcile.loop import Loop
from vswitchctl.service import AclLog, HostService
from vswitchctl.settings import Settings

Progress = Callable[[int], None]
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Switch:
    """A private Open vSwitch on the dummy datapath with one bridge and no ports."""

    def __init__(self, rundir: Path) -> None:
        self._database = f"unix:{rundir}/db.sock"
        self._file = f"{rundir}/conf.db"
        self._env = os.environ | dict.fromkeys(("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"), str(rundir))
        self._daemons: list[subprocess.Popen[bytes]] = []

    def run(self, *argv: str) -> str:
        return subprocess.run(argv, env=self._env, capture_output=True, text=True, check=True).stdout

    def _start(self, *argv: str) -> None:
        self._daemons.append(subprocess.Popen([*argv, "-vconsole:off"], env=self._env))

    def start(self) -> None:
        self.run("ovsdb-tool", "create", self._file, SCHEMA)
        self._start("ovsdb-server", f"--remote=p{self._database}", self._file)
        vsctl = ("ovs-vsctl", f"--db={self._database}", "--retry", "--timeout=30")
        self.run(*vsctl, "--no-wait", "init")
        self._start("ovs-vswitchd", "--enable-dummy=override", self._database)
        bridge = ("set", "bridge", BRIDGE, "fail_mode=secure", "datapath_type=dummy")
        self.run(*vsctl, "add-br", BRIDGE, "--", *bridge)

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait()

    @property
    def environment(self) -> dict[str, str]:
        return self._env


@dataclass
class Devices:
    """Both device drivers of the loop: what is wanted is there at once."""

    netlink: ObservedNetlink = field(
        default_factory=lambda: ObservedNetlink(NetlinkState(), {}, {}, {}, frozenset())
    )
    ovs: ObservedOvs = field(
        default_factory=lambda: ObservedOvs(OvsState(), {}, {}, {}, frozenset({"netdev"}), ())
    )
    numbers: Iterator[int] = field(default_factory=lambda: count(1))


class NetlinkStandIn:
    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def read(self) -> ObservedNetlink:
        return self._devices.netlink

    def apply(
        self, changes: Sequence[Change], progress: Callable[[int], None] | None = None
    ) -> list[Failure]:
        was = self._devices.netlink
        kinds = {
            Kind.NAMESPACE: dict(was.owned.namespaces),
            Kind.LINUX_BRIDGE: dict(was.owned.linux_bridges),
            Kind.VETH: dict(was.owned.veths),
        }
        for change in changes:
            _make(kinds[change.kind], change)
        self._devices.netlink = ObservedNetlink(NetlinkState(*kinds.values()), {}, {}, {}, frozenset())
        return []

    def ingress_filtered(self) -> frozenset[str]:
        return frozenset()


class OvsStandIn:
    version = "private"

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def read(self) -> ObservedOvs:
        return self._devices.ovs

    def apply(
        self, changes: Sequence[Change], progress: Callable[[int], None] | None = None
    ) -> list[Failure]:
        was = self._devices.ovs
        kinds: dict[Kind, dict[Any, Any]] = {
            Kind.BRIDGE: dict(was.owned.bridges),
            Kind.PORT: dict(was.owned.ports),
        }
        for change in changes:
            _make(kinds[change.kind], change)
        owned = OvsState(kinds[Kind.BRIDGE], kinds[Kind.PORT])
        ofports = {key: was.ofports.get(key) or next(self._devices.numbers) for key in owned.ports}
        self._devices.ovs = ObservedOvs(owned, ofports, {}, {}, frozenset({"netdev"}), ())
        return []

    def wait_ofports(self, keys: Collection[PortKey], timeout: float) -> None:
        """Every port has its number from the start."""

    def wait_applied(self, timeout: float) -> None:
        """Everything is applied at once."""


def _make(there: dict[Any, Any], change: Change) -> None:
    if change.action is Action.REMOVE:
        del there[change.key]
    else:
        there[change.key] = change.desired


@dataclass
class Site:
    switch: Switch
    client: Client
    loop: Loop
    socket: Path


@contextmanager
def site(prepare: Callable[[Loop], None] = lambda loop: None) -> Iterator[Site]:
    """Everything running, and ended and removed afterwards. prepare: called before the service is made."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb")))
        rundir = directory / "ovs"
        rundir.mkdir()
        switch = Switch(rundir)
        stack.callback(switch.stop)
        switch.start()
        settings = Settings(run_dir=directory / "run", state_dir=directory / "state", ovs_rundir=rundir)
        settings.make_directories()
        embedded = Embedded(settings)
        stack.callback(embedded.down, purge=True)
        embedded.up_intent()
        loop, server = _daemon(settings, stack, prepare)
        for run in (loop.run, server.run):
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            stack.callback(thread.join)
        stack.callback(server.stop)
        stack.callback(loop.stop)
        server.ready.wait()
        client = stack.enter_context(Client(settings.api_socket))
        yield Site(switch, client, loop, settings.api_socket)


def _daemon(settings: Settings, stack: ExitStack, prepare: Callable[[Loop], None]) -> tuple[Loop, ApiServer]:
    loops: list[Loop] = []

    def mark(bridge: str | None = None) -> None:
        for loop in loops:
            loop.mark(bridge)

    apps = load_apps()
    store = IntentDatabase(settings.intent_remote, on_change=mark, host=settings.host)
    stack.callback(store.close)
    openflow = OpenFlowDriver(settings.ovs_rundir, on_change=mark)
    stack.callback(openflow.close)
    devices = Devices()
    loop = Loop(store, NetlinkStandIn(devices), OvsStandIn(devices), openflow, Compiler(apps), lambda: False)
    loops.append(loop)
    prepare(loop)
    service = HostService(settings.host, store, loop, apps, AclLog(store.read), Unixctl(settings.ovs_rundir))
    return loop, ApiServer(create_app(service), settings.api_socket)
