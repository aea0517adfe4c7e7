"""What became of a traced packet, and which flow decided it, in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vswitchctl.model.state import Owner
from vswitchctl.model.trace import Hop, Verdict
from vswitchctl.pipeline import cookies
from vswitchctl.pipeline.tables import (
    ACL_FROM,
    ACL_TO,
    CLASSIFY,
    COMMIT_FROM,
    COMMIT_TO,
    CT_FROM,
    CT_TO,
    FLOOD,
    L2_LOOKUP,
    PORT_SECURITY,
    ROUTE,
    SOURCE_ADDRESS,
)
from vswitchctl.pipeline.trace_text import Step
from vswitchctl.pipeline.words import Names, action_words, match_words, table_word
from vswitchctl.service.names import HostNames
from vswitchctl.service.trace_packet import Packet, Place
from vswitchctl.service.trace_walk import Walk
from vswitchctl.topology.routing import router_of

ACL_TABLES = frozenset({ACL_FROM.id, ACL_TO.id})
CT_TABLES = frozenset({CT_FROM.id, CT_TO.id})
COMMIT_TABLES = frozenset({COMMIT_FROM.id, COMMIT_TO.id})
POLICY = ACL_TABLES | COMMIT_TABLES


class Said(NamedTuple):
    """decided: the number of a step, where one decided."""

    verdict: Verdict
    sentence: str
    decided: int | None


class Goal(NamedTuple):
    """wanted: any of these. end: it is an end, and no address. apart: its network, where no router leads."""

    wanted: frozenset[str]
    end: bool = False
    apart: str = ""


class Judge:
    """Says what became of packets. owners: cookie without its rule -> entity."""

    def __init__(self, names: HostNames, owners: Mapping[int, Owner]) -> None:
        self._names = names
        self._owners = owners

    def owner(self, step: Step) -> tuple[Owner, int] | None:
        """Entity and rule of a flow of ours."""
        return cookies.resolve(step.cookie, self._owners)

    def hop(self, step: Step) -> Hop:
        names = self._names.of_bridge(step.bridge) if step.bridge in self._names.bridges else Names()
        found = self.owner(step)
        does = action_words(",".join(step.actions), names)
        match = "nothing matched" if step.priority is None else match_words(step.match, names)
        return Hop(
            bridge=step.bridge,
            table=table_word(step.table),
            priority=step.priority,
            match=step.match,
            actions=step.actions,
            words=f"{match} → {does}",
            cookie=f"0x{step.cookie:016x}" if step.cookie else "",
            entity=found[0].text if found else "",
            rule=found[1] if found else 0,
            source=self._names.source(found[0]) if found else None,
        )

    def judge(self, walk: Walk, packet: Packet, source: Place, to: str, goal: Goal) -> Said:
        """Of a packet to `to`, which is reached where the goal is."""
        reached = goal.wanted & walk.reached.keys()
        if reached:
            return self._allowed(walk, walk.reached[min(reached)], f"{source.end} reaches {to}")
        if source.end in walk.reached or (source.via and source.via in walk.reached):
            step = walk.reached.get(source.end, walk.reached.get(source.via, 0))
            if not goal.end:
                return Said("answered", f"the switch answers {source.end} itself", step)
            return Said("elsewhere", f"it comes back to {source.end}, and does not go to {to}", step)
        apart = f"nothing routes to {goal.apart}, where {to} is: " if goal.apart else ""
        if walk.ends:
            last = max(walk.ends, key=lambda one: _weight(walk.steps[one]))
            where = walk.steps[last].bridge
            if where not in self._names.bridges:
                return Said("dropped", f"dropped on bridge {where}, which is not of vswitchctl", last)
            said = self._ended(walk, last, packet, source)
            return said._replace(sentence=apart + said.sentence)
        others = ", ".join(sorted(walk.reached)) or "nobody"
        last = max(walk.reached.values(), default=0)
        return Said("elsewhere", f"{apart}it goes to {others}, and not to {to}", last)

    def _allowed(self, walk: Walk, step: int, sentence: str) -> Said:
        """The last rule that let it pass."""
        for number in reversed(walk.way_to(step)):
            met = walk.steps[number]
            found = self.owner(met)
            if met.table in ACL_TABLES and found and found[1]:
                return Said("delivered", f"{sentence}, allowed by {self.rule_words(*found)}", number)
        return Said("delivered", sentence, None)

    def rule_words(self, owner: Owner, rule: int) -> str:
        """'acl web rule 3 (two-tenants.yaml:31)'."""
        section, _, name = owner.entity.partition("/")
        noun = {"acls": "acl", "routers": "router", "networks": "network", "nodes": "bridge"}.get(section, "")
        part = f" {'route' if section == 'routers' else 'rule'} {rule}" if rule else ""
        return f"{noun} {name}".strip() + part + self._line(owner)

    def _line(self, owner: Owner) -> str:
        source = self._names.source(owner)
        return f" ({source})" if source else ""

    def _ended(self, walk: Walk, last: int, packet: Packet, source: Place) -> Said:
        step = walk.steps[last]
        if step.table in POLICY:
            return self._by_policy(walk, last)
        if step.table in (PORT_SECURITY.id, SOURCE_ADDRESS.id):
            what = "MAC" if step.table == PORT_SECURITY.id else "address"
            line = self._line(source.owner)
            return Said(
                "dropped", f"dropped by port security: {source.end} may not send from this {what}{line}", last
            )
        where = f"in {table_word(step.table)} of {step.bridge}"
        found = self.owner(step)
        if step.table == CLASSIFY.id:
            return Said("dropped", f"dropped {where}: no network comes in there so", last)
        if step.table in (L2_LOOKUP.id, FLOOD.id):
            mac = packet.fields.get("dl_dst", "")
            return Said(
                "dropped", f"dropped {where}: network {source.network} has nobody with MAC {mac}", last
            )
        if step.table == ROUTE.id:
            name = router_of(source.topology).get(source.network, "")
            router = self.rule_words(Owner(source.topology.name, f"routers/{name}"), 0)
            to = packet.fields.get("nw_dst") or packet.fields.get("ipv6_dst", "")
            return Said("dropped", f"dropped {where}: {router} lets nothing pass to {to}", last)
        reason = f" by {self.rule_words(*found)}" if found else ": no flow there matches it"
        return Said("dropped", f"dropped {where}{reason}", last)

    def _by_policy(self, walk: Walk, last: int) -> Said:
        """A rule, or the lack of one: what stands behind it only carries that out."""
        way = walk.way_to(last)
        number = next((one for one in reversed(way) if walk.steps[one].table in ACL_TABLES), last)
        step = walk.steps[number]
        # Of a rule itself a copy to the daemon is for its log; behind it, for who answers the sender.
        done = [
            action
            for one in way
            if walk.steps[one].table in COMMIT_TABLES
            for action in walk.steps[one].actions
        ]
        told = walk.steps[last].table in COMMIT_TABLES and any("controller" in action for action in done)
        found = self.owner(step)
        verdict: Verdict = "blocked"
        if found and found[0].entity.startswith("acls/") and found[1]:
            verdict = "rejected" if told else "blocked"
            return Said(verdict, f"{verdict} by {self.rule_words(*found)}", number)
        entering = next(
            (one for one in reversed(way[: way.index(number)]) if walk.steps[one].table in CT_TABLES), None
        )
        guarded = self.owner(walk.steps[entering]) if entering is not None else None
        end = guarded[0].entity.partition("/")[2] if guarded else step.bridge
        line = self._line(guarded[0]) if guarded else ""
        direction = "sends" if step.table == ACL_FROM.id else "takes"
        if step.priority:
            state = match_words(step.match, self._names.of_bridge(step.bridge))
            return Said(verdict, f"blocked at {end}: of a connection that is {state}{line}", number)
        return Said(
            verdict, f"blocked by the acls of {end}: no rule allows what it {direction}{line}", number
        )


def _weight(step: Step) -> int:
    """Of several ways that end, the one that tells most: a rule before a lookup, a later table first."""
    return step.table + (1000 if step.table in POLICY else 0)
