"""Rules as the API shows them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_acl_flows import lan
from vswitchctl.model.intent import Stored
from vswitchctl.model.policy import Rule
from vswitchctl.model.state import Owner
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.service.acls import acl_views, rule_words

IN, OUT = {"direction": "in", "action": "allow"}, {"direction": "out", "action": "deny"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (IN, "any"),
        ({**IN, "protocol": "tcp", "ports": [80, "8000-8100"]}, "tcp 80, 8000-8100"),
        ({**IN, "protocol": "icmp", "icmp_type": 8, "from": "10.0.0.0/8"}, "icmp type 8 from 10.0.0.0/8"),
        ({**OUT, "protocol": 47, "to": {"group": "g"}}, "47 to group g"),
        ({**OUT, "stateful": False, "to": {"interface": "a:b"}}, "any to interface a:b stateless"),
    ],
)
def test_a_rule_in_words(rule: dict[str, Any], words: str) -> None:
    assert rule_words(Rule.model_validate(rule)) == words


def test_each_rule_has_what_hit_it_by_its_cookie() -> None:
    topology = lan({"a": [IN, OUT], "b": [{**IN, "description": "why"}]})
    counts = {
        cookie(Owner("lan", "acls/a"), 2): (3, 180),
        cookie(Owner("lan", "acls/b"), 1): (1, 60),
        cookie(Owner("other", "acls/a"), 1): (9, 9),
    }
    views = list(acl_views(Stored(topology, 1, {}, {"acls/a": "lan.yaml:7"}), counts))
    assert [(v.acl, v.number, v.packets, v.bytes, v.source) for v in views] == [
        ("a", 1, 0, 0, "lan.yaml:7"),
        ("a", 2, 3, 180, "lan.yaml:7"),
        ("b", 1, 1, 60, None),
    ]
    assert views[2].description == "why"
