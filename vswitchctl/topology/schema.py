"""The JSON Schema of the topology file (draft 2020-12), for editors: completion, hints, checks while typing.

The model says it all but what its validators know; this adds their patterns and examples. The loader stays
stricter: what needs the whole document no schema can say.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final

from vswitchctl.model.policy import PROTOCOLS
from vswitchctl.model.topology import Topology

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_OCTETS = r"(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}"
_IPV6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_ADDRESS: Final = {"type": "string", "pattern": f"^({_OCTETS}|{_IPV6})$"}
_PREFIXED: Final = {
    "type": "string",
    "pattern": rf"^({_OCTETS}/(3[0-2]|[12]?\d)|{_IPV6}/(12[0-8]|1[01]\d|\d?\d))$",
}
_RATE: Final = {
    "type": "string",
    "pattern": r"^\s*\d+(\.\d+)?\s*([kKmMgGtT]?[bB][iI][tT])\s*$",
    "examples": ["100mbit", "1.5gbit"],
}
_MAC: Final = {
    "type": "string",
    "pattern": "^[0-9A-Fa-f][02468aceACE](:[0-9A-Fa-f]{2}){5}$",
    "examples": ["02:00:00:00:00:01"],
}
_NAME: Final = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$", "maxLength": 63}
_CIDR: Final = {"anyOf": [_ADDRESS, _PREFIXED]}
_PORT: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 65535},
        {"type": "string", "pattern": r"^\d{1,5}(-\d{1,5})?$"},
    ]
}
_PROTOCOL: Final = {
    "anyOf": [{"enum": list(PROTOCOLS)}, {"type": "integer", "minimum": 0, "maximum": 255}],
    "examples": ["tcp", 47],
}
_PEER: Final = {
    "anyOf": [{"const": "any"}, _ADDRESS, _PREFIXED, {"$ref": "#/$defs/Peer"}],
    "examples": [
        "any",
        "10.1.0.0/24",
        {"network": "red-web"},
        {"group": "clients"},
        {"interface": "web1:eth0"},
    ],
}


def _list_of(item: dict[str, Any], *examples: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, **({"examples": list(examples)} if examples else {})}


_KEYS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("Network", "subnets"): _list_of(_PREFIXED, ["10.1.0.0/24"], ["10.1.0.0/24", "fd00:1::/64"]),
    ("Interface", "ip"): {
        "anyOf": [_PREFIXED, _list_of(_PREFIXED)],
        "examples": ["10.1.0.11/24", ["10.1.0.11/24", "fd00:1::11/64"]],
    },
    ("Interface", "mac"): _MAC,
    ("AllowedPair", "mac"): _MAC,
    ("AllowedPair", "ip"): {
        "anyOf": [_ADDRESS, _PREFIXED],
        "examples": ["10.1.0.100", "10.1.0.0/28"],
    },
    ("Interface", "acls"): {"anyOf": [_NAME, _list_of(_NAME)], "examples": ["web", ["web", "closed"]]},
    ("Group", "addresses"): _list_of(_CIDR, ["10.9.0.0/16", "192.0.2.7"]),
    ("Rule", "ports"): _list_of(_PORT, [80, 443, "8000-8100"]),
    ("Rule", "protocol"): _PROTOCOL,
    ("Rule", "from"): _PEER,
    ("Rule", "to"): _PEER,
    ("Rule", "log"): {
        "anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/Log"}],
        "examples": [True, {"rate": 10}],
    },
    ("Peer", "cidr"): {"anyOf": [_CIDR, {"type": "null"}]},
    ("Route", "to"): {"anyOf": [{"const": "default"}, _PREFIXED], "examples": ["default", "10.2.0.0/24"]},
    ("Route", "via"): {**_ADDRESS, "examples": ["10.1.0.1"]},
    ("Qos", "max_rate"): _RATE,
    ("Qos", "burst"): _RATE,
    ("Qos", "min_rate"): _RATE,
}
"""What the model's validators check, as patterns: (definition, key) -> schema."""

_EXAMPLES: Final[dict[tuple[str, str], list[Any]]] = {
    ("Link", "ends"): [["web1:eth0", "br-a"], ["br-a", "br-b"]],
    ("Expect", "reachable"): [[["web1:eth0", "web2:eth0"]]],
    ("Uplink", "trunk"): [{"red-web": 101}],
    ("Uplink", "interface"): ["eth1"],
}


def json_schema() -> dict[str, Any]:
    """The schema, as plain data."""
    schema = Topology.model_json_schema()
    definitions = schema["$defs"]
    _names_checked(schema)
    for (definition, key), checked in _KEYS.items():
        _replace(definitions[definition]["properties"], key, checked)
    for (definition, key), examples in _EXAMPLES.items():
        definitions[definition]["properties"][key]["examples"] = examples
    for key, section in schema["properties"].items():
        if section.get("type") in ("object", "array"):
            section["type"] = [section["type"], "null"]  # nothing behind the colon: an empty section
        if key == "tenants":
            section["additionalProperties"] = {"anyOf": [section["additionalProperties"], {"type": "null"}]}
    for described in (schema, *definitions.values()):
        described["description"] = re.sub(r"\s+", " ", described["description"])
    return {"$schema": DIALECT, **schema, "title": "vswitchctl topology"}


def json_schema_text() -> str:
    """What `python -m vswitchctl.topology.schema > docs/topology.schema.json` writes."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _replace(properties: dict[str, Any], key: str, checked: dict[str, Any]) -> None:
    """A key's schema by a stricter one, keeping its title, description and default."""
    old = properties[key]
    kept = {name: value for name, value in old.items() if name in ("title", "description", "default")}
    optional = "default" in old and old["default"] is None
    properties[key] = {**kept, **({"anyOf": [checked, {"type": "null"}]} if optional else checked)}


def _names_checked(schema: Any) -> None:
    """pydantic lets a mapping have keys beside its pattern of names; here every key must be a name."""
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict | list):
            _names_checked(value)
    if isinstance(schema, dict) and isinstance(schema.get("patternProperties"), dict):
        ((pattern, item),) = schema.pop("patternProperties").items()
        schema["propertyNames"] = {**schema.get("propertyNames", {}), "pattern": pattern}
        schema["additionalProperties"] = item


if __name__ == "__main__":
    sys.stdout.write(json_schema_text())
