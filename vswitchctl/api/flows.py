"""Flows: which of them, in which form, streamed as they are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from vswitchctl.api.access import ServiceDep, WaitingDep, in_thread
from vswitchctl.errors import UserError
from vswitchctl.model.query import FlowQuery, FlowSort, FlowSource
from vswitchctl.model.views import FlowView
from vswitchctl.topology.nearest import one_of

router = APIRouter(prefix="/flows", tags=["flows"])

CHUNK = 64 * 1024
"""Bytes that are sent at once, and held at most: a flow takes about 600."""

WINDOW_MAX = 60.0

Format = Literal["json", "ndjson", "ofctl"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "ofctl": "text/plain",
}


def _query(
    bridge: Annotated[str | None, Query(description="a bridge's name; all of ours without")] = None,
    table: Annotated[str | None, Query(description="a table's name or number; several with commas")] = None,
    topology: Annotated[str | None, Query()] = None,
    tenant: Annotated[str | None, Query(description="NAME or TOPOLOGY/NAME")] = None,
    network: Annotated[str | None, Query(description="NAME or TOPOLOGY/NAME")] = None,
    port: Annotated[str | None, Query(description="an end ('web1:eth0'), a link or a device")] = None,
    entity: Annotated[str | None, Query(description="'networks/red-web', maybe behind TOPOLOGY/")] = None,
    acl: Annotated[str | None, Query(description="NAME or TOPOLOGY/NAME")] = None,
    rule: Annotated[int | None, Query(ge=0, le=0xFFFF, description="of the ACL, from 1")] = None,
    cookie: Annotated[str | None, Query(description="a number, with a mask behind a slash")] = None,
    match: Annotated[
        list[str] | None,
        Query(description="field=value: flows that would match a packet with it; may be repeated"),
    ] = None,
    packet: Annotated[
        str | None, Query(description="headers of a whole packet: 'tcp,ip_dst=10.1.0.5,tcp_dst=80'")
    ] = None,
    source: Annotated[
        FlowSource, Query(description="read from the switch, as compiled, or where the two differ")
    ] = "observed",
    sort: Annotated[
        FlowSort | None, Query(description="`none`: as they come, which is NDJSON's default; else `table`")
    ] = None,
    limit: Annotated[int | None, Query(ge=1, description="no more than so many, after sorting")] = None,
    window: Annotated[
        float | None, Query(gt=0, le=WINDOW_MAX, description="seconds to measure rates over")
    ] = None,
) -> tuple[FlowQuery, FlowSort | None]:
    chosen = FlowQuery(
        bridge, table, topology, tenant, network, port, entity, acl, rule, cookie,
        tuple(match or ()), packet, source, sort or "table", limit, window,
    )  # fmt: skip
    return chosen, sort


@router.get(
    "",
    response_model=tuple[FlowView, ...],
    responses={
        200: {
            "description": "the flows; with `fields` only these of each",
            "content": {
                "application/x-ndjson": {"schema": {"$ref": "#/components/schemas/FlowView"}},
                "text/plain": {"schema": {"type": "string"}},
            },
        }
    },
)
async def flows(
    service: ServiceDep,
    waiting: WaitingDep,
    asked: Annotated[tuple[FlowQuery, FlowSort | None], Depends(_query)],
    fields: Annotated[
        str | None, Query(description="fields of a flow, with commas: 'table,match,packets'")
    ] = None,
    format: Annotated[  # the word that callers use
        Format, Query(description="`ndjson`: a flow a line; `ofctl`: as ovs-ofctl dump-flows, and add-flows")
    ] = "json",
) -> StreamingResponse:
    """Flows with the entity, rule and file:line that each came from."""
    query, sort = asked
    if sort is None and format == "ndjson":
        query = replace(query, sort="none")
    chosen = None if fields is None else _chosen(fields)
    views = await in_thread(waiting, lambda: service.flows(query))
    lines = map(ofctl_line, views) if format == "ofctl" else _documents(views, chosen)
    pieces = _array(lines) if format == "json" else (line + "\n" for line in lines)
    return StreamingResponse(_chunks(pieces), media_type=MEDIA_TYPES[format])


def _chosen(fields: str) -> set[str]:
    known = list(FlowView.model_fields)
    wanted = [name.strip() for name in fields.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UserError(
                f"a flow has no field '{name}'", one_of(name, known, "fields:") or ", ".join(known)
            )
    return set(wanted)


def _documents(views: Iterable[FlowView], chosen: set[str] | None) -> Iterator[str]:
    return (view.model_dump_json(include=chosen) for view in views)


def _array(documents: Iterable[str]) -> Iterator[str]:
    """One JSON array, piece by piece."""
    before = "["
    for document in documents:
        yield before + document
        before = ","
    yield "[]" if before == "[" else "]"


def _chunks(pieces: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


def ofctl_line(view: FlowView) -> str:
    """As `ovs-ofctl dump-flows` has it; `ovs-ofctl add-flows` reads it, and looks past the counters."""
    timeouts = "".join(
        f" {name}={seconds},"
        for name, seconds in (("idle_timeout", view.idle_timeout), ("hard_timeout", view.hard_timeout))
        if seconds
    )
    match = f",{view.match}" if view.match else ""
    return (
        f" cookie={view.cookie}, duration={view.age:.3f}s, table={view.table_id}, n_packets={view.packets},"
        f" n_bytes={view.bytes},{timeouts} priority={view.priority}{match} actions={view.actions}"
    )
