"""pydantic's errors in the words of the document: what is wrong, and what would be right."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from vswitchctl.model.limits import RateBothWays, Storm
from vswitchctl.model.policy import MOST_LINES, Log, Peer, Rule
from vswitchctl.model.topology import (
    MTU_MAX,
    MTU_MIN,
    UID_MAX,
    VLAN_MAX,
    VLAN_MIN,
    AllowedPair,
    Bridge,
    Expect,
    Group,
    Interface,
    Link,
    LinuxBridge,
    Namespace,
    Network,
    Qos,
    Route,
    Router,
    RouterRoute,
    Tenant,
    Topology,
    Tun,
    Uplink,
    Vm,
)
from vswitchctl.topology.nearest import one_of
from vswitchctl.topology.source import Path, shown

Words = tuple[str, str, Path]
"""Message, remedy, and what to add to the path."""

KINDS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "a boolean"),
    (str, "a text"),
    (int, "a number"),
    (float, "a number"),
    (Mapping, "a mapping"),
    (list, "a list"),
    (tuple, "a list"),
)

NODES: Final[Mapping[str, type[BaseModel]]] = {
    "bridge": Bridge,
    "linux-bridge": LinuxBridge,
    "namespace": Namespace,
    "tun": Tun,
    "vm": Vm,
    "uplink": Uplink,
}

_ENTRIES: Final[Mapping[str, type[BaseModel]]] = {
    "tenants": Tenant,
    "networks": Network,
    "links": Link,
    "qos": Qos,
    "groups": Group,
    "routers": Router,
}
"""What stands in a section, where it is of one kind."""

_RANGES: Final = {
    "vlan": f"a VLAN tag is {VLAN_MIN} to {VLAN_MAX}",
    "trunk": f"a VLAN tag is {VLAN_MIN} to {VLAN_MAX}",
    "user": f"a user id is a number, 0 to {UID_MAX}",
    "mtu": f"an MTU is {MTU_MIN} to {MTU_MAX}",
    "cost": "a cost is 1 to 65535",
    "mac_ageing": "the ageing time is 1 to 65535 seconds",
    "learn_limit": "a port may have 0 to 65535 learned MACs",
    "icmp_type": "an ICMP type is 0 to 255",
    "rate": f"a log has 1 to {MOST_LINES} lines a second",
}


def kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    return next((words for kind, words in KINDS if isinstance(value, kind)), type(value).__name__)


def in_words(details: ErrorDetails) -> Words:
    """One error of pydantic, in words."""
    speak = _SPEAKERS.get(details["type"])
    return speak(details) if speak else (details["msg"][:1].lower() + details["msg"][1:], "", ())


def _keys(loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that the mapping at pydantic's location may have."""
    model: type[BaseModel] = Topology
    match loc:
        case (str(section), _) if section in _ENTRIES:
            model = _ENTRIES[section]
        case (*_, "storm"):
            model = Storm
        case ("qos", _, "max_rate" | "burst" | "max_pps"):
            model = RateBothWays
        case ("routers", _, "routes", _):
            model = RouterRoute
        case ("nodes", _, *inside):
            model = _of_node(tuple(inside))
        case ("acls", _, _):
            model = Rule
        case ("acls", _, _, "from" | "to"):
            model = Peer
        case ("acls", _, _, "log"):
            model = Log
        case ("expect",):
            model = Expect
    return tuple(model.model_fields)


def _of_node(inside: tuple[str | int, ...]) -> type[BaseModel]:
    """What has its keys there, inside a node."""
    match inside:
        case (_, "interfaces", _):
            return Interface
        case (_, "interfaces", _, "allowed", _):
            return AllowedPair
        case (_, "routes", _):
            return Route
        case (str(kind),):
            return NODES.get(kind, Topology)
    return Topology


def _extra(details: ErrorDetails) -> Words:
    *above, key = details["loc"]
    return f"unknown key {shown(str(key))}", one_of(str(key), _keys(tuple(above)), "the keys here are"), ()


_EXAMPLES: Final = {
    "tenant": "tenant: red",
    "domain": "domain: db1",
    "network": "network: red-web",
    "networks": "networks: [red-web, red-db]",
    "interface": "interface: eth1",
    "ends": 'ends: ["web1:eth0", br-a]',
    "to": "to: 10.2.0.0/24",
    "via": "via: 10.1.0.1",
    "name": "name: my-network",
    "direction": "direction: in",
    "action": "action: allow",
}


def _missing(details: ErrorDetails) -> Words:
    key = details["loc"][-1]
    if isinstance(key, int):
        return "a link has two ends, one is missing", 'write both: ends: ["web1:eth0", br-a]', ()
    return f"key {shown(key)} is missing", f"add it, e.g. '{_EXAMPLES.get(key, f'{key}: ...')}'", ()


def _not_text(details: ErrorDetails) -> Words:
    value = details["input"]
    remedy = ""
    if isinstance(value, int | float):
        remedy = f'put it in quotes: "{value}"'
    elif isinstance(value, Mapping) and len(value) == 1 and "ends" in details["loc"]:
        key, inner = (shown(part, quoted=False) for part in next(iter(value.items())))
        remedy = f'for an interface write "{key}:{inner}", without a space after the colon'
    return f"a text is meant, this is {kind_of(value)}", remedy, ()


def _not_name(details: ErrorDetails) -> Words:
    return (
        f"{shown(details['input'])} is not a name",
        "a name has letters, digits, '_', '.', '-', and starts with a letter or digit",
        (),
    )


