"""One bridge's flows, from every app. Pure; what an app need not compile again, it is not asked for."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from vswitchctl.errors import InternalError
from vswitchctl.latest import same
from vswitchctl.model.flow import Flow, FlowTable, PartedTable
from vswitchctl.model.switch import Switch
from vswitchctl.pipeline.app import App, Part, PartedApp, ReadingApp

Inputs = tuple[Any, ...]
Known = tuple[Inputs, FlowTable]

EVERYTHING = tuple(spec.name for spec in fields(Switch))


class FlowCompiler:
    """Compiles the flows of one bridge again and again."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._apps = [_AppCompiler(app) for app in apps]

    def compile(self, switch: Switch) -> PartedTable:
        """Raises InternalError where an app gives two flows of the same match."""
        return PartedTable({app.name: app.compile(switch) for app in self._apps})


class _AppCompiler:
    """The parts of one app on one bridge."""

    def __init__(self, app: App) -> None:
        self.name = app.name
        self._app = app
        self._reads = app.reads if isinstance(app, ReadingApp) else EVERYTHING
        self._read: Inputs = ()
        self._known: dict[Hashable, Known] = {}
        self._parts: Mapping[Hashable, FlowTable] = {}

    def compile(self, switch: Switch) -> Mapping[Hashable, FlowTable]:
        read = tuple(getattr(switch, name) for name in self._reads)
        if not self._read or not same(self._read, read):
            self._known = {part.name: self._part(part, switch) for part in self._asked(switch, read)}
            self._read = read
            self._parts = {name: table for name, (_, table) in self._known.items()}
        return self._parts

    def _asked(self, switch: Switch, read: Inputs) -> Iterable[Part]:
        if isinstance(self._app, PartedApp):
            return self._app.parts(switch)
        return (Part("", read, lambda *_: self._app.compile(switch)),)

    def _part(self, part: Part, switch: Switch) -> Known:
        known = self._known.get(part.name)
        if known is not None and (same(known[0], part.inputs) or known[0] == part.inputs):
            return known
        return part.inputs, _table(part.make(*part.inputs), f"app '{self.name}' on bridge '{switch.name}'")


def _table(flows: Iterable[Flow], whose: str) -> FlowTable:
    made = list(flows)
    table: FlowTable = dict(made)
    if len(made) != len(table):
        raise InternalError(f"{len(made) - len(table)} flows of {whose} have the match of another flow")
    return table
