"""A topology as a picture: DOT text, and SVG or PNG where graphviz is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from html import escape
from typing import Final, Literal

from vswitchctl.errors import UserError
from vswitchctl.model.topology import (
    Bridge,
    EndpointNode,
    Link,
    LinuxBridge,
    Namespace,
    Node,
    Topology,
    Tun,
    Uplink,
    Vm,
    link_name,
    split_end,
)
from vswitchctl.topology.drawing import NEUTRAL, STATUS_COLOURS, STATUS_MARKS, Drawing, Status, link_words

_FONT: Final = "Helvetica,Arial,sans-serif"
_INK: Final = "#263238"
_FAINT: Final = "#78909C"
_NOTES: Final = (
    "box: Open vSwitch bridge, dashed box: Linux bridge, dashed line: veth, thick line: part of a loop"
)
_ACCESS_INCHES: Final = "1.5"
_TRUNK_INCHES: Final = "2.1"
_LARGE: Final = 120
"""Nodes. Beyond, neato takes its time (275 nodes: 9 s; sfdp draws 1,100 in 0.6 s)."""
_SECONDS: Final = 60
"""For graphviz."""


def to_dot(topology: Topology, status: Status | None = None) -> str:
    """DOT text. Bridges are boxes, Linux bridges dashed, namespaces rounded, uplinks houses.

    A colour is a tenant. Links in a loop are thick. status: entity -> status, marked at the entity.
    """
    drawing = Drawing(topology, status or {})
    large = len(topology.nodes) > _LARGE
    layout = "layout=sfdp, splines=line" if large else "layout=neato, mode=major, splines=true"
    lines = [
        f"graph {_quoted(topology.name)} {{",
        f'  graph [{layout}, overlap=prism, sep="+8", start=7, pad=0.3, bgcolor=white, '
        f"fontname={_quoted(_FONT)}, labelloc=b, labeljust=l, label=<{_legend(drawing)}>];",
        f'  node [fontname={_quoted(_FONT)}, fontsize=11, penwidth=1.4, margin="0.12,0.07"];',
        f"  edge [fontname={_quoted(_FONT)}, fontsize=9, color={_quoted(_FAINT)}];",
        *(f"  {_quoted(name)} [{_node(drawing, name, node)}];" for name, node in topology.nodes.items()),
        *(f"  {line}" for line in _links(drawing)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def to_svg(topology: Topology, status: Status | None = None) -> str:
    """Raises UserError where graphviz is missing or fails."""
    return _graphviz(to_dot(topology, status), "svg").decode()


def to_png(topology: Topology, status: Status | None = None) -> bytes:
    """Raises UserError where graphviz is missing or fails."""
    return _graphviz(to_dot(topology, status), "png")


def _graphviz(dot: str, kind: Literal["svg", "png"]) -> bytes:
    dpi = ["-Gdpi=144"] if kind == "png" else []
    try:
        ran = subprocess.run(
            ["dot", f"-T{kind}", *dpi],  # noqa: S607 - a program of the distribution, found as the user's PATH says
            input=dot.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        remedy = "apt-get install graphviz, or write DOT instead"
        raise UserError("graphviz, which draws the picture, is not installed", remedy) from error
    except subprocess.TimeoutExpired as error:
        remedy = "write DOT instead, and lay it out with 'sfdp'"
        raise UserError(f"graphviz did not finish in {_SECONDS} s", remedy) from error
    if ran.returncode:
        raise UserError(
            f"graphviz failed: {ran.stderr.decode(errors='replace').strip()}", "write DOT instead"
        )
    return ran.stdout


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tint(colour: str, share: float = 0.12) -> str:
    """The colour mixed into white."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * share):02X}" for part in parts)


def _attributes(**values: str) -> str:
    """Values that start with '<' are HTML-like labels."""
    return ", ".join(
        f"{key}={value if value.startswith('<') else _quoted(value)}" for key, value in values.items()
    )


def _node(drawing: Drawing, name: str, node: Node) -> str:
    colour = drawing.node_colour(node)
    label = f"<{_label(drawing, name, node)}>"
    if isinstance(node, Bridge):
        return _attributes(
            shape="box", style="filled", fillcolor="#ECEFF1", color=NEUTRAL, penwidth="2", label=label
        )
    if isinstance(node, LinuxBridge):
        return _attributes(
            shape="box", style="filled,dashed", fillcolor=_tint(colour), color=colour, label=label
        )
    if isinstance(node, Namespace):
        return _attributes(
            shape="box", style="filled,rounded", fillcolor=_tint(colour), color=colour, label=label
        )
    if isinstance(node, Vm):
        return _attributes(shape="box3d", style="filled", fillcolor=_tint(colour), color=colour, label=label)
    return _attributes(shape="house", style="filled", fillcolor=_tint(colour), color=colour, label=label)


