"""An independent witness of what happens to flows: ovs-ofctl, watching."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

END = 0xE2D
"""The cookie of a flow that is not ours and ends what is watched."""


@contextmanager
def watched(bridge: str, environment: Mapping[str, str]) -> Iterator[list[str]]:
    """What it is told of every flow that comes, goes or changes meanwhile, one text for each.

    environment: with the OVS_RUNDIR of the bridge.
    """
    told: list[str] = []
    argv = ["ovs-ofctl", "monitor", bridge, "watch:!initial"]
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as seen:
        if seen.stdout is None:
            raise RuntimeError("ovs-ofctl has no output")
        seen.stdout.readline()  # the answer to the request: from now on it is told
        try:
            yield told
            _ofctl(environment, "add-flow", bridge, f"cookie={END:#x},table=253,actions=drop")
            for line in seen.stdout:
                if f"cookie={END:#x}" in line:
                    break
                told += re.findall(r"event=\w+.*", line)
        finally:
            seen.terminate()
    _ofctl(environment, "del-flows", bridge, f"cookie={END:#x}/-1")


def _ofctl(environment: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(["ovs-ofctl", *arguments], env=environment, capture_output=True, check=True)
