"""acls: the rules of ACLs, what hit them, and the log of those that have one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import print_json, print_table, print_text
from vswitchctl.errors import NotFound, UserError
from vswitchctl.topology.nearest import one_of

if TYPE_CHECKING:
    from vswitchctl.cli.client import Client
    from vswitchctl.model.views import AclLogLine, AclRuleView

COLUMNS = ("ACL", "RULE", "DIRECTION", "ACTION", "MATCH", "PACKETS", "BYTES", "DESCRIPTION", "SOURCE")

FOLLOW_SECONDS = 5.0
"""How long one question to the daemon waits for a line: what it allows at most."""


def register(app: typer.Typer) -> None:
    app.command()(acls)


def acls(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An ACL, NAME or TOPOLOGY/NAME; all without.")
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="What rules with a log met, oldest first.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="With --log: go on as packets come.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the rules of ACLs with what hit them: packets and bytes, since the rule is in the switch."""
    if follow and not log:
        raise UserError("--follow follows the log", "add --log")
    with context.client(ctx) as client:
        if not log:
            _print_rules(_named(client.acls(), name), json)
            return
        chosen = None if name is None else {(view.topology, view.acl) for view in _named(client.acls(), name)}
        batches = (
            [line for line in lines if chosen is None or (line.topology, line.acl) in chosen]
            for lines in _batches(client, follow)
        )
        if json and not follow:
            print_json(next(batches))
            return
        for batch in batches:
            for line in batch:
                print_text(line.model_dump_json() if json else log_text(line))
            sys.stdout.flush()


def _named(views: tuple[AclRuleView, ...], name: str | None) -> tuple[AclRuleView, ...]:
    if name is None:
        return views
    found = tuple(view for view in views if name in (view.acl, f"{view.topology}/{view.acl}"))
    if not found:
        known = {view.acl for view in views} | {f"{view.topology}/{view.acl}" for view in views}
        remedy = one_of(name, sorted(known), "there is") or "list them: vswitchctl acls"
        raise NotFound(f"no ACL '{name}'", remedy)
    return found


def _print_rules(views: tuple[AclRuleView, ...], json: bool) -> None:
    if json:
        print_json(views)
        return
    rows = (
        (
            f"{view.topology}/{view.acl}", str(view.number), view.direction, view.action, view.words,
            str(view.packets), str(view.bytes), view.description, view.source or "",
        )
        for view in views
    )  # fmt: skip
    print_table(COLUMNS, rows)


def _batches(client: Client, follow: bool) -> Iterator[tuple[AclLogLine, ...]]:
    """What there is, and then what comes."""
    lines = client.acl_log()
    yield lines
    last = lines[-1].number if lines else 0
    while follow:
        lines = client.acl_log(last, FOLLOW_SECONDS)
        yield lines
        last = lines[-1].number if lines else last


def log_text(line: AclLogLine) -> str:
    """'2026-01-31T12:00:00Z web-told/web 2 reject in web:eth0: tcp 10.1.0.22:40000 > 10.1.0.11:81'."""
    when = f"{line.time:%Y-%m-%dT%H:%M:%SZ}"
    what = f"{line.topology}/{line.acl} {line.rule} {line.verdict} {line.direction} {line.interface}"
    about = f" ({' '.join(line.description.split())})" if line.description else ""
    more = f" [{line.left_out} more left out before]" if line.left_out else ""
    return f"{when} {what}: {line.packet}{about}{more}"
