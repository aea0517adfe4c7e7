"""Routers behind uplinks whose MAC nobody declared: asked for by the daemon, learned by the switch.

Tables next_hop, next_hop_learned and next_hop_known, on the uplink's bridge alone. Up to there a MAC of ours
stands for the router's, so no other bridge has to learn anything. What it says of itself, by ARP or ND, the
switch notes twice: for a short time, after which it is asked again, and for a long one, so that packets go on
meanwhile, and without the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from openflow_apps.answers import who_has
from vswitchctl.model.flow import Flow
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import NextHop, Switch
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.actions import Action, copy_spec, learn, load, load_spec, resubmit
from vswitchctl.pipeline.cookies import LEARNED_RULE, cookie
from vswitchctl.pipeline.encode import Match, Template, Var
from vswitchctl.pipeline.ip import version_of
from vswitchctl.pipeline.punt import Answer, Opcode, PacketIn, PacketOut, continue_in, punt
from vswitchctl.pipeline.registers import (
    GATEWAY_WORDS,
    NETWORK,
    NEXT_HOP_MAC,
    NEXT_HOP_WORDS,
    OUT_PORT,
    Bits,
)
from vswitchctl.pipeline.tables import (
    CT_TO,
    GATEWAY,
    L2_LEARNING,
    NEXT_HOP,
    NEXT_HOP_KNOWN,
    NEXT_HOP_LEARNED,
    OUTPUT,
    Table,
)

FRESH, KEPT = 30, 14400
"""Seconds that a MAC is taken for true after it was heard (RFC 4861 section 10, REACHABLE_TIME), and that
it is kept unused: the four hours of routers' ARP caches. A packet that goes by a kept one has it asked."""

UNKNOWN, LONG_AGO, LATELY = 0, 1, 2
"""Values of next_hop_mac, and priorities of what is learned."""

KNOWN = 100
HEARD_NOTHING, HEARD_ASKING, HEARD_BY_US, HEARD = 123, 122, 121, 120
"""Priorities of gateway: above its own."""

_WORDS = {4: 1, 6: 4}

_NEXT_HOP = {
    version: Template(
        NEXT_HOP,
        KNOWN,
        {NETWORK: Var("network"), f.ETH_SRC: Var("gateway_mac"), f.ETH_DST: Var("mac")},
        [
            *(load(word, Var(word.name)) for word in (*GATEWAY_WORDS[:count], *NEXT_HOP_WORDS[:count])),
            resubmit(NEXT_HOP_LEARNED),
        ],
        goto=NEXT_HOP_KNOWN,
    )
    for version, count in _WORDS.items()
}
_KNOWN = [
    Template(NEXT_HOP_KNOWN, KNOWN, {NEXT_HOP_MAC: LATELY}, goto=CT_TO),
    Template(NEXT_HOP_KNOWN, KNOWN, {NEXT_HOP_MAC: LONG_AGO}, [punt(Opcode.NEXT_HOP)], goto=CT_TO),
    Template(NEXT_HOP_KNOWN, KNOWN, {NEXT_HOP_MAC: UNKNOWN}, [punt(Opcode.NEXT_HOP)]),
]


def _note(mac: f.Field) -> list[Action]:
    """The packet's `mac` is the next hop's."""
    return [
        learn(
            NEXT_HOP_LEARNED,
            priority=known,
            hard_timeout=FRESH if known == LATELY else 0,
            idle_timeout=KEPT if known == LONG_AGO else 0,
            cookie=Var("learned"),
            specs=[
                copy_spec(NETWORK, NETWORK),
                copy_spec(Var("mac"), f.ETH_DST),
                load_spec(mac, f.ETH_DST),
                load_spec(known, NEXT_HOP_MAC),
            ],
        )
        for known in (LATELY, LONG_AGO)
    ]


_FROM: Match = {f.IN_PORT: Var("port"), NETWORK: Var("network")}
_ARP: Match = {**_FROM, f.ETH_TYPE: f.ETH_TYPE_ARP, f.ARP_SPA: Var("address")}
_ADVERTISEMENT: Match = {
    **_FROM,
    f.ETH_TYPE: f.ETH_TYPE_IPV6,
    f.IP_PROTO: f.PROTO_ICMPV6,
    f.ICMPV6_TYPE: f.ICMPV6_NA,
    f.ICMPV6_CODE: 0,
    f.ND_TARGET: Var("address"),
}


