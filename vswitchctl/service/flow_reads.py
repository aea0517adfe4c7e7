"""Reads of a switch that several callers share: who comes while one is under way has its answer, too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future

from vswitchctl.model.flow import CountedFlow

Dump = Iterable[CountedFlow]


class FlowReads:
    """Nothing is kept once it was handed out: a read that begins later sees the switch as it is then.

    moment: what a read must not be older than. Whoever comes after it has changed begins a read of its own.
    """

    def __init__(self, read: Callable[[str], Dump], moment: Callable[[], Hashable]) -> None:
        self._read = read
        self._moment = moment
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[Hashable, Future[Dump]]] = {}

    def __call__(self, bridge: str) -> Dump:
        """The bridge's flows. Raises what reading does."""
        moment = self._moment()
        with self._lock:
            known = self._under_way.get(bridge)
            if known is not None and known[0] == moment:
                mine = None
            else:
                mine = known = moment, Future[Dump]()
                self._under_way[bridge] = mine
        if mine is not None:
            self._begin(bridge, mine)
        return known[1].result()

    def _begin(self, bridge: str, entry: tuple[Hashable, Future[Dump]]) -> None:
        try:
            entry[1].set_result(self._read(bridge))
        except BaseException as error:  # noqa: BLE001  # raised by `result`, to everybody who waits for it
            entry[1].set_exception(error)
        finally:
            with self._lock:
                if self._under_way.get(bridge) is entry:
                    del self._under_way[bridge]
