"""100 namespaces on 4 bridges: our apply and destroy beside the same by `ip -batch` and one `ovs-vsctl` call.

Both sides use the same Open vSwitch, started for this run, in alternating rounds, and both are timed until
the same witness says so. apply: every port has its number. destroy: no device, namespace or bridge is left.
Ours does more within its time: it plans, stores the intent, programs the flows and reads all of it back.
Not counted is what a command line takes to start: ours is called at the daemon's API, and the shell's script
is written before.

The last line is one JSON object. A ratio below 1 means that we are faster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vswitchctl import daemon
from vswitchctl.cli.client import Client
from vswitchctl.model.topology import Topology
from vswitchctl.model.views import OperationState, OperationView, TopologyDocument
from vswitchctl.settings import Settings

BRIDGES = 4
SECONDS = 120.0
POLL = 0.002
"""Seconds between two looks of the witness; far below what is measured."""


def names_in(directory: str) -> set[str]:
    return {path.name for path in Path(directory).iterdir()}


class Witness:
    """What is there, asked without starting a process: /sys, /run/netns, and a connection to OVSDB."""

    def __init__(self, database: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(database))
        self._decoder = json.JSONDecoder()

    def interfaces(self) -> dict[str, bool]:
        """Interface -> whether Open vSwitch has numbered it."""
        operation = {"op": "select", "table": "Interface", "where": [], "columns": ["name", "ofport"]}
        request = {"method": "transact", "params": ["Open_vSwitch", operation], "id": 0}
        self._socket.sendall(json.dumps(request).encode())
        rows = self._reply()["result"][0]["rows"]
        return {row["name"]: isinstance(row["ofport"], int) and row["ofport"] > 0 for row in rows}

    def _reply(self) -> Any:
        text = ""
        while True:
            text += self._socket.recv(1 << 20).decode()
            try:
                return self._decoder.raw_decode(text)[0]
            except ValueError:
                continue

    def until(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not true():
            if time.monotonic() > end:
                sys.exit(f"bench/topology: not within {SECONDS:.0f} s: {what}")
            time.sleep(POLL)


class Bench:
    """One run: names of this run only, so that nothing else on the machine is touched."""

    def __init__(self, namespaces: int, directory: Path) -> None:
        tag = f"{os.getpid() % 0x10000:04x}"
        self.bridges = [f"bb{tag}{number}" for number in range(BRIDGES)]
        self.spaces = [f"bn{tag}{number}" for number in range(namespaces)]
        self.devices = [f"bv{tag}{number}" for number in range(namespaces)]
        self.rundir = directory / "run/ovs"
        self.witness = Witness(self.rundir / "db.sock")
        self.before = names_in("/sys/class/net")
        self.shell = Shell(self, directory)

    def home(self, number: int) -> str:
        """The bridge of a namespace: equal shares."""
        return self.bridges[number * BRIDGES // len(self.spaces)]

    def address(self, number: int) -> str:
        return f"10.99.{number // 250}.{number % 250 + 1}/16"

    def document(self) -> TopologyDocument:
        nodes: dict[str, Any] = {name: {"kind": "bridge", "datapath": "netdev"} for name in self.bridges}
        links: list[dict[str, Any]] = [
            {"ends": pair, "kind": "patch"} for pair in zip(self.bridges, self.bridges[1:], strict=False)
        ]
        for number, name in enumerate(self.spaces):
            interface = {"network": "lan", "ip": self.address(number)}
            nodes[name] = {"kind": "namespace", "tenant": "bench", "interfaces": {"eth0": interface}}
            links.append({"ends": [f"{name}:eth0", self.home(number)]})
        networks = {"lan": {"tenant": "bench", "subnets": ["10.99.0.0/16"]}}
        data = {
            "name": "bench",
            "tenants": {"bench": {}},
            "networks": networks,
            "nodes": nodes,
            "links": links,
        }
        return TopologyDocument(topology=Topology.model_validate(data))

    def numbered(self) -> bool:
        """Every bridge, patch port and veth is an interface with a number (a bridge's own is 65534)."""
        there = self.witness.interfaces()
        return len(there) == BRIDGES + 2 * (BRIDGES - 1) + len(self.spaces) and all(there.values())

    def gone(self) -> bool:
        """No device, namespace or bridge. A bridge of the netdev datapath is a device, too."""
        left = names_in("/run/netns") & set(self.spaces)
        return not left and names_in("/sys/class/net") <= self.before and not self.witness.interfaces()

    def timed(self, work: Callable[[], None], reached: Callable[[], bool], what: str) -> float:
        started = time.perf_counter()
        work()
        self.witness.until(reached, what)
        return time.perf_counter() - started


class Shell:
    """The same by hand: one `ip -batch` for the root namespace, one inside each, one `ovs-vsctl`."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self._environment = {**os.environ, "OVS_RUNDIR": str(bench.rundir)}
        self._up, self._down = directory / "up.sh", directory / "down.sh"
        root, inside = directory / "root.batch", directory / "inside"
        inside.mkdir()
        lines = []
        for number, (space, device) in enumerate(zip(bench.spaces, bench.devices, strict=True)):
            lines += [
                f"netns add {space}",
                f"link add {device} type veth peer name eth0 netns {space}",
                f"link set {device} up",
            ]
            (inside / space).write_text(
                f"link set lo up\naddress add {bench.address(number)} dev eth0\nlink set eth0 up\n"
            )
        root.write_text("\n".join(lines) + "\n")
        removed = directory / "removed.batch"
        removed.write_text("".join(f"netns del {space}\n" for space in bench.spaces))
        self._up.write_text(
            f"set -e\nip -batch {root}\n"
            f'for space in {" ".join(bench.spaces)}; do ip -n "$space" -batch {inside}/"$space"; done\n'
            f"ovs-vsctl {' '.join(self._bridges(bench))}\n"
        )
        bridges = " ".join(f"-- del-br {name}" for name in bench.bridges)
        self._down.write_text(f"set -e\novs-vsctl {bridges}\nip -batch {removed}\n")

    def _bridges(self, bench: Bench) -> list[str]:
        words = []
        for name in bench.bridges:
            words += [
                "--",
                "add-br",
                name,
                "--",
                "set",
                "bridge",
                name,
                "datapath_type=netdev",
                "fail_mode=secure",
            ]
        for a, b in zip(bench.bridges, bench.bridges[1:], strict=False):
            for here, there in ((a, b), (b, a)):
                port, peer = f"p{here[2:]}-{there[-1]}", f"p{there[2:]}-{here[-1]}"
                words += ["--", "add-port", here, port]
                words += ["--", "set", "interface", port, "type=patch", f"options:peer={peer}"]
        for number, device in enumerate(bench.devices):
            words += ["--", "add-port", bench.home(number), device]
        return words

    def up(self) -> None:
        self._run(self._up)

    def down(self) -> None:
        self._run(self._down)

    def _run(self, script: Path) -> None:
        done = subprocess.run(
            ["bash", str(script)], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"bench/topology: {script.name} failed: {done.stderr or done.stdout}")


class Ours:
    """The daemon's API, as the command line calls it."""

    def __init__(self, client: Client, document: TopologyDocument) -> None:
        self._client = client
        self._document = document
        self.changes = 0

    def up(self) -> None:
        self._finish(self._client.apply(self._document))

    def check_unchanged(self) -> None:
        """Nothing is left to do after an apply, or the next one would not be an unchanged one."""
        plan = self._client.plan(self._document)
        if not plan.empty:
            sys.exit(
                f"bench/topology: a change is still planned after the apply: {plan.changes or plan.flows}"
            )

    def down(self) -> None:
        self._finish(self._client.destroy("bench"))

    def _finish(self, operation: OperationView) -> None:
        last = operation
        for view in self._client.events(operation.id, SECONDS):
            last = view
        if last.state is not OperationState.DONE:
            sys.exit(f"bench/topology: {last.kind} is {last.state}: {'; '.join(last.errors)}")
        self.changes = last.total


def measure(bench: Bench, ours: Ours, rounds: int) -> dict[str, list[float]]:
    """Seconds by what was timed. Who goes first changes every round; the first round is not counted."""
    found: dict[str, list[float]] = {}

    def note(name: str, seconds: float, counted: bool) -> None:
        print(f"  {name:<14} {seconds * 1000:8.0f} ms{'' if counted else '  (not counted)'}", flush=True)
        if counted:
            found.setdefault(name, []).append(seconds)

    def shell(counted: bool) -> None:
        note("shell apply", bench.timed(bench.shell.up, bench.numbered, "every port has a number"), counted)
        note("shell destroy", bench.timed(bench.shell.down, bench.gone, "nothing is left"), counted)

    def us(counted: bool) -> None:
        note("apply", bench.timed(ours.up, bench.numbered, "every port has a number"), counted)
        ours.check_unchanged()
        note("reapply", bench.timed(ours.up, bench.numbered, "every port has a number"), counted)
        if ours.changes:
            sys.exit(f"bench/topology: the unchanged apply made {ours.changes} changes")
        note("destroy", bench.timed(ours.down, bench.gone, "nothing is left"), counted)

    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", flush=True)
        for side in (shell, us) if number % 2 else (us, shell):
            side(number > 0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="counted rounds of each side; medians are reported"
    )
    parser.add_argument("--namespaces", type=int, default=100)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/topology: this needs root: it makes bridges and namespaces")
    directory = Path(tempfile.mkdtemp(prefix="vb", dir="/tmp"))
    settings = Settings(
        run_dir=directory / "run", state_dir=directory / "state", system_ovs_rundir=directory / "none"
    )
    try:
        daemon.up(settings, lambda text: print(f"starting: {text}", flush=True))
        bench = Bench(arguments.namespaces, directory)
        with Client(settings.api_socket) as client:
            times = measure(bench, Ours(client, bench.document()), arguments.rounds)
    finally:
        daemon.down(settings, True, lambda _: None)
        shutil.rmtree(directory, ignore_errors=True)
    report(times, arguments)


def report(times: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    figures: dict[str, Any] = {
        f"{name.replace(' ', '_')}_seconds": round(value, 4) for name, value in median.items()
    }
    figures |= {
        "namespaces": arguments.namespaces,
        "bridges": BRIDGES,
        "rounds": arguments.rounds,
        "python": f"{sys.version.split()[0]} ({Path(sys.executable).resolve()})",
    }
    ratios = {
        "apply_vs_shell": round(median["apply"] / median["shell apply"], 3),
        "destroy_vs_shell": round(median["destroy"] / median["shell destroy"], 3),
        "reapply_vs_apply": round(median["reapply"] / median["apply"], 3),
    }
    print(json.dumps({"bench": "topology", "figures": figures, "ratios": ratios}))


if __name__ == "__main__":
    main()
