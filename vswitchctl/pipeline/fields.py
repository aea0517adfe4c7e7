"""Every field a flow may match or set: its OXM header, width, place in OVS's order, and prerequisites.

Headers: OpenFlow 1.4.1 section 7.2.3 (class 0x8000) and the Nicira class 0x0001 of ovs-fields(7). `order` is
the order in which Open vSwitch itself writes a match (nx_put_raw in its lib/nx-match.c): a match sent in that
order is dumped back byte for byte, which `tests/dataplane/test_openflow_bytes.py` proves field by field.
"""

from __future__ import annotations

from dataclasses import dataclass

OXM = 0x8000
"""OFPXMC_OPENFLOW_BASIC."""

OF, NXM, ERIC = 0x0000, 0x0001, 0x1000
"""NXM_OF and NXM_NX: the Nicira extensions. ERICOXM_OF: fields of neighbour discovery, ovs-fields(7)."""

HAS_MASK = 0x100
"""The mask bit of an OXM header; the length that follows it then counts value and mask."""

ETH_TYPE_IPV4, ETH_TYPE_ARP, ETH_TYPE_IPV6 = 0x0800, 0x0806, 0x86DD
"""IEEE 802 numbers (IANA registry)."""

PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6, PROTO_SCTP = 1, 6, 17, 58, 132
"""IP protocol numbers (IANA registry)."""

ICMPV6_NS, ICMPV6_NA = 135, 136
"""Neighbour Solicitation and Advertisement, RFC 4861."""

ICMPV6_RS, ICMPV6_RA, ICMPV6_REDIRECT = 133, 134, 137
"""Router Solicitation and Advertisement, Redirect, RFC 4861."""

ICMPV6_MLD_REPORT, ICMPV6_MLD_DONE, ICMPV6_MLD2_REPORT = 131, 132, 143
"""Multicast Listener Report and Done, RFC 2710; Version 2 Report, RFC 3810."""

ARP_REQUEST, ARP_REPLY = 1, 2
"""RFC 826."""


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """Another field that must be matched with one of these values before this field may be used.

    mask: the bits of it that count; what else of it is matched does not matter.
    """

    field: str
    values: frozenset[int]
    mask: int = -1


@dataclass(frozen=True, slots=True)
class Field:
    """A field by its ovs-ofctl name. header: OXM header without mask. bits: significant bits.

    action_header: the header that Nicira actions name it by. order: rank in OVS's canonical match.
    maskable: whether part of it may be matched. always_masked: OVS writes even its full mask.
    """

    name: str
    header: int
    action_header: int
    bits: int
    order: int
    maskable: bool = True
    always_masked: bool = False
    prereq: tuple[Prerequisite, ...] = ()

    @property
    def length(self) -> int:
        """Bytes of the value on the wire."""
        return self.header & 0xFF

    @property
    def masked_header(self) -> int:
        return (self.header & ~0xFF) | HAS_MASK | (self.length * 2)

    @property
    def full(self) -> int:
        """The mask that matches every bit."""
        return (1 << self.bits) - 1


def _needs(field: str, *values: int) -> Prerequisite:
    return Prerequisite(field, frozenset(values))


CT_VALID = (0x20, 0x30)
"""ct_state +trk-inv: without it Open vSwitch refuses a match on what conntrack knows (ovs-fields(7), CT)."""

