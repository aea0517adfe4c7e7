#!/usr/bin/env python3
"""From a guest's TAP to the flows of its port, on a host with 500 other ports.

A private libvirtd and Open vSwitch (userspace datapath). A domain is started, paused, and destroyed, again
and again; four witnesses note when what happens: netlink (its TAP appears), libvirt (it has started), a
monitor of Open vSwitch's database (its port is there, and has a number), and a flow monitor of
ovs-ofctl(8) (the flows of its port are added, the last of which counts).

median_ms, p99_ms                  from the TAP appearing to the last flow
numbering_median_ms                of that, from the port's row to its number, which is ovs-vswitchd's alone,
                                   while QEMU starts beside it
rest_median_ms, rest_p99_ms        the same without that: libvirt's answer, ours, and the flows
told_median_ms, told_p99_ms        from libvirt's event to the last flow; below 0 where we did not wait for it
vswitchd_floor_ms                  what ovs-vswitchd itself takes for a port on the same bridge: ovs-vsctl
                                   add-port, less the same with --no-wait

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic, hypervisor

MAC = "52:54:00:bb:00:01"
PER_NAMESPACE = 50
SECONDS = 60.0
NUMBERED = re.compile(r'"new","vnet\d+",[1-9]')
QUIET = 0.3
"""Seconds without another flow after which a port's flows are complete."""


class Lines:
    """The lines of a command in the hypervisor's namespaces, each with the time at which it came."""

    def __init__(self, host: Hypervisor, *argv: str, env: dict[str, str] | None = None) -> None:
        # Line by line, though it writes into a pipe.
        self._process = subprocess.Popen(
            [*host.prefix, "stdbuf", "-oL", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        self._lines: queue.Queue[tuple[float, str]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put((time.monotonic(), line))

    def clear(self) -> None:
        while not self._lines.empty():
            self._lines.get()

    def first(self, wanted: Callable[[str], bool], timeout: float = SECONDS) -> float:
        end = time.monotonic() + timeout
        while True:
            moment, line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            if wanted(line):
                return moment

    def last(self, wanted: Callable[[str], bool]) -> float:
        """Of those that follow each other without a pause."""
        moment = self.first(wanted)
        while True:
            try:
                moment = self.first(wanted, QUIET)
            except queue.Empty:
                return moment

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def topology(others: int) -> str:
    nodes, links = "", ""
    for number in range(0, others, PER_NAMESPACE):
        names = [f"eth{n}" for n in range(min(PER_NAMESPACE, others - number))]
        interfaces = ", ".join(f"{name}: {{network: lan}}" for name in names)
        nodes += f"  ns{number}: {{kind: namespace, tenant: t, interfaces: {{{interfaces}}}}}\n"
        links += "".join(f'  - {{ends: ["ns{number}:{name}", br-a]}}\n' for name in names)
    return (
        "name: bench\ntenants: {t: {}}\nnetworks: {lan: {tenant: t, subnets: [10.99.0.0/16]}}\n"
        f"nodes:\n  br-a: {{kind: bridge}}\n{nodes}"
        "  vm: {kind: vm, tenant: t, domain: vm, "
        f'interfaces: {{"{MAC}": {{network: lan, ip: 10.99.0.1/16}}}}}}\n'
        f'links:\n{links}  - {{ends: ["vm:{MAC}", br-a]}}\n'
    )


@dataclass
class Taken:
    """Of each start, in ms: from the TAP, and from libvirt's word, to the last flow; and for the number."""

    from_tap: list[float] = field(default_factory=list)
    from_libvirt: list[float] = field(default_factory=list)
    numbering: list[float] = field(default_factory=list)


def rounds(host: Hypervisor, stack: HypervisorStack, count: int) -> Taken:
    taps = Lines(host, "ip", "-o", "monitor", "link")
    domains = Lines(host, "virsh", "-q", "-c", host.uri, "event", "--event", "lifecycle", "--loop")
    flows = Lines(
        host, "ovs-ofctl", "--no-names", "monitor", f"unix:{stack.rundir}/br-a.mgmt", "watch:!initial"
    )
    database = f"unix:{stack.rundir}/db.sock"
    rows = Lines(
        host, "ovsdb-client", "-f", "json", "monitor", database, "Open_vSwitch", "Interface", "name,ofport"
    )
    witnesses, taken = (taps, domains, flows, rows), Taken()
    time.sleep(1)
    for _ in range(count):
        for lines in witnesses:
            lines.clear()
        host.virsh("start", "--paused", "vm")
        appeared = taps.first(lambda line: "vnet" in line)
        told = domains.first(lambda line: "Started" in line)
        done = flows.last(lambda line: "event=ADDED" in line)
        inserted = rows.first(lambda line: '"insert"' in line and '"vnet' in line)
        numbered = rows.first(lambda line: NUMBERED.search(line) is not None)
        taken.from_tap.append((done - appeared) * 1000)
        taken.from_libvirt.append((done - told) * 1000)
        taken.numbering.append((numbered - inserted) * 1000)
        host.virsh("destroy", "vm")
        flows.last(lambda line: "event=DELETED" in line)
    for lines in witnesses:
        lines.close()
    return taken


def floor(host: Hypervisor, stack: HypervisorStack, count: int) -> float:
    """ms that ovs-vswitchd takes to add a port."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    host.run("ip", "tuntap", "add", "floor0", "mode", "tap")
    for _ in range(count):
        for waits in (True, False):
            begun = time.monotonic()
            stack.vsctl(*([] if waits else ["--no-wait"]), "add-port", "br-a", "floor0")
            taken[waits].append((time.monotonic() - begun) * 1000)
            stack.vsctl("del-port", "br-a", "floor0")
    host.run("ip", "link", "del", "floor0")
    return statistics.median(taken[True]) - statistics.median(taken[False])


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--ports", type=int, default=500, help="other ports on the host")
    arguments = parser.parse_args()
    with hypervisor() as host:
        stack = host.stack
        stack.cli("up")
        host.define("vm", Nic(MAC))
        stack.apply_text(topology(arguments.ports))
        base = floor(host, stack, max(5, arguments.rounds))
        taken = rounds(host, stack, arguments.rounds)
        stack.cli("destroy", "bench", "--yes")
        stack.cli("down", "--purge")
    rest = [whole - part for whole, part in zip(taken.from_tap, taken.numbering, strict=True)]
    result = {
        "rounds": len(taken.from_tap),
        "other_ports": arguments.ports,
        "median_ms": statistics.median(taken.from_tap),
        "p99_ms": p99(taken.from_tap),
        "numbering_median_ms": statistics.median(taken.numbering),
        "rest_median_ms": statistics.median(rest),
        "rest_p99_ms": p99(rest),
        "told_median_ms": statistics.median(taken.from_libvirt),
        "told_p99_ms": p99(taken.from_libvirt),
        "vswitchd_floor_ms": base,
    }
    print(json.dumps({key: round(value, 1) for key, value in result.items()}))


if __name__ == "__main__":
    main()
