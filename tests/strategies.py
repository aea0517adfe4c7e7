"""Random valid topologies: bridges with loops, tenants of the same addresses, all kinds of nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from vswitchctl.model.topology import Topology

TENANTS = ("red", "blue", "green")
SUBNETS = ("10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64", "192.168.7.0/24")
"""Each tenant takes from the same list, so tenants overlap and one tenant's networks do not."""

TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co", "Zl", "Zp"), exclude_characters="\ufeff"),
    max_size=20,
)
"""Descriptions: any printable text, since they must survive every format."""


@dataclass
class _Draft:
    """The document under construction, and the bridges that endpoints of a network can be linked to."""

    draw: DrawFn
    data: dict[str, Any]
    homes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def networks(self) -> list[str]:
        return list(self.data["networks"])

    def maybe(self, entity: dict[str, Any], key: str, values: SearchStrategy[Any]) -> None:
        if self.draw(st.booleans()):
            entity[key] = self.draw(values)

    def link(self, a: str, b: str, **keys: Any) -> None:
        ends = self.draw(st.permutations([a, b]))
        self.data["links"].append({"ends": ends, **keys})


@st.composite
def topologies(
    draw: DrawFn,
    max_bridges: int = 6,
    max_endpoints: int = 12,
    max_linux_bridges: int = 2,
    max_uplinks: int = 1,
    acls: bool = False,
    routers: bool = False,
) -> Topology:
    """A valid topology in which every network is whole: no errors, no partitions.

    Open vSwitch bridges form a connected graph, often with loops. Linux bridges hang on one or two of them.
    Endpoints hang on bridges, or on Linux bridges of their network.
    """
    name = draw(st.from_regex(r"[a-z][a-z0-9-]{0,7}", fullmatch=True))
    draft = _Draft(draw, {"name": name, "tenants": {}, "networks": {}, "nodes": {}, "links": []})
    draft.maybe(draft.data, "description", TEXT)
    _networks(draft)
    bridges = _bridges(draft, max_bridges)
    draft.homes = {network: list(bridges) for network in draft.networks}
    _linux_bridges(draft, bridges, draw(st.integers(0, max_linux_bridges)))
    _uplinks(draft, bridges, draw(st.integers(0, max_uplinks)))
    _endpoints(draft, draw(st.integers(0, max_endpoints)))
    _profiles(draft)
    if acls:
        _acls(draft)
    if routers:
        _routers(draft)
    else:
        _expect(draft)
    draft.data["links"] = draw(st.permutations(draft.data["links"]))
    return Topology.model_validate(draft.data)


def _networks(draft: _Draft) -> None:
    tags = draft.draw(st.lists(st.integers(1, 4094), min_size=12, max_size=12, unique=True))
    for tenant in TENANTS[: draft.draw(st.integers(1, len(TENANTS)))]:
        draft.data["tenants"][tenant] = {}
        draft.maybe(draft.data["tenants"][tenant], "description", TEXT)
        for number in range(draft.draw(st.integers(1, 2))):
            network: dict[str, Any] = {
                "tenant": tenant,
                "subnets": list(SUBNETS[number * 2 : number * 2 + 2]),
            }
            draft.maybe(network, "vlan", st.just(tags.pop()))
            draft.maybe(network, "mtu", st.integers(1280, 1600))
            draft.data["networks"][f"{tenant}-{number}"] = network


def _bridges(draft: _Draft, most: int) -> list[str]:
    bridges = [f"br-{number}" for number in range(draft.draw(st.integers(1, most)))]
    datapath = draft.draw(st.sampled_from(["auto", "netdev", "system"]))
    for number, bridge in enumerate(bridges):
        draft.data["nodes"][bridge] = {"kind": "bridge", "datapath": datapath}
        draft.maybe(draft.data["nodes"][bridge], "description", TEXT)
        if number:
            _trunk(draft, bridges[draft.draw(st.integers(0, number - 1))], bridge)
    joined = {frozenset(link["ends"]) for link in draft.data["links"]}
    for number, a in enumerate(bridges):
        for b in bridges[:number]:
            if frozenset((a, b)) not in joined and draft.draw(st.integers(0, 3)) == 0:
                _trunk(draft, a, b)
    return bridges


