"""What would match: against the encoder's own bytes, and against every flow of a packet drawn at random."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.errors import UserError
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.encode import Match, flow
from vswitchctl.pipeline.registers import NETWORK
from vswitchctl.pipeline.tables import ACL_TO, L2_LOOKUP, SOURCE_ADDRESS, Table
from vswitchctl.service.matching import known_fields, would_match

IPV4 = {f.ETH_TYPE: f.ETH_TYPE_IPV4}


def matches(match: Match, *texts: str, table: Table = SOURCE_ADDRESS, whole: bool = False) -> bool:
    key = flow(table, 1, match).key
    return would_match(key[3:], known_fields(texts, whole=whole))


def test_an_address_would_match_its_prefixes_and_what_says_nothing_of_it() -> None:
    ten = {**IPV4, f.IPV4_SRC: (0x0A010000, 0xFFFFFF00)}
    assert matches(ten, "ip_src=10.1.0.5")
    assert matches(ten, "nw_src=10.0.0.0/8")
    assert not matches(ten, "ip_src=10.2.0.5")
    assert matches({}, "ip_src=10.2.0.5") and matches(IPV4, "ip_src=10.2.0.5")
    assert matches({f.IN_PORT: 3}, "ip_src=10.2.0.5")


def test_what_a_field_needs_is_known_with_it() -> None:
    assert not matches({f.ETH_TYPE: f.ETH_TYPE_IPV6}, "ip_src=10.1.0.5")
    assert matches({f.ETH_TYPE: f.ETH_TYPE_IPV6}, "ip_src=fd00::1")
    udp = {**IPV4, f.IP_PROTO: f.PROTO_UDP}
    assert not matches(udp, "tcp_dst=80") and matches(udp, "udp_dst=80") and matches(udp, "udp,tp_dst=80")
    assert not matches({**udp, f.UDP_DST: 53}, "udp_dst=80")


def test_registers_have_names() -> None:
    mac = 0x020000000001
    match: Match = {NETWORK: 7, f.ETH_DST: mac}
    assert matches(match, "network=7,eth_dst=02:00:00:00:00:01", table=L2_LOOKUP)
    assert not matches(match, "network=8", table=L2_LOOKUP)
    assert not matches(match, "reg0=0x8/0xf", table=L2_LOOKUP)
    group: Match = {f.ETH_DST: (f.GROUP_BIT, f.GROUP_BIT)}
    assert matches(group, "dl_dst=ff:ff:ff:ff:ff:ff", table=L2_LOOKUP)
    assert not matches(group, "dl_dst=02:00:00:00:00:01", table=L2_LOOKUP)


def test_a_whole_packet_opens_its_connection() -> None:
    rule: Match = {
        **IPV4,
        f.IP_PROTO: f.PROTO_TCP,
        f.CT_STATE: f.CT_VALID,
        f.CT_NW_PROTO: 6,
        f.CT_TP_DST: 443,
    }
    answer: Match = {f.CT_STATE: (10, 10)}
    packet = "tcp,tcp_dst=443,ip_dst=10.1.0.5"
    assert matches(rule, packet, table=ACL_TO, whole=True)
    assert not matches(rule, packet.replace("443", "80"), table=ACL_TO, whole=True)
    assert not matches(answer, packet, table=ACL_TO, whole=True)
    assert matches(answer, packet, table=ACL_TO)
    assert matches(answer, f"{packet},ct_state=+trk+est+rpl", table=ACL_TO, whole=True)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_against_arithmetic(packet: int, prefix: int, length: int) -> None:
    mask = (1 << 32) - (1 << 32 - length)
    match: Match = {**IPV4, **({f.IPV4_SRC: (prefix & mask, mask)} if mask else {})}
    text = ".".join(str(octet) for octet in packet.to_bytes(4, "big"))
    assert matches(match, f"ip_src={text}") == (packet & mask == prefix & mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ip_dts=10.1.0.5", "no field is called 'ip_dts'; did you mean 'ip_dst'?"),
        ("ip_dst", "'ip_dst' is no field=value; as ip_dst=10.1.0.5, or a protocol as tcp"),
        ("ip_dst=10.1.0.300", "nw_dst=10.1.0.300: Octet 300 (> 255) not permitted in '10.1.0.300'"),
        ("dl_dst=02:00:00:00:00", "dl_dst=02:00:00:00:00: no MAC address; one is 02:00:00:00:00:01"),
        ("tcp_dst=70000", "tcp_dst=70000 does not fit: the field has 16 bits; at most 0xffff"),
        ("tcp_dst=http", "tcp_dst=http is no number"),
        ("tp_dst=80", "tp_dst of which protocol?; say tcp_dst or udp_dst"),
        ("udp,tcp_dst=80", "no packet has such a nw_proto: it would have to have two values"),
        ("ct_state=+nwe", "ct_state=+nwe: 'nwe'"),
    ],
)
def test_what_is_no_field_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        known_fields([text])
    assert str(raised.value).startswith(message)
