"""What Open vSwitch 3.1 printed for real, parsed; and text that no Open vSwitch prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.pipeline.trace_text import Output, flow_text, headers, parse_trace
from vswitchctl.service.trace_walk import of_connection

TRACES = Path(__file__).parents[1] / "golden/trace"


def text(name: str) -> str:
    return (TRACES / f"{name}.txt").read_text()


def test_a_way_ends_at_conntrack_and_says_where_it_resumes() -> None:
    traced = parse_trace(text("conntrack"))
    assert [step.table for step in traced.steps] == [0, 10, 11, 20, 30, 40]
    last = traced.steps[-1]
    assert (last.match, last.priority, last.cookie) == ("ip,in_port=3", 100, 0x76B1409FB4EC0000)
    assert last.actions == (
        "load:0x2->reg3[0..15]",
        "load:0x312dbbb5->reg4[]",
        "ct(table=50,zone=reg3[0..15])",
    )
    (fork,) = traced.forks
    assert (fork.bridge, fork.table, fork.step) == ("br-web", 50, 5)
    assert "ct_zone=2" in fork.flow and "reg4=0x312dbbb5" in fork.flow
    assert not traced.outputs and not traced.commits


def test_a_resumed_way_commits_and_leaves() -> None:
    traced = parse_trace(text("resumed"))
    assert [step.table for step in traced.steps] == [100, 105, 110, 120]
    assert traced.steps[0].cookie & 0xFFFF == 4
    assert traced.steps[1].actions == ("ct(commit,zone=reg3[0..15])", "goto_table:110")
    assert traced.outputs == (Output("br-web", 2, None, 3),)
    assert traced.commits == {1}


def test_a_flood_over_a_patch_port_belongs_to_the_bridges_it_passes() -> None:
    traced = parse_trace(text("flood"))
    assert [(one.bridge, one.port, one.vid) for one in traced.outputs] == [
        ("br-b", 1, None), ("br-b", 3, 1), ("br-c", 3, None), ("br-b", 5, 1),
    ]  # fmt: skip
    missed = [step for step in traced.steps if step.priority is None]
    assert [(step.bridge, step.table, step.actions) for step in missed] == [("br-b", 81, ("drop",))]
    flood = next(step for step in traced.steps if (step.bridge, step.table) == ("br-b", 82))
    assert flood.actions == tuple(
        part for port in (1, 3, 4, 5) for part in (f"load:{port:#x}->reg1[]", "resubmit(,120)")
    )
    assert traced.steps[-1].actions == (
        "push_vlan:0x8100",
        "set_field:4097->vlan_vid",
        "output:5",
        "pop_vlan",
    )


def test_an_answer_of_the_switch_changes_the_packet() -> None:
    traced = parse_trace(text("answered"))
    assert traced.outputs[0].port == 3
    fields = headers(traced.final)
    assert (fields["nw_src"], fields["icmp_type"]) == ("10.1.0.1", "0")
    assert "reg0" not in fields and "in_port" not in fields and "metadata" not in fields
    assert "reg0" in headers(traced.final, registers=True)


def test_fields_as_a_trace_takes_them() -> None:
    six = "recirc_id=0x8,ct_state=new|trk,eth,icmp6,in_port=3,ipv6_src=fd00::1,icmp_type=128,icmp_code=0"
    assert flow_text(headers(six)) == "icmp6,ipv6_src=fd00::1,icmpv6_type=128,icmpv6_code=0"
    assert (
        flow_text(headers("udp,nw_src=10.1.0.1,tp_src=5,tp_dst=6"))
        == "udp,nw_src=10.1.0.1,udp_src=5,udp_dst=6"
    )
    assert flow_text({"nw_ttl": "64", "tcp": ""}) == "tcp,nw_ttl=64"


@given(st.text() | st.text(alphabet='0123. \n,=>-()bridge"output:priority cookiexFlow'))
def test_any_text_is_a_trace_or_none(noise: str) -> None:
    with pytest.raises(ValueError, match="no trace"):
        parse_trace(noise.replace("Flow: ", ""))
    parse_trace(f"Flow: in_port=1\n\n{noise}")


CONNECTION = (
    "tcp,orig=(src=10.1.0.21,dst=10.1.0.11,sport=40000,dport=80),"
    "reply=(src=10.1.0.11,dst=10.1.0.21,sport=80,dport=40000),zone=1,mark=1,protoinfo=(state=ESTABLISHED)"
)


def test_a_connection_is_known_from_both_sides() -> None:
    forth, back = (
        ("6", "10.1.0.21", "10.1.0.11", "40000", "80"),
        ("6", "10.1.0.11", "10.1.0.21", "80", "40000"),
    )
    assert of_connection(CONNECTION, forth) == ("est|trk", 1)
    assert of_connection(CONNECTION.replace(",mark=1", ""), back) == ("est|rpl|trk", 0)
    assert of_connection(CONNECTION, ("17", *forth[1:])) is None
    assert of_connection(CONNECTION, (*forth[:3], "40001", "80")) is None