def _trunk(draft: _Draft, a: str, b: str) -> None:
    keys: dict[str, Any] = {}
    draft.maybe(keys, "kind", st.sampled_from(["auto", "veth", "patch"]))
    draft.maybe(keys, "cost", st.integers(1, 100))
    draft.link(a, b, **keys)


def _linux_bridges(draft: _Draft, bridges: list[str], count: int) -> None:
    for number in range(count):
        name, network = f"lan{number}", draft.draw(st.sampled_from(draft.networks))
        external = draft.draw(st.booleans())
        draft.data["nodes"][name] = {"kind": "linux-bridge", "network": network, "external": external}
        draft.homes[network].append(name)
        for bridge in draft.draw(st.lists(st.sampled_from(bridges), min_size=1, max_size=2, unique=True)):
            draft.link(name, bridge)


def _uplinks(draft: _Draft, bridges: list[str], count: int) -> None:
    for number in range(count):
        uplink: dict[str, Any] = {"kind": "uplink", "interface": f"eth{number}"}
        if draft.draw(st.booleans()):
            uplink["network"] = draft.draw(st.sampled_from(draft.networks))
        else:
            trunked = draft.draw(st.lists(st.sampled_from(draft.networks), min_size=1, unique=True))
            uplink["trunk"] = {network: 100 + tag for tag, network in enumerate(trunked)}
        draft.data["nodes"][f"wan{number}"] = uplink
        draft.link(f"wan{number}", draft.draw(st.sampled_from(bridges)))


def _endpoints(draft: _Draft, count: int) -> None:
    """Several namespaces and virtual machines; one may have several interfaces, in networks of its tenant."""
    namespaces: dict[str, list[str]] = {}
    for number in range(count):
        network = draft.draw(st.sampled_from(draft.networks))
        tenant = draft.data["networks"][network]["tenant"]
        own = namespaces.setdefault(tenant, [])
        if not own or draft.draw(st.integers(0, 3)):
            own.append(f"{tenant}{number}")
            draft.data["nodes"][own[-1]] = {"kind": "namespace", "tenant": tenant, "interfaces": {}}
            kind = draft.draw(st.sampled_from(["namespace", "namespace", "tun", "vm"]))
            if kind == "vm":
                draft.data["nodes"][own[-1]] |= {"kind": "vm", "domain": f"d {number} é"}
            elif kind == "tun":
                draft.data["nodes"][own[-1]] |= {"kind": "tun", "ip": ["10.77.0.1/24"], "device": "tun7"}
                draft.maybe(draft.data["nodes"][own[-1]], "user", st.integers(0, 2**32 - 2))
        node = draft.draw(st.sampled_from(own))
        guest = draft.data["nodes"][node]["kind"] == "vm"
        interfaces = draft.data["nodes"][node]["interfaces"]
        name = f"52:54:00:12:35:{number:02x}" if guest else f"eth{len(interfaces)}"
        interfaces[name] = _interface(draft, network, number)
        homes = draft.homes[network]
        if guest:
            interfaces[name] = {k: v for k, v in interfaces[name].items() if k not in ("mac", "mtu")}
        draft.link(f"{node}:{name}", draft.draw(st.sampled_from(homes)))


def _interface(draft: _Draft, network: str, number: int) -> dict[str, Any]:
    """Addresses by number: unique inside a network, the same in different tenants.

    Whoever has an address has one of the network's first subnet, so all of these reach each other.
    """
    subnets = [ip_network(text) for text in draft.data["networks"][network]["subnets"]]
    chosen = subnets[: draft.draw(st.integers(0, 2))]
    interface: dict[str, Any] = {"network": network}
    addresses = [f"{subnet[number % (subnet.num_addresses - 3) + 1]}/{subnet.prefixlen}" for subnet in chosen]
    if addresses:
        interface["ip"] = addresses
    draft.maybe(interface, "mac", st.just(f"52:54:00:12:34:{number:02x}"))
    draft.maybe(interface, "mtu", st.just(1280))
    draft.maybe(interface, "description", TEXT)
    _port_security(draft, interface, number)
    return interface


