"""Learning, by the switch itself: MACs that nobody declared, behind Linux bridges and uplinks.

Tables l2_learning and l2_learned. A source is learned only from a port whose classification allows it: an
uplink, a Linux bridge, or a link of the network's broadcast tree. So learned entries point along the tree
alone, and a frame that falls back to flooding half way cannot run in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vswitchctl.model.flow import Flow
from vswitchctl.model.switch import Switch
from vswitchctl.pipeline.actions import copy_spec, learn, load_spec
from vswitchctl.pipeline.cookies import LEARNED_RULE, cookie
from vswitchctl.pipeline.encode import Template, Var
from vswitchctl.pipeline.fields import ETH_DST, ETH_SRC, GROUP_BIT, IN_PORT
from vswitchctl.pipeline.registers import LEARN, NETWORK, OUT_PORT
from vswitchctl.pipeline.tables import L2_LEARNED, L2_LEARNING, L2_LOOKUP, Table

AGEING = 300
"""Seconds without a frame until a learned MAC is forgotten: IEEE 802.1Q 8.8.3, the recommended default."""

LIMIT = 4096
"""Learned MACs per network and bridge; a guest that invents sources cannot fill the switch."""

INVALID, KNOWN, UNKNOWN, DEFAULT = 120, 100, 10, 0
"""Priorities: sources that cannot be, declared sources, sources to learn, everything else."""

_GROUP_SOURCE = Template(L2_LEARNING, INVALID, {ETH_SRC: (GROUP_BIT, GROUP_BIT)})
_KNOWN_SOURCE = Template(L2_LEARNING, KNOWN, {NETWORK: Var("network"), ETH_SRC: Var("mac")}, goto=L2_LOOKUP)
_LEARN = Template(
    L2_LEARNING,
    UNKNOWN,
    {NETWORK: Var("network"), LEARN: 1},
    [
        learn(
            L2_LEARNED,
            priority=UNKNOWN,
            idle_timeout=AGEING,
            cookie=Var("learned"),
            limit=LIMIT,
            specs=[copy_spec(NETWORK, NETWORK), copy_spec(ETH_SRC, ETH_DST), load_spec(IN_PORT, OUT_PORT)],
        )
    ],
    goto=L2_LOOKUP,
)
_NOTHING_TO_LEARN = Template(L2_LEARNING, DEFAULT, {}, goto=L2_LOOKUP)


@dataclass(frozen=True)
class Learning:
    """The app. Declared MACs are never learned, whichever port they come from."""

    name: str = "learning"
    tables: tuple[Table, ...] = (L2_LEARNING, L2_LEARNED)
    reads: tuple[str, ...] = ("owner", "macs", "networks")

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """The flows that learn; the learned ones are the switch's own."""
        if switch.networks:
            mark = cookie(switch.owner)
            yield _GROUP_SOURCE(mark)
            yield _NOTHING_TO_LEARN(mark)
        learning = {network.tag for network in switch.networks if network.learns}
        for network in switch.networks:
            if network.learns:
                yield _LEARN(
                    cookie(network.owner), network=network.tag, learned=cookie(network.owner, LEARNED_RULE)
                )
        for known in switch.macs:
            if known.tag in learning:
                yield _KNOWN_SOURCE(cookie(known.owner), network=known.tag, mac=known.mac)


APP = Learning()