_IP = (_needs("dl_type", ETH_TYPE_IPV4, ETH_TYPE_IPV6),)
_IPV4 = (_needs("dl_type", ETH_TYPE_IPV4),)
_IPV6 = (_needs("dl_type", ETH_TYPE_IPV6),)
_ARP = (_needs("dl_type", ETH_TYPE_ARP),)
_TCP, _UDP, _SCTP = ((*_IP, _needs("nw_proto", proto)) for proto in (PROTO_TCP, PROTO_UDP, PROTO_SCTP))
_ICMP = (*_IPV4, _needs("nw_proto", PROTO_ICMP))
_ICMPV6 = (*_IPV6, _needs("nw_proto", PROTO_ICMPV6))
_TRACKED = (Prerequisite("ct_state", frozenset({CT_VALID[0]}), mask=CT_VALID[1]),)
_CT_PORTS = (
    *_TRACKED,
    _needs("ct_nw_proto", PROTO_TCP, PROTO_UDP, PROTO_SCTP, PROTO_ICMP, PROTO_ICMPV6),
)  # Open vSwitch takes a match on them without the protocol, too, but does not dump it
_ND = (*_ICMPV6, _needs("icmpv6_type", ICMPV6_NS, ICMPV6_NA), _needs("icmpv6_code", 0))
_NS = (*_ICMPV6, _needs("icmpv6_type", ICMPV6_NS), _needs("icmpv6_code", 0))
_NA = (*_ICMPV6, _needs("icmpv6_type", ICMPV6_NA), _needs("icmpv6_code", 0))

FIELDS: dict[str, Field] = {}
"""Every field by name, in canonical order."""


def _field(
    name: str,
    oxm_class: int,
    number: int,
    length: int,
    *,
    bits: int = 0,
    nxm: tuple[int, int] | None = None,
    maskable: bool = True,
    always_masked: bool = False,
    prereq: tuple[Prerequisite, ...] = (),
) -> Field:
    """Declare the next field; the order of declaration is the canonical order.

    nxm: class and number in actions, where OVS keeps to the older NXM name for a field that has both.
    """
    header, action_header = (
        oxm_class << 16 | number << 9 | length
        for oxm_class, number in ((oxm_class, number), nxm or (oxm_class, number))
    )
    FIELDS[name] = field = Field(
        name, header, action_header, bits or length * 8, len(FIELDS), maskable, always_masked, prereq
    )
    return field


