"""Learning, by the switch itself: MACs that nobody declared, behind Linux bridges and uplinks.

Tables l2_learning and l2_learned. A source is learned only from a port whose classification allows it: an
uplink, a Linux bridge, or a link of the network's broadcast tree. So learned entries point along the tree
alone, and a frame that falls back to flooding half way cannot run in a circle.

Open vSwitch bounds what it learns by cookie, so each port and network has one of its own: who invents sources
fills the share of the port where they enter, and what others have learned stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vswitchctl.model.flow import Flow
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import Membership, Switch, SwitchPort
from vswitchctl.pipeline.actions import copy_spec, learn, load_spec
from vswitchctl.pipeline.cookies import LEARNED_RULE, cookie
from vswitchctl.pipeline.encode import Template, Var
from vswitchctl.pipeline.fields import ETH_DST, ETH_SRC, GROUP_BIT, IN_PORT
from vswitchctl.pipeline.registers import LEARN, NETWORK, OUT_PORT
from vswitchctl.pipeline.tables import L2_LEARNED, L2_LEARNING, L2_LOOKUP, Table

INVALID, KNOWN, UNKNOWN, DEFAULT = 120, 100, 10, 0
"""Priorities: sources that cannot be, declared sources, sources to learn, everything else."""

_GROUP_SOURCE = Template(L2_LEARNING, INVALID, {ETH_SRC: (GROUP_BIT, GROUP_BIT)})
_KNOWN_SOURCE = Template(L2_LEARNING, KNOWN, {NETWORK: Var("network"), ETH_SRC: Var("mac")}, goto=L2_LOOKUP)
_LEARN = Template(
    L2_LEARNING,
    UNKNOWN,
    {NETWORK: Var("network"), LEARN: 1, IN_PORT: Var("port")},
    [
        learn(
            L2_LEARNED,
            priority=UNKNOWN,
            # Each frame from there starts it anew, and frames to there do not: IEEE 802.1Q 8.8.3.
            hard_timeout=Var("ageing"),
            cookie=Var("learned"),
            limit=Var("limit"),
            specs=[copy_spec(NETWORK, NETWORK), copy_spec(ETH_SRC, ETH_DST), load_spec(IN_PORT, OUT_PORT)],
        )
    ],
    goto=L2_LOOKUP,
)
_NOTHING_TO_LEARN = Template(L2_LEARNING, DEFAULT, {}, goto=L2_LOOKUP)


def learned_cookie(port: SwitchPort, part: Membership) -> int:
    """The cookie of what is learned behind a port in one of its networks."""
    return cookie(Owner(port.owner.topology, f"{port.owner.entity}/{part.tag}"), LEARNED_RULE)


@dataclass(frozen=True)
class Learning:
    """The app. Declared MACs are never learned, whichever port they come from."""

    name: str = "learning"
    tables: tuple[Table, ...] = (L2_LEARNING, L2_LEARNED)

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """The flows that learn; the learned ones are the switch's own."""
        if switch.networks:
            mark = cookie(switch.owner)
            yield _GROUP_SOURCE(mark)
            yield _NOTHING_TO_LEARN(mark)
        ageing = {network.tag: network.ageing for network in switch.networks}
        for port in switch.ports:
            for part in port.memberships:
                if part.learn:
                    yield _LEARN(
                        cookie(port.owner),
                        network=part.tag,
                        port=port.ofport,
                        ageing=ageing[part.tag],
                        limit=part.limit,
                        learned=learned_cookie(port, part),
                    )
        learning = {network.tag for network in switch.networks if network.learns}
        for known in switch.macs:
            if known.tag in learning:
                yield _KNOWN_SOURCE(cookie(known.owner), network=known.tag, mac=known.mac)


APP = Learning()
