"""What the benches of policy are about: one bridge, ten networks, groups, and 200 rules in ten ACLs."""

from __future__ import annotations

from typing import Any

from vswitchctl.model.intent import Stored, allocate_tags, allocate_zones
from vswitchctl.model.topology import Topology

BRIDGE = "br0"
NAME = "estate"
NETWORKS, RULES = 10, 20
"""Networks, each of its own tenant with an ACL of its own; and rules of each ACL."""

GROUP = 20
"""Members of a group, of which each network has one; its other group is of as many subnets."""


def estate(ports: int) -> Topology:
    """`ports` endpoints, equally many in each network; each has the ACL of its network."""
    nodes: dict[str, Any] = {BRIDGE: {"kind": "bridge", "datapath": "netdev"}}
    links = []
    for number in range(ports):
        network, host = number % NETWORKS, number // NETWORKS
        name = f"n{number}"
        interface = {
            "network": f"net{network}",
            "ip": [f"10.{network}.{host // 250}.{host % 250 + 2}/16", f"fd00:{network}::{host + 2:x}/64"],
            "acls": [f"acl{network}"],
        }
        nodes[name] = {"kind": "namespace", "tenant": f"t{network}", "interfaces": {"eth0": interface}}
        links.append({"ends": [f"{name}:eth0", BRIDGE]})
    return Topology.model_validate(
        {
            "name": NAME,
            "tenants": {f"t{n}": {} for n in range(NETWORKS)},
            "networks": {
                f"net{n}": {"tenant": f"t{n}", "subnets": [f"10.{n}.0.0/16", f"fd00:{n}::/64"]}
                for n in range(NETWORKS)
            },
            "nodes": nodes,
            "links": links,
            "groups": {name: group for n in range(NETWORKS) for name, group in groups(n, ports)},
            "acls": {f"acl{n}": rules(n) for n in range(NETWORKS)},
        }
    )


def groups(network: int, ports: int) -> list[tuple[str, dict[str, Any]]]:
    """Endpoints, and subnets."""
    members = [f"n{number}:eth0" for number in range(network, ports, NETWORKS)][:GROUP]
    subnets = [f"192.168.{n}.0/28" for n in range(GROUP)]
    return [(f"servers{network}", {"members": members}), (f"offices{network}", {"addresses": subnets})]


def rules(network: int, port: int = 8000) -> list[dict[str, Any]]:
    """20 rules of all kinds. port: of the last one, which is the one that changes."""
    peers: list[Any] = [
        {"group": f"servers{network}"},
        {"group": f"offices{network}"},
        {"network": f"net{network}"},
        f"172.16.{network}.0/24",
        "any",
    ]
    found: list[dict[str, Any]] = []
    for number in range(RULES - 1):
        inward = number % 4 != 3
        found.append(
            {
                "direction": "in" if inward else "out",
                "action": ("allow", "allow", "deny", "allow", "reject")[number % 5],
                "protocol": ("tcp", "udp")[number % 2],
                "ports": [1000 + 10 * number, f"{2000 + 16 * number}-{2007 + 16 * number}"],
                "from" if inward else "to": peers[number % len(peers)],
            }
        )
    found.append(
        {"direction": "in", "action": "allow", "protocol": "tcp", "ports": [port, 9000], "from": peers[0]}
    )
    return found


def stored(topology: Topology, generation: int = 1) -> Stored:
    tags, zones = allocate_tags(topology, {}), allocate_zones(topology, {}, ())
    return Stored(topology, generation, tags, zones=zones)
