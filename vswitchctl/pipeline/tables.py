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
    next=frozenset({"port_security", "arp_nd", "ct_from"}),
    purpose="port and VLAN tag decide the network; the tag comes off",
)
_ICMPV6 = frozenset({"dl_type", "nw_proto", "icmpv6_type", "icmpv6_code"})
_UDP = frozenset({"dl_type", "nw_proto", "udp_src", "udp_dst"})
PORT_SECURITY = Table(
    10,
    "port_security",
    matches=_ICMPV6 | _UDP | {"in_port", "dl_src", "arp_sha", "arp_spa", "nd_target", "nd_sll", "nd_tll"},
    next=frozenset({"source_address", "arp_nd"}),
    purpose="an endpoint's own MAC, in the frame and inside ARP and ND; only servers and routers act as such",
)
SOURCE_ADDRESS = Table(
    11,
    "source_address",
    matches=_ICMPV6 | _UDP | {"in_port", "dl_src", "nw_src", "ipv6_src"},
    next=frozenset({"arp_nd"}),
    purpose="an endpoint's own IPv4 and IPv6 addresses",
)
ARP_ND = Table(
    20,
    "arp_nd",
    matches=_ICMPV6 | {"in_port", "network", "dl_dst", "arp_op", "arp_tpa", "nd_target", "nd_sll"},
    sets=frozenset({"dl_src", "dl_dst", "arp_op", "arp_sha", "arp_spa", "arp_tha", "arp_tpa", "output"})
    | {"ipv6_src", "ipv6_dst", "icmpv6_type", "nd_reserved", "nd_options_type"},
    next=frozenset({"nd_answer", "ct_from"}),
    purpose="who asks for the MAC of a declared address has the answer from the switch",
)
ND_ANSWER = Table(
    21,
    "nd_answer",
    matches=_ICMPV6,
    sets=frozenset({"nd_tll", "output"}),
    purpose="the end of an answer of neighbour discovery",
)
_RULE_MATCHES = frozenset(
    {"acl_set", "ct_state", "ct_mark", "conj_id", "dl_type", "nw_proto", "icmp_type", "icmpv6_type"}
    | {"tcp_dst", "udp_dst", "sctp_dst", "ip_frag", "ct_nw_proto", "ct_tp_src", "ct_tp_dst"}
)
_ND_MATCHES = frozenset({"dl_type", "nw_proto", "icmpv6_type"})
_COMMIT_MATCHES = frozenset({"denied", "rejected", "flooded", "ct_state", "ct_mark", "dl_type", "dl_dst"})

CT_FROM = Table(
    40,
    "ct_from",
    matches=_ND_MATCHES | {"in_port"},
    sets=frozenset({"zone", "acl_set", "ct"}),
    next=frozenset({"acl_from", "l2_learning"}),
    purpose="what an interface with ACLs sends goes through conntrack in its own zone",
)
ACL_FROM = Table(
    50,
    "acl_from",
    matches=_RULE_MATCHES | {"nw_dst", "ipv6_dst", "dl_dst"},
    sets=frozenset({"denied", "rejected", "conjunction", "controller"}),
    next=frozenset({"commit_from", "l2_learning"}),
    purpose="the rules for what an interface sends",
)
COMMIT_FROM = Table(
    55,
    "commit_from",
    matches=_COMMIT_MATCHES,
    sets=frozenset({"ct", "ct_mark", "controller"}),
    next=frozenset({"l2_learning"}),
    purpose="remembers allowed connections, ends those that no longer are, tells who is rejected",
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
    next=frozenset({"l2_learned", "flood", "ct_to"}),
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
    matches=frozenset({"network", "out_port", "no_flood", "flood_part"}),
    sets=frozenset({"out_port", "flood_part", "flooded"}),
    next=frozenset({"flood", "ct_to", "output"}),
    purpose="with no port chosen, a copy for each port of the network's broadcast tree",
)
CT_TO = Table(
    90,
    "ct_to",
    matches=_ND_MATCHES | {"in_port", "out_port"},
    sets=frozenset({"zone", "acl_set", "ct"}),
    next=frozenset({"acl_to", "output"}),
    purpose="what goes to an interface with ACLs goes through conntrack in its own zone",
)
ACL_TO = Table(
    100,
    "acl_to",
    matches=_RULE_MATCHES | {"nw_src", "ipv6_src", "dl_src"},
    sets=frozenset({"denied", "rejected", "conjunction", "controller"}),
    next=frozenset({"commit_to", "output"}),
    purpose="the rules for what goes to an interface",
)
COMMIT_TO = Table(
    105,
    "commit_to",
    matches=_COMMIT_MATCHES,
    sets=frozenset({"ct", "ct_mark", "controller"}),
    next=frozenset({"output"}),
    purpose="remembers allowed connections, ends those that no longer are, tells who is rejected",
)
OUTPUT = Table(
    120,
    "output",
    matches=frozenset({"network", "out_port"}),
    sets=frozenset({"output", "vlan_vid"}),
    purpose="the port's form of the network, tagged or not, and out",
)

TABLES: tuple[Table, ...] = (
    *(CLASSIFY, PORT_SECURITY, SOURCE_ADDRESS, ARP_ND, ND_ANSWER),
    *(CT_FROM, ACL_FROM, COMMIT_FROM),
    *(L2_LEARNING, L2_LOOKUP, L2_LEARNED, FLOOD),
    *(CT_TO, ACL_TO, COMMIT_TO, OUTPUT),
)
"""Numbers in between are left for QoS in (30), L3 (60) and QoS out (110)."""

BY_ID: dict[int, Table] = {table.id: table for table in TABLES}
LEARNED_IDS: frozenset[int] = frozenset(table.id for table in TABLES if table.learned)