def _port_security(draft: _Draft, interface: dict[str, Any], number: int) -> None:
    for key in ("dhcp_server", "router"):
        if draft.draw(st.integers(0, 3)) == 0:
            interface[key] = True
    if draft.draw(st.integers(0, 3)) == 0:
        interface["port_security"] = False
    elif draft.draw(st.integers(0, 2)) == 0:
        pairs = [{"mac": f"52:54:00:99:00:{number:02x}"}, {"ip": "10.77.0.0/16"}, {"ip": f"10.77.0.{number}"}]
        interface["allowed"] = draft.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=3))


STORMS = st.dictionaries(
    st.sampled_from(["broadcast", "multicast", "unknown_unicast"]), st.sampled_from(["100pps", 7])
)


def _profiles(draft: _Draft) -> None:
    """Profiles and storms, on some interfaces that no Linux bridge hides, on uplinks and on networks."""
    for name in draft.draw(st.lists(st.sampled_from(["gold", "silver", "sure"]), unique=True)):
        rate = f"{draft.draw(st.integers(10, 1000))}mbit"
        profile = draft.draw(
            st.sampled_from(
                [{"max_rate": rate}, {"max_rate": {"in": rate}}, {"max_pps": {"out": 5}}, {"dscp": "ef"}]
            )
        )
        if profile == {"max_rate": rate}:
            draft.maybe(profile, "burst", st.just("1mbit"))
            draft.maybe(profile, "max_pps", st.just("2kpps"))
        if name == "sure":
            profile["min_rate"] = "500kbit"
        draft.data.setdefault("qos", {})[name] = profile
    named = [name for name in draft.data.get("qos", {}) if name != "sure"]
    hidden = _hidden(draft)
    for network in draft.data["networks"].values() if not hidden else ():
        draft.maybe(network, "storm", STORMS)
    for node, attributes in draft.data["nodes"].items():
        if attributes["kind"] == "uplink":
            draft.maybe(attributes, "storm", STORMS)
        for name, interface in attributes.get("interfaces", {}).items():
            if f"{node}:{name}" not in hidden:
                draft.maybe(interface, "storm", STORMS)
                if named:
                    draft.maybe(interface, "qos", st.sampled_from(named))


def _hidden(draft: _Draft) -> set[str]:
    return {
        end
        for link in draft.data["links"]
        for end in link["ends"]
        if any(e[:3] == "lan" for e in link["ends"])
    }


def _acls(draft: _Draft) -> None:
    """A group and an ACL for each tenant, on some of its interfaces that no Linux bridge hides."""
    hidden = _hidden(draft)
    for node, attributes in draft.data["nodes"].items():
        tenant = attributes.get("tenant")
        for name, interface in attributes.get("interfaces", {}).items():
            end = f"{node}:{name}"
            if end in hidden or not draft.draw(st.booleans()):
                continue
            draft.data.setdefault("groups", {}).setdefault(f"all-{tenant}", {"members": []})["members"] += [
                end
            ]
            if tenant not in draft.data.setdefault("acls", {}):
                draft.data["acls"][tenant] = draft.draw(st.lists(RULES, min_size=1, max_size=4))
                draft.data["acls"][tenant].append(
                    {"direction": "out", "action": "allow", "to": {"group": f"all-{tenant}"}}
                )
            interface["acls"] = [tenant]


RULES = st.fixed_dictionaries(
    {"direction": st.just("in"), "action": st.sampled_from(["allow", "deny", "reject"])},
    optional={
        "protocol": st.sampled_from(["tcp", "udp"]),
        "from": st.sampled_from(["any", "10.1.0.0/24", {"cidr": "fd00:1::/64"}]),
        "log": st.one_of(st.booleans(), st.fixed_dictionaries({"rate": st.integers(1, 1000)})),
        "description": TEXT,
    },
)


