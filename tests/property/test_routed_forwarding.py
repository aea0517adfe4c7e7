"""Random routers on paper: a packet gets where a plain reading of the file says, once, and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_forwarding import arp_request, solicitation
from tests.simulation import BROADCAST, Fabric, Frame
from tests.strategies import topologies
from vswitchctl.model.topology import LinuxBridge, Topology, Uplink
from vswitchctl.topology.graph import attachments
from vswitchctl.topology.reachability import routed_pairs
from vswitchctl.topology.validate import validate

SLOW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROUTED = topologies(routers=True, max_endpoints=8, max_bridges=4)
OUTSIDE = (
    "203.0.113.9",
    "10.99.0.1",
    "2001:db8:9::9",
    "198.51.100.1",
    "255.255.255.255",
    "224.0.0.5",
    "ff02::5",
)
TTL = 17
ASKED = "0e:00:00:00:01:01"
"""The MAC that next hops say they have, where the file does not."""


def number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def packet(src_mac: str, dst_mac: str, src: str, dst: str, ttl: int = TTL, **more: int) -> Frame:
    version = ip_address(dst).version
    names = ("ipv4_src", "ipv4_dst") if version == 4 else ("ipv6_src", "ipv6_dst")
    fields = {"eth_type": 0x0800 if version == 4 else 0x86DD, "nw_ttl": ttl, "ip_proto": 17, **more}
    fields |= {names[0]: int(ip_address(src)), names[1]: int(ip_address(dst))}
    return Frame(src_mac, dst_mac, fields=tuple(fields.items()))


def router_with(topology: Topology, network: str) -> str | None:
    return next((name for name, router in topology.routers.items() if network in router.networks), None)


def gatewayed(topology: Topology, network: str) -> list[str]:
    """The subnets of a network that have a gateway."""
    spec = topology.networks[network]
    return [s for s in spec.subnets if any(ip_address(g) in ip_network(s) for g in spec.gateway)]


def owner(topology: Topology, network: str, address: str) -> str | None:
    """The linked endpoint with the address, or the uplink behind which a route has its next hop."""
    linked = attachments(topology, network)
    for end in linked:
        interface = topology.interface(end)
        if interface and any(ip_interface(text).ip == ip_address(address) for text in interface.ip):
            return end
    hops = {
        r.via for router in topology.routers.values() if network in router.networks for r in router.routes
    }
    if address in hops:
        return next((end for end in linked if isinstance(topology.nodes.get(end), Uplink)), None)
    return None


def read(topology: Topology, network: str, dst: str) -> tuple[str, str] | None:
    """(receiver, its network) of a packet that was sent to the network's gateway: the file, read plainly."""
    name, to = router_with(topology, network), ip_address(dst)
    if name is None or not any(ip_network(s).version == to.version for s in gatewayed(topology, network)):
        return None
    if to.is_multicast or to.is_link_local or dst == "255.255.255.255":
        return None
    router = topology.routers[name]
    ways = [(ip_network(s), dst, other) for other in router.networks for s in gatewayed(topology, other)]
    for route in router.routes:
        homes = (
            n
            for n in router.networks
            for s in gatewayed(topology, n)
            if ip_address(route.via) in ip_network(s)
        )
        ways.append((ip_network(route.to), route.via, next(homes)))
    fitting = [way for way in ways if to in way[0]]
    if not fitting or any(dst in topology.networks[n].gateway for n in router.networks):
        return None
    _, hop, onto = max(fitting, key=lambda way: way[0].prefixlen)
    receiver = owner(topology, onto, hop)
    return None if receiver is None else (receiver, onto)


def senders(topology: Topology) -> Iterator[tuple[str, str, str, str]]:
    """(end, network, own address, gateway of its version) of every endpoint that can ask its gateway."""
    for network, spec in topology.networks.items():
        if router_with(topology, network) is None:
            continue
        for end in attachments(topology, network):
            interface = topology.interface(end)
            for text in interface.ip if interface else ():
                own = ip_interface(text).ip
                for gateway in spec.gateway:
                    if ip_address(gateway).version == own.version:
                        yield end, network, str(own), gateway


def asked(topology: Topology) -> Iterator[tuple[str, str, str]]:
    """(uplink, network, address) of next hops that are asked for their MAC."""
    for router in topology.routers.values():
        for route in router.routes:
            for network in router.networks:
                end = owner(topology, network, route.via)
                if route.mac is None and end and isinstance(topology.nodes.get(end), Uplink):
                    yield end, network, route.via


