"""What the global options say, for every command; and how a command reaches the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.errors import UserError

if TYPE_CHECKING:
    from vswitchctl.cli.client import Client
    from vswitchctl.settings import Settings


@dataclass
class Invocation:
    """socket: of --socket. json: the command answers in JSON, its errors too."""

    socket: Path | None = None
    json: bool = False


def invocation(ctx: typer.Context) -> Invocation:
    found = ctx.find_root().obj
    if not isinstance(found, Invocation):
        raise TypeError("the command line was started without an Invocation")
    return found


def _remember_json(ctx: typer.Context, value: bool) -> bool:
    if value:
        invocation(ctx).json = True
    return value


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document.", callback=_remember_json, is_eager=True)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the host matches.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait at most.")
]
FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", readable=False, help="A topology: YAML, JSON, GraphML, node-link JSON or Python."
    ),
]

OutOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write there instead of standard output."),
]


def settings(ctx: typer.Context) -> Settings:
    """--socket first, then VSWITCHCTL_* of the environment, then the defaults. Raises UserError."""
    from pydantic import ValidationError

    from vswitchctl.settings import PREFIX, Settings

    socket = invocation(ctx).socket
    try:
        return Settings(api_socket=socket) if socket is not None else Settings()
    except ValidationError as error:
        name, reason = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
        raise UserError(f"setting {PREFIX}{str(name).upper()}: {reason}", "see the environment") from error


def client(ctx: typer.Context) -> Client:
    """A client of the daemon; nothing is sent yet."""
    from vswitchctl.cli.client import Client

    return Client(settings(ctx).api_socket)
