"""Which flows would match a packet of which some headers are known: text parsed, held against bytes. Pure.

Names of fields are those of ovs-fields(7), the newer and the older ones, and of our register bits. A flow
*would match* where nothing that is known of the packet contradicts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from vswitchctl.errors import UserError
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.field_text import FRAGMENTS, is_ipv4, is_ipv6
from vswitchctl.pipeline.fields import FIELDS, HAS_MASK, Field
from vswitchctl.pipeline.registers import REGISTERS
from vswitchctl.topology.nearest import one_of

ALIASES = {
    "eth_src": "dl_src",
    "eth_dst": "dl_dst",
    "eth_type": "dl_type",
    "ip_src": "nw_src",
    "ip_dst": "nw_dst",
    "ip_proto": "nw_proto",
    "ip_ttl": "nw_ttl",
    "ip_ecn": "nw_ecn",
    "nw_frag": "ip_frag",
    "tunnel_id": "tun_id",
    "icmp6_type": "icmpv6_type",
    "icmp6_code": "icmpv6_code",
}
"""Another name of a field -> the name it has here."""

_TCP, _UDP, _SCTP = f.PROTO_TCP, f.PROTO_UDP, f.PROTO_SCTP
PROTOCOLS: dict[str, tuple[int, int | None]] = {
    "ip": (f.ETH_TYPE_IPV4, None),
    "ipv4": (f.ETH_TYPE_IPV4, None),
    "ipv6": (f.ETH_TYPE_IPV6, None),
    "arp": (f.ETH_TYPE_ARP, None),
    "icmp": (f.ETH_TYPE_IPV4, f.PROTO_ICMP),
    "icmp6": (f.ETH_TYPE_IPV6, f.PROTO_ICMPV6),
    "tcp": (f.ETH_TYPE_IPV4, _TCP),
    "tcp6": (f.ETH_TYPE_IPV6, _TCP),
    "udp": (f.ETH_TYPE_IPV4, _UDP),
    "udp6": (f.ETH_TYPE_IPV6, _UDP),
    "sctp": (f.ETH_TYPE_IPV4, _SCTP),
    "sctp6": (f.ETH_TYPE_IPV6, _SCTP),
}
"""Words of ovs-fields(7) that stand for an Ethernet type and an IP protocol."""

CT_FLAGS = {
    name: 1 << bit for bit, name in enumerate(("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"))
}
"""ct_state's words, ovs-fields(7)."""

VID_PRESENT = 0x1000
"""OFPVID_PRESENT, OpenFlow 1.4.1 section 7.2.3.8."""


class Part(NamedTuple):
    """Bits of a field that are known: those where the mask has ones."""

    value: int
    mask: int


Known = Mapping[int, tuple[Part, ...]]
"""Class and number of a field, as in `fields.BY_HEADER` -> what it may be: one of these."""


def known_fields(texts: Iterable[str], *, whole: bool = False) -> Known:
    """'ip_dst=10.1.0.5', 'tcp,tcp_dst=80', ... as what is known of a packet.

    whole: a packet of which all is said: without a VLAN tag, no fragment, and the one that opens its
    connection, unless it says otherwise.
    Raises UserError that names the word, and what would be right.
    """
    found: dict[Field, tuple[Part, ...]] = {}
    words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    protocol = next((PROTOCOLS[word][1] for word in words if word in PROTOCOLS), None)
    for word in words:
        if word in PROTOCOLS:
            ethernet, number = PROTOCOLS[word]
            _know(found, f.ETH_TYPE, (Part(ethernet, f.ETH_TYPE.full),))
            if number is not None:
                _know(found, f.IP_PROTO, (Part(number, f.IP_PROTO.full),))
            continue
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise UserError(f"'{word}' is no field=value", "as ip_dst=10.1.0.5, or a protocol as tcp")
        field, part = _field_part(name, text, protocol)
        _know(found, field, (part,))
    for field in list(found):
        _imply(found, field)
    if whole:
        _complete(found)
    return {
        header & ~0x1FF: parts
        for field, parts in found.items()
        for header in (field.header, field.action_header)
    }


OPENING = Part(CT_FLAGS["new"] | CT_FLAGS["trk"], 0x3F)
"""ct_state +new+trk-est-rel-rpl-inv."""

_OF_CONNECTION = {
    f.CT_NW_PROTO: (f.IP_PROTO,),
    f.CT_TP_SRC: (f.TCP_SRC, f.UDP_SRC, f.SCTP_SRC, f.ICMP_TYPE, f.ICMPV6_TYPE),
    f.CT_TP_DST: (f.TCP_DST, f.UDP_DST, f.SCTP_DST, f.ICMP_CODE, f.ICMPV6_CODE),
}
"""What a connection takes from the packet that opens it."""


def _complete(found: dict[Field, tuple[Part, ...]]) -> None:
    found.setdefault(f.VLAN_VID, (Part(0, f.VLAN_VID.full),))
    found.setdefault(f.IP_FRAG, (Part(0, f.IP_FRAG.full),))
    found.setdefault(f.CT_STATE, (OPENING,))
    found.setdefault(f.CT_MARK, (Part(0, f.CT_MARK.full),))
    for field, sources in _OF_CONNECTION.items():
        for source in sources:
            if source in found:
                found.setdefault(field, found[source])


def _know(found: dict[Field, tuple[Part, ...]], field: Field, parts: tuple[Part, ...]) -> None:
    """Add what is known of a field to what was: both hold."""
    before = found.get(field, (Part(0, 0),))
    both = tuple(
        Part(a.value | b.value, a.mask | b.mask)
        for a in before
        for b in parts
        if not (a.value ^ b.value) & a.mask & b.mask
    )
    if not both:
        raise UserError(
            f"no packet has such a {field.name}: it would have to have two values", "leave one out"
        )
    found[field] = both


