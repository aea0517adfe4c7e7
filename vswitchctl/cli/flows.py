"""flows: which flows are there, what they do in words, what each is there for, and what hit it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import console, print_json, print_table, print_text
from vswitchctl.errors import UserError

if TYPE_CHECKING:
    from vswitchctl.model.views import FlowView


class Source(StrEnum):
    OBSERVED = "observed"
    DESIRED = "desired"
    DIFF = "diff"


class Sort(StrEnum):
    TABLE = "table"
    PACKETS = "packets"
    BYTES = "bytes"
    RATE = "rate"
    AGE = "age"


class Form(StrEnum):
    WORDS = "words"
    OFCTL = "ofctl"


def register(app: typer.Typer) -> None:
    app.command()(flows)


def flows(
    ctx: typer.Context,
    bridge: Annotated[
        str | None, typer.Argument(metavar="[BRIDGE]", help="A bridge of ours; all without.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="A table's name or number; several with commas.")] = None,
    topology: Annotated[str | None, typer.Option(help="Of this topology.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of a tenant: NAME or TOPOLOGY/NAME.")] = None,
    network: Annotated[str | None, typer.Option(help="Of a network, likewise.")] = None,
    port: Annotated[str | None, typer.Option(help="Of an end ('web1:eth0'), a link or a device.")] = None,
    entity: Annotated[str | None, typer.Option(help="Of an entity: 'interfaces/web1:eth0', ...")] = None,
    acl: Annotated[str | None, typer.Option(help="Of an ACL: NAME or TOPOLOGY/NAME.")] = None,
    rule: Annotated[int | None, typer.Option(min=0, help="Of this rule of the ACL, from 1.")] = None,
    cookie: Annotated[str | None, typer.Option(help="Of a cookie, with a mask behind a slash.")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option("--match", metavar="FIELD=VALUE", help="That would match: ip_dst=10.1.0.5. Repeatable."),
    ] = None,
    packet: Annotated[
        str | None, typer.Option(metavar="HEADERS", help="That would match a packet: 'tcp,ip_dst=...'.")
    ] = None,
    source: Annotated[
        Source, typer.Option("--source", help="As read from the switch, as compiled, or what differs.")
    ] = Source.OBSERVED,
    sort: Annotated[Sort, typer.Option(help="What comes first.")] = Sort.TABLE,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than so many.")] = None,
    window: Annotated[
        float | None, typer.Option(min=0.01, max=60, metavar="SECONDS", help="Measure rates over that long.")
    ] = None,
    fields: Annotated[
        str | None, typer.Option(help="These alone, with commas: table,words,packets,entity,source, ...")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="In words, or as ovs-ofctl dump-flows has them.")
    ] = Form.WORDS,
    json: JsonOption = False,
) -> None:
    """Show flows: what each does, the entity and line of a file it is there for, and what hit it."""
    query = {
        "bridge": bridge, "table": table, "topology": topology, "tenant": tenant, "network": network,
        "port": port, "entity": entity, "acl": acl, "rule": rule, "cookie": cookie, "match": match,
        "packet": packet, "source": source.value, "sort": sort.value, "limit": limit, "window": window,
        "fields": fields,
    }  # fmt: skip
    if json and form is Form.OFCTL:
        raise UserError("--format ofctl is text, and --json is not", "leave one out")
    with context.client(ctx) as client:
        if form is Form.OFCTL:
            print_text(client.flows_text(query))
            return
        views = client.flows(query)
    if json:
        chosen = None if fields is None else {name.strip() for name in fields.split(",")}
        print_json([view.model_dump(mode="json", include=chosen) for view in views])
    elif fields is not None:
        names = [name.strip() for name in fields.split(",") if name.strip()]
        print_table([name.upper() for name in names], (_cells(view, names) for view in views))
    elif sort is Sort.TABLE:
        _print_by_table(views)
    else:
        print_table(("BRIDGE", "TABLE", *_COLUMNS), ((v.bridge, v.table, *_row(v)) for v in views))


_COLUMNS = ("PRIO", "PACKETS", "PER SECOND", "FLOW", "FOR")


def _cells(view: FlowView, names: Sequence[str]) -> list[str]:
    values = (getattr(view, name) for name in names)
    return ["" if value is None else str(value) for value in values]


def _row(view: FlowView) -> tuple[str, str, str, str, str]:
    rate = "" if view.packets_per_second is None else f"{view.packets_per_second:g}"
    return str(view.priority), str(view.packets), rate, _flow(view), _reason(view)


def _flow(view: FlowView) -> str:
    return f"{view.drift}: {view.words}" if view.drift else view.words


def _reason(view: FlowView) -> str:
    """What it is there for: 'web-acl/acls/web rule 3 (web.yaml:31)'."""
    rule = f" rule {view.rule}" if view.rule else ""
    source = f" ({view.source})" if view.source else ""
    return f"{view.entity or view.cookie}{rule}{source}"


def _print_by_table(views: Iterable[FlowView]) -> None:
    """A part for each table of each bridge."""
    terminal = console().is_terminal
    for (bridge, table), members in groupby(views, key=lambda view: (view.bridge, view.table)):
        if terminal:
            print_text(f"{bridge} {table}")
            print_table(_COLUMNS, map(_row, members))
        else:
            # Rich takes 0.2 ms a line; a bridge may have 100,000 flows.
            print_text("\n".join((f"{bridge} {table}", *_lines(members))))


def _lines(views: Iterable[FlowView]) -> Iterator[str]:
    for view in views:
        rate = "" if view.packets_per_second is None else f" {view.packets_per_second:g}/s"
        yield f"  {view.priority:5} {_flow(view)}  # {view.packets} packets{rate}, {_reason(view)}"
