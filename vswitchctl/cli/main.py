"""The command line: `vswitchctl`. Commands import what they need when they run, so that it starts fast."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from vswitchctl.cli import (
    acls,
    apply,
    convert,
    daemon,
    flows,
    graph,
    info,
    plan,
    policy,
    probe,
    show,
    trace,
    validate,
    vm,
)
from vswitchctl.cli.context import Invocation, invocation
from vswitchctl.errors import UserError, VswitchctlError

INTERRUPTED = 130
"""128 + SIGINT, as sh(1) reports it."""

_CommandLineError: type[Any] = typer.BadParameter.__mro__[2]
"""ClickException: newer Typer carries its own copy of click, and exports only the leaves of its tree."""

app = typer.Typer(
    name="vswitchctl",
    help="Virtual networks declared as graphs: plan, apply, show and explain them.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    *(daemon, validate, plan, apply, probe, show, graph),
    *(flows, trace, acls, policy, vm, convert, info),
):
    group.register(app)


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    socket: Annotated[
        Path | None,
        typer.Option(
            "--socket",
            metavar="PATH",
            readable=False,
            help="The daemon's API socket (env VSWITCHCTL_API_SOCKET).",
        ),
    ] = None,
) -> None:
    invocation(ctx).socket = socket
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """Run one command; exits with its code."""
    # ovs looks whether eventlet is in use. It is not, but os-ken brings it along, and it warns of its age.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. What a person did wrong is one line on standard error."""
    state = Invocation()
    try:
        code = app(arguments, prog_name="vswitchctl", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except _CommandLineError as error:
        return _report(
            UserError(error.format_message().replace("Value error, ", "").rstrip("."), _usage(error)), state
        )
    except VswitchctlError as error:
        return _report(error, state)
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _report(UserError(_os_error(error)), state)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _report(error: VswitchctlError, state: Invocation) -> int:
    from vswitchctl.cli.output import report_error

    try:
        report_error(error, json=state.json)
    except BrokenPipeError:
        return _reader_gone()
    return 1


def _reader_gone() -> int:
    """The reader of the pipe left, as `head` does: keep the interpreter from flushing into it at exit."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return 1


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else "see vswitchctl --help"


def _os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


if __name__ == "__main__":
    main()
