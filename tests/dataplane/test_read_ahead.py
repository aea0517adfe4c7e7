"""What the loop reads ahead at the start is read once, and what changes after that is noticed as ever."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from instances import Ovs

from vswitchctl.compiler.compile import Compiler
from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.errors import Unreachable
from vswitchctl.reconcile.loop import Loop

SECONDS = 20
UNUSED: Any = None
"""For what a loop that only reads flows has no use for."""


class Ahead:
    """A switch, and a loop that reads its flows; `events` has a bridge whenever that was marked."""

    def __init__(self, ovs: Ovs) -> None:
        self.ovs = ovs
        self.events: queue.Queue[str] = queue.Queue()
        self.driver = OpenFlowDriver(ovs.rundir, self._mark)
        self.loop = Loop(UNUSED, UNUSED, UNUSED, self.driver, Compiler(()), lambda: False)
        ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure")

    def _mark(self, bridge: str) -> None:
        self.loop.mark(bridge)
        self.events.put(bridge)

    def add_flow(self, table: int) -> None:
        self.ovs.ofctl("add-flow", "br0", f"table={table},actions=drop")


@pytest.fixture
def ahead(make_ovs: Callable[..., Ovs]) -> Iterator[Ahead]:
    made = Ahead(make_ovs(dummy=True))
    try:
        yield made
    finally:
        made.driver.close()


def test_what_changes_after_it_was_read_is_noticed(ahead: Ahead) -> None:
    ahead.add_flow(3)
    ahead.loop.read_ahead(["br0"])
    assert ahead.events.get(timeout=SECONDS) == "br0"
    first = ahead.loop.flows("br0")
    assert len(first.foreign) == 1
    assert ahead.loop.flows("br0") is first  # the session's own event came before, and costs no second read
    ahead.add_flow(4)
    assert ahead.events.get(timeout=SECONDS) == "br0"
    assert len(ahead.loop.flows("br0").foreign) == 2


def test_what_changes_before_it_is_looked_at_is_noticed(ahead: Ahead) -> None:
    ahead.add_flow(3)
    ahead.loop.read_ahead(["br0"])
    ahead.driver.reach("br0")
    assert ahead.events.get(timeout=SECONDS) == "br0"
    ahead.add_flow(4)
    assert ahead.events.get(timeout=SECONDS) == "br0"
    assert len(ahead.loop.flows("br0").foreign) == 2


def test_a_switch_that_was_away_is_read_again(ahead: Ahead) -> None:
    ahead.ovs.kill("ovs-vswitchd")
    ahead.loop.read_ahead(["br0"])
    with pytest.raises(Unreachable):
        ahead.driver.reach("br0")  # asked later than what is read ahead, so that has failed by now
    ahead.ovs.start_vswitchd()
    ahead.add_flow(5)
    ahead.driver.reach("br0")
    assert len(ahead.loop.flows("br0").foreign) == 1
