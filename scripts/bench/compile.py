"""A full compile of 10,000 ports in ten networks with 200 ACL rules: flows per second, and memory.

From a topology as the intent database gives it to the flows as bytes, in a compiler that has seen nothing
before. Devices and Open vSwitch have no part in it: ports have made-up numbers.

flows_per_s      by the clock; flows_per_cpu_s: by the process's own time, which others on the machine do not
                 change. rss_mb: the most that the process had, with the topology; rss_before_mb: with that
                 alone.
floor            each flow's bytes copied into a new dictionary: what making them costs Python anyhow.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from estate import BRIDGE, NETWORKS, RULES, estate, stored

from vswitchctl.compiler.compile import TopologyCompiler, compile_topology, provisional
from vswitchctl.model.flow import FlowTable
from vswitchctl.model.state import Facts
from vswitchctl.pipeline.app import load_apps


def rss_mb() -> float:
    """The most so far; getrusage(2) counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], FlowTable]) -> tuple[float, float, int]:
    """(seconds by the clock, seconds of this process, flows)."""
    gc.collect()
    began, own = time.perf_counter(), time.process_time()
    flows = len(work())
    return time.perf_counter() - began, time.process_time() - own, flows


def copied(table: FlowTable) -> FlowTable:
    return {bytes(bytearray(key)): bytes(bytearray(value)) for key, value in table.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ports", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    apps, declared = load_apps(), stored(estate(arguments.ports))
    facts = Facts({}, False)
    facts = provisional(compile_topology(declared, facts, apps), facts)
    before = rss_mb()

    def compiled() -> FlowTable:
        return TopologyCompiler(apps).compile(declared, facts).flows[BRIDGE].whole

    rounds = [timed(compiled) for _ in range(arguments.rounds)]
    most, table = rss_mb(), compiled()
    floors = [timed(lambda: copied(table)) for _ in range(arguments.rounds)]
    seconds, own, flows = (statistics.median(column) for column in zip(*rounds, strict=True))
    floor = statistics.median(found[1] for found in floors)
    figures: dict[str, Any] = {
        "flows_per_s": round(flows / seconds),
        "flows_per_cpu_s": round(flows / own),
        "rss_mb": round(most, 1),
        "rss_before_mb": round(before, 1),
        "flows": round(flows),
        "compile_s": round(seconds, 3),
        "compile_cpu_s": round(own, 3),
        "floor_cpu_s": round(floor, 3),
        "ports": arguments.ports,
        "networks": NETWORKS,
        "rules": NETWORKS * RULES,
        "rounds": arguments.rounds,
        "python": f"{platform.python_version()} {sys.executable}",
    }
    print(
        json.dumps(
            {"bench": "compile", "figures": figures, "ratios": {"cpu_vs_floor": round(own / floor, 3)}}
        )
    )


if __name__ == "__main__":
    main()
