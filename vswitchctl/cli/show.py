"""show: what there is, and why something is not in sync."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import console, print_json, print_table, status_text
from vswitchctl.errors import UserError

if TYPE_CHECKING:
    from vswitchctl.model.views import TopologyDetail


class Noun(StrEnum):
    TOPOLOGIES = "topologies"
    TOPOLOGY = "topology"
    HOSTS = "hosts"
    BRIDGES = "bridges"
    PORTS = "ports"
    LINKS = "links"
    TENANTS = "tenants"


Column = tuple[str, Callable[[Any], object]]
"""A header, and what of a view stands below it."""

COLUMNS: dict[Noun, tuple[Column, ...]] = {
    Noun.TOPOLOGIES: (
        ("NAME", lambda v: v.name),
        ("STATUS", lambda v: status_text(v.status)),
        (
            "GENERATION",
            lambda v: v.generation if v.applied == v.generation else f"{v.applied} of {v.generation}",
        ),
        ("NODES", lambda v: v.nodes),
        ("NETWORKS", lambda v: v.networks),
        ("LINKS", lambda v: v.links),
        ("DESCRIPTION", lambda v: v.description),
    ),
    Noun.HOSTS: (
        ("NAME", lambda v: v.name),
        ("STATUS", lambda v: status_text(v.status)),
        ("DATAPATH", lambda v: v.datapath),
        ("OVS", lambda v: v.ovs_version),
        ("TOPOLOGIES", lambda v: v.topologies),
        ("FLOWS", lambda v: v.flows),
        ("LAST SYNC", lambda v: "" if v.last_sync_seconds is None else f"{v.last_sync_seconds:.2f} s"),
    ),
    Noun.BRIDGES: (
        ("NAME", lambda v: v.name),
        ("STATUS", lambda v: status_text(v.status)),
        ("TOPOLOGY", lambda v: v.topology),
        ("KIND", lambda v: v.kind),
        ("DATAPATH", lambda v: v.datapath),
        ("PORTS", lambda v: v.ports),
        ("FLOWS", lambda v: v.flows if not v.foreign_flows else f"{v.flows} + {v.foreign_flows} not ours"),
    ),
    Noun.PORTS: (
        ("BRIDGE", lambda v: v.bridge),
        ("PORT", lambda v: v.name),
        ("NO", lambda v: "" if v.ofport is None else v.ofport),
        ("STATUS", lambda v: status_text(v.status)),
        ("TYPE", lambda v: v.type or "system"),
        ("TOPOLOGY", lambda v: v.topology),
        ("ENTITY", lambda v: v.entity),
    ),
    Noun.LINKS: (
        ("A", lambda v: v.a),
        ("B", lambda v: v.b),
        ("STATUS", lambda v: status_text(v.status)),
        ("KIND", lambda v: v.kind),
        ("COST", lambda v: v.cost),
        ("TOPOLOGY", lambda v: v.topology),
        ("DEVICES", lambda v: v.devices),
    ),
    Noun.TENANTS: (
        ("NAME", lambda v: v.name),
        ("STATUS", lambda v: status_text(v.status)),
        ("TOPOLOGY", lambda v: v.topology),
        ("ENDPOINTS", lambda v: v.endpoints),
        ("NETWORKS", lambda v: ", ".join(v.networks)),
        ("NAMESPACES", lambda v: ", ".join(v.namespaces)),
    ),
}

ENTITY_COLUMNS: tuple[Column, ...] = (
    ("ENTITY", lambda v: v.entity),
    ("STATUS", lambda v: status_text(v.status)),
    ("SOURCE", lambda v: v.source or ""),
)


def register(app: typer.Typer) -> None:
    app.command()(show)


def show(
    ctx: typer.Context,
    noun: Annotated[
        Noun, typer.Argument(metavar="NOUN", help=f"One of {', '.join(Noun)}.")
    ] = Noun.TOPOLOGIES,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which topology.")] = None,
    json: JsonOption = False,
) -> None:
    """Show topologies, hosts, bridges, ports, links or tenants, or one topology with each of its entities."""
    if (noun is Noun.TOPOLOGY) != (name is not None):
        given = f"'{name}' is one too many: " if name is not None else "which one? "
        raise UserError(f"{given}only 'show topology' takes a name", "vswitchctl show topology NAME")
    with context.client(ctx) as client:
        if name is not None:
            detail = client.topology(name)
            print_json(detail) if json else _print_detail(detail)
            return
        views: Sequence[Any] = getattr(client, noun.value)()
    if json:
        print_json(views)
    else:
        _print_views(COLUMNS[noun], views, f"no {noun.value}")


def _print_views(columns: Sequence[Column], views: Sequence[Any], nothing: str) -> None:
    if not views:
        console(err=True).print(nothing)
        return
    print_table([header for header, _ in columns], ([_cell(cell(v)) for _, cell in columns] for v in views))
    _print_reasons(views)


def _print_reasons(views: Sequence[Any]) -> None:
    """Why each one that is not in sync is not."""
    from rich.text import Text

    terminal = console()
    for view in views:
        if view.reason:
            label = getattr(view, "entity", None) or view.name
            terminal.print(
                Text.assemble((label, "bold"), " is ", status_text(view.status), f": {view.reason}")
            )


def _print_detail(detail: TopologyDetail) -> None:
    view = detail.view
    _print_views(COLUMNS[Noun.TOPOLOGIES], [view], "")
    console().print()
    _print_views(ENTITY_COLUMNS, detail.entities, "no entities")


def _cell(value: object) -> Any:
    from rich.text import Text

    return value if isinstance(value, Text) else str(value)
