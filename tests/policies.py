"""Random policies on one bridge: two tenants of the same addresses, all kinds of rules, groups and peers."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.reference import BROADCAST, Packet
from vswitchctl.model.topology import Topology

SUBNETS = ["10.1.0.0/24", "fd00:1::/64"]
PORTS: list[Any] = [1, 53, 80, 443, 8080, "80-90", "1-1023", "8000-8100", "443-8081", "0-65535", "1024-65535"]
ADDRESSES = ["10.1.0.0/24", "10.1.0.0/30", "10.1.0.2", "10.1.0.4/31", "fd00:1::/64", "fd00:1::2", "0.0.0.0/0"]
NUMBERS = {"red": 4, "blue": 3}


def policy(random: Random) -> dict[str, Any]:
    """`acls` and `groups` of a document. ACLs 'red0'.. name peers of red, 'blue0'.. of blue."""
    groups = {
        f"{tenant}-{kind}": {kind: values}
        for tenant in NUMBERS
        for kind, values in (
            ("members", random.sample(ends(tenant), random.randint(1, 3))),
            ("addresses", random.sample(ADDRESSES, random.randint(1, 3))),
        )
    }
    acls = {}
    for tenant in NUMBERS:
        for number in range(3):
            stateful = number > 0 or random.random() < 0.5
            acls[f"{tenant}{number}"] = [
                rule(random, tenant, stateful) for _ in range(random.randint(1, 5 if stateful else 2))
            ]
    return {"groups": groups, "acls": acls}


def ends(tenant: str) -> list[str]:
    return [f"{tenant}{number}:eth0" for number in range(NUMBERS[tenant])]


def rule(random: Random, tenant: str, stateful: bool) -> dict[str, Any]:
    direction = random.choice(["in", "in", "out"])
    protocol = random.choice(["any", "tcp", "udp", "udp", "icmp", "icmpv6", 47, 17])
    found = {
        "direction": direction,
        "action": random.choice(["allow", "allow", "allow", "deny", "reject"]),
        "protocol": protocol,
    }
    if protocol in ("tcp", "udp") and random.random() < 0.8:
        found["ports"] = random.sample(PORTS, random.randint(1, 3))
    if protocol in ("icmp", "icmpv6") and random.random() < 0.5:
        found["icmp_type"] = random.choice([0, 8, 128, 129])
    peers: list[Any] = [
        "any",
        {"network": f"{tenant}-net"},
        {"group": f"{tenant}-members"},
        {"group": f"{tenant}-addresses"},
        {"interface": random.choice(ends(tenant))},
        random.choice([a for a in ADDRESSES if fits(a, protocol)]),
    ]
    found["from" if direction == "in" else "to"] = random.choice(peers)
    if not stateful:
        found["stateful"] = False
    if random.random() < 0.3:
        found["log"] = True
    return found


def fits(address: str, protocol: object) -> bool:
    return protocol not in ("icmp", "icmpv6") or (":" in address) == (protocol == "icmpv6")


def document(random: Random) -> Topology:
    """Seven endpoints on one bridge. The last of each tenant declares no address."""
    nodes: dict[str, Any] = {"br0": {"kind": "bridge"}}
    links = []
    for tenant, count in NUMBERS.items():
        for number in range(count):
            interface: dict[str, Any] = {"network": f"{tenant}-net", "acls": chosen(random, tenant)}
            if number < count - 1:
                interface["ip"] = [f"10.1.0.{number + 1}/24", f"fd00:1::{number + 1}/64"]
            nodes[f"{tenant}{number}"] = {
                "kind": "namespace",
                "tenant": tenant,
                "interfaces": {"eth0": interface},
            }
            links.append({"ends": [f"{tenant}{number}:eth0", "br0"]})
    data = {
        "name": "random",
        "tenants": {tenant: {} for tenant in NUMBERS},
        "networks": {f"{tenant}-net": {"tenant": tenant, "subnets": SUBNETS} for tenant in NUMBERS},
        "nodes": nodes,
        "links": links,
    }
    return Topology.model_validate({**data, **policy(random)})


def chosen(random: Random, tenant: str) -> list[str]:
    names = [f"{tenant}{number}" for number in range(3)]
    return sorted(random.sample(names, random.choice([0, 1, 1, 2, 3])))


def address(end: str, version: int) -> str:
    number = int(end.partition(":")[0][-1]) + 1
    return f"10.1.0.{number}" if version == 4 else f"fd00:1::{number}"


def packet(random: Random, topology: Topology) -> tuple[str, Packet]:
    """A packet that opens something, or tries to; sometimes to everybody, sometimes to a stranger's MAC."""
    endpoints = list(topology.endpoints())
    src, dst = random.sample(endpoints, 2)
    src_mac, dst_mac = topology.endpoint_mac(src), topology.endpoint_mac(dst)
    if random.random() < 0.04:
        own = {"arp": True, "src": address(src, 4)} if random.random() < 0.5 else {}
        return src, Packet(src_mac, random.choice([dst_mac, BROADCAST]), **own)
    version = random.choice([4, 6])
    addresses = address(src, version), address(dst, version)
    kind = random.choice([6, 17, 17, 47, 1])
    if kind == 1:
        identity = random.randint(1, 4)
        number, request = (1, 8) if version == 4 else (58, 128)
        kinds = [request] * 5 + [0 if version == 4 else 129]
        return src, Packet(src_mac, dst_mac, number, *addresses, identity, identity, random.choice(kinds))
    if kind == 47:
        return src, Packet(src_mac, dst_mac, 47, *addresses)
    port = random.choice([1, 53, 80, 85, 443, 444, 8000, 8080, 8101, 65535])
    everybody = BROADCAST if kind == 17 and random.random() < 0.1 else dst_mac
    if kind == 17:
        return src, Packet(src_mac, everybody, 17, *addresses, random.randint(2000, 2002), port)
    return src, Packet(src_mac, dst_mac, 6, *addresses, random.randint(3000, 60000), port, step="syn")
