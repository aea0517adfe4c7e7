"""The daemon killed and started anew with 100,000 flows in the switch: until it is in sync, and its cost.

All is real: `vswitchctl up` with its private Open vSwitch (userspace datapath), two namespaces on one bridge,
and twelve ACLs of their interfaces that make the flows. Meanwhile a packet a millisecond goes each way, over
IPv4 and over IPv6.

in_sync   from the start of the new process (Python's own included) to the API's answer that every bridge was
          read back and found as declared. In it: the intent is read, compiled, and compared with every flow.
floor     `ovs-ofctl dump-flows` of the same bridge: what reading the flows alone costs ovs-vswitchd and a C
          program. For packets lost: as many in as long a time without a restart (idle_lost), which is what a
          switch loses where others keep it from the processor.

ovs-ofctl, watching, says how many flows came, went or changed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watch import watched

from tests.stream import End, Result, streaming
from vswitchctl import daemon
from vswitchctl.cli.client import Client
from vswitchctl.model.topology import Topology
from vswitchctl.model.views import OperationState, Status, TopologyDocument
from vswitchctl.settings import Settings

BRIDGE, NAME = "rs-br", "resync"
ONE = End("rs-one", "10.88.0.1", "fd00:88::1")
TWO = End("rs-two", "10.88.0.2", "fd00:88::2")
ACLS, RULES, PEERS = 12, 17, 500
"""Each of 204 rules costs 500 clauses for its subnets, two for its ports and one for its verdict."""

SECONDS = 300.0
POLL = 0.02
"""Seconds between two questions, each of which takes the daemon some milliseconds from its work."""

OVN_S = 3.0
"""ovn-controller 23.03 on such a machine, with 115,000 flows."""


def topology() -> Topology:
    nodes: dict[str, Any] = {BRIDGE: {"kind": "bridge", "datapath": "netdev"}}
    probe = {"direction": "in", "action": "allow", "protocol": "udp", "ports": [7000]}
    acls: dict[str, Any] = {"probe": [probe]}
    groups: dict[str, Any] = {}
    for number in range(ACLS):
        subnets = [f"{20 + number}.{n >> 8}.{n & 255}.0/24" for n in range(PEERS)]
        groups[f"far{number}"] = {"addresses": subnets}
        acls[f"acl{number}"] = [
            {
                "direction": "in",
                "action": "allow",
                "protocol": "tcp",
                "ports": [1000 + rule, 2000 + rule],
                "from": {"group": f"far{number}"},
            }
            for rule in range(RULES)
        ]
    for end in (ONE, TWO):
        interface = {"network": "lan", "ip": [f"{end.ip}/24", f"{end.ip6}/64"], "acls": list(acls)}
        nodes[end.namespace] = {"kind": "namespace", "tenant": "t", "interfaces": {"eth0": interface}}
    return Topology.model_validate(
        {
            "name": NAME,
            "tenants": {"t": {}},
            "networks": {"lan": {"tenant": "t", "subnets": ["10.88.0.0/24", "fd00:88::/64"]}},
            "nodes": nodes,
            "links": [{"ends": [f"{end.namespace}:eth0", BRIDGE]} for end in (ONE, TWO)],
            "groups": groups,
            "acls": acls,
        }
    )


class Bench:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.env = {**os.environ, "OVS_RUNDIR": str(settings.run_dir / "ovs")}

    def apply(self) -> None:
        with Client(self.settings.api_socket) as client:
            last = client.apply(TopologyDocument(topology=topology()), wait=SECONDS)
        if last.state is not OperationState.DONE:
            sys.exit(f"bench/resync: apply is {last.state}: {'; '.join(last.errors)}")

    def kill(self) -> None:
        """kill -9, as a crash would, and wait until it is gone."""
        pid = self.pid()
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
        os.close(handle)

    def start(self) -> float:
        """Seconds until a new daemon says that the topology is in sync."""
        began = time.perf_counter()
        daemon.up(self.settings, lambda _: None)
        with Client(self.settings.api_socket) as client:
            while not any(v.status is Status.IN_SYNC and v.applied for v in client.topologies()):
                if time.perf_counter() - began > SECONDS:
                    sys.exit(f"bench/resync: not in sync within {SECONDS:.0f} s: {client.topologies()}")
                time.sleep(POLL)
        return time.perf_counter() - began

    def cpu_seconds(self) -> float:
        """What the daemon has used of the processor since its start: utime and stime, proc_pid_stat(5)."""
        stat = Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def pid(self) -> int:
        return int((self.settings.run_dir / "daemon.pid").read_text())

    def floor(self) -> tuple[float, int]:
        """Seconds that ovs-ofctl takes for reading all flows, and how many there are."""
        began = time.perf_counter()
        argv = ["ovs-ofctl", "-O", "OpenFlow14", "dump-flows", BRIDGE]
        lines = subprocess.run(argv, env=self.env, capture_output=True, check=True).stdout.count(b"\n")
        return time.perf_counter() - began, lines - 1

    def round(self) -> dict[str, float]:
        floor, flows = self.floor()
        with streaming(ONE, TWO) as result, watched(BRIDGE, self.env) as told:
            self.kill()
            seconds = self.start()
            cpu = self.cpu_seconds()
        with streaming(ONE, TWO) as idle:
            time.sleep(seconds)
        print(f"{seconds:.2f} s, {len(told)} flow events, {flows} flows, ofctl {floor:.2f} s", flush=True)
        print(result, flush=True)
        return {
            "in_sync_s": seconds,
            "daemon_cpu_s": cpu,
            "ofctl_dump_s": floor,
            "flows": flows,
            "flow_mods": len(told),
            "probes_lost": result.lost,
            "probes": sum(int(str(flow["received"])) for flow in result.flows.values()),
            "longest_gap_ms": longest(result),
            "idle_lost": idle.lost,
            "idle_longest_gap_ms": longest(idle),
        }


def longest(result: Result) -> float:
    """The longest time between two packets that came, of any of the streams."""
    return max(float(str(flow["longest_gap_ms"])) for flow in result.flows.values())


@contextmanager
def running() -> Iterator[Bench]:
    directory = Path(tempfile.mkdtemp(prefix="vb", dir="/tmp"))
    settings = Settings(
        run_dir=directory / "run", state_dir=directory / "state", system_ovs_rundir=directory / "none"
    )
    try:
        daemon.up(settings, lambda text: print(f"starting: {text}", flush=True))
        yield Bench(settings)
    finally:
        daemon.down(settings, True, lambda _: None)
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with running() as bench:
        bench.apply()
        rounds = [bench.round() for _ in range(arguments.rounds)]
    report(rounds)


def report(rounds: list[dict[str, float]]) -> None:
    figures: dict[str, Any] = {
        name: round(statistics.median(found[name] for found in rounds), 3)
        for name in ("in_sync_s", "daemon_cpu_s", "ofctl_dump_s")
    }
    figures["flows"] = min(found["flows"] for found in rounds)
    for name in ("flow_mods", "probes_lost", "idle_lost", "probes"):
        figures[name] = sum(found[name] for found in rounds)
    for name in ("longest_gap_ms", "idle_longest_gap_ms"):
        figures[name] = max(found[name] for found in rounds)
    figures |= {"rounds": len(rounds), "ovn_in_sync_s": OVN_S, "ports": "two namespaces, userspace datapath"}
    figures["python"] = f"{platform.python_version()} {sys.executable}"
    ratio = round(figures["in_sync_s"] / figures["ofctl_dump_s"], 3)
    print(json.dumps({"bench": "resync", "figures": figures, "ratios": {"in_sync_vs_ofctl_dump": ratio}}))


if __name__ == "__main__":
    main()
