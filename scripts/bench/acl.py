"""One rule changed among 200, with 100, 1,000 and 10,000 ports in ten networks: until the barrier, read back.

change   PUT of the one ACL whose last rule has another port, to the answer that the host matches. In it: the
         check against the topology, its transaction in the intent database, the compile of what it concerns,
         one bundle of flow-mods with its barrier, and their reading back.
apply    the same change by a PUT of the whole topology, which has to be read and compared whole.
floor    what it takes anyhow: an equal transaction and an equal bundle, and the API's answer to a question.

Which flows change says ovs-ofctl, in a round of its own: none but the rule's. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from estate import BRIDGE, NAME, estate, rules
from site_parts import Site, site
from watch import watched

from vswitchctl.model.intent import PolicyChange
from vswitchctl.model.policy import Rule
from vswitchctl.model.state import Owner
from vswitchctl.model.topology import Topology
from vswitchctl.model.views import OperationState, OperationView, TopologyDocument
from vswitchctl.pipeline.cookies import cookie

SIZES = (100, 1000, 10_000)
SECONDS = 600.0
OVN = {"ovn_change_ms_1000": 50, "ovn_change_ms_5000": 600}
"""OVN 23.03 on such a machine, an ACL of a port group: /issue 3."""


def change(port: int) -> PolicyChange:
    return PolicyChange("acls", "acl3", tuple(Rule.model_validate(rule) for rule in rules(3, port)))


def done(operation: OperationView) -> OperationView:
    if operation.state is not OperationState.DONE:
        sys.exit(f"bench/acl: {operation.kind} is {operation.state}: {'; '.join(operation.errors)}")
    return operation


class Bench:
    def __init__(self, site: Site, ports: int) -> None:
        self.site = site
        self.topology = estate(ports)
        self.port = 20_000

    def change(self) -> None:
        self.port += 1
        done(self.site.client.change_policy(NAME, change(self.port), wait=SECONDS))

    def apply(self) -> None:
        self.port += 1
        self.put(change(self.port).applied(self.topology))

    def put(self, topology: Topology) -> None:
        done(self.site.client.apply(TopologyDocument(topology=topology), wait=SECONDS))

    def ask(self) -> None:
        self.site.client.hosts()

    def flow_mods(self) -> list[str]:
        """Events of flows while the rule changes; exits where one is not of the rule."""
        with watched(BRIDGE, self.site.switch.environment) as told:
            self.change()
        mine = cookie(Owner(NAME, "acls/acl3"), len(rules(3)))
        for event in told:
            found = re.search(r"cookie=(0x[0-9a-f]+)", event)
            if found is None or int(found[1], 16) != mine:
                sys.exit(f"bench/acl: a flow of something else changed: {event}")
        return told

    def timed(self, work: Callable[[], None], rounds: int) -> float:
        """Median milliseconds; the first round is not counted."""
        times = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            work()
            times.append((time.perf_counter() - began) * 1000)
        return statistics.median(times[1:])


def measure(ports: int, rounds: int, applies: int) -> dict[str, Any]:
    with site() as running:
        bench = Bench(running, ports)
        began = time.perf_counter()
        bench.put(bench.topology)
        found: dict[str, Any] = {"first_apply_s": time.perf_counter() - began}
        found["flows"] = running.client.hosts()[0].flows
        found["ask_ms"] = bench.timed(bench.ask, rounds)
        found["change_ms"] = bench.timed(bench.change, rounds)
        found["flow_mods"] = len(bench.flow_mods())
        found["apply_ms"] = bench.timed(bench.apply, applies)
        print(ports, {name: round(value, 2) for name, value in found.items()}, flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--applies", type=int, default=3)
    parser.add_argument("--ports", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    by_size = {ports: measure(ports, arguments.rounds, arguments.applies) for ports in arguments.ports}
    figures: dict[str, Any] = {}
    for ports, found in by_size.items():
        figures |= {
            f"{name}_{ports}": round(value, 3) for name, value in found.items() if name != "flow_mods"
        }
    figures["flow_mods"] = max(found["flow_mods"] for found in by_size.values())
    figures |= {"rules": 200, "networks": 10, "rounds": arguments.rounds, **OVN}
    figures["ports"] = "OpenFlow numbers without devices, on datapath dummy"
    figures["python"] = f"{platform.python_version()} {sys.executable}"
    small, large = min(by_size), max(by_size)
    ratio = by_size[large]["change_ms"] / by_size[small]["change_ms"]
    print(
        json.dumps(
            {"bench": "acl", "figures": figures, "ratios": {f"change_{large}_vs_{small}": round(ratio, 3)}}
        )
    )


if __name__ == "__main__":
    main()
