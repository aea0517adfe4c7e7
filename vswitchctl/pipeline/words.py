"""A flow in words: register bits by their names, networks, ports and tables by theirs. Pure.

It starts from the texts of `decode`, whatever they hold: what has no better word stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vswitchctl.pipeline.fields import ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6
from vswitchctl.pipeline.punt import Opcode
from vswitchctl.pipeline.registers import ACL_SET, NETWORK, OUT_PORT, REGISTERS, ROUTER, Bits
from vswitchctl.pipeline.tables import BY_ID


@dataclass(frozen=True, slots=True)
class Names:
    """What a bridge's numbers stand for. networks: tag -> name. ports: OpenFlow number -> what is behind it.

    sets: number -> the ACLs of a set. routers: number -> name.
    """

    networks: Mapping[int, str] = field(default_factory=dict)
    ports: Mapping[int, str] = field(default_factory=dict)
    sets: Mapping[int, str] = field(default_factory=dict)
    routers: Mapping[int, str] = field(default_factory=dict)


_ETHERNET = {hex(ETH_TYPE_IPV4): "IPv4", f"{ETH_TYPE_ARP:#x}": "ARP", hex(ETH_TYPE_IPV6): "IPv6"}
_PROTOCOLS = {"1": "ICMP", "6": "TCP", "17": "UDP", "58": "ICMPv6", "132": "SCTP"}
_WORDS = {
    "ip": "IPv4", "ipv6": "IPv6", "arp": "ARP", "icmp": "ICMP", "icmp6": "ICMPv6", "tcp": "TCP over IPv4",
    "tcp6": "TCP over IPv6", "udp": "UDP over IPv4", "udp6": "UDP over IPv6", "sctp": "SCTP over IPv4",
    "sctp6": "SCTP over IPv6",
}  # fmt: skip
"""Protocols as ovs-ofctl shortens them."""
_ADDRESSES = {
    "dl_src": "from MAC",
    "dl_dst": "to MAC",
    "nw_src": "from",
    "nw_dst": "to",
    "ipv6_src": "from",
    "ipv6_dst": "to",
    "nd_target": "about",
    "arp_spa": "asked by",
    "arp_tpa": "asking for",
}
_REGISTER = re.compile(r"(reg\d+|metadata|ct_mark|in_port_oxm)(?:\[(?:(\d+)(?:\.\.(\d+))?)?\])?")


def table_word(number: int) -> str:
    table = BY_ID.get(number)
    return str(number) if table is None else table.name


def match_words(text: str, names: Names) -> str:
    """'network red-web, to MAC 02:...': of a match as `decode.describe` gives it."""
    said = [_field_words(*part.partition("=")[::2], names) for part in text.split(",") if part]
    return ", ".join(dict.fromkeys(filter(None, said))) or "anything"


def _field_words(name: str, value: str, names: Names) -> str:
    if name.startswith("reg") or name == "metadata":
        return _register_words(name, value, names)
    if name == "in_port":
        return f"in by {_port(value, names)}"
    plain = _FIELDS.get(name)
    return f"{name} {value}".strip() if plain is None else plain(value)


def _register_words(name: str, text: str, names: Names) -> str:
    value, _, mask = text.partition("/")
    number, wanted = _number(value), _number(mask) if mask else -1
    parts = [bits for bits in REGISTERS.values() if bits.field.name == name and bits.mask & wanted]
    if not parts:
        return f"{name} {text}"
    return ", ".join(_value_words(bits, (number & bits.mask) >> bits.offset, names) for bits in parts)


def _value_words(bits: Bits, value: int, names: Names) -> str:
    if bits is NETWORK:
        return f"network {names.networks.get(value, value)}"
    if bits is OUT_PORT:
        return f"out by {_port(str(value), names)}" if value else "no port chosen"
    if bits is ACL_SET:
        return f"ACLs {names.sets.get(value, hex(value))}"
    if bits is ROUTER:
        return f"router {names.routers.get(value, value)}"
    if bits.width == 1:
        return bits.name if value else f"not {bits.name}"
    return f"{bits.name} {value}"


_FLAGS = ("new", "est", "rel", "rpl", "inv", "trk")
_STATES = ("new", "established", "related", "reply", "invalid", "tracked")


def _state_words(text: str) -> str:
    """Of the masked form that OpenFlow has, and of that with signs that Open vSwitch prints."""
    value, _, mask = text.partition("/")
    if value[:1] in "+-":
        flags = sum(1 << bit for bit, name in enumerate(_FLAGS) if f"+{name}" in text)
        wanted = flags | sum(1 << bit for bit, name in enumerate(_FLAGS) if f"-{name}" in text)
    else:
        flags, wanted = _number(value), _number(mask)
    said = [
        word if flags >> bit & 1 else f"not {word}" for bit, word in enumerate(_STATES) if wanted >> bit & 1
    ]
    return " and ".join(said) or f"ct_state {text}"


def action_words(text: str, names: Names) -> str:
    """Of actions as `decode.describe` gives them: 'network red-web, then port_security'."""
    said = [_action_words(part, names) for part in split_actions(text)]
    return ", ".join(filter(None, said)) or "drop"


def split_actions(text: str) -> list[str]:
    """At the commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [part for part in (*parts, text[start:]) if part]


