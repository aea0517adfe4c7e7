"""Templates: what they refuse, how register bits merge, and that one flow and many are the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.errors import InternalError
from vswitchctl.pipeline import actions as act
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.encode import Template, Var, flow
from vswitchctl.pipeline.registers import LEARN, NETWORK, NO_FLOOD, OUT_PORT, REGISTERS
from vswitchctl.pipeline.tables import (
    BY_ID,
    CLASSIFY,
    CT_TO,
    FLOOD,
    L2_LEARNED,
    L2_LEARNING,
    L2_LOOKUP,
    OUTPUT,
    TABLES,
    Table,
)

ANY = Table(5, "any", frozenset(f.FIELDS) | frozenset(REGISTERS), frozenset(f.FIELDS) | {"out_port"})

LOOKUP = Template(
    L2_LOOKUP,
    100,
    {NETWORK: Var("network"), f.ETH_DST: Var("mac")},
    [act.load(OUT_PORT, Var("port"))],
    CT_TO,
    idle_timeout=3,
)


def test_a_flow_has_the_bytes_of_the_standard() -> None:
    made = LOOKUP(0x7600000000000001, network=5, mac=0x020000000001, port=9)
    assert made.key == bytes.fromhex("50 0064 80000606 020000000001 00010108 00000005 0000ffff")
    apply_actions = "0004 0020 00000000 ffff 0018 00002320 0007 001f 00010204 0000000000000009"
    assert made.value == bytes.fromhex(f"7600000000000001 0003 0000 0000 {apply_actions} 0001 0008 5a 000000")


def test_register_bits_merge_into_one_masked_field() -> None:
    made = flow(FLOOD, 1, {NO_FLOOD: 1})
    assert made.key == bytes.fromhex("52 0001 00010508 00000002 00000002")
    both = flow(ANY, 1, {LEARN: 1, NO_FLOOD: 1})
    assert both.key == bytes.fromhex("05 0001 00010508 00000003 00000003")
    swapped = flow(ANY, 1, {NO_FLOOD: 1, LEARN: 1})
    assert swapped == both


def test_several_variables_share_a_register() -> None:
    template = Template(ANY, 1, {NO_FLOOD: Var("no_flood"), LEARN: Var("learn")})
    assert template(0, learn=1, no_flood=0).key.hex().endswith("0000000100000003")
    assert template(0, learn=0, no_flood=1).key.hex().endswith("0000000200000003")


def test_a_full_mask_is_left_out() -> None:
    assert flow(ANY, 1, {f.ETH_DST: (5, (1 << 48) - 1)}) == flow(ANY, 1, {f.ETH_DST: 5})
    assert flow(ANY, 1, {f.ETH_DST: (0, 0)}) == flow(ANY, 1, {})


def test_a_register_value_of_zero_is_matched() -> None:
    assert flow(FLOOD, 1, {OUT_PORT: 0}).key.hex() == "520001" + "00010204" + "00000000"


REFUSED: dict[str, dict[str, Any]] = {
    "does not match 'dl_src'": {"table": L2_LOOKUP, "match": {f.ETH_SRC: 1}},
    "does not allow load to set 'network'": {"table": L2_LOOKUP, "actions": [act.load(NETWORK, 1)]},
    "does not allow output to set 'output'": {"table": L2_LOOKUP, "actions": [act.output(1)]},
    "does not lead to table 'classify'": {"table": L2_LOOKUP, "goto": CLASSIFY},
    "does not lead to table 'l2_lookup'": {"table": CLASSIFY, "actions": [act.resubmit(L2_LOOKUP)]},
    "leads back": {"table": Table(9, "loop", next=frozenset({"loop"})), "goto": Table(9, "loop")},
    "needs 'dl_type'": {"table": ANY, "match": {f.IPV4_SRC: 1}},
    "needs 'nw_proto'": {
        "table": ANY,
        "match": {f.ETH_TYPE: f.ETH_TYPE_IPV4, f.IP_PROTO: f.PROTO_UDP, f.TCP_DST: 80},
    },
    "needs 'nw_proto' in": {
        "table": ANY,
        "match": {f.ETH_TYPE: f.ETH_TYPE_IPV4, f.IP_PROTO: Var("any"), f.TCP_DST: 80},
    },
    "can only be matched in full": {"table": ANY, "match": {f.IN_PORT: (0, 1)}},
    "outside its mask": {"table": ANY, "match": {f.ETH_DST: (3, 1)}},
    "is wider than 'learn'": {"table": ANY, "match": {LEARN: (0, 2)}},
    "twice": {"table": ANY, "match": {LEARN: 1, f.REG[2]: 1}},
    "longer than an OpenFlow message": {"table": OUTPUT, "actions": [act.output(1)] * 5000},
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_flow_its_table_does_not_allow_is_refused(why: str) -> None:
    wanted = REFUSED[why]
    with pytest.raises(InternalError, match=why):
        Template(wanted["table"], 1, wanted.get("match", {}), wanted.get("actions", ()), wanted.get("goto"))


def test_what_is_learned_must_be_allowed_too() -> None:
    with pytest.raises(InternalError, match="does not allow learned 'dl_src'"):
        act.learn(L2_LEARNED, 1, [act.copy_spec(f.ETH_DST, f.ETH_SRC)])
    with pytest.raises(InternalError, match="not one that the switch fills"):
        act.learn(L2_LOOKUP, 1, [])
    with pytest.raises(InternalError, match="copies 48 bits of 'dl_src' to 32 bits of 'out_port'"):
        act.load_spec(f.ETH_SRC, OUT_PORT)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"network": 0x10000, "mac": 1, "port": 1}, "network=0x10000 does not fit"),
        ({"network": -1, "mac": 1, "port": 1}, "network=-0x1 does not fit"),
        ({"network": 1, "mac": 1 << 48, "port": 1}, "does not fit"),
        ({"network": 1, "mac": 1, "port": 1 << 32}, "does not fit"),
        ({"network": 1, "mac": 1}, "was given \\(mac, network\\)"),
        ({"network": 1, "mac": 1, "port": 1, "more": 1}, "was given"),
        ({"network": 1, "mac": 1, "other": 1}, "was given"),
    ],
)
def test_variables_that_do_not_fit_are_refused(values: dict[str, int], why: str) -> None:
    with pytest.raises(InternalError, match=why):
        LOOKUP(1, **values)


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InternalError, match="network=0x10000 does not fit"):
        LOOKUP.rows([(1, 5, 1, 1), (1, 0x10000, 1, 1)])
    with pytest.raises(InternalError, match="rows of 3 for the columns cookie, network, mac, port"):
        LOOKUP.rows([(1, 5, 1)])
    with pytest.raises(InternalError, match="cookie"):
        LOOKUP.rows([(1 << 64, 5, 1, 1)])
    assert LOOKUP.rows([]) == {}


IPV6 = Template(
    ANY,
    7,
    {
        f.ETH_TYPE: f.ETH_TYPE_IPV6,
        f.IPV6_SRC: (Var("net"), (1 << 128) - (1 << 64)),
        f.IPV6_DST: Var("address"),
        NETWORK: Var("network"),
        f.REG[0]: (Var("high"), 0xFFFF0000),
    },
    [act.set_vlan(Var("vid")), act.set_field(f.ETH_SRC, Var("mac"))],
)
U64 = st.integers(0, (1 << 64) - 1)
U16 = st.integers(0, (1 << 16) - 1)
ROW = st.tuples(
    U64,
    U64.map(lambda n: n << 64),
    st.integers(0, (1 << 128) - 1),
    U16,
    U16.map(lambda n: n << 16),
    st.integers(0, 0x1FFF),
    st.integers(0, (1 << 48) - 1),
)


@given(st.lists(ROW, min_size=1, max_size=20))
def test_one_by_one_and_in_bulk_are_the_same_bytes(rows: list[tuple[int, ...]]) -> None:
    names = IPV6.vars
    singles = [IPV6(row[0], **dict(zip(names, row[1:], strict=True))) for row in rows]
    assert IPV6.rows(rows) == dict(singles)


@given(ROW)
def test_a_template_and_constants_are_the_same_bytes(row: tuple[int, ...]) -> None:
    cookie, net, address, network, high, vid, mac = row
    match = {
        f.ETH_TYPE: f.ETH_TYPE_IPV6,
        f.IPV6_SRC: (net, (1 << 128) - (1 << 64)),
        f.IPV6_DST: address,
        NETWORK: network,
        f.REG[0]: (high, 0xFFFF0000),
    }
    constant = flow(ANY, 7, match, [act.set_vlan(vid), act.set_field(f.ETH_SRC, mac)], cookie=cookie)
    assert IPV6(cookie, **dict(zip(IPV6.vars, row[1:], strict=True))) == constant


def test_tables_are_ordered_and_lead_forward_to_tables_that_exist() -> None:
    assert [table.id for table in TABLES] == sorted(BY_ID)
    names = {table.name: table for table in TABLES}
    for table in TABLES:
        # A flood in parts looks itself up again, and one that was counted begins; nothing else leads back.
        itself = {"flood"} if table.name in {"flood", "unknown_storm"} else set()
        assert all(names[name].id > table.id for name in table.next - itself)
        assert table.matches <= set(f.FIELDS) | set(REGISTERS)
        assert table.purpose
    assert L2_LEARNING.sets == {f"learn:{L2_LEARNED.name}"}


def test_register_bits_do_not_overlap() -> None:
    taken: dict[str, int] = {}
    for bits in REGISTERS.values():
        assert not taken.get(bits.field.name, 0) & bits.mask, bits.name
        taken[bits.field.name] = taken.get(bits.field.name, 0) | bits.mask
