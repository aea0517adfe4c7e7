"""Which packet a trace is about: who sends it where it enters, as header fields. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from vswitchctl.errors import NotFound, UserError
from vswitchctl.model.intent import Stored
from vswitchctl.model.state import Owner
from vswitchctl.model.topology import Bridge, LinuxBridge, Topology, link_name, split_end
from vswitchctl.model.trace import TraceRequest
from vswitchctl.service.names import HostNames
from vswitchctl.topology.graph import forwarding, pair
from vswitchctl.topology.nearest import one_of
from vswitchctl.topology.routing import is_routed, router_of

UNKNOWN_TYPE = "0x88b5"
"""An Ethernet type for experiments, IEEE 802: nobody's flows know it."""

TTL = "64"
"""As Linux sends (net.ipv4.ip_default_ttl)."""


@dataclass(frozen=True)
class Place:
    """An end of a topology, and where what it sends enters a bridge of ours. via: the Linux bridge before."""

    stored: Stored
    end: str
    bridge: str
    port: int
    via: str = ""

    @property
    def topology(self) -> Topology:
        return self.stored.topology

    @property
    def owner(self) -> Owner:
        return Owner(self.topology.name, f"interfaces/{self.end}")

    @property
    def mac(self) -> str:
        return self.topology.endpoint_mac(self.end)

    @property
    def network(self) -> str:
        interface = self.topology.interface(self.end)
        return "" if interface is None else interface.network

    def addresses(self, version: int) -> list[str]:
        interface = self.topology.interface(self.end)
        texts = () if interface is None else interface.ip
        found = [str(ip_interface(text).ip) for text in texts]
        return [text for text in found if ip_address(text).version == version]


@dataclass(frozen=True)
class Packet:
    """Header fields by their names, protocols' words with ''; and what conntrack makes of them."""

    fields: dict[str, str]

    def turned(self, source: Place, to_mac: str) -> Packet:
        """The answer, as `source` gives it to the next hop of this MAC."""
        swap = {"src": "dst", "dst": "src"}
        fields = {
            f"{name[:-3]}{swap[name[-3:]]}" if name[-4:] in ("_src", "_dst") else name: value
            for name, value in self.fields.items()
        }
        fields |= {"dl_src": source.mac, "dl_dst": to_mac}
        for name, answer in (("icmp_type", "0"), ("icmpv6_type", "129")):
            if name in fields:
                fields[name] = answer
        return Packet(fields)

    @property
    def connection(self) -> tuple[str, str, str, str, str] | None:
        """Protocol's number, addresses and ports (of ICMP type and code); None of what is no IP."""
        fields = self.fields
        protocol = next((number for word, number in _NUMBERS.items() if word in fields), None)
        if protocol is None:
            return None
        word = _PORTS.get(protocol)
        ports = [fields.get(f"{word}_{side}", "0") for side in ("src", "dst")] if word else ["0", "0"]
        if word is None:
            ports = [fields.get(f"{_ICMP[protocol]}_{part}", "0") for part in ("type", "code")]
        source = fields.get("nw_src") or fields.get("ipv6_src", "")
        return protocol, source, fields.get("nw_dst") or fields.get("ipv6_dst", ""), ports[0], ports[1]


_NUMBERS = {
    "icmp": "1", "icmp6": "58", "tcp": "6", "tcp6": "6", "udp": "17", "udp6": "17", "sctp": "132",
    "sctp6": "132",
}  # fmt: skip
_PORTS = {"6": "tcp", "17": "udp", "132": "sctp"}
_ICMP = {"1": "icmp", "58": "icmpv6"}


def find_place(names: HostNames, text: str) -> Place:
    """An end by 'node:interface', or by its node where it has one alone. Raises NotFound, UserError."""
    topology, slash, name = text.rpartition("/")
    stored = [names.topology(topology)] if slash else list(names.intent.values())
    found = [
        (one, end) for one in stored for end in one.topology.endpoints() if name in (end, split_end(end)[0])
    ]
    if not found:
        known = sorted({end for one in names.intent.values() for end in one.topology.endpoints()})
        raise NotFound(
            f"no end '{text}'", one_of(name, known, "ends are:") or "list them: vswitchctl show links"
        )
    if len(found) > 1:
        ends = ", ".join(f"{one.topology.name}/{end}" for one, end in found)
        raise UserError(f"'{text}' may be any of {ends}", "name one of them")
    return _entered(names, *found[0])


def _entered(names: HostNames, stored: Stored, end: str) -> Place:
    via, bridge, owner = _switch(stored, end)
    key = next(
        (key for key, spec in names.ports.items() if spec.owner == owner and key.bridge == bridge), None
    )
    if key is None or key not in names.ofports:
        raise UserError(
            f"'{end}' is plugged into no bridge now", f"see vswitchctl show topology {owner.topology}"
        )
    return Place(stored, end, bridge, names.ofports[key], via)


