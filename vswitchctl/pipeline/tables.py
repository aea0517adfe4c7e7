"""The tables in order. Each declares what it may match and set, and where a packet may go from it.

`matches` and `sets` hold names of fields and of register bits. `sets` also holds what a flow may do to the
packet: 'output', and 'learn:<table>' for flows that the switch adds by itself. The encoder refuses the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Table:
    """One table. next: names of the tables it may go or resubmit to. learned: the switch fills it itself."""

    id: int
    name: str
    matches: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    next: frozenset[str] = frozenset()
    purpose: str = field(default="", compare=False)
    learned: bool = False


CLASSIFY = Table(
    0,
    "classify",
    matches=frozenset({"in_port", "vlan_vid"}),
    sets=frozenset({"network", "learn", "no_flood", "vlan_vid"}),
    next=frozenset({"l2_learning"}),
    purpose="port and VLAN tag decide the network; the tag comes off",
)
L2_LEARNING = Table(
    70,
    "l2_learning",
    matches=frozenset({"learn", "network", "in_port", "dl_src"}),
    sets=frozenset({"learn:l2_learned"}),
    next=frozenset({"l2_lookup"}),
    purpose="the switch itself learns sources behind ports where not every endpoint is declared",
)
L2_LOOKUP = Table(
    80,
    "l2_lookup",
    matches=frozenset({"network", "dl_dst"}),
    sets=frozenset({"out_port"}),
    next=frozenset({"l2_learned", "flood", "output"}),
    purpose="network and destination MAC choose the port",
)
L2_LEARNED = Table(
    81,
    "l2_learned",
    matches=frozenset({"network", "dl_dst"}),
    sets=frozenset({"out_port"}),
    purpose="what l2_learning learned; consulted by resubmit where no declared endpoint matched",
    learned=True,
)
FLOOD = Table(
    82,
    "flood",
    matches=frozenset({"network", "out_port", "no_flood"}),
    sets=frozenset({"out_port"}),
    next=frozenset({"output"}),
    purpose="with no port chosen, a copy for each port of the network's broadcast tree",
)
OUTPUT = Table(
    120,
    "output",
    matches=frozenset({"network", "out_port"}),
    sets=frozenset({"output", "vlan_vid"}),
    purpose="the port's form of the network, tagged or not, and out",
)

TABLES: tuple[Table, ...] = (CLASSIFY, L2_LEARNING, L2_LOOKUP, L2_LEARNED, FLOOD, OUTPUT)
"""Numbers in between are left for port security (10), ARP/ND (20), QoS in (30), conntrack (40), ACL in (50),
L3 (60), conntrack out (90), ACL out (100) and QoS out (110)."""

BY_ID: dict[int, Table] = {table.id: table for table in TABLES}
LEARNED_IDS: frozenset[int] = frozenset(table.id for table in TABLES if table.learned)
