"""A topology on a terminal: a box per switch with what hangs on it, and the links between switches."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import ROUNDED, SIMPLE_HEAD, SQUARE
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vswitchctl.model.topology import (
    Bridge,
    EndpointNode,
    LinuxBridge,
    Topology,
    Uplink,
    link_name,
)
from vswitchctl.topology.drawing import STATUS_COLOURS, STATUS_MARKS, Attached, Drawing, Status


def to_rich(topology: Topology, status: Status | None = None) -> Group:
    """Something for `rich.print`. A colour is a tenant. status: entity -> status, marked at the entity."""
    drawing = Drawing(topology, status or {})
    parts: list[RenderableType] = [_title(drawing)]
    boxes = [_switch(drawing, name, node) for name, node in drawing.switches().items()]
    if boxes:
        parts.append(Columns(boxes, padding=(0, 1)))
    if drawing.trunks():
        parts.append(_trunks(drawing))
    loose = list(_loose(drawing))
    if loose:
        parts.append(Text.assemble(("linked to nothing: ", "yellow"), ", ".join(loose)))
    parts.append(_tenants(drawing))
    return Group(*parts)


def _title(drawing: Drawing) -> Text:
    text = Text(drawing.topology.name, style="bold")
    if drawing.topology.description:
        text.append(f"  {drawing.topology.description}", style="not bold dim")
    return text.append_text(_mark(drawing.of("topology")))


def _mark(status: str) -> Text:
    if not status:
        return Text()
    return Text(
        f" {STATUS_MARKS.get(status, '')} {status}",
        style=f"not bold {STATUS_COLOURS.get(status, '')}".strip(),
    )


def _switch(drawing: Drawing, name: str, node: Bridge | LinuxBridge) -> Panel:
    """Endpoints grouped by network, so that who may talk to whom is seen at once."""
    grid = Table.grid(padding=(0, 1))
    groups: dict[str, list[Attached]] = {}
    for attached in drawing.attached(name):
        groups.setdefault(_network_of(drawing, attached), []).append(attached)
    for network, members in groups.items():
        colour = drawing.network_colour(network)
        grid.add_row(Text(network or "trunk", style=f"bold {colour}"))
        for attached in members:
            grid.add_row(Text("  ").append_text(_end(drawing, attached)), _address(drawing, attached))
    content: RenderableType = grid if groups else Text("no endpoints", style="dim")
    title = Text(name, style="bold").append_text(_kind(node)).append_text(_mark(drawing.of(f"nodes/{name}")))
    style = drawing.node_colour(node)
    box = ROUNDED if isinstance(node, LinuxBridge) else SQUARE
    return Panel(content, title=title, title_align="left", border_style=style, box=box, expand=False)


def _kind(node: Bridge | LinuxBridge) -> Text:
    if isinstance(node, LinuxBridge):
        return Text(f" Linux bridge, {node.network}", style="not bold")
    return Text(f" {node.datapath}" if node.datapath != "auto" else "", style="not bold")


def _network_of(drawing: Drawing, attached: Attached) -> str:
    """'' for an uplink that carries several."""
    node = drawing.topology.nodes.get(attached.node)
    if isinstance(node, EndpointNode) and attached.interface in node.interfaces:
        return node.interfaces[attached.interface].network
    return node.network or "" if isinstance(node, Uplink) else ""


def _end(drawing: Drawing, attached: Attached) -> Text:
    node = drawing.topology.nodes.get(attached.node)
    text = Text(attached.node, style=drawing.node_colour(node) if node else "")
    if attached.interface:
        text.append(f":{attached.interface}")
    for entity in (f"nodes/{attached.node}", f"interfaces/{attached.node}:{attached.interface}"):
        text.append_text(_mark(drawing.of(entity)))
    return text.append_text(_mark(drawing.of(f"links/{link_name(attached.link)}")))


def _address(drawing: Drawing, attached: Attached) -> Text:
    node = drawing.topology.nodes.get(attached.node)
    if isinstance(node, Uplink):
        tags = ", ".join(f"{network}: VLAN {vlan}" for network, vlan in node.trunk.items())
        return Text(f"uplink {node.interface}" + (f" ({tags})" if tags else ""))
    interface = drawing.topology.interface(f"{attached.node}:{attached.interface}")
    addresses = interface.ip if interface else ()
    return Text(" ".join(addresses) or "no address", style="" if addresses else "dim")


def _trunks(drawing: Drawing) -> Table:
    loops = drawing.loop_links()
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, title_justify="left")
    for heading in ("link", "kind", "cost", "", ""):
        table.add_column(heading, justify="right" if heading == "cost" else "left")
    for link in drawing.trunks():
        a, b = link.ends
        name = link_name(link)
        loop = Text("↻ in a loop", style="cyan") if name in loops else Text("the only way", style="dim")
        table.add_row(f"{a} ── {b}", link.kind, str(link.cost), loop, _mark(drawing.of(f"links/{name}")))
    return table


def _loose(drawing: Drawing) -> Iterator[str]:
    named = {end for link in drawing.topology.links for end in link.ends}
    for name, node in drawing.topology.nodes.items():
        if isinstance(node, EndpointNode):
            yield from (f"{name}:{i}" for i in node.interfaces if f"{name}:{i}" not in named)
        elif isinstance(node, Uplink) and name not in named:
            yield name


def _tenants(drawing: Drawing) -> Table:
    grid = Table.grid(padding=(0, 2))
    for tenant in drawing.topology.tenants:
        networks = [
            " ".join((name, *network.subnets))
            for name, network in drawing.topology.networks.items()
            if network.tenant == tenant
        ]
        swatch = Text(f"■ {tenant}", style=f"bold {drawing.tenant_colour(tenant)}")
        grid.add_row(swatch.append_text(_mark(drawing.of(f"tenants/{tenant}"))), ", ".join(networks))
    return grid
