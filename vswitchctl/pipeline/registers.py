"""Every register bit of the pipeline, named once.

Registers are 0 when a packet enters, so 0 always means "not decided yet".
"""

from __future__ import annotations

from dataclasses import dataclass

from vswitchctl.pipeline.fields import METADATA, REG, Field


@dataclass(frozen=True, slots=True)
class Bits:
    """`width` bits of a field from bit `offset` (0 is the least significant)."""

    field: Field
    offset: int
    width: int
    name: str

    @property
    def mask(self) -> int:
        """The bits' mask in the whole field."""
        return ((1 << self.width) - 1) << self.offset


NETWORK = Bits(REG[0], 0, 16, "network")
"""The tag of the network that the packet belongs to; on links between bridges it is the VLAN id."""

OUT_PORT = Bits(REG[1], 0, 32, "out_port")
"""The OpenFlow port that the lookup chose."""

LEARN = Bits(REG[2], 0, 1, "learn")
"""1: the source behind this port may be learned."""

NO_FLOOD = Bits(REG[2], 1, 1, "no_flood")
"""1: came over a link outside the network's broadcast tree, so it must never be flooded."""

FLOOD_PART = Bits(REG[2], 8, 8, "flood_part")
"""How many parts of a flood are done, where its ports do not fit one flow."""

ZONE = Bits(REG[3], 0, 16, "zone")
"""The conntrack zone of the port that the packet came from, or is about to leave by."""

DENIED = Bits(REG[3], 16, 1, "denied")
"""1: a rule, or the lack of one, denies the packet."""

ACL_SET = Bits(REG[4], 0, 32, "acl_set")
"""The ACLs of that port, as a number."""

ROUTER = Bits(REG[7], 0, 32, "router")
"""The router that a packet was sent to, as a number."""

GATEWAY_WORDS = tuple(Bits(REG[12 + number], 0, 32, f"gateway{number}") for number in range(4))
"""Address of the gateway that a packet was sent to, first word first; one of IPv4 is the first word."""

NEXT_HOP_WORDS = tuple(Bits(REG[8 + number], 0, 32, f"next_hop{number}") for number in range(4))
"""Address of the router behind an uplink that a packet goes to, likewise."""

NEXT_HOP_MAC = Bits(REG[2], 2, 2, "next_hop_mac")
"""Whether that router's MAC is known: 0 not, 1 from long ago, 2 heard lately."""

SCRATCH = Bits(METADATA, 0, 48, "scratch")
"""A place to put a MAC address while two are swapped."""

REJECTED = Bits(REG[5], 0, 1, "rejected")
"""1: a rule wants the sender told that the packet ends here."""

FLOODED = Bits(REG[5], 1, 1, "flooded")
"""1: one copy of several, so the port it goes to may not be the one it is for."""

REGISTERS: dict[str, Bits] = {
    bits.name: bits
    for bits in (
        *(NETWORK, OUT_PORT, LEARN, NO_FLOOD, FLOOD_PART, ZONE, DENIED, ACL_SET),
        *(ROUTER, *GATEWAY_WORDS, *NEXT_HOP_WORDS, NEXT_HOP_MAC, SCRATCH, REJECTED, FLOODED),
    )
}