def _heard(match: Match, mac: f.Field) -> tuple[Template, Template]:
    """Noted; what was for the gateway ends here, what was for all goes on."""
    to_us: Match = {**match, f.ETH_DST: Var("gateway_mac")}
    return (
        Template(GATEWAY, HEARD_BY_US, to_us, _note(mac)),
        Template(GATEWAY, HEARD, match, _note(mac), goto=L2_LEARNING),
    )


_HEARD = {4: _heard(_ARP, f.ARP_SHA), 6: _heard(_ADVERTISEMENT, f.ND_TLL)}
_NO_TARGET = Template(GATEWAY, HEARD_NOTHING, {**_ADVERTISEMENT, f.ND_TLL: 0})


def noting(hop: NextHop, asked: Template) -> Iterator[Flow]:
    """Flows of table gateway that note the next hop's MAC. asked: how the gateway answers ARP."""
    mark = cookie(hop.owner)
    address, gateway_mac = hop.gateway
    about = {"port": hop.ofport, "network": hop.tag, "address": hop.address, "mac": hop.mac}
    about["learned"] = cookie(Owner(hop.owner.topology, f"{hop.owner.entity}/{hop.mac:x}"), LEARNED_RULE)
    for_us, for_all = _HEARD[hop.version]
    yield for_us(mark, **about, gateway_mac=gateway_mac)
    yield for_all(mark, **about)
    if hop.version == 6:
        yield _NO_TARGET(mark, port=hop.ofport, network=hop.tag, address=hop.address)
    else:
        yield asked(mark, **about, gateway_mac=gateway_mac, gateway=address)


def noting_questions(answer: Sequence[Action]) -> Template:
    """A next hop's own question for the gateway's MAC: noted, and answered by `answer`."""
    match: Match = {**_ARP, f.ARP_OP: f.ARP_REQUEST, f.ARP_TPA: Var("gateway")}
    return Template(GATEWAY, HEARD_ASKING, match, [*_note(f.ARP_SHA), *answer], goto=OUTPUT)


def _words(bits: tuple[Bits, ...], version: int, address: int) -> dict[str, int]:
    """An address by the registers that hold it."""
    words = bits[: _WORDS[version]]
    return {word.name: address >> 32 * (len(words) - 1 - at) & 0xFFFFFFFF for at, word in enumerate(words)}


def ask(packet: PacketIn) -> Iterator[PacketOut]:
    """Who has the next hop's address, from the gateway of its network, out by the uplink."""
    version = version_of(packet.data)
    if version is None:
        return
    address, target = (
        b"".join(packet.register(word).to_bytes(4, "big") for word in words)
        for words in (GATEWAY_WORDS, NEXT_HOP_WORDS)
    )
    where = {NETWORK: packet.register(NETWORK), OUT_PORT: packet.register(OUT_PORT)}
    size = 4 * _WORDS[version]
    yield continue_in(OUTPUT, who_has(packet.data[6:12], address[:size], target[:size]), where)


@dataclass(frozen=True)
class NextHops:
    """The app. A bridge without such uplinks costs no flow."""

    name: str = "next_hop"
    tables: tuple[Table, ...] = (NEXT_HOP, NEXT_HOP_LEARNED, NEXT_HOP_KNOWN)
    reads: tuple[str, ...] = ("owner", "next_hops")
    answers: Mapping[int, Answer] = field(default_factory=lambda: {Opcode.NEXT_HOP: ask})

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """Every flow of one bridge's next hops."""
        for template in _KNOWN if switch.next_hops else ():
            yield template(cookie(switch.owner))
        for hop in switch.next_hops:
            address, mac = hop.gateway
            yield _NEXT_HOP[hop.version](
                cookie(hop.owner),
                network=hop.tag,
                gateway_mac=mac,
                mac=hop.mac,
                **_words(GATEWAY_WORDS, hop.version, address),
                **_words(NEXT_HOP_WORDS, hop.version, hop.address),
            )


APP = NextHops()
