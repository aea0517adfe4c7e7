"""What a feature of the pipeline is: the tables it owns and the flows it compiles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol, runtime_checkable

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


class Part(NamedTuple):
    """Flows that change together: `make(*inputs)` gives them, and only those inputs decide about them.

    name: tells the parts of an app apart; the same name is the same part in the next compile.
    """

    name: Hashable
    inputs: tuple[Any, ...]
    make: Callable[..., Iterable[Flow]]


@runtime_checkable
class ReadingApp(App, Protocol):
    """An app that says which attributes of `Switch` it looks at: while they are the same, it is not asked."""

    @property
    def reads(self) -> Sequence[str]: ...


@runtime_checkable
class PartedApp(ReadingApp, Protocol):
    """An app whose flows come in parts, so that a change costs what it concerns."""

    def parts(self, switch: Switch) -> Iterator[Part]: ...


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
