"""run, up, down: the daemon itself."""

from __future__ import annotations

import gc
import os
from typing import Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.errors import UserError


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(up)
    app.command()(down)


def run(ctx: typer.Context) -> None:
    """Run the daemon in the foreground, as its systemd unit does."""
    _require_root("run")
    settings = context.settings(ctx)
    # What is imported stays: looking through it for garbage, again and again, is a sixth of the start.
    gc.disable()
    from vswitchctl import daemon

    gc.freeze()
    gc.enable()
    daemon.run(settings)


def up(ctx: typer.Context) -> None:
    """Start everything: the databases, Open vSwitch where none runs, and the daemon."""
    _require_root("up")
    settings = context.settings(ctx)
    from vswitchctl import daemon

    daemon.up(settings, typer.echo)


def down(
    ctx: typer.Context,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove every topology and all that it made, too.")
    ] = False,
) -> None:
    """Stop the daemon and what `up` started with it. Devices and namespaces stay for the next `up`."""
    _require_root("down")
    settings = context.settings(ctx)
    from vswitchctl import daemon

    daemon.down(settings, purge, typer.echo)


def _require_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise UserError(
            f"vswitchctl {verb} changes the host's network, so it needs root", f"sudo vswitchctl {verb}"
        )
