"""Sentences about packets, from ways that are made up: who is blamed, and for what."""

from __future__ import annotations

import pytest

from vswitchctl.model.intent import Stored
from vswitchctl.model.state import OvsBridgeSpec, Owner
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.trace_text import Step
from vswitchctl.service.names import HostNames
from vswitchctl.service.trace_packet import Packet, Place
from vswitchctl.service.trace_verdict import Goal, Judge, Said
from vswitchctl.service.trace_walk import Walk

ACL, WEB, BRIDGE = (Owner("t", entity) for entity in ("acls/web", "interfaces/web:eth0", "nodes/br"))
TOPOLOGY = Topology.model_validate(
    {
        "name": "t",
        "tenants": {"red": {}},
        "networks": {"lan": {"tenant": "red"}},
        "nodes": {"a": {"kind": "namespace", "tenant": "red", "interfaces": {"eth0": {"network": "lan"}}}},
    }
)
STORED = Stored(TOPOLOGY, 1, {}, {"acls/web": "t.yaml:31", "interfaces/web:eth0": "t.yaml:9"})
NAMES = HostNames({"t": STORED}, {"br": OvsBridgeSpec(BRIDGE, "netdev")}, {}, {})
PLACE = Place(STORED, "a:eth0", "br", 1)
PACKET = Packet({"icmp": "", "dl_dst": "02:00:00:00:00:01"})


def step(
    table: int, owner: Owner = BRIDGE, rule: int = 0, actions: tuple[str, ...] = (), **other: object
) -> Step:
    base = Step("br", table, "", 0, cookie(owner, rule), actions)
    return base._replace(**other)  # type: ignore[arg-type]


def said(*steps: Step, reached: tuple[str, ...] = ()) -> Said:
    walk = Walk(list(steps), list(range(-1, len(steps) - 1)), ends=[] if reached else [len(steps) - 1])
    walk.reached.update(dict.fromkeys(reached, len(steps) - 1))
    owners = {cookie(owner): owner for owner in (ACL, WEB, BRIDGE)}
    return Judge(NAMES, owners).judge(
        walk, PACKET, PLACE, "web:eth0", Goal(frozenset({"web:eth0"}), end=True)
    )


TOLD = ("controller(userdata=76.02)",)
LOGGED = ("controller(userdata=76.10)",)


@pytest.mark.parametrize(
    ("steps", "sentence", "decided"),
    [
        ((step(90, WEB), step(100, ACL, 3), step(105)), "blocked by acl web rule 3 (t.yaml:31)", 1),
        ((step(90, WEB), step(100, ACL, 3, TOLD[:0]), step(105, actions=TOLD)),
         "rejected by acl web rule 3 (t.yaml:31)", 1),
        ((step(90, WEB), step(100, ACL, 3, LOGGED), step(105)), "blocked by acl web rule 3 (t.yaml:31)", 1),
        ((step(90, WEB), step(100, ACL, 2)), "blocked by acl web rule 2 (t.yaml:31)", 1),
        ((step(90, WEB), step(100), step(105)),
         "blocked by the acls of web:eth0: no rule allows what it takes (t.yaml:9)", 1),
        ((step(40, WEB), step(50), step(55)),
         "blocked by the acls of web:eth0: no rule allows what it sends (t.yaml:9)", 1),
        ((step(90, WEB), step(100, priority=32990, match="ct_state=+inv")),
         "blocked at web:eth0: of a connection that is invalid (t.yaml:9)", 1),
        ((step(0, priority=None),), "dropped in classify of br: no network comes in there so", 0),
        ((step(80, priority=None),),
         "dropped in l2_lookup of br: network lan has nobody with MAC 02:00:00:00:00:01", 0),
        ((step(110, priority=None, cookie=0),), "dropped in qos_to of br: no flow there matches it", 0),
        ((step(90, WEB),), "dropped in ct_to of br by web:eth0 (t.yaml:9)", 0),
        ((step(90, bridge="theirs"),), "dropped on bridge theirs, which is not of vswitchctl", 0),
    ],
)  # fmt: skip
def test_who_dropped_it(steps: tuple[Step, ...], sentence: str, decided: int) -> None:
    found = said(*steps)
    assert (found.sentence, found.decided) == (sentence, decided)


def test_where_it_goes_instead() -> None:
    assert said(step(120), reached=("web:eth0", "b:eth0")).sentence == "a:eth0 reaches web:eth0"
    assert said(step(120), reached=("b:eth0",)).sentence == "it goes to b:eth0, and not to web:eth0"
    assert said(step(120), reached=("a:eth0",)).verdict == "elsewhere"
    allowed = said(step(100, ACL, 1), step(105), step(120), reached=("web:eth0",))
    assert allowed.sentence == "a:eth0 reaches web:eth0, allowed by acl web rule 1 (t.yaml:31)"
