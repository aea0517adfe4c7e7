"""Answers queries of flows: from the switch itself, from what was compiled, or where the two differ."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

from vswitchctl.model.flow import CountedFlow, FlowKey
from vswitchctl.model.intent import Intent
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.views import FlowView
from vswitchctl.reconcile.loop import Loop, Pass
from vswitchctl.service.flow_query import (
    WINDOW,
    Drift,
    Found,
    Selection,
    Viewer,
    counted,
    differences,
    in_order,
)
from vswitchctl.service.flow_reads import FlowReads
from vswitchctl.service.names import HostNames

_AS_IS: Drift = ""


class Store(Protocol):
    def read(self) -> Intent: ...


class FlowService:
    """Thread-safe. Takes no lock of the loop: a query waits for no apply, only for its turn at the switch."""

    def __init__(self, store: Store, loop: Loop) -> None:
        self._store = store
        self._loop = loop
        self._reads = FlowReads(loop.openflow.dump, self._moment)

    def _moment(self) -> tuple[int, int]:
        """What an apply that a caller knows of has changed by then: passes begun, and passes over."""
        return self._loop.begun(), self._loop.current()[0].number

    def names(self) -> HostNames:
        """What numbers stand for now. Raises Unreachable."""
        last, _ = self._loop.current()
        ovs = last.desired.ovs
        return HostNames(self._store.read(), ovs.bridges, ovs.ports, self._loop.ovs.read().ofports)

    def flows(self, query: FlowQuery) -> Iterator[FlowView]:
        """The flows, made one by one as they are taken. What can fail fails at once: NotFound, ..."""
        names = self.names()
        selection = Selection(query, names)
        last, _ = self._loop.current()
        bridges = [bridge for bridge in selection.bridges if bridge in last.desired.flows]
        before: Mapping[tuple[str, FlowKey], CountedFlow] = {}
        window = query.window if query.window is not None else WINDOW if query.sort == "rate" else None
        if window is not None and query.source != "desired":
            before = {
                (one.bridge, one.flow.key): one.flow for one in self._found(bridges, query, selection, last)
            }
            threading.Event().wait(window)  # for the counters, which tell nobody that they go on
        found = in_order(self._found(bridges, query, selection, last), query, before)
        viewer = Viewer(names, last.desired.cookies, before)
        return map(viewer.view, found)

    def _found(
        self, bridges: list[str], query: FlowQuery, selection: Selection, last: Pass
    ) -> Iterator[Found]:
        """Reads what is asked for at once; goes through it as it is taken."""
        dumps = {bridge: self._reads(bridge) for bridge in bridges} if query.source != "desired" else {}

        def every() -> Iterator[Found]:
            for bridge in bridges:
                fits = selection.on(bridge)
                pairs: Iterator[tuple[CountedFlow, Drift]]
                if query.source == "observed":
                    pairs = ((flow, _AS_IS) for flow in dumps[bridge])
                elif query.source == "diff":
                    pairs = differences(last.desired.flows[bridge].whole, dumps[bridge])
                else:
                    table = last.desired.flows[bridge].whole
                    pairs = ((counted(key, value), _AS_IS) for key, value in table.items())
                yield from (Found(bridge, flow, drift) for flow, drift in pairs if fits(flow.key, flow.value))

        return every()