CONJ_ID = _field("conj_id", NXM, 37, 4, maskable=False)
IN_PORT = _field("in_port", OXM, 0, 4, maskable=False)
ETH_SRC = _field("dl_src", OXM, 4, 6, nxm=(OF, 2))
ETH_DST = _field("dl_dst", OXM, 3, 6, nxm=(OF, 1))
GROUP_BIT = 0x010000000000
"""IEEE 802.3: the least significant bit of an address's first octet marks broadcast and multicast."""
ETH_TYPE = _field("dl_type", OXM, 5, 2, maskable=False, nxm=(OF, 3))
VLAN_VID = _field("vlan_vid", OXM, 6, 2, bits=13)
"""12 bits of VLAN and OFPVID_PRESENT (0x1000). OpenFlow 1.4 dumps know the tag in this form only."""
VLAN_TCI = VLAN_VID
VLAN_PCP = _field("vlan_pcp", OXM, 7, 1, bits=3, maskable=False)
IPV4_SRC = _field("nw_src", OXM, 11, 4, nxm=(OF, 7), prereq=_IPV4)
IPV4_DST = _field("nw_dst", OXM, 12, 4, nxm=(OF, 8), prereq=_IPV4)
IPV6_SRC = _field("ipv6_src", OXM, 26, 16, nxm=(NXM, 19), prereq=_IPV6)
IPV6_DST = _field("ipv6_dst", OXM, 27, 16, nxm=(NXM, 20), prereq=_IPV6)
IP_FRAG = _field("ip_frag", NXM, 26, 1, bits=2, prereq=_IP)
IP_DSCP = _field("ip_dscp", OXM, 8, 1, bits=6, maskable=False, prereq=_IP)
IP_ECN = _field("nw_ecn", OXM, 9, 1, bits=2, maskable=False, nxm=(NXM, 28), prereq=_IP)
IP_TTL = _field("nw_ttl", NXM, 29, 1, maskable=False, prereq=_IP)
IPV6_LABEL = _field("ipv6_label", OXM, 28, 4, bits=20, nxm=(NXM, 27), prereq=_IPV6)
IP_PROTO = _field("nw_proto", OXM, 10, 1, maskable=False, nxm=(OF, 6), prereq=_IP)
TCP_SRC = _field("tcp_src", OXM, 13, 2, nxm=(OF, 9), prereq=_TCP)
TCP_DST = _field("tcp_dst", OXM, 14, 2, nxm=(OF, 10), prereq=_TCP)
UDP_SRC = _field("udp_src", OXM, 15, 2, nxm=(OF, 11), prereq=_UDP)
UDP_DST = _field("udp_dst", OXM, 16, 2, nxm=(OF, 12), prereq=_UDP)
SCTP_SRC = _field("sctp_src", OXM, 17, 2, prereq=_SCTP)
SCTP_DST = _field("sctp_dst", OXM, 18, 2, prereq=_SCTP)
ICMP_TYPE = _field("icmp_type", OXM, 19, 1, maskable=False, nxm=(OF, 13), prereq=_ICMP)
ICMP_CODE = _field("icmp_code", OXM, 20, 1, maskable=False, nxm=(OF, 14), prereq=_ICMP)
ICMPV6_TYPE = _field("icmpv6_type", OXM, 29, 1, maskable=False, nxm=(NXM, 21), prereq=_ICMPV6)
ICMPV6_CODE = _field("icmpv6_code", OXM, 30, 1, maskable=False, nxm=(NXM, 22), prereq=_ICMPV6)
ND_RESERVED = _field("nd_reserved", ERIC, 1, 4, maskable=False, prereq=_ND)
"""The 32 bits before the target: of an advertisement the flags R, S and O, RFC 4861 section 4.4."""
ND_TARGET = _field("nd_target", OXM, 31, 16, nxm=(NXM, 23), prereq=_ND)
ND_OPTIONS_TYPE = _field("nd_options_type", ERIC, 2, 1, maskable=False, prereq=_ND)
"""Type of the first option, RFC 4861 section 4.6.1: 1 names the source's MAC, 2 the target's."""
ND_SLL = _field("nd_sll", OXM, 32, 6, nxm=(NXM, 24), prereq=_NS)
ND_TLL = _field("nd_tll", OXM, 33, 6, nxm=(NXM, 25), prereq=_NA)
ARP_OP = _field("arp_op", OXM, 21, 2, maskable=False, nxm=(OF, 15), prereq=_ARP)
ARP_SPA = _field("arp_spa", OXM, 22, 4, nxm=(OF, 16), prereq=_ARP)
ARP_TPA = _field("arp_tpa", OXM, 23, 4, nxm=(OF, 17), prereq=_ARP)
ARP_SHA = _field("arp_sha", OXM, 24, 6, nxm=(NXM, 17), prereq=_ARP)
ARP_THA = _field("arp_tha", OXM, 25, 6, nxm=(NXM, 18), prereq=_ARP)
TUN_ID = _field("tun_id", OXM, 38, 8, nxm=(NXM, 16))
TUN_SRC = _field("tun_src", NXM, 31, 4)
TUN_DST = _field("tun_dst", NXM, 32, 4)
REG = tuple(_field(f"reg{number}", NXM, number, 4) for number in range(16))
PKT_MARK = _field("pkt_mark", NXM, 33, 4)
CT_STATE = _field("ct_state", NXM, 105, 4, bits=8, always_masked=True)
"""The eight flags of ct_state, ovs-fields(7): new est rel rpl inv trk snat dnat, from bit 0."""
CT_ZONE = _field("ct_zone", NXM, 106, 2, maskable=False)
CT_MARK = _field("ct_mark", NXM, 107, 4)
CT_LABEL = _field("ct_label", NXM, 108, 16)
CT_NW_PROTO = _field("ct_nw_proto", NXM, 119, 1, maskable=False, prereq=_TRACKED)
CT_TP_SRC = _field("ct_tp_src", NXM, 124, 2, prereq=_CT_PORTS)
CT_TP_DST = _field("ct_tp_dst", NXM, 125, 2, prereq=_CT_PORTS)
"""The ports of a connection's original direction; of ICMP its type and code."""
METADATA = _field("metadata", OXM, 2, 8)

BY_HEADER: dict[int, Field] = {
    header & ~0x1FF: field for field in FIELDS.values() for header in (field.header, field.action_header)
}
"""By class and number alone, for the decoder."""