def _too_long(details: ErrorDetails) -> Words:
    limit = details.get("ctx", {}).get("max_length")
    value = details["input"]
    if isinstance(value, str):
        return f"{shown(value)} has {len(value)} characters", f"at most {limit} fit", ()
    return f"a link has two ends, here are {len(value)}", "write one link for each pair of ends", ()


def _empty(details: ErrorDetails) -> Words:
    if isinstance(details["loc"][-1], int):
        return "the text is empty", "write 'node' or 'node:interface'", ()
    return "the text is empty", f"write a value, or remove the key {shown(str(details['loc'][-1]))}", ()


def _not_integer(details: ErrorDetails) -> Words:
    value = details["input"]
    text = shown(value) if isinstance(value, str | int | float) else kind_of(value)
    return f"a whole number is meant, this is {text}", _range(details["loc"]), ()


def _not_boolean(details: ErrorDetails) -> Words:
    value = details["input"]
    text = shown(value) if isinstance(value, str | int | float) else kind_of(value)
    return f"true or false is meant, this is {text}", "write true or false, without quotes", ()


def _range(loc: tuple[str | int, ...]) -> str:
    return next((_RANGES[step] for step in reversed(loc) if isinstance(step, str) and step in _RANGES), "")


def _out_of_range(details: ErrorDetails) -> Words:
    return f"{details['input']} is out of range", _range(details["loc"]), ()


def _not_mapping(details: ErrorDetails) -> Words:
    loc = details["loc"]
    example = "write the keys below it, indented, or {key: value}"
    if loc[:1] == ("links",):
        example = 'write a link as {ends: ["web1:eth0", br-a]}'
    elif loc[-1:] == ("log",):
        example = "write true, or {rate: 10} for ten lines a second"
    elif isinstance(details["input"], list):
        example = "a mapping has names with a colon, not dashes: 'web1: {...}'"
    return f"a mapping is meant, this is {kind_of(details['input'])}", example, ()


def _not_list(details: ErrorDetails) -> Words:
    value = details["input"]
    remedy = (
        f"write [{shown(value, quoted=False)}]"
        if isinstance(value, str | int)
        else "write [one, two], or a line '- one' for each"
    )
    return f"a list is meant, this is {kind_of(value)}", remedy, ()


def _not_one_of(details: ErrorDetails) -> Words:
    allowed = tuple(
        str(details.get("ctx", {}).get("expected", "")).replace(" or ", ", ").replace("'", "").split(", ")
    )
    value = details["input"]
    return f"unknown {details['loc'][-1]} {shown(value)}", one_of(str(value), allowed, "it is one of"), ()


def _kind_unknown(details: ErrorDetails) -> Words:
    tag = details["input"].get("kind")
    if not isinstance(tag, str):
        return f"a kind is a text, this is {kind_of(tag)}", f"the kinds are {', '.join(NODES)}", ("kind",)
    return f"unknown kind {shown(tag)}", one_of(tag, tuple(NODES), "the kinds are"), ("kind",)


def _kind_missing(details: ErrorDetails) -> Words:
    first, *others = NODES
    return "key 'kind' is missing", f"add 'kind: {first}' (or {', '.join(others)})", ()


def _value(details: ErrorDetails) -> Words:
    value, why = details["input"], str(details.get("ctx", {}).get("error", details["msg"]))
    what, _, remedy = why.partition("; ")
    if isinstance(value, Mapping):
        return what, remedy, ()
    if not remedy:
        what, _, example = why.partition(", e.g. ")
        remedy = f"write it like {example.split(': ')[0]}" if example else ""
        what = what.split(": ")[0]
        corrected = _corrected(value, details["loc"])
        if corrected and what.startswith("not a subnet"):
            what = "a subnet with host bits set"
        remedy = corrected or remedy
    return f"{shown(value)}: {what}", remedy, ()


def _corrected(value: Any, loc: tuple[str | int, ...]) -> str:
    """What was probably meant by an address or a subnet that is not one."""
    try:
        if "subnets" in loc or loc[-1] == "to":
            return f"write {ipaddress.ip_network(value, strict=False)}"
        if "allowed" in loc:
            return f"write {ipaddress.ip_network(value, strict=False)} or {ipaddress.ip_interface(value).ip}"
        if "ip" in loc:
            length = 64 if ":" in value else 24
            return f"write {ipaddress.ip_address(value)}/{length}, with the prefix length of your subnet"
        if loc[-1] == "via" or "gateway" in loc:
            return f"write {ipaddress.ip_interface(value).ip}"
    except ValueError:
        return ""
    return ""


_SPEAKERS: Final[Mapping[str, Callable[[ErrorDetails], Words]]] = {
    "extra_forbidden": _extra,
    "missing": _missing,
    "string_type": _not_text,
    "string_pattern_mismatch": _not_name,
    "string_too_long": _too_long,
    "too_long": _too_long,
    "string_too_short": _empty,
    "bool_type": _not_boolean,
    "int_type": _not_integer,
    "int_parsing": _not_integer,
    "int_parsing_size": _not_integer,
    "int_from_float": _not_integer,
    "finite_number": _not_integer,
    "greater_than_equal": _out_of_range,
    "less_than_equal": _out_of_range,
    "dict_type": _not_mapping,
    "model_type": _not_mapping,
    "model_attributes_type": _not_mapping,
    "tuple_type": _not_list,
    "literal_error": _not_one_of,
    "union_tag_invalid": _kind_unknown,
    "union_tag_not_found": _kind_missing,
    "value_error": _value,
}