def _label(drawing: Drawing, name: str, node: Node) -> str:
    lines = [f"<B>{escape(name)}</B>{_mark(drawing.of(f'nodes/{name}'))}"]
    if isinstance(node, Bridge) and node.datapath != "auto":
        lines.append(_small(node.datapath))
    elif isinstance(node, LinuxBridge):
        lines.append(_small(f"Linux bridge, {node.network}"))
    elif isinstance(node, Uplink):
        lines.append(_small(f"uplink {node.interface}"))
        lines += [_small(f"{network}: VLAN {vlan}") for network, vlan in node.trunk.items()]
        lines += [_small(node.network)] if node.network else []
    elif isinstance(node, EndpointNode):
        if isinstance(node, Vm):
            lines.append(_small(f"virtual machine {node.domain}"))
        elif isinstance(node, Tun):
            lines.append(_small(" ".join(("TUN", node.device, *node.ip))))
        for interface_name, interface in node.interfaces.items():
            first, *others = interface.ip or ("no address",)
            mark = _mark(drawing.of(f"interfaces/{name}:{interface_name}"))
            lines.append(_small(f"{interface_name}  {first}") + mark)
            lines += [_small(other) for other in others]
    return "<BR/>".join(lines)


def _small(text: str) -> str:
    """'' stays '': graphviz refuses an element without content."""
    return text and f'<FONT POINT-SIZE="9" COLOR="{_INK}">{escape(text)}</FONT>'


def _mark(status: str) -> str:
    if not status:
        return ""
    colour = STATUS_COLOURS.get(status, NEUTRAL)
    text = escape(f" {STATUS_MARKS.get(status, '')} {status}")
    return f'<FONT POINT-SIZE="9" COLOR="{colour}">{text}</FONT>'


def _links(drawing: Drawing) -> Iterator[str]:
    """Switches before what hangs on them, so that endpoints stand below."""
    switches, loops = drawing.switches(), drawing.loop_links()
    for link in drawing.topology.links:
        a, b = (split_end(end)[0] for end in link.ends)
        if b in switches and a not in switches:
            a, b = b, a
        if a in switches and b in switches:
            yield f"{_quoted(a)} -- {_quoted(b)} [{_trunk(drawing, link, link_name(link) in loops)}];"
        elif isinstance(drawing.topology.nodes.get(b), Uplink):
            yield f"{_quoted(b)} -- {_quoted(a)} [{_access(drawing, link, b)}];"
        else:
            yield f"{_quoted(a)} -- {_quoted(b)} [{_access(drawing, link, b)}];"


def _trunk(drawing: Drawing, link: Link, in_loop: bool) -> str:
    status = drawing.of(f"links/{link_name(link)}")
    colour = STATUS_COLOURS.get(status, _INK if in_loop else NEUTRAL)
    label = f"<{_on_white(_small(link_words(link)) + _mark(status))}>" if link_words(link) or status else ""
    style = "dashed" if link.kind == "veth" else "solid"
    penwidth = "2.6" if in_loop else "1.6"
    return _attributes(color=colour, penwidth=penwidth, style=style, len=_TRUNK_INCHES, label=label)


def _access(drawing: Drawing, link: Link, node_name: str) -> str:
    """An endpoint's link has its tenant's colour, and its interface's name where there are several."""
    node = drawing.topology.nodes[node_name]
    status = drawing.of(f"links/{link_name(link)}")
    interface = next((split_end(end)[1] for end in link.ends if split_end(end)[0] == node_name), "")
    several = isinstance(node, EndpointNode) and len(node.interfaces) > 1
    text = _small(interface) if several else ""
    label = f"<{_on_white(text + _mark(status))}>" if text or status else ""
    return _attributes(color=drawing.node_colour(node), penwidth="1.4", len=_ACCESS_INCHES, label=label)


def _on_white(text: str) -> str:
    """A label that stays readable where it lies on its line."""
    return (
        f'<TABLE BORDER="0" CELLPADDING="1" CELLSPACING="0" BGCOLOR="white"><TR><TD>{text}</TD></TR></TABLE>'
    )


def _legend(drawing: Drawing) -> str:
    topology = drawing.topology
    lines = [f'<FONT POINT-SIZE="14"><B>{escape(topology.name)}</B></FONT>{_description(topology)}']
    for tenant in topology.tenants:
        networks = [
            " ".join((name, *network.subnets))
            for name, network in topology.networks.items()
            if network.tenant == tenant
        ]
        swatch = f'<FONT COLOR="{drawing.tenant_colour(tenant)}" POINT-SIZE="14">\u25a0</FONT>'
        name = f'<FONT POINT-SIZE="11"><B>{escape(tenant)}</B></FONT>'
        lines.append(f"{swatch} {name}  {_small(', '.join(networks))}")
    lines.append(f'<FONT POINT-SIZE="8" COLOR="{_FAINT}">{_NOTES}</FONT>')
    return "".join(f'{line}<BR ALIGN="LEFT"/>' for line in lines)


def _description(topology: Topology) -> str:
    return f'<FONT POINT-SIZE="10">: {escape(topology.description)}</FONT>' if topology.description else ""
