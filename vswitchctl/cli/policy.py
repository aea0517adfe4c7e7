"""acl and group: one ACL or group of a running topology, at its own cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vswitchctl.cli import context
from vswitchctl.cli.apply import TIMEOUT, finish
from vswitchctl.cli.context import JsonOption, TimeoutOption, WaitOption
from vswitchctl.cli.output import print_json, print_text

Section = Literal["acls", "groups"]

TopologyArgument = Annotated[str, typer.Argument(metavar="TOPOLOGY", help="The name of an applied topology.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name in the topology.")]
EntryArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        readable=False,
        help="It alone as a topology file has it, or the topology file: YAML or JSON.",
    ),
]


SECTIONS: dict[str, Section] = {"acl": "acls", "group": "groups"}
"""Group of commands -> section of a topology."""


def register(app: typer.Typer) -> None:
    for name in SECTIONS:
        text = f"One {name.replace('acl', 'ACL')} of a topology, at its own cost."
        commands = typer.Typer(name=name, help=text, no_args_is_help=True)
        commands.command("show")(show)
        commands.command("set")(put)
        commands.command("remove")(remove)
        app.add_typer(commands)


def _section(ctx: typer.Context) -> Section:
    if ctx.parent is None or ctx.parent.info_name not in SECTIONS:
        raise TypeError("the command stands in no group of its kind")
    return SECTIONS[ctx.parent.info_name]


def show(
    ctx: typer.Context,
    topology: TopologyArgument,
    name: NameArgument,
    json: JsonOption = False,
) -> None:
    """Print it as a topology file has it."""
    import yaml

    with context.client(ctx) as client:
        found = client.policy(topology, _section(ctx), name)
    if json:
        print_json({name: found})
    else:
        print_text(yaml.safe_dump(found, sort_keys=False, default_flow_style=None).rstrip())


def put(
    ctx: typer.Context,
    topology: TopologyArgument,
    name: NameArgument,
    file: EntryArgument,
    wait: WaitOption = True,
    timeout: TimeoutOption = TIMEOUT,
    json: JsonOption = False,
) -> None:
    """Put it in place, and nothing else of the topology is touched."""
    from vswitchctl.topology.entry import load_entry

    change = load_entry(file, _section(ctx), name)
    with context.client(ctx) as client:
        finish(client, client.change_policy(topology, change), timeout if wait else None, json)


def remove(
    ctx: typer.Context,
    topology: TopologyArgument,
    name: NameArgument,
    wait: WaitOption = True,
    timeout: TimeoutOption = TIMEOUT,
    json: JsonOption = False,
) -> None:
    """Remove what nothing names any more."""
    from vswitchctl.model.intent import PolicyChange

    with context.client(ctx) as client:
        operation = client.change_policy(topology, PolicyChange(_section(ctx), name, None))
        finish(client, operation, timeout if wait else None, json)