def _switch(stored: Stored, end: str) -> tuple[str, str, Owner]:
    """(Linux bridge in between or '', Open vSwitch bridge, owner of its port) where an end's frames enter."""
    topology = stored.topology
    name = topology.name
    for link in topology.links:
        if end in link.ends:
            other = next(one for one in link.ends if one != end)
            if isinstance(topology.nodes.get(other), Bridge):
                return "", other, Owner(name, f"links/{link_name(link)}")
            return other, *_behind_linux(topology, end, other)
    raise UserError(f"'{end}' has no link", "give it one in its topology's file")


def _behind_linux(topology: Topology, end: str, linux: str) -> tuple[str, Owner]:
    """The bridge that a Linux bridge's frames go to, by links of the network's tree."""
    interface = topology.interface(end)
    tree = forwarding(topology, interface.network).tree if interface is not None else frozenset()
    todo, seen = [linux], {linux}
    while todo:
        at = todo.pop()
        for link in topology.links:
            if at not in link.ends or pair(*link.ends) not in tree:
                continue
            other = next(one for one in link.ends if one != at)
            node = topology.nodes.get(other)
            if isinstance(node, Bridge):
                return other, Owner(topology.name, f"links/{link_name(link)}")
            if isinstance(node, LinuxBridge) and other not in seen:
                seen.add(other)
                todo.append(other)
    raise UserError(
        f"no bridge of ours sees what '{end}' sends", f"Linux bridge '{linux}' forwards it by itself"
    )


def next_mac(source: Place, address: str, to: Place | None) -> str:
    """Where `source` sends what is for this address: to its owner, or to the gateway of its network."""
    topology, network = source.topology, source.network
    local = address and any(ip_address(address) in ip_interface(own).network for own in _own(source))
    gateway = network in router_of(topology) and address in topology.networks[network].gateway
    if to is None and local and not gateway:
        raise UserError(
            f"no end that is declared in network {network} has the address {address}",
            "give the MAC it may have: packet dl_dst=...",
        )
    if to is not None and to.topology.name == topology.name and to.network == network:
        return to.mac
    if network in router_of(topology) and any(
        is_routed(topology.networks[network], own) for own in _own(source)
    ):
        return topology.gateway_mac(network)
    for end, interface in topology.endpoints().items():
        gateways = topology.networks[network].gateway
        if interface.network == network and any(str(ip_interface(ip).ip) in gateways for ip in interface.ip):
            return topology.endpoint_mac(end)
    if to is None:
        raise UserError(
            f"'{source.end}' has no way to {address}: network {network} has no gateway",
            "give the MAC: packet dl_dst=...",
        )
    return to.mac


def _own(place: Place) -> tuple[str, ...]:
    interface = place.topology.interface(place.end)
    return () if interface is None else interface.ip


def first_packet(request: TraceRequest, source: Place, to: Place | None) -> Packet:
    """The packet that is asked about. to: None where it goes to an address that no end has."""
    if request.protocol == "any":
        mac = to.mac if to is not None else next_mac(source, request.to, None)
        return _changed({"dl_type": UNKNOWN_TYPE, "dl_src": source.mac, "dl_dst": mac}, request.packet)
    version, own, peer = _addresses(request, source, to)
    kind = "nw" if version == 4 else "ipv6"
    word = request.protocol if version == 4 else f"{request.protocol}6"
    fields = {
        word: "",
        "dl_src": source.mac,
        "dl_dst": "",
        f"{kind}_src": own,
        f"{kind}_dst": peer,
        "nw_ttl": TTL,
    }
    if request.protocol == "icmp":
        fields |= {"icmp_type": "8"} if version == 4 else {"icmpv6_type": "128"}
    else:
        if request.port is None:
            raise UserError(f"{request.protocol} to which port?", f"as --{request.protocol} 80")
        fields |= {
            f"{request.protocol}_src": str(request.source_port),
            f"{request.protocol}_dst": str(request.port),
        }
    given = _parts(request.packet)
    if "dl_dst" not in given:
        fields["dl_dst"] = next_mac(source, peer, to)
    return _changed(fields, request.packet)


def _addresses(request: TraceRequest, source: Place, to: Place | None) -> tuple[int, str, str]:
    for version in (4, 6) if request.version is None else (request.version,):
        own = source.addresses(version)
        peer = to.addresses(version) if to is not None else [request.to]
        peer = [text for text in peer if ip_address(text).version == version]
        if own and peer:
            return version, own[0], peer[0]
    raise UserError(
        f"'{source.end}' and '{request.to}' have no IP addresses of one version",
        "declare them, or ask about a frame: --any",
    )


ALIASES = {
    "ip_src": "nw_src", "ip_dst": "nw_dst", "eth_src": "dl_src", "eth_dst": "dl_dst", "eth_type": "dl_type",
    "ip_ttl": "nw_ttl",
}  # fmt: skip
"""As people write them -> as the fields of a packet are named here."""


def _parts(text: str) -> dict[str, str]:
    pairs = (word.strip().partition("=")[::2] for word in text.split(",") if word.strip())
    return {ALIASES.get(name, name): value for name, value in pairs}


def _changed(fields: dict[str, str], text: str) -> Packet:
    """With the fields that are to be other than so."""
    for name, value in _parts(text).items():
        if not value or not name.replace("_", "").isalnum():
            raise UserError(f"'{name}' is no field=value", "as nw_src=10.1.0.66")
        fields[name] = value
    return Packet(fields)
