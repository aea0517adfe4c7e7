"""Traces of packets between ends: there, and back."""

from __future__ import annotations

from ipaddress import ip_address

from vswitchctl.errors import NotFound
from vswitchctl.model.topology import LinuxBridge
from vswitchctl.model.trace import TraceRequest, TraceView, Way
from vswitchctl.pipeline.trace_text import flow_text
from vswitchctl.reconcile.loop import Loop
from vswitchctl.service.flows import FlowService
from vswitchctl.service.names import HostNames
from vswitchctl.service.trace_packet import Packet, Place, find_place, first_packet, next_mac
from vswitchctl.service.trace_verdict import Goal, Judge
from vswitchctl.service.trace_walk import Appctl, Remembered, Walk, Walker, of_answer
from vswitchctl.topology.routing import router_of


class TraceService:
    """Thread-safe. A trace changes nothing: no counter, no connection, nothing that is learned."""

    def __init__(self, flows: FlowService, loop: Loop, appctl: Appctl) -> None:
        self._flows = flows
        self._loop = loop
        self._appctl = appctl

    def trace(self, request: TraceRequest) -> TraceView:
        """What becomes of the packet, and of its answer. Raises NotFound, UserError, Unreachable."""
        names = self._flows.names()
        source = find_place(names, request.source)
        to = _destination(names, source, request.to)
        name = request.to if to is None else to.end
        judge = Judge(names, self._loop.current()[0].desired.cookies)
        packet = first_packet(request, source, to)
        if to is not None and source.via and source.via == to.via:
            return _not_ours(source, to, packet)
        forth, walk = self._way(names, judge, packet, source, name, _goal(source, to), {})
        if forth.verdict != "delivered" or to is None or request.protocol == "any":
            delivered = forth.verdict in ("delivered", "answered")
            return TraceView(
                source=source.end, to=name, sentence=forth.sentence, delivered=delivered, forth=forth
            )
        back = self._back(names, judge, packet, source, to, walk)
        good = back.verdict == "delivered"
        sentence = (
            f"{forth.sentence}; its answer {'comes back' if good else f'does not come back: {back.sentence}'}"
        )
        return TraceView(
            source=source.end, to=name, sentence=sentence, delivered=good, forth=forth, back=back
        )

    def _back(
        self, names: HostNames, judge: Judge, packet: Packet, source: Place, to: Place, walk: Walk
    ) -> Way:
        connection = packet.connection
        address = connection[1] if connection is not None else ""
        answer = packet.turned(to, next_mac(to, address, source))
        return self._way(names, judge, answer, to, source.end, _goal(to, source), of_answer(walk))[0]

    def _way(
        self,
        names: HostNames,
        judge: Judge,
        packet: Packet,
        source: Place,
        to: str,
        goal: Goal,
        remembered: Remembered,
    ) -> tuple[Way, Walk]:
        walk = Walker(self._appctl, names, packet, remembered).from_port(source.bridge, source.port)
        said = judge.judge(walk, packet, source, to, goal)
        reached = next((walk.reached[end] for end in sorted(goal.wanted) if end in walk.reached), None)
        shown = walk.way_to(reached) if reached is not None else _to_the_end(walk, said.decided)
        way = Way(
            packet=flow_text(packet.fields),
            bridge=source.bridge,
            verdict=said.verdict,
            sentence=said.sentence,
            hops=tuple(judge.hop(walk.steps[number]) for number in shown),
            decided=shown.index(said.decided) if said.decided in shown else None,
            reached=tuple(sorted(walk.reached)),
            states=tuple(
                f"zone {one.zone}: {one.state}" + (" (as it is)" if one.known else "") for one in walk.asked
            ),
        )
        return way, walk


def _to_the_end(walk: Walk, decided: int | None) -> list[int]:
    """Of a packet that came nowhere: the way on which it was decided, up to its end."""
    ways = [walk.way_to(end) for end in walk.ends]
    return next((way for way in ways if decided in way), list(range(len(walk.steps))))


def _destination(names: HostNames, source: Place, text: str) -> Place | None:
    """An end, by its name or by its address in a network that it shares with the source; None: neither."""
    try:
        address = str(ip_address(text))
    except ValueError:
        return find_place(names, text)
    version = ip_address(address).version
    topology = source.topology
    for end, interface in topology.endpoints().items():
        if interface.network == source.network:
            try:
                place = find_place(names, f"{topology.name}/{end}")
            except NotFound:
                continue
            if address in place.addresses(version):
                return place
    return None


def _goal(source: Place, to: Place | None) -> Goal:
    """The end, or the Linux bridge before it; for an address anything outside."""
    if to is not None:
        same = (to.topology.name, to.network) == (source.topology.name, source.network)
        routers = router_of(source.topology)
        joined = to.topology.name == source.topology.name and source.network in routers
        joined = joined and routers[source.network] == routers.get(to.network)
        return Goal(frozenset({to.via or to.end}), True, "" if same or joined else f"network {to.network}")
    nodes = source.topology.nodes
    uplinks = {name for name, node in nodes.items() if node.kind == "uplink"}
    linux = {name for name, node in nodes.items() if isinstance(node, LinuxBridge)}
    return Goal(frozenset(uplinks | linux))


def _not_ours(source: Place, to: Place, packet: Packet) -> TraceView:
    sentence = f"{source.end} and {to.end} are behind Linux bridge {to.via}, which asks no flow"
    way = Way(
        packet=flow_text(packet.fields), bridge=source.via, verdict="delivered", sentence=sentence, hops=()
    )
    return TraceView(source=source.end, to=to.end, sentence=sentence, delivered=True, forth=way)
