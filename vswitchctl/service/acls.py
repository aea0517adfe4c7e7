"""ACLs as the API shows them: rules in words, with what hit them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vswitchctl.model.intent import Stored
from vswitchctl.model.policy import Rule
from vswitchctl.model.state import Owner
from vswitchctl.model.views import AclRuleView
from vswitchctl.pipeline.cookies import cookie

Counts = Mapping[int, tuple[int, int]]
"""Cookie -> packets and bytes."""


def rule_words(rule: Rule) -> str:
    """What a rule matches: 'tcp 80, 443 from group clients'."""
    words = [str(rule.protocol)]
    if rule.ports:
        words.append(", ".join(map(str, rule.ports)))
    if rule.icmp_type is not None:
        words.append(f"type {rule.icmp_type}")
    for kind, name in rule.peer.named.items():
        words += ["from" if rule.direction == "in" else "to", *(() if kind == "cidr" else (kind,)), name]
    if not rule.stateful:
        words.append("stateless")
    return " ".join(words)


def acl_views(stored: Stored, counts: Counts) -> Iterator[AclRuleView]:
    """Every rule of a topology, in the order of the file."""
    topology = stored.topology
    for name, rules in topology.acls.items():
        owner = Owner(topology.name, f"acls/{name}")
        for number, rule in enumerate(rules, 1):
            packets, octets = counts.get(cookie(owner, number), (0, 0))
            yield AclRuleView(
                topology=topology.name, acl=name, number=number, direction=rule.direction,
                action=rule.action, words=rule_words(rule), description=rule.description,
                packets=packets, bytes=octets, source=stored.sources.get(owner.entity),
            )  # fmt: skip
