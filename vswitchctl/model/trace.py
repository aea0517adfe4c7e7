"""A packet's way through the switches, as it is asked for and as it is told. No I/O."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vswitchctl.model.views import View

Protocol = Literal["icmp", "tcp", "udp", "sctp", "any"]


class TraceRequest(View):
    """From an end to another, or to an address: as the packet that opens a connection, and its answer."""

    source: str = Field(description="an end, 'web1:eth0'; maybe behind TOPOLOGY/; a node with one interface")
    to: str = Field(description="an end, likewise, or an IP address")
    protocol: Protocol = Field("icmp", description="`any`: a frame of no protocol that anybody knows")
    port: int | None = Field(None, ge=0, le=0xFFFF, description="of tcp, udp and sctp: where it goes")
    source_port: int = Field(
        50000, ge=0, le=0xFFFF, description="with that of a connection under way, its state is looked up"
    )
    version: Literal[4, 6] | None = Field(None, description="of IP; None: what both ends have, 4 first")
    packet: str = Field("", description="header fields that are other than so: 'nw_src=10.1.0.66'")


class Hop(View):
    """A flow that the packet met."""

    bridge: str
    table: str
    priority: int | None = Field(None, description="None: no flow of the table matched")
    match: str = ""
    actions: tuple[str, ...] = ()
    words: str = ""
    cookie: str = ""
    entity: str = Field("", description="what the flow is there for")
    rule: int = 0
    source: str | None = Field(None, description="'file:line' of the entity, where known")


Verdict = Literal["delivered", "blocked", "rejected", "dropped", "answered", "elsewhere"]


class Way(View):
    """One direction. decided: which of the hops decided, from 0; None where none did."""

    packet: str = Field(description="as it enters, in the form of ovs-fields(7)")
    bridge: str
    verdict: Verdict
    sentence: str
    hops: tuple[Hop, ...]
    decided: int | None = None
    reached: tuple[str, ...] = Field((), description="ends, uplinks and Linux bridges that it came to")
    states: tuple[str, ...] = Field((), description="what conntrack says, for each time it is asked")


class TraceView(View):
    """What becomes of a packet, and of its answer where it arrives."""

    source: str
    to: str
    sentence: str = Field(description="both directions in one")
    delivered: bool = Field(description="it arrives, and so does its answer where one was traced")
    forth: Way
    back: Way | None = None
