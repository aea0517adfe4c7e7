"""What a topology's policy means, packet by packet: a plain interpreter, with no flow in it.

It is held against Open vSwitch in tests/dataplane/test_policy.py. It knows nothing of tables, registers or
marks: it walks the rules in the order of the file, and remembers connections as a person would.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network

from vswitchctl.model.policy import Peer, Rule
from vswitchctl.model.topology import Topology, split_end

BROADCAST = "ff:ff:ff:ff:ff:ff"
ECHO = {8: 0, 128: 129}
"""Echo request -> echo reply, of ICMP and ICMPv6."""
ANSWERS = set(ECHO.values())
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}


@dataclass(frozen=True)
class Packet:
    """protocol: IP protocol number, None for a frame that is not IP. a, b: ports, or the echo's id twice.

    step: '' or, of TCP, 'syn', 'synack', 'ack'. arp: the frame is ARP.
    """

    src_mac: str
    dst_mac: str
    protocol: int | None = None
    src: str = ""
    dst: str = ""
    a: int = 0
    b: int = 0
    icmp_type: int = 0
    step: str = ""
    arp: bool = False

    @property
    def version(self) -> int:
        return ip_address(self.src).version

    @property
    def key(self) -> tuple[object, ...]:
        """The connection as its sender names it."""
        return (self.protocol, self.src, self.a, self.dst, self.b)

    @property
    def answered_key(self) -> tuple[object, ...]:
        """The connection as the other side names it."""
        return (self.protocol, self.dst, self.b, self.src, self.a)


@dataclass
class Connection:
    """open: its rule was not revoked. answered: the other side was heard."""

    open: bool = True
    answered: bool = False


@dataclass
class Reference:
    """connections: endpoint -> connection as its opener names it."""

    topology: Topology
    connections: dict[str, dict[tuple[object, ...], Connection]] = field(default_factory=dict)

    def changed(self, topology: Topology) -> None:
        """The policy is another one from now on; connections stay what they are."""
        self.topology = topology

    def send(self, end: str, packet: Packet) -> set[str]:
        """Who gets a packet that `end` sends."""
        if self._spoofed(end, packet) or not self._passes(end, packet, "out"):
            return set()
        return {other for other, sent in self._onward(end, packet) if self._passes(other, sent, "in")}

    def unsettled(self, end: str, packet: Packet) -> bool:
        """Whether a connection that nobody has answered yet would be denied now.

        To conntrack such a packet may be new or established, by protocol, datapath and number of packets: it
        is denied in any case, but only with an established one the answer to those before it is denied too.

        Nor is there telling of a packet to its sender's own address: it passes one zone twice, and to
        conntrack it is its own answer.
        """
        if self._spoofed(end, packet):
            return False
        if packet.src and packet.src == packet.dst:
            return True
        sides = [(end, packet, "out"), *((*onward, "in") for onward in self._onward(end, packet))]
        for side, sent, direction in sides:
            known = self.connections.get(side, {}).get(sent.key)
            if known is not None and not known.answered and not sent.arp and sent.protocol is not None:
                rules = self._rules(side, direction)
                rule = next((rule for rule in rules if self._matches(rule, sent, direction)), None)
                if rules and (rule is None or rule.action != "allow"):
                    return True
        return False

    def _spoofed(self, end: str, packet: Packet) -> bool:
        """Whether it says it is another's, by its MAC or, where addresses are declared, by its address."""
        own = {ip_interface(text).ip for text in self.topology.endpoints()[end].ip}
        wrong = bool(own and packet.src) and ip_address(packet.src) not in own
        return wrong or packet.src_mac != self.topology.endpoint_mac(end)

    def _onward(self, end: str, packet: Packet) -> list[tuple[str, Packet]]:
        """Who the packet is for, and as what it gets there: routed, an answer of the gateway, or as it is."""
        network = self.topology.endpoints()[end].network
        router = next((r for r in self.topology.routers.values() if network in r.networks), None)
        if router is None or packet.dst_mac != self.topology.gateway_mac(network):
            return [(other, packet) for other in self._addressed(end, packet)]
        if not packet.dst or packet.arp:
            return []
        if any(packet.dst in self.topology.networks[name].gateway for name in router.networks):
            return [(end, answer(packet))] if packet.protocol and packet.icmp_type in ECHO else []
        return [
            (other, self._routed(packet, interface.network, other))
            for other, interface in self.topology.endpoints().items()
            if interface.network in router.networks
            and any(ip_interface(text).ip == ip_address(packet.dst) for text in interface.ip)
        ]

    def _routed(self, packet: Packet, network: str, other: str) -> Packet:
        macs = {"src_mac": self.topology.gateway_mac(network), "dst_mac": self.topology.endpoint_mac(other)}
        return replace(packet, **macs)

    def _addressed(self, end: str, packet: Packet) -> list[str]:
        endpoints = self.topology.endpoints()
        return [
            other
            for other, interface in endpoints.items()
            if other != end
            and interface.network == endpoints[end].network
            and packet.dst_mac in (BROADCAST, self.topology.endpoint_mac(other))
        ]

    def _rules(self, end: str, direction: str) -> list[Rule]:
        acls = self.topology.endpoints()[end].acls
        return [rule for name in acls for rule in self.topology.acls[name] if rule.direction == direction]

    def _passes(self, end: str, packet: Packet, direction: str) -> bool:
        if not self.topology.endpoints()[end].acls or packet.arp:
            return True
        if packet.protocol == 58 and 133 <= packet.icmp_type <= 136:
            return True
        rules = self._rules(end, direction)
        if packet.protocol is None:
            return not rules
        answered = self._answered(end, packet)
        if answered is not None:
            answered.answered = True
        rule = next((rule for rule in rules if self._matches(rule, packet, direction)), None)
        first = next((r for r in rules if not r.stateful and self._matches(r, packet, direction)), None)
        if first is not None:
            assert first is rule, "stateless rules stand before the others"
            return first.action == "allow"
        return self._tracked(end, packet, not rules or (rule is not None and rule.action == "allow"), rules)

    def _answered(self, end: str, packet: Packet) -> Connection | None:
        if packet.protocol in (1, 58) and packet.icmp_type not in ANSWERS:
            return None
        return self.connections.setdefault(end, {}).get(packet.answered_key)

    def _tracked(self, end: str, packet: Packet, allowed: bool, rules: list[Rule]) -> bool:
        answered = self._answered(end, packet)
        if answered is not None:
            return answered.open
        known = self.connections.setdefault(end, {})
        if packet.step == "synack" or (packet.icmp_type in ANSWERS and packet.protocol in (1, 58)):
            return not rules  # an answer to nothing opens nothing
        if packet.key in known:
            known[packet.key].open = allowed
        elif allowed:
            known[packet.key] = Connection()
        return allowed

    def _matches(self, rule: Rule, packet: Packet, direction: str) -> bool:
        protocol = NUMBERS.get(str(rule.protocol), rule.protocol)
        if protocol not in ("any", packet.protocol):
            return False
        if {"icmp": 4, "icmpv6": 6}.get(str(rule.protocol), packet.version) != packet.version:
            return False
        if rule.icmp_type is not None and rule.icmp_type != packet.icmp_type:
            return False
        if rule.ports and not any(_within(packet.b, port) for port in rule.ports):
            return False
        address, mac = (packet.src, packet.src_mac) if direction == "in" else (packet.dst, packet.dst_mac)
        return self._is(rule.peer, address, mac)

    def _is(self, peer: Peer, address: str, mac: str) -> bool:
        if not peer.named:
            return True
        ends = [peer.interface] if peer.interface else []
        subnets = [peer.cidr] if peer.cidr else []
        if peer.network:
            subnets += self.topology.networks[peer.network].subnets
        if peer.group:
            ends += self.topology.groups[peer.group].members
            subnets += self.topology.groups[peer.group].addresses
        return any(ip_address(address) in ip_network(subnet) for subnet in subnets) or any(
            self._is_end(end, address, mac) for end in ends
        )

    def _is_end(self, end: str, address: str, mac: str) -> bool:
        interface = self.topology.interface(end)
        assert interface is not None, split_end(end)
        if interface.ip:
            return any(ip_interface(text).ip == ip_address(address) for text in interface.ip)
        return self.topology.endpoint_mac(end) == mac


def _within(number: int, port: int | str) -> bool:
    first, _, last = str(port).partition("-")
    return int(first) <= number <= int(last or first)


def answer(packet: Packet) -> Packet:
    """What the receiver of a packet would send back."""
    back = replace(
        packet, src_mac=packet.dst_mac, dst_mac=packet.src_mac, src=packet.dst, dst=packet.src, a=packet.b,
        b=packet.a,
    )  # fmt: skip
    if packet.protocol in (1, 58):
        return replace(back, icmp_type=ECHO.get(packet.icmp_type, packet.icmp_type))
    return replace(back, step="synack" if packet.step == "syn" else packet.step)
