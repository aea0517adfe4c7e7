"""poll(2) for ovs' Poller, whose own select(2) takes no descriptor above 1023; daemons here have many."""

from __future__ import annotations

import select
from typing import Any

import ovs.poller


class Poll:
    """One wait. Unlike with `select.poll`, a descriptor registered twice waits for both events."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, file: Any, events: int) -> None:
        fd = file if isinstance(file, int) else file.fileno()
        self._events[fd] = self._events.get(fd, 0) | events

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        poll = select.poll()
        for fd, events in self._events.items():
            poll.register(fd, events)
        return poll.poll(timeout_ms)


def use_poll() -> None:
    """From now on, for every Poller of this process: ovs/poller.py names this class to be replaced."""
    ovs.poller.SelectPoll = Poll
