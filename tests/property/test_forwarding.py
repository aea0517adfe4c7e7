"""Any topology compiles, no frame runs in a circle, and exactly the pairs that should talk do: on paper."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface
from itertools import permutations

import networkx as nx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation import BROADCAST, Fabric, Frame
from tests.strategies import topologies
from vswitchctl.model.topology import Bridge, Topology, Uplink
from vswitchctl.topology.graph import attachments, segment

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def members(topology: Topology) -> dict[str, list[frozenset[str]]]:
    """Network -> the sets of ends that links join."""
    found: dict[str, list[frozenset[str]]] = {}
    for network in topology.networks:
        attached = attachments(topology, network)
        graph = segment(topology, network)
        found[network] = [
            frozenset(end for end, switch in attached.items() if switch in component)
            for component in nx.connected_components(graph)
        ]
    return found


def endpoints_of(topology: Topology, network: str) -> list[str]:
    attached = attachments(topology, network)
    return [end for end in attached if not isinstance(topology.nodes[end.partition(":")[0]], Uplink)]


@SLOW
@given(topologies())
def test_a_broadcast_reaches_every_member_once_and_nobody_else(topology: Topology) -> None:
    fabric = Fabric(topology)
    for network, groups in members(topology).items():
        for end in endpoints_of(topology, network):
            group = next(group for group in groups if end in group)
            got = fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
            assert got == {other: 1 for other in group if other != end}


@SLOW
@given(topologies())
def test_a_known_mac_is_reached_once_and_by_its_network_alone(topology: Topology) -> None:
    fabric = Fabric(topology)
    for network, groups in members(topology).items():
        ends = endpoints_of(topology, network)
        for end in ends:  # a Linux bridge floods what it has not heard yet, so let it hear everyone
            fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
        for a, b in permutations(ends, 2):
            together = any(a in group and b in group for group in groups)
            got = fabric.send(a, Frame(topology.endpoint_mac(a), topology.endpoint_mac(b)))
            if together:
                assert got == {b: 1}
            else:
                assert b not in got


@SLOW
@given(topologies(), st.data())
def test_unknown_sources_and_destinations_never_loop_nor_leave_their_network(
    topology: Topology, data: st.DataObject
) -> None:
    fabric = Fabric(topology)
    ends = [(end, net) for net in topology.networks for end in attachments(topology, net)]
    ends = [(end, net) for end, net in ends if not isinstance(topology.nodes[end.partition(":")[0]], Uplink)]
    if not ends:
        return
    strangers = [f"0a:00:00:00:00:{n:02x}" for n in range(3)]
    known = [topology.endpoint_mac(end) for end, _ in ends]
    for _ in range(12):
        end, network = data.draw(st.sampled_from(ends))
        frame = Frame(
            data.draw(st.sampled_from(strangers + known)),
            data.draw(st.sampled_from([*strangers, *known, BROADCAST])),
        )
        allowed = set(attachments(topology, network))
        got = fabric.send(end, frame)
        assert got.keys() <= allowed
        assert all(copies == 1 for copies in got.values())


def arp_request(mac: str, spa: str, tpa: str) -> Frame:
    fields = {"eth_type": 0x0806, "arp_op": 1, "arp_sha": int(mac.replace(":", ""), 16)}
    fields |= {"arp_spa": int(IPv4Address(spa)), "arp_tpa": int(IPv4Address(tpa))}
    return Frame(mac, BROADCAST, fields=tuple(fields.items()))


def solicitation(mac: str, source: str, target: str) -> Frame:
    fields = {"eth_type": 0x86DD, "ip_proto": 58, "icmpv6_type": 135, "icmpv6_code": 0}
    fields |= {"ipv6_src": int(IPv6Address(source)), "ipv6_nd_target": int(IPv6Address(target))}
    return Frame(
        mac, "33:33:ff:00:00:00", fields=(*fields.items(), ("ipv6_nd_sll", int(mac.replace(":", ""), 16)))
    )


def addresses_of(topology: Topology, end: str) -> list[tuple[str, int]]:
    interface = topology.interface(end)
    assert interface is not None
    return [(str(ip.ip), ip.version) for ip in map(ip_interface, interface.ip)]


@SLOW
@given(topologies())
def test_who_asks_for_a_declared_address_is_answered_at_once_and_nobody_else_hears(
    topology: Topology,
) -> None:
    fabric = Fabric(topology)
    for network, groups in members(topology).items():
        attached = attachments(topology, network)
        for a, b in permutations(endpoints_of(topology, network), 2):
            bridge = attached[a]
            if not isinstance(topology.nodes[bridge], Bridge):
                continue
            together = any(a in group and b in group for group in groups)
            for own, version in addresses_of(topology, a)[:1]:
                for other in [ip for ip, v in addresses_of(topology, b) if v == version]:
                    mac = topology.endpoint_mac(a)
                    ask = arp_request if version == 4 else solicitation
                    got = fabric.switches[bridge].receive(ask(mac, own, other), fabric.port[bridge, a])
                    if not together:
                        assert all(port != fabric.port[bridge, a] for port, _ in got)
                        continue
                    ((port, answer),) = got
                    assert port == fabric.port[bridge, a]
                    assert (answer.src, answer.dst) == (topology.endpoint_mac(b), mac)
                    told = "arp_sha" if version == 4 else "ipv6_nd_tll"
                    assert answer.value(told) == int(topology.endpoint_mac(b).replace(":", ""), 16)


@SLOW
@given(topologies())
def test_a_checked_endpoint_reaches_nobody_by_another_s_name(topology: Topology) -> None:
    """Its own MAC with a stranger's address, a stranger's MAC with its own: both end at the first bridge."""
    fabric = Fabric(topology)
    for network in topology.networks:
        attached = attachments(topology, network)
        for end in endpoints_of(topology, network):
            interface = topology.interface(end)
            assert interface is not None
            if not isinstance(topology.nodes[attached[end]], Bridge):
                continue
            mac = topology.endpoint_mac(end)
            stranger = Frame("0a:00:00:00:00:01", BROADCAST)
            foreign = Frame(mac, BROADCAST, fields=(("eth_type", 0x0800), ("ipv4_src", 0xC6336401)))
            offer = Frame(mac, BROADCAST, fields=(("eth_type", 0x0800), ("ip_proto", 17), ("udp_src", 67)))
            everyone = fabric.send(end, Frame(mac, BROADCAST))
            for frame, checked in (
                (stranger, interface.port_security),
                (foreign, interface.port_security and bool(interface.ip)),
                (offer, interface.port_security and not interface.dhcp_server),
            ):
                if checked:
                    assert fabric.send(end, frame) == {}
                elif frame is not offer:
                    assert fabric.send(end, frame) == everyone
