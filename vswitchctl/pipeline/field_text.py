"""A field's value as text in the form of ovs-fields(7)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from vswitchctl.pipeline.fields import Field

_IPV4 = frozenset({"nw_src", "nw_dst", "arp_spa", "arp_tpa", "tun_src", "tun_dst"})
_IPV6 = frozenset({"ipv6_src", "ipv6_dst", "nd_target"})
_DECIMAL = frozenset(
    {"in_port", "nw_proto", "nw_ttl", "nw_ecn", "ip_dscp", "arp_op", "vlan_pcp", "icmp_type", "icmp_code"}
    | {"icmpv6_type", "icmpv6_code", "nd_options_type", "conj_id", "ct_zone"}
    | {f"{protocol}_{side}" for protocol in ("tcp", "udp", "sctp") for side in ("src", "dst")}
)
FRAGMENTS = {(0, 3): "no", (1, 1): "yes", (1, 3): "first", (3, 3): "later", (0, 2): "not_later"}
"""ip_frag's words, ovs-fields(7)."""


def _mac(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


def _ipv4(value: int) -> str:
    return str(IPv4Address(value))


def _ipv6(value: int) -> str:
    return str(IPv6Address(value))


def _style(field: Field) -> Callable[[int], str]:
    if field.length == 6:
        return _mac
    if field.name in _IPV4:
        return _ipv4
    if field.name in _IPV6:
        return _ipv6
    return str if field.name in _DECIMAL else hex


def is_ipv4(field: Field) -> bool:
    return field.name in _IPV4


def is_ipv6(field: Field) -> bool:
    return field.name in _IPV6


def value_text(field: Field, value: int, mask: int) -> str:
    """'10.0.0.0/8', '0x1000/0xf000', ...: no full mask, a prefix length where it is one."""
    if field.name == "ip_frag" and (value, mask) in FRAGMENTS:
        return FRAGMENTS[value, mask]
    style = _style(field)
    if mask == field.full and not field.always_masked:
        return style(value)
    if style in {_ipv4, _ipv6}:
        host_bits = (mask ^ field.full).bit_length()
        if mask == field.full >> host_bits << host_bits:
            return f"{style(value)}/{field.bits - host_bits}"
    elif style is str:
        style = hex
    return f"{style(value)}/{style(mask)}"
