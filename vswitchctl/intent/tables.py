"""Which attribute of the model stands in which column of the intent database: declarations only.

To add a kind of entity: its table in `vswitchctl.ovsschema`, one `Table` here, and a `Held` in the table that
holds it. A unit test compares the three (model, this mapping, schema), so nothing is forgotten silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from vswitchctl.model.limits import BothWays
from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import (
    LEARN_LIMIT,
    MAC_AGEING,
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
    link_name,
)

Value = Any
"""A column's value as the ovs library gives it: an atom, a list (a set or an optional) or a dict (a map)."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How an attribute of the model stands in a column."""

    encode: Callable[[Any], Value]
    decode: Callable[[Value], Any]


PLAIN = Codec(lambda value: value, lambda column: column)
OPTIONAL = Codec(lambda value: [] if value is None else [value], lambda column: column[0] if column else None)
LIST = Codec(
    lambda value: dict(enumerate(value)), lambda column: tuple(column[index] for index in sorted(column))
)
"""OVSDB has sets but no lists (RFC 7047 section 3.1), so a list is a map from the index."""
MAP = Codec(dict, dict)
TEXT = Codec(str, lambda column: column)
TEXTS = Codec(lambda value: dict(enumerate(map(str, value))), LIST.decode)
"""A number or a text, which the model tells apart."""
PEER = Codec(lambda value: dict(value.named), dict)
OPTIONAL_TEXT = Codec(
    lambda value: [] if value is None else [str(value)], lambda column: column[0] if column else None
)
STORM = Codec(lambda value: {key: rate for key, rate in value if rate is not None}, dict)
RATE = Codec(
    lambda value: [] if value is None else [value.rate],
    lambda column: {"rate": column[0]} if column else None,
)


def unless(default: Any) -> Codec:
    """The default where nothing stands: so it is in rows written before the column was there."""
    return Codec(
        lambda value: [] if value == default else [value], lambda column: column[0] if column else default
    )


UNLESS_FALSE = unless(True)
LEARNED = unless(LEARN_LIMIT)


def _ways(value: BothWays | None) -> Value:
    """'100mbit', or 'in=10mbit out=20mbit' where directions differ: rows of older versions are texts, too."""
    if value is None:
        return []
    given = {key: one for key, one in value if one is not None}
    same = len(given) == 2 and len(set(given.values())) == 1
    return [str(given["in"]) if same else " ".join(f"{key}={one}" for key, one in given.items())]


def _from_ways(column: Value) -> Any:
    if not column or "=" not in column[0]:
        return column[0] if column else None
    return dict(re.findall(r"(in|out)=(.+?)(?= out=|$)", column[0]))


BOTH_WAYS = Codec(_ways, _from_ways)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A kind of entity.

    model: its class; None where the model has no object for it.
    columns: attributes of the model; their columns have the same name, but for those in `renamed`.
    stored: columns that only the database has; of these `name`, `position` (among siblings) and `source`
        ('file:line') are filled wherever they are declared.
    identity: the column that tells siblings apart; '' where only their order does.
    entity: the entity's path, made of {name} and {parent}.
    named_by: gives the name where the model keeps none.
    constant: attributes that the table itself implies.
    bare: the column, or held attribute, whose value stands in the model in place of an object.
    """

    name: str
    model: type[BaseModel] | None
    columns: Mapping[str, Codec]
    stored: tuple[str, ...] = ("name", "position", "source")
    identity: str = "name"
    entity: str = ""
    named_by: Callable[[Any], str] | None = None
    constant: Mapping[str, str] = field(default_factory=dict)
    bare: str = ""
    holds: tuple[Held, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def every_column(self) -> tuple[str, ...]:
        """The columns of a row, without those that hold parts."""
        return (*map(self.column, self.columns), *self.stored)

    def column(self, attribute: str) -> str:
        return self.renamed.get(attribute, attribute)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a row holds: parts in `column`, by strong references; the model has them in `attribute`."""

    attribute: str
    form: Literal["named", "ordered", "single"]
    table: Table
    column: str


_ABOUT = {"description": PLAIN}

