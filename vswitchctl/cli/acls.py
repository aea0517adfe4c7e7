"""acls: the rules of ACLs, and what hit them."""

from __future__ import annotations

from typing import Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import print_json, print_table
from vswitchctl.errors import NotFound
from vswitchctl.topology.nearest import one_of

COLUMNS = ("ACL", "RULE", "DIRECTION", "ACTION", "MATCH", "PACKETS", "BYTES", "DESCRIPTION", "SOURCE")


def register(app: typer.Typer) -> None:
    app.command()(acls)


def acls(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An ACL, NAME or TOPOLOGY/NAME; all without.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the rules of ACLs with what hit them: packets and bytes, since the rule is in the switch."""
    with context.client(ctx) as client:
        views = client.acls()
    if name is not None:
        known = {view.acl for view in views} | {f"{view.topology}/{view.acl}" for view in views}
        views = tuple(view for view in views if name in (view.acl, f"{view.topology}/{view.acl}"))
        if not views:
            remedy = one_of(name, sorted(known), "there is") or "list them: vswitchctl acls"
            raise NotFound(f"no ACL '{name}'", remedy)
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
