"""What a feature of the pipeline is: the tables it owns and the flows it compiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from vswitchctl.errors import InternalError
from vswitchctl.model.flow import Flow
from vswitchctl.model.meter import Meter
from vswitchctl.model.switch import Switch
from vswitchctl.pipeline.tables import Table

APP_GROUP = "vswitchctl.apps"


class App(Protocol):
    """One feature. `compile` is pure and yields every flow of its tables for one bridge, in any order."""

    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> Sequence[Table]: ...

    def compile(self, switch: Switch) -> Iterator[Flow]: ...


@runtime_checkable
class MeterApp(Protocol):
    """An app whose flows use meters. `meters` is pure and yields every one of them for one bridge."""

    def meters(self, switch: Switch) -> Iterator[Meter]: ...


def load_apps() -> tuple[App, ...]:
    """Every app of the entry-point group `vswitchctl.apps`, by name; ours use the same door.

    Raises InternalError where none is found (the package is not installed) or a table has two owners.
    """
    apps: tuple[App, ...] = tuple(
        entry.load() for entry in sorted(entry_points(group=APP_GROUP), key=lambda entry: entry.name)
    )
    if not apps:
        raise InternalError("no pipeline app is registered", "install the package: pip install .")
    owners: dict[int, str] = {}
    for app in apps:
        for table in app.tables:
            other = owners.setdefault(table.id, app.name)
            if other != app.name:
                raise InternalError(
                    f"table '{table.name}' belongs to both app '{other}' and app '{app.name}'"
                )
    return apps