TENANT = Table("Tenant", Tenant, _ABOUT, entity="tenants/{name}")
NETWORK = Table(
    "Network",
    Network,
    {
        "tenant": PLAIN,
        "subnets": LIST,
        "gateway": LIST,
        "vlan": OPTIONAL,
        "mtu": PLAIN,
        "mac_ageing": unless(MAC_AGEING),
        "storm": STORM,
        **_ABOUT,
    },
    stored=("name", "position", "source", "tag"),
    entity="networks/{name}",
)
BRIDGE = Table(
    "Bridge", Bridge, {"datapath": PLAIN, **_ABOUT}, entity="nodes/{name}", constant={"kind": "bridge"}
)
LINUX_BRIDGE = Table(
    "Linux_Bridge",
    LinuxBridge,
    {"network": PLAIN, "external": PLAIN, "learn_limit": LEARNED, **_ABOUT},
    entity="nodes/{name}",
    constant={"kind": "linux-bridge"},
)
ALLOWED_PAIR = Table(
    "Allowed_Pair",
    AllowedPair,
    {"mac": OPTIONAL, "ip": OPTIONAL, **_ABOUT},
    stored=("position",),
    identity="",
)
INTERFACE = Table(
    "Interface",
    Interface,
    {
        "network": PLAIN,
        "ip": LIST,
        "mac": OPTIONAL,
        "mtu": OPTIONAL,
        "port_security": UNLESS_FALSE,
        "dhcp_server": PLAIN,
        "router": PLAIN,
        "acls": LIST,
        "qos": OPTIONAL,
        "storm": STORM,
        "bypass": PLAIN,
        "learn_limit": LEARNED,
        **_ABOUT,
    },
    stored=("name", "position", "source", "zone", "meter"),
    entity="interfaces/{parent}:{name}",
    holds=(Held("allowed", "ordered", ALLOWED_PAIR, "allowed"),),
)
ROUTE = Table("Route", Route, {"to": PLAIN, "via": PLAIN, **_ABOUT}, stored=("position",), identity="to")
NAMESPACE = Table(
    "Namespace",
    Namespace,
    {"tenant": PLAIN, "default_route": UNLESS_FALSE, **_ABOUT},
    entity="nodes/{name}",
    constant={"kind": "namespace"},
    holds=(
        Held("interfaces", "named", INTERFACE, "interfaces"),
        Held("routes", "ordered", ROUTE, "routes"),
    ),
)
TUN = Table(
    "TUN",
    Tun,
    {
        "tenant": PLAIN,
        "device": PLAIN,
        "ip": LIST,
        "mtu": PLAIN,
        "user": OPTIONAL,
        "default_route": UNLESS_FALSE,
        **_ABOUT,
    },
    entity="nodes/{name}",
    constant={"kind": "tun"},
    holds=(
        Held("interfaces", "named", INTERFACE, "interfaces"),
        Held("routes", "ordered", ROUTE, "routes"),
    ),
)
VM = Table(
    "VM",
    Vm,
    {"tenant": PLAIN, "domain": PLAIN, **_ABOUT},
    entity="nodes/{name}",
    constant={"kind": "vm"},
    holds=(Held("interfaces", "named", INTERFACE, "interfaces"),),
)
UPLINK = Table(
    "Uplink",
    Uplink,
    {
        "interface": PLAIN,
        "network": OPTIONAL,
        "trunk": MAP,
        "learn_limit": LEARNED,
        "storm": STORM,
        **_ABOUT,
    },
    stored=("name", "position", "source", "meter"),
    entity="nodes/{name}",
    constant={"kind": "uplink"},
)
LINK = Table(
    "Link",
    Link,
    {"ends": LIST, "kind": PLAIN, "cost": PLAIN, **_ABOUT},
    entity="links/{name}",
    named_by=link_name,
)
QOS = Table(
    "QoS",
    Qos,
    {
        "max_rate": BOTH_WAYS,
        "burst": BOTH_WAYS,
        "min_rate": OPTIONAL,
        "max_pps": BOTH_WAYS,
        "dscp": OPTIONAL_TEXT,
        "mechanism": unless("meter"),
        **_ABOUT,
    },
    entity="qos/{name}",
)
GROUP = Table("Group", Group, {"members": LIST, "addresses": LIST, **_ABOUT}, entity="groups/{name}")
ACL_RULE = Table(
    "ACL_Rule",
    Rule,
    {
        "direction": PLAIN,
        "action": PLAIN,
        "protocol": TEXT,
        "ports": TEXTS,
        "icmp_type": OPTIONAL,
        "from": PEER,
        "to": PEER,
        "stateful": PLAIN,
        "log": RATE,
        **_ABOUT,
    },
    stored=("position",),
    identity="",
    # ovs' library takes no word of Python for a column.
    renamed={"from": "peer_from", "to": "peer_to", "log": "log_rate"},
)
ACL = Table(
    "ACL", None, {}, entity="acls/{name}", bare="rules", holds=(Held("rules", "ordered", ACL_RULE, "rules"),)
)
ROUTER_ROUTE = Table(
    "Router_Route",
    RouterRoute,
    {"to": PLAIN, "via": PLAIN, "mac": OPTIONAL, **_ABOUT},
    stored=("position",),
    identity="to",
)
ROUTER = Table(
    "Router",
    Router,
    {"tenant": PLAIN, "networks": LIST, "connects": LIST, **_ABOUT},
    entity="routers/{name}",
    holds=(Held("routes", "ordered", ROUTER_ROUTE, "routes"),),
)
EXPECT_GROUP = Table(
    "Expect_Group", None, {"members": LIST}, stored=("position",), identity="", bare="members"
)
EXPECT = Table(
    "Expect",
    Expect,
    _ABOUT,
    stored=("source",),
    identity="",
    entity="expect",
    holds=(Held("reachable", "ordered", EXPECT_GROUP, "reachable"),),
)
CLAIM = Table("Claim", None, {}, stored=("host", "device", "topology", "entity"), identity="device")
CLAIMS = "claims"
"""The column of Topology that holds Claim rows: derived from the model, so no `Held` names it."""

TOPOLOGY = Table(
    "Topology",
    Topology,
    {"name": PLAIN, **_ABOUT},
    stored=("source", "generation", "revision"),
    entity="topology",
    holds=(
        Held("tenants", "named", TENANT, "tenants"),
        Held("networks", "named", NETWORK, "networks"),
        Held("nodes", "named", BRIDGE, "bridges"),
        Held("nodes", "named", LINUX_BRIDGE, "linux_bridges"),
        Held("nodes", "named", NAMESPACE, "namespaces"),
        Held("nodes", "named", TUN, "tuns"),
        Held("nodes", "named", VM, "vms"),
        Held("nodes", "named", UPLINK, "uplinks"),
        Held("links", "ordered", LINK, "links"),
        Held("qos", "named", QOS, "qos"),
        Held("groups", "named", GROUP, "groups"),
        Held("acls", "named", ACL, "acls"),
        Held("routers", "named", ROUTER, "routers"),
        Held("expect", "single", EXPECT, "expect"),
    ),
)
HOST = "Host"
APPLIED = "Applied"
STATUS_TABLES = frozenset((HOST, APPLIED))
STATUS_COLUMNS = frozenset(("applied",))
"""Tables, and columns of Topology, that say what became of the intent; they are not part of it."""