def _imply(found: dict[Field, tuple[Part, ...]], field: Field) -> None:
    """A packet with this field has what the field needs: with ip_dst it is IP."""
    for need in field.prereq:
        other = FIELDS[need.field]
        mask = other.full if need.mask < 0 else need.mask
        _know(found, other, tuple(Part(value, mask) for value in sorted(need.values)))


def _field_part(name: str, text: str, protocol: int | None) -> tuple[Field, Part]:
    """The field that a name and its value mean, and the bits of it."""
    if name in REGISTERS:
        bits = REGISTERS[name]
        value, mask = _integers(name, text, bits.width)
        return bits.field, Part(value << bits.offset, mask << bits.offset)
    if name in ("vlan", "dl_vlan"):
        value, mask = _integers(name, text, 12)
        return f.VLAN_VID, Part(value | VID_PRESENT, mask | VID_PRESENT)
    if name in ("tp_src", "tp_dst"):
        name = _port_field(name, protocol)
    name = ALIASES.get(name, name)
    if name in ("nw_src", "nw_dst") and ":" in text:
        name = name.replace("nw", "ipv6")
    field = FIELDS.get(name)
    if field is None:
        known = sorted({*FIELDS, *ALIASES, *REGISTERS})
        raise UserError(
            f"no field is called '{name}'", one_of(name, known, "there is") or "see man ovs-fields"
        )
    return field, _part(field, text)


def _port_field(name: str, protocol: int | None) -> str:
    words = {_TCP: "tcp", _UDP: "udp", _SCTP: "sctp"}
    if protocol not in words:
        raise UserError(f"{name} of which protocol?", f"say tcp_{name[3:]} or udp_{name[3:]}")
    return name.replace("tp", words[protocol], 1)


def _part(field: Field, text: str) -> Part:
    try:
        if field.name == "ip_frag" and (words := _fragment(text)):
            return words
        if field is f.CT_STATE and not text[0].isdigit():
            return _ct_state(text)
        if field.length == 6:
            return _mac(text)
        if is_ipv4(field):
            return _network(
                IPv4Network(text, strict=False) if "/" in text else IPv4Network(IPv4Address(text))
            )
        if is_ipv6(field):
            return _network(
                IPv6Network(text, strict=False) if "/" in text else IPv6Network(IPv6Address(text))
            )
    except (ValueError, KeyError) as error:
        raise UserError(f"{field.name}={text}: {error}", "see man ovs-fields") from error
    return _integers(field.name, text, field.bits)


def _network(network: IPv4Network | IPv6Network) -> Part:
    return Part(int(network.network_address), int(network.netmask))


def _fragment(text: str) -> Part | None:
    found = [Part(*bits) for bits, word in FRAGMENTS.items() if word == text]
    return found[0] if found else None


def _ct_state(text: str) -> Part:
    """'+trk-inv', or 'trk|new'. Raises KeyError on another word."""
    value = mask = 0
    for word in text.replace("|", "+").replace("+", " +").replace("-", " -").split():
        bit = CT_FLAGS[word.lstrip("+-")]
        mask |= bit
        value |= 0 if word.startswith("-") else bit
    return Part(value, mask)


def _mac(text: str) -> Part:
    """Raises ValueError."""
    address, slash, mask = text.partition("/")
    octets = [bytes.fromhex(part.replace(":", "")) for part in ((address, mask) if slash else (address,))]
    if any(len(part) != 6 for part in octets) or address.count(":") != 5:
        raise ValueError("no MAC address; one is 02:00:00:00:00:01")
    wanted = int.from_bytes(octets[1], "big") if slash else (1 << 48) - 1
    return Part(int.from_bytes(octets[0], "big") & wanted, wanted)


def _integers(name: str, text: str, bits: int) -> Part:
    """A number, decimal or hex, and maybe a mask. Raises UserError."""
    full = (1 << bits) - 1
    value, slash, mask = text.partition("/")
    try:
        part = Part(int(value, 0), int(mask, 0) if slash else full)
    except ValueError:
        raise UserError(
            f"{name}={text} is no number", "write it as 80 or 0x50, with a mask as 80/0xfff0"
        ) from None
    if not 0 <= part.value <= full or not 0 <= part.mask <= full:
        raise UserError(f"{name}={text} does not fit: the field has {bits} bits", f"at most {full:#x}")
    return Part(part.value & part.mask, part.mask)


def oxm_fields(oxm: bytes) -> Iterator[tuple[int, int, int]]:
    """(class and number, value, mask) of each field of a flow's match; a full mask is -1. Raises nothing."""
    at, end = 0, len(oxm)
    while at + 4 <= end:
        header = int.from_bytes(oxm[at : at + 4], "big")
        length = header & 0xFF
        at += 4
        if header & HAS_MASK:
            half = at + (length >> 1)
            mask = int.from_bytes(oxm[half : at + length], "big")
            yield header & ~0x1FF, int.from_bytes(oxm[at:half], "big"), mask
        else:
            yield header & ~0x1FF, int.from_bytes(oxm[at : at + length], "big"), -1
        at += length


def would_match(oxm: bytes, known: Known) -> bool:
    """Whether a flow with this match would match some packet of which this is known."""
    for field, value, mask in oxm_fields(oxm):
        parts = known.get(field)
        if parts is not None and all((value ^ part.value) & mask & part.mask for part in parts):
            return False
    return True
