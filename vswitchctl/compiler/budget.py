"""What ACLs cost in flows, counted before anything is compiled, and the most that one may cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vswitchctl.compiler.policy import acl_rules
from vswitchctl.model.switch import AclRule
from vswitchctl.model.topology import Topology
from vswitchctl.topology.document import Finding
from vswitchctl.topology.source import Path, Place, path_text

MOST_FLOWS = 10_000
"""Flows of an ACL on a bridge: so many new ones for so many old ones are still one atomic bundle (20,000)."""


@dataclass(frozen=True, slots=True)
class AclCost:
    """An ACL's flows on a bridge that uses it, rule by rule; once for each set of ACLs that names it."""

    name: str
    rules: tuple[int, ...]

    @property
    def flows(self) -> int:
        return sum(self.rules)


def rule_cost(rule: AclRule) -> int:
    """Flows of a rule: m peers and n ports cost m + n and one for the verdict, never m times n.

    Each verdict is two flows where one of them logs.
    """
    verdicts = 2 if rule.logs_opening else 1
    found, conjunctive = 0, False
    for family in rule.families_apart:
        peers = 1 if rule.peers is None else sum(term.family in (0, family) for term in rule.peers)
        ports = len(rule.ports) if rule.ports else 1
        both = peers > 1 and ports > 1
        conjunctive |= both
        found += peers + ports if both else peers * ports * verdicts
    return found + conjunctive * verdicts


def acl_costs(topology: Topology) -> tuple[AclCost, ...]:
    """What each ACL costs, in the order of the file. The topology is valid."""
    return tuple(
        AclCost(name, tuple(map(rule_cost, acl_rules(topology, name, (name,), 0)))) for name in topology.acls
    )


def over_budget(costs: Iterable[AclCost], place: Callable[[Path], Place]) -> Iterator[Finding]:
    """A finding for each ACL that costs more than it may. place: where a path of the topology was written."""
    for cost in costs:
        if cost.flows > MOST_FLOWS:
            worst = max(range(len(cost.rules)), key=cost.rules.__getitem__)
            path: Path = ("acls", cost.name)
            at = place(path)
            yield Finding(
                "error", at.file, at.line, path_text(path),
                f"{cost.flows} flows, and {MOST_FLOWS} are the most; "
                f"rule {worst + 1} costs the most of them, {cost.rules[worst]}",
                "name subnets in place of their addresses, and ranges in place of ports; or split the ACL",
            )  # fmt: skip
