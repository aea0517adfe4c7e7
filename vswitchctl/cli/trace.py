"""trace: what becomes of a packet between two ends, and of its answer, and which rule decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vswitchctl.cli import context
from vswitchctl.cli.context import JsonOption
from vswitchctl.cli.output import print_json, print_table, print_text
from vswitchctl.errors import UserError

if TYPE_CHECKING:
    from vswitchctl.model.trace import Hop, Protocol, Way

COLUMNS = ("", "BRIDGE", "TABLE", "FLOW", "FOR")

BLOCKED = 2
"""Exit code where the packet does not arrive, or its answer does not."""

Port = Annotated[int | None, typer.Option(metavar="PORT", min=0, max=65535, show_default=False)]


def register(app: typer.Typer) -> None:
    app.command()(trace)


def trace(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="An end, 'web1:eth0', or its node.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="An end likewise, or an IP address.")],
    tcp: Port = None,
    udp: Port = None,
    sctp: Port = None,
    icmp: Annotated[bool, typer.Option("--icmp", help="An echo request; the default.")] = False,
    frame: Annotated[bool, typer.Option("--any", help="A frame of no protocol that anybody knows.")] = False,
    version: Annotated[int | None, typer.Option("--ip", min=4, max=6, help="4 or 6.")] = None,
    source_port: Annotated[
        int, typer.Option(min=0, max=65535, help="That of a connection under way has its state looked up.")
    ] = 50000,
    packet: Annotated[
        str, typer.Option(metavar="FIELDS", help="Headers that are other: 'nw_src=10.1.0.66'.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Ask the switch what becomes of a packet, and of its answer: every flow on the way, and who decides.

    Exits with 2 where it does not arrive, or its answer does not.
    """
    from vswitchctl.model.trace import TraceRequest

    asked: list[tuple[Protocol, int | None]] = [
        (name, port) for name, port in _ports(tcp, udp, sctp) if port is not None
    ]
    if icmp:
        asked.append(("icmp", None))
    if frame:
        asked.append(("any", None))
    if len(asked) > 1:
        raise UserError(
            "a packet is of one protocol", "leave all but one of --tcp, --udp, --sctp, --icmp, --any out"
        )
    if version == 5:
        raise UserError("there is no IP version 5", "--ip 4 or --ip 6")
    protocol, port = asked[0] if asked else ("icmp", None)
    request = TraceRequest(
        source=source, to=to, protocol=protocol, port=port, source_port=source_port, packet=packet,
        version=6 if version == 6 else 4 if version == 4 else None,
    )  # fmt: skip
    with context.client(ctx) as client:
        view = client.trace(request)
    if json:
        print_json(view)
    else:
        print_text(view.sentence)
        for title, way in (("there", view.forth), ("back", view.back)):
            if way is not None and way.hops:
                _print_way(title, way)
    if not view.delivered:
        raise typer.Exit(BLOCKED)


def _ports(tcp: int | None, udp: int | None, sctp: int | None) -> tuple[tuple[Protocol, int | None], ...]:
    return ("tcp", tcp), ("udp", udp), ("sctp", sctp)


def _print_way(title: str, way: Way) -> None:
    """Flows that pass everything on are many and say little: they are in --json."""
    print_text(f"\n{title}: {way.packet}")
    print_table(
        COLUMNS,
        (
            (
                "►" if number == way.decided else "",
                hop.bridge,
                hop.table,
                hop.words,
                _reason(hop),
            )
            for number, hop in enumerate(way.hops)
            if hop.match or number == way.decided or number == len(way.hops) - 1
        ),
    )


def _reason(hop: Hop) -> str:
    """'web-acl/acls/web rule 3 (web.yaml:31)'."""
    return " ".join(
        filter(
            None,
            (hop.entity, f"rule {hop.rule}" if hop.rule else "", f"({hop.source})" if hop.source else ""),
        )
    )
