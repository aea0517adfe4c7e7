"""Queries of flows over 100,000 of them in the switch, beside `ovs-ofctl dump-flows | grep`.

query      GET /flows of one rule of an ACL, by REST: the switch is read, and each flow looked at.
match      GET /flows of one table that would match an address.
ofctl      ovs-ofctl dump-flows, and grep for the same rule's cookie.
parallel   a hundred such queries at once, and how often the switch was read for them.
stream     every flow as NDJSON, and what the daemon's memory grew by meanwhile.

Each is the median of its rounds, taken in turn. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from estate import BRIDGE, NAME, estate, rules
from site_parts import Site, site

from vswitchctl.model.flow import CountedFlow
from vswitchctl.model.state import Owner
from vswitchctl.model.views import OperationState, TopologyDocument
from vswitchctl.pipeline.cookies import cookie

SECONDS = 600.0
PARALLEL = 100
RULE = len(rules(3))


class Reads:
    """Counts reads of the switch."""

    def __init__(self, dump: Callable[[str], Iterable[CountedFlow]]) -> None:
        self._dump = dump
        self.count = 0

    def __call__(self, bridge: str) -> Iterable[CountedFlow]:
        self.count += 1
        return self._dump(bridge)


class Bench:
    def __init__(self, running: Site, http: httpx.Client) -> None:
        self._site = running
        self._http = http

    def _get(self, **asked: Any) -> bytes:
        answer = self._http.get("/flows", params={"fields": "table,words,packets,source", **asked})
        answer.raise_for_status()
        return answer.content

    def query(self) -> None:
        if len(json.loads(self._get(acl="acl3", rule=RULE))) == 0:
            sys.exit("bench/query: the rule has no flows")

    def match(self) -> None:
        self._get(table="l2_lookup", match="dl_dst=02:00:00:00:00:01")

    def ofctl(self) -> None:
        mark = f"cookie={cookie(Owner(NAME, 'acls/acl3'), RULE):#x}"
        dump = subprocess.Popen(
            ["ovs-ofctl", "-O", "OpenFlow14", "dump-flows", BRIDGE],
            env=self._site.switch.environment,
            stdout=subprocess.PIPE,
        )
        found = subprocess.run(["grep", mark], stdin=dump.stdout, capture_output=True, check=True).stdout
        if dump.wait() or not found:
            sys.exit("bench/query: ovs-ofctl does not find the rule")

    def parallel(self) -> None:
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda _: self.query(), range(PARALLEL)))

    def stream(self) -> int:
        with self._http.stream("GET", "/flows", params={"format": "ndjson"}) as answer:
            return sum(chunk.count(b"\n") for chunk in answer.iter_bytes())


def timed(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds, the works taken in turn; a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ports", type=int, default=3000)
    arguments = parser.parse_args()
    reads = Reads(lambda bridge: ())
    with site(lambda loop: _counting(loop, reads)) as running:
        transport = httpx.HTTPTransport(
            uds=str(running.socket), limits=httpx.Limits(max_connections=PARALLEL)
        )
        with httpx.Client(transport=transport, base_url="http://bench/api/v1", timeout=SECONDS) as http:
            figures = _measure(Bench(running, http), running, reads, arguments.ports, arguments.rounds)
    ratio = round(figures["query_ms"] / figures["ofctl_ms"], 3)
    figures["python"] = f"{platform.python_version()} {sys.executable}"
    print(json.dumps({"bench": "query", "figures": figures, "ratios": {"query_vs_ofctl": ratio}}))


def _counting(loop: Any, reads: Reads) -> None:
    reads._dump = loop.openflow.dump
    loop.openflow.dump = reads


def _measure(bench: Bench, running: Site, reads: Reads, ports: int, rounds: int) -> dict[str, Any]:
    operation = running.client.apply(TopologyDocument(topology=estate(ports)), wait=SECONDS)
    if operation.state is not OperationState.DONE:
        sys.exit(f"bench/query: {operation.state}: {'; '.join(operation.errors)}")
    figures: dict[str, Any] = {"flows": running.client.hosts()[0].flows}
    works: dict[str, Callable[[], object]] = {
        "ofctl": bench.ofctl, "query": bench.query, "match": bench.match,
    }  # fmt: skip
    figures |= {f"{name}_ms": round(found, 1) for name, found in timed(works, rounds).items()}
    before = reads.count
    began = time.perf_counter()
    bench.parallel()
    figures["parallel_ms"] = round((time.perf_counter() - began) * 1000, 1)
    figures["reads_per_100_queries"] = reads.count - before
    resting = peak_mb()
    if bench.stream() < figures["flows"]:
        sys.exit("bench/query: the stream lacks flows")
    figures["stream_grew_mb"] = peak_mb() - resting
    figures["rss_mb"] = peak_mb()
    return figures


if __name__ == "__main__":
    main()
