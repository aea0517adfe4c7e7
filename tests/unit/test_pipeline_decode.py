"""Flows as text, and that nothing a switch may send makes the decoder raise."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vswitchctl.model.flow import Flow
from vswitchctl.pipeline import actions as act
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.actions import Action
from vswitchctl.pipeline.cookies import LEARNED_RULE, MAGIC
from vswitchctl.pipeline.decode import describe, ofctl_text
from vswitchctl.pipeline.encode import Match, flow
from vswitchctl.pipeline.registers import LEARN, NETWORK, OUT_PORT, REGISTERS
from vswitchctl.pipeline.tables import CT_TO, L2_LEARNED, L2_LEARNING, L2_LOOKUP, Table

NEXT = Table(9, "next")
ANY = Table(
    5,
    "any",
    frozenset(f.FIELDS) | frozenset(REGISTERS),
    frozenset(f.FIELDS) | frozenset(REGISTERS) | {"output", "queue", "conjunction", "ct", "learn:l2_learned"},
    frozenset({"next"}),
)
IPV4 = {f.ETH_TYPE: f.ETH_TYPE_IPV4}


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ({}, ""),
        ({f.IN_PORT: 3, f.VLAN_VID: 0x1005}, "in_port=3,vlan_vid=0x1005"),
        ({f.VLAN_VID: (0, 0x1000)}, "vlan_vid=0x0/0x1000"),
        ({f.ETH_DST: (1 << 40, 1 << 40)}, "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"),
        ({NETWORK: 5, OUT_PORT: 7}, "reg0=0x5/0xffff,reg1=0x7"),
        ({**IPV4, f.IPV4_SRC: (0x0A000000, 0xFF000000)}, "dl_type=0x800,nw_src=10.0.0.0/8"),
        ({**IPV4, f.IPV4_DST: (1, 1)}, "dl_type=0x800,nw_dst=0.0.0.1/0.0.0.1"),
        (
            {**IPV4, f.IP_PROTO: 6, f.TCP_DST: (0x1000, 0xF000), f.CT_STATE: (0x21, 0x21)},
            "dl_type=0x800,nw_proto=6,tcp_dst=0x1000/0xf000,ct_state=0x21/0x21",
        ),
        ({**IPV4, f.IP_FRAG: (1, 1)}, "dl_type=0x800,ip_frag=yes"),
        (
            {f.ETH_TYPE: f.ETH_TYPE_IPV6, f.IPV6_SRC: 0x20010DB8 << 96},
            "dl_type=0x86dd,ipv6_src=2001:db8::",
        ),
    ],
)
def test_matches(match: Match, text: str) -> None:
    assert describe(flow(ANY, 7, match)).match_text == text


@pytest.mark.parametrize(
    ("actions", "text"),
    [
        ([], "drop"),
        ([act.drop()], "drop"),
        ([act.load(LEARN, 1)], "load:0x1->reg2[0]"),
        ([act.move(f.IN_PORT, OUT_PORT)], "move:in_port_oxm[]->reg1[]"),
        ([act.output(3), act.in_port()], "output:3,in_port"),
        ([act.output_reg(OUT_PORT)], "output:reg1[]"),
        (
            [act.push_vlan(), act.set_vlan(5), act.pop_vlan()],
            "push_vlan:0x8100,set_field:0x1005->vlan_vid,pop_vlan",
        ),
        ([act.resubmit(NEXT)], "resubmit(,9)"),
        ([act.conjunction(7, 2, 3)], "conjunction(7,2/3)"),
        (
            [act.ct(5, commit=True), act.ct(NETWORK, table=NEXT)],
            "ct(commit,zone=5),ct(table=9,zone=reg0[0..15])",
        ),
        ([act.set_queue(4)], "set_queue:4"),
    ],
)
def test_actions(actions: list[Action], text: str) -> None:
    assert describe(flow(ANY, 7, {}, actions)).actions_text == text


def test_learn() -> None:
    specs = [
        act.copy_spec(NETWORK, NETWORK),
        act.copy_spec(f.ETH_SRC, f.ETH_DST),
        act.load_spec(f.IN_PORT, OUT_PORT),
    ]
    mark = MAGIC | LEARNED_RULE
    learn = act.learn(L2_LEARNED, 10, specs, idle_timeout=300, cookie=mark, limit=64)
    assert describe(flow(L2_LEARNING, 1, {LEARN: 1}, [learn], L2_LOOKUP)).actions_text == (
        f"learn(table=81,idle_timeout=300,priority=10,cookie={mark:#x},limit=64,delete_learned,"
        "reg0[0..15]=reg0[0..15],dl_dst[]=dl_src[],load:in_port_oxm[]->reg1[]),goto_table:80"
    )


def test_the_whole_flow() -> None:
    made = flow(L2_LOOKUP, 100, {NETWORK: 5}, goto=CT_TO, cookie=MAGIC | 3)
    said = describe(made)
    assert (said.table_name, said.priority, said.cookie) == ("l2_lookup", 100, MAGIC | 3)
    assert said.text == "table=l2_lookup,priority=100,reg0=0x5/0xffff,actions=goto_table:90"
    assert ofctl_text(made) == (
        "cookie=0x7600000000000003,table=80,priority=100,reg0=0x5/0xffff,actions=goto_table:90"
    )


def test_what_we_never_send_is_shown_as_hex() -> None:
    key = bytes([3]) + (7).to_bytes(2, "big") + bytes.fromhex("ffff0004 01020304")
    value = bytes(14) + bytes.fromhex("0004 0010 00000000 7777 0008 00000001")
    said = describe(Flow(key, value))
    assert (said.table_name, said.priority) == ("3", 7)
    assert said.match_text == "oxm:0xffff000401020304"
    assert said.actions_text == "action:0x7777000800000001"


ACTION_HEADS = [bytes.fromhex("ffff 0018 00002320") + kind.to_bytes(2, "big") for kind in range(46)]
ACTION_HEADS += [kind.to_bytes(2, "big") + b"\0\x10" for kind in range(28)]


@given(st.binary(max_size=80), st.binary(max_size=200))
@example(b"", b"")
@example(bytes(3) + bytes.fromhex("80000a02"), bytes(14) + bytes.fromhex("00040000"))
def test_no_bytes_make_it_raise(key: bytes, value: bytes) -> None:
    assert describe(Flow(key, value)).actions_text


@given(st.sampled_from(ACTION_HEADS), st.binary(max_size=60), st.integers(0, 80))
def test_no_action_makes_it_raise(head: bytes, rest: bytes, length: int) -> None:
    action = head + rest
    instructions = (4).to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(4) + action
    assert describe(Flow(bytes(3), bytes(14) + instructions)).actions_text


@given(st.sampled_from(sorted(f.BY_HEADER)), st.integers(0, 511), st.binary(max_size=40))
def test_no_match_makes_it_raise(header: int, low: int, rest: bytes) -> None:
    key = bytes(3) + (header | low).to_bytes(4, "big") + rest
    assert describe(Flow(key, bytes(14))).match_text