def answers(fabric: Fabric, topology: Topology) -> None:
    """Every next hop says who it is, as it would where the daemon asks."""
    for uplink, network, address in asked(topology):
        node = topology.nodes[uplink]
        vid = node.trunk.get(network) if isinstance(node, Uplink) else None
        told = {
            "eth_type": 0x0806,
            "arp_op": 2,
            "arp_sha": number(ASKED),
            "arp_spa": int(ip_address(address)),
        }
        if ip_address(address).version == 6:
            told = {"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 136, "icmpv6_code": 0}
            told |= {"ipv6_nd_target": int(ip_address(address)), "ipv6_nd_tll": number(ASKED)}
        frame = Frame(ASKED, topology.gateway_mac(network), vid, tuple(told.items()))
        assert fabric.deliver(uplink, frame) == [], "it ends at the gateway"


def warmed_up(topology: Topology) -> Fabric:
    """Linux bridges have heard everybody, gateways included: what they have not heard they flood."""
    fabric = Fabric(topology)
    answers(fabric, topology)
    for network in topology.networks:
        for end in attachments(topology, network):
            if topology.interface(end) is not None:
                fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
    for end, _, own, gateway in senders(topology):
        question = arp_request if ip_address(own).version == 4 else solicitation
        fabric.send(end, question(topology.endpoint_mac(end), own, gateway))
    return fabric


@SLOW
@given(ROUTED)
def test_the_random_topologies_are_valid(topology: Topology) -> None:
    assert [f for f in validate(topology) if f.severity == "error"] == []


@SLOW
@given(ROUTED)
def test_a_packet_gets_where_the_file_says_with_one_hop_less(topology: Topology) -> None:
    fabric = warmed_up(topology)
    addresses = {str(ip_interface(t).ip) for i in topology.endpoints().values() for t in i.ip}
    gateways = {gateway for network in topology.networks.values() for gateway in network.gateway}
    for end, network, own, _ in senders(topology):
        mac, gateway_mac = topology.endpoint_mac(end), topology.gateway_mac(network)
        for dst in sorted(addresses | gateways | set(OUTSIDE)):
            if ip_address(dst).version != ip_address(own).version:
                continue
            got = fabric.deliver(end, packet(mac, gateway_mac, own, dst))
            expected = read(topology, network, dst)
            if expected is None:
                assert got == [], (end, dst)
                continue
            ((receiver, frame),) = got
            assert receiver == expected[0]
            assert frame.value("nw_ttl") == TTL - 1
            assert frame.src == topology.gateway_mac(expected[1])
            if topology.interface(receiver) is not None:
                assert frame.dst == topology.endpoint_mac(receiver)
            else:
                assert frame.dst == ASKED or frame.dst.startswith("0e:00:00:00:00")
            assert fabric.send(end, packet(mac, gateway_mac, own, dst, ttl=1)) == {}


@SLOW
@given(ROUTED)
def test_pairs_that_are_said_to_be_routed_are_in_both_directions(topology: Topology) -> None:
    for (a, b), families in routed_pairs(topology).items():
        for family, (asks, answers) in product(families, ((a, b), (b, a))):
            network = topology.endpoints()[asks].network
            dst = next(
                str(ip)
                for ip in (ip_interface(text).ip for text in topology.endpoints()[answers].ip)
                if ip.version == family
            )
            found = read(topology, network, dst)
            assert found is not None and found[0] == answers


@SLOW
@given(ROUTED)
def test_gateways_say_who_they_are_and_answer_pings_on_the_first_bridge(topology: Topology) -> None:
    fabric = warmed_up(topology)
    for end, network, own, gateway in senders(topology):
        mac, gateway_mac, version = (
            topology.endpoint_mac(end),
            topology.gateway_mac(network),
            ip_address(own).version,
        )
        question = arp_request if version == 4 else solicitation
        if isinstance(topology.nodes[attachments(topology, network)[end]], LinuxBridge):
            continue  # it floods the question to its other hosts, too
        ((asker, answer),) = fabric.deliver(end, question(mac, own, gateway))
        assert (asker, answer.src, answer.dst) == (end, gateway_mac, mac)
        assert answer.value("arp_sha" if version == 4 else "ipv6_nd_tll") == number(gateway_mac)
        kind, proto, reply = ("icmpv4", 1, (8, 0)) if version == 4 else ("icmpv6", 58, (128, 129))
        echo = {"ip_proto": proto, f"{kind}_type": reply[0], f"{kind}_code": 0}
        ((asker, answer),) = fabric.deliver(end, packet(mac, gateway_mac, own, gateway, ttl=1, **echo))
        assert (asker, answer.src, answer.dst) == (end, gateway_mac, mac)
        assert answer.value(f"{kind}_type") == reply[1] and answer.value("nw_ttl") == 64
        assert answer.value(f"ipv{version}_src") == int(ip_address(gateway))
        assert answer.value(f"ipv{version}_dst") == int(ip_address(own))


@SLOW
@given(ROUTED, st.data())
def test_whatever_is_sent_stays_among_the_networks_of_one_router(
    topology: Topology, data: st.DataObject
) -> None:
    fabric = Fabric(topology)
    ends = [(end, network) for network in topology.networks for end in attachments(topology, network)]
    if not ends:
        return
    macs = [topology.gateway_mac(network) for network in topology.networks]
    macs += [topology.endpoint_mac(end) for end in topology.endpoints()] + [BROADCAST, "0a:00:00:00:00:01"]
    addresses = [str(ip_interface(t).ip) for i in topology.endpoints().values() for t in i.ip]
    addresses += [g for network in topology.networks.values() for g in network.gateway] + list(OUTSIDE)
    for _ in range(15):
        end, network = data.draw(st.sampled_from(ends))
        dst = data.draw(st.sampled_from(addresses))
        src = data.draw(
            st.sampled_from([a for a in addresses if ip_address(a).version == ip_address(dst).version])
        )
        frame = packet(data.draw(st.sampled_from(macs)), data.draw(st.sampled_from(macs)), src, dst)
        node = topology.nodes.get(end)
        vid = node.trunk.get(network) if isinstance(node, Uplink) else None
        frame = Frame(frame.src, frame.dst, vid, frame.fields)
        name = router_with(topology, network)
        joined = {network} if name is None else set(topology.routers[name].networks)
        allowed = {other for member in joined for other in attachments(topology, member)}
        # A Linux bridge may flood the frame beside what the gateway makes of it; neither comes twice.
        got = Counter(fabric.deliver(end, frame))
        assert {receiver for receiver, _ in got} <= allowed
        assert all(copies == 1 for copies in got.values())