def _routers(draft: _Draft) -> None:
    """Gateways for some subnets, and routers inside tenants and between two, whose subnets do not overlap."""
    by_mac = _known_by_mac(draft)
    free = [n for n in draft.draw(st.lists(st.sampled_from(draft.networks), unique=True)) if n not in by_mac]
    tenants = {network: draft.data["networks"][network]["tenant"] for network in free}
    while free:
        first = free.pop()
        number = first[-1]
        others = [n for n in free if tenants[n] == tenants[first] or n[-1] != number]
        members = [
            first,
            *draft.draw(st.lists(st.sampled_from(others), max_size=1) if others else st.just([])),
        ]
        for network in members:
            _gateways(draft, network)
        free = [network for network in free if network not in members]
        router: dict[str, Any] = {"tenant": tenants[first], "networks": members}
        connects = sorted({tenants[network] for network in members} - {tenants[first]})
        if connects:
            router["connects"] = connects
        draft.maybe(router, "description", TEXT)
        routes = _routes(draft, members)
        if routes:
            router["routes"] = routes
        draft.data.setdefault("routers", {})[f"r-{first}"] = router
    for node in draft.data["nodes"].values():
        if node["kind"] == "namespace":
            draft.maybe(node, "default_route", st.booleans())


def _known_by_mac(draft: _Draft) -> set[str]:
    """Networks of endpoints without an address that rules name: such networks are never routed."""
    rules = [rule for rules in draft.data.get("acls", {}).values() for rule in rules]
    peers = [peer for rule in rules for key in ("from", "to") if isinstance(peer := rule.get(key), dict)]
    groups = draft.data.get("groups", {})
    named = {peer["interface"] for peer in peers if "interface" in peer}
    named |= {end for peer in peers for end in groups.get(peer.get("group"), {}).get("members", [])}
    return {
        interface["network"]
        for name, node in draft.data["nodes"].items()
        for key, interface in node.get("interfaces", {}).items()
        if f"{name}:{key}" in named and not interface.get("ip")
    }


def _gateways(draft: _Draft, network: str) -> None:
    attributes = draft.data["networks"][network]
    subnets = draft.draw(st.lists(st.sampled_from(attributes["subnets"]), min_size=1, unique=True))
    attributes["gateway"] = [str(ip_network(subnet)[254]) for subnet in subnets]


def _routes(draft: _Draft, members: list[str]) -> list[dict[str, str]]:
    """By an endpoint that is declared, and by a router behind an uplink."""
    routes = {}
    for network in members:
        subnets = [ip_network(text) for text in draft.data["networks"][network]["subnets"]]
        gateways = draft.data["networks"][network]["gateway"]
        subnet = next(net for net in subnets if ip_address(gateways[0]) in net)
        to = draft.draw(st.sampled_from(["default", "203.0.113.0/24", "10.0.0.0/8"]))
        if subnet.version == 6:
            to = draft.draw(st.sampled_from(["::/0", "2001:db8:9::/48"]))
        inside = [
            address.partition("/")[0]
            for node in draft.data["nodes"].values()
            for interface in node.get("interfaces", {}).values()
            for address in interface.get("ip", [])
            if interface["network"] == network and ip_address(address.partition("/")[0]) in subnet
        ]
        if inside and draft.draw(st.booleans()):
            routes[to] = {"to": to, "via": draft.draw(st.sampled_from(inside))}
        elif any(_carries(node, network) for node in draft.data["nodes"].values()) and draft.draw(
            st.booleans()
        ):
            routes[to] = {"to": to, "via": str(subnet[200])}
            if draft.draw(st.booleans()):
                routes[to]["mac"] = f"0e:00:00:00:00:{len(routes):02x}"
    return list(routes.values())


def _carries(node: dict[str, Any], network: str) -> bool:
    return node["kind"] == "uplink" and (node.get("network") == network or network in node.get("trunk", {}))


def _expect(draft: _Draft) -> None:
    """What follows from the rules: endpoints with a common network, and an address, reach each other."""
    groups: dict[str, list[str]] = {}
    for node, attributes in draft.data["nodes"].items():
        for name, interface in attributes.get("interfaces", {}).items():
            if "ip" in interface:
                groups.setdefault(interface["network"], []).append(f"{node}:{name}")
    if groups and draft.draw(st.booleans()):
        draft.data["expect"] = {"reachable": list(groups.values())}