def _action_words(one: str, names: Names) -> str:
    kind, _, rest = one.partition(":")
    if kind == "goto_table":
        return f"then {table_word(_number(rest))}"
    if kind == "output":
        return "out by the port found" if rest.startswith("reg") else f"out by {_port(rest, names)}"
    if kind == "load" and (loaded := _load_words(rest, names)):
        return loaded
    for pattern, words in _CALLS:
        if found := pattern.match(one):
            return words(found, names)
    return one


def _load_words(text: str, names: Names) -> str:
    value, _, target = text.partition("->")
    found = _REGISTER.fullmatch(target)
    if found is None:
        return ""
    first = int(found[2] or 0)
    for bits in REGISTERS.values():
        if bits.field.name == found[1] and bits.offset == first:
            return _value_words(bits, _number(value), names)
    return ""


def _ct_words(found: re.Match[str], _: Names) -> str:
    inside = found[1]
    table = re.search(r"table=(\d+)", inside)
    if "commit" in split_actions(inside):
        return "remember the connection" + (" as ended" if "0x1->ct_mark" in inside else "")
    return f"conntrack in its zone, then {table_word(int(table[1]))}" if table else "conntrack in its zone"


def _controller_words(found: re.Match[str], _: Names) -> str:
    try:
        opcode = Opcode(int(found[1].split(".")[1], 16))
    except (ValueError, IndexError):
        return "tell the daemon"
    return f"tell the daemon ({opcode.name.lower().replace('_', ' ')})"


def _vlan_words(value: str) -> str:
    return f"VLAN {_number(value) & 0xFFF}" if _number(value) else "untagged"


def _always(words: str) -> Callable[[str], str]:
    return lambda _: words


def _after(words: str) -> Callable[[str], str]:
    return lambda value: f"{words} {value}"


_PORTS = ("tcp", "udp", "sctp", "ct_tp", "tp")
_FIELDS: dict[str, Callable[[str], str]] = {
    **{name: _after(words) for name, words in _ADDRESSES.items()},
    **{f"{kind}_dst": lambda value: f"to port {_decimal(value)}" for kind in _PORTS},
    **{f"{kind}_src": lambda value: f"from port {_decimal(value)}" for kind in _PORTS},
    **{name: _always(word) for name, word in _WORDS.items()},
    "dl_vlan": _after("VLAN"),
    "dl_type": lambda value: _ETHERNET.get(value, f"dl_type {value}"),
    "nw_proto": lambda value: _PROTOCOLS.get(value, f"protocol {value}"),
    "ct_nw_proto": lambda value: _PROTOCOLS.get(_decimal(value), f"protocol {value}"),
    "vlan_vid": _vlan_words,
    "vlan_tci": _vlan_words,
    "ct_state": _state_words,
    "ct_mark": lambda value: "connection ended" if value.startswith("0x1/") else "connection not ended",
    "ip_frag": lambda value: "a later fragment" if value == "0x2/0x2" else f"fragment {value}",
    "icmp_type": _after("type"),
    "icmpv6_type": _after("type"),
    "icmp_code": _after("code"),
    "icmpv6_code": _after("code"),
    "arp_op": lambda value: {"1": "question", "2": "answer"}.get(value, f"arp_op {value}"),
}
_CALLS = (
    (re.compile(r"resubmit\(,(\d+)\)$"), lambda found, _: f"look in {table_word(int(found[1]))}"),
    (re.compile(r"ct\((.*)\)$"), _ct_words),
    (re.compile(r"clone\((.*)\)$"), lambda found, names: f"a copy ({action_words(found[1], names)})"),
    (re.compile(r"learn\(.*"), lambda found, _: "learn where the sender is"),
    (re.compile(r"conjunction\(\d+,(\d+)/(\d+)\)$"), lambda found, _: f"condition {found[1]} of {found[2]}"),
    (re.compile(r"controller\(userdata=([\da-f.]+)\)$"), _controller_words),
    (re.compile(r"meter:(\d+)$"), lambda found, _: f"within limit {found[1]}"),
    (re.compile(r"push_vlan:.*"), lambda found, _: ""),
    (re.compile(r"set_field:(\w+)->vlan_vid$"), lambda found, _: f"tag {_number(found[1]) & 0xFFF}"),
    (re.compile(r"pop_vlan$"), lambda found, _: "tag off"),
    (re.compile(r"dec_ttl$"), lambda found, _: "TTL - 1"),
    (re.compile(r"set_field:(.*)->(\w+)$"), lambda found, _: f"set {found[2]} to {found[1]}"),
)


def _port(text: str, names: Names) -> str:
    number = _number(text)
    return names.ports.get(number, f"port {text}")


def _decimal(text: str) -> str:
    """Ports of connections come in hex."""
    value, slash, mask = text.partition("/")
    return f"{_number(value)}/{mask}" if slash else str(_number(value))


def _number(text: str) -> int:
    """Of a number as `decode` writes it; 0 of anything else."""
    try:
        return int(text.partition("/")[0], 0)
    except ValueError:
        return 0
