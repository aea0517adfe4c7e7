"""The tables in order. Each declares what it may match and set, and where a packet may go from it.

`matches` and `sets` hold names of fields and of register bits. `sets` also holds what a flow may do to the
packet: 'output', and 'learn:<table>' for flows that the switch adds by itself. The encoder refuses the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vswitchctl.pipeline.registers import GATEWAY_WORDS, NEXT_HOP_WORDS


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
    next=frozenset({"port_security", "arp_nd", "qos_from", "ct_from"}),
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
    next=frozenset({"nd_answer", "qos_from"}),
    purpose="who asks for the MAC of a declared address has the answer from the switch",
)
ND_ANSWER = Table(
    21,
    "nd_answer",
    matches=_ICMPV6,
    sets=frozenset({"nd_tll", "output"}),
    purpose="the end of an answer of neighbour discovery",
)
QOS_FROM = Table(
    30,
    "qos_from",
    matches=frozenset({"in_port", "dl_type"}),
    sets=frozenset({"meter", "ip_dscp"}),
    next=frozenset({"qos_from_packets", "storm", "ct_from"}),
    purpose="how much an interface may send, and the DSCP of it",
)
QOS_FROM_PACKETS = Table(
    31,
    "qos_from_packets",
    matches=frozenset({"in_port"}),
    sets=frozenset({"meter"}),
    next=frozenset({"storm", "ct_from"}),
    purpose="how many packets it may send, where its bits are limited, too",
)
STORM = Table(
    32,
    "storm",
    matches=frozenset({"in_port", "dl_dst"}),
    sets=frozenset({"meter"}),
    next=frozenset({"ct_from"}),
    purpose="how many broadcasts and multicasts a port may send",
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
    next=frozenset({"acl_from", "gateway"}),
    purpose="what an interface with ACLs sends goes through conntrack in its own zone",
)
ACL_FROM = Table(
    50,
    "acl_from",
    matches=_RULE_MATCHES | {"nw_dst", "ipv6_dst", "dl_dst"},
    sets=frozenset({"denied", "rejected", "conjunction", "controller"}),
    next=frozenset({"commit_from", "gateway"}),
    purpose="the rules for what an interface sends",
)
COMMIT_FROM = Table(
    55,
    "commit_from",
    matches=_COMMIT_MATCHES,
    sets=frozenset({"ct", "ct_mark", "controller"}),
    next=frozenset({"gateway"}),
    purpose="remembers allowed connections, ends those that no longer are, tells who is rejected",
)
GATEWAY = Table(
    60,
    "gateway",
    matches=_ICMPV6
    | {"in_port", "network", "dl_dst", "arp_op", "arp_spa", "arp_tpa", "nd_target", "nd_sll", "nd_tll"},
    sets=frozenset({"router", "in_port", "out_port", "learn:next_hop_learned"})
    | {"dl_src", "dl_dst", "arp_op", "arp_sha", "arp_spa", "arp_tha", "arp_tpa"}
    | {"ipv6_src", "ipv6_dst", "icmpv6_type", "nd_reserved", "nd_options_type"},
    next=frozenset({"gateway_nd", "route", "l2_learning", "output"}),
    purpose="what is for a gateway: questions for its MAC are answered, packets go on to its router",
)
GATEWAY_ND = Table(
    61,
    "gateway_nd",
    matches=_ICMPV6,
    sets=frozenset({"nd_tll", "in_port", "out_port"}),
    next=frozenset({"output"}),
    purpose="the end of a gateway's answer of neighbour discovery",
)
ROUTE = Table(
    62,
    "route",
    matches=_ICMPV6
    | {
        "router",
        "network",
        "ip_frag",
        "nw_ttl",
        "nw_src",
        "nw_dst",
        "ipv6_src",
        "ipv6_dst",
        "icmp_type",
        "icmp_code",
    },
    sets=frozenset({"network", "in_port", "out_port", "dl_src", "dl_dst", "nw_src", "nw_dst", "nw_ttl"})
    | {"ipv6_src", "ipv6_dst", "icmp_type", "icmpv6_type", "ct_clear", "scratch", "controller"}
    | {bits.name for bits in GATEWAY_WORDS},
    next=frozenset({"neighbour", "l2_lookup", "ct_to"}),
    purpose="the longest prefix decides the next network; echo requests to a gateway are answered",
)
NEIGHBOUR = Table(
    64,
    "neighbour",
    matches=frozenset({"network", "dl_type", "nw_dst", "ipv6_dst"}),
    sets=frozenset({"dl_dst"}),
    next=frozenset({"l2_lookup"}),
    purpose="the MAC of an address in the next network",
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
    matches=frozenset({"network", "dl_dst", "in_port"}),
    sets=frozenset({"out_port"}),
    next=frozenset({"l2_learned", "flood", "unknown_storm", "next_hop", "ct_to"}),
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
    next=frozenset({"flood", "ct_to", "qos_to", "output"}),
    purpose="with no port chosen, a copy for each port of the network's broadcast tree",
)
UNKNOWN_STORM = Table(
    83,
    "unknown_storm",
    matches=frozenset({"in_port", "out_port"}),
    sets=frozenset({"meter"}),
    next=frozenset({"flood", "ct_to"}),
    purpose="how many frames to unknown destinations a port may send",
)
NEXT_HOP = Table(
    84,
    "next_hop",
    matches=frozenset({"network", "dl_src", "dl_dst"}),
    sets=frozenset(bits.name for bits in (*GATEWAY_WORDS, *NEXT_HOP_WORDS)),
    next=frozenset({"next_hop_learned", "next_hop_known"}),
    purpose="what leaves to a router behind an uplink that was found by asking",
)
NEXT_HOP_LEARNED = Table(
    85,
    "next_hop_learned",
    matches=frozenset({"network", "dl_dst"}),
    sets=frozenset({"dl_dst", "next_hop_mac"}),
    purpose="the MAC that it said it has",
    learned=True,
)
NEXT_HOP_KNOWN = Table(
    86,
    "next_hop_known",
    matches=frozenset({"next_hop_mac"}),
    sets=frozenset({"controller"}),
    next=frozenset({"ct_to"}),
    purpose="has the daemon ask where that is not known, or was not heard lately",
)
CT_TO = Table(
    90,
    "ct_to",
    matches=_ND_MATCHES | {"in_port", "out_port"},
    sets=frozenset({"zone", "acl_set", "ct"}),
    next=frozenset({"acl_to", "qos_to"}),
    purpose="what goes to an interface with ACLs goes through conntrack in its own zone",
)
ACL_TO = Table(
    100,
    "acl_to",
    matches=_RULE_MATCHES | {"nw_src", "ipv6_src", "dl_src"},
    sets=frozenset({"denied", "rejected", "conjunction", "controller"}),
    next=frozenset({"commit_to", "qos_to"}),
    purpose="the rules for what goes to an interface",
)
COMMIT_TO = Table(
    105,
    "commit_to",
    matches=_COMMIT_MATCHES,
    sets=frozenset({"ct", "ct_mark", "controller"}),
    next=frozenset({"qos_to"}),
    purpose="remembers allowed connections, ends those that no longer are, tells who is rejected",
)
QOS_TO = Table(
    110,
    "qos_to",
    matches=frozenset({"in_port", "out_port"}),
    sets=frozenset({"meter"}),
    next=frozenset({"qos_to_packets", "output"}),
    purpose="how much goes to an interface",
)
QOS_TO_PACKETS = Table(
    111,
    "qos_to_packets",
    matches=frozenset({"out_port"}),
    sets=frozenset({"meter"}),
    next=frozenset({"output"}),
    purpose="how many packets go to it, where its bits are limited, too",
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
    *(QOS_FROM, QOS_FROM_PACKETS, STORM),
    *(CT_FROM, ACL_FROM, COMMIT_FROM),
    *(GATEWAY, GATEWAY_ND, ROUTE, NEIGHBOUR),
    *(L2_LEARNING, L2_LOOKUP, L2_LEARNED, FLOOD, UNKNOWN_STORM),
    *(NEXT_HOP, NEXT_HOP_LEARNED, NEXT_HOP_KNOWN),
    *(CT_TO, ACL_TO, COMMIT_TO),
    *(QOS_TO, QOS_TO_PACKETS, OUTPUT),
)

BY_ID: dict[int, Table] = {table.id: table for table in TABLES}
LEARNED_IDS: frozenset[int] = frozenset(table.id for table in TABLES if table.learned)
