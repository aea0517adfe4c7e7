"""The log of ACLs: which packets make lines, how many, and what they say."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_acl_flows import lan
from vswitchctl.errors import Unreachable
from vswitchctl.model.intent import Intent, Stored
from vswitchctl.model.state import Owner
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.ip import frame_words
from vswitchctl.pipeline.punt import Opcode, PacketIn
from vswitchctl.service.acl_log import KEPT, AclLog, line_text

MACS = bytes.fromhex("020000000002020000000001")
UDP4 = MACS + bytes.fromhex("08004500001c0001000040110000 0a000001 0a000002 9c400035 00080000")
RULES: list[dict[str, Any]] = [
    {"direction": "in", "action": "allow", "log": {"rate": 3}, "description": 'a "name"\nacl=forged'},
    {"direction": "in", "action": "deny"},
    {"direction": "out", "action": "reject", "log": True},
]


class Database:
    """Stored topologies that change, and go away."""

    def __init__(self, rules: list[dict[str, Any]]) -> None:
        self.away = False
        self.intent: Intent = {}
        self.store(rules)

    def store(self, rules: list[dict[str, Any]]) -> None:
        self.intent = {"lan": Stored(lan({"a": rules}), 1, {}, zones={"e0:i": 7, "e1:i": 8})}

    def read(self) -> Intent:
        if self.away:
            raise Unreachable("the database is away", "wait")
        return self.intent


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def met(rule: int, zone: int = 7, data: bytes = UDP4, fields: Mapping[str, int] | None = None) -> PacketIn:
    """What the switch sends up when a rule meets a packet."""
    given = {"reg3": zone} if fields is None else fields
    return PacketIn("br", Opcode.LOG, cookie(Owner("lan", "acls/a"), rule), 100, given, data)


def test_a_line_says_which_rule_met_what_and_where(caplog: pytest.LogCaptureFixture) -> None:
    log = AclLog(Database(RULES).read)
    with caplog.at_level(logging.INFO):
        assert log.note(met(1)) == ()
        assert log.note(met(3, zone=8)) == ()
    first, second = log.lines()
    assert (first.number, first.topology, first.acl, first.rule) == (1, "lan", "a", 1)
    assert (first.verdict, first.direction, first.interface, first.bridge) == ("allow", "in", "e0:i", "br")
    assert first.packet == "udp 10.0.0.1:40000 > 10.0.0.2:53"
    assert (second.verdict, second.direction, second.interface) == ("reject", "out", "e1:i")
    assert [record.getMessage() for record in caplog.records] == [line_text(first), line_text(second)]
    assert line_text(first) == (
        "acl=lan/a rule=1 verdict=allow direction=in interface=e0:i bridge=br "
        'packet="udp 10.0.0.1:40000 > 10.0.0.2:53" description="a \\"name\\"\\nacl=forged"'
    )


def test_only_rules_with_a_log_make_lines() -> None:
    log = AclLog(Database(RULES).read)
    for packet in (met(2), met(4), met(0), PacketIn("br", Opcode.LOG, 0, 0, {}, b"")):
        assert log.note(packet) == ()
    assert log.lines() == ()


def test_a_rule_keeps_to_its_rate_and_says_what_it_left_out() -> None:
    clock = Clock()
    log = AclLog(Database(RULES).read, clock)
    for _ in range(10):
        log.note(met(1))
    log.note(met(3))
    assert [line.rule for line in log.lines()] == [1, 1, 1, 3], "another rule's lines are its own"
    clock.now += 0.5
    for _ in range(10):
        log.note(met(1))
    (line,) = log.lines(after=4)
    assert line.left_out == 7
    clock.now += 3600
    for _ in range(10):
        log.note(met(1))
    assert [line.left_out for line in log.lines(after=5)] == [9, 0, 0], "an hour of silence saves nothing up"


def test_rules_are_those_stored_now_and_the_last_known_while_the_database_is_away() -> None:
    database = Database(RULES)
    log = AclLog(database.read)
    log.note(met(1))
    database.away = True
    log.note(met(1))
    database.away = False
    database.store(RULES[1:])
    log.note(met(1))
    assert [line.rule for line in log.lines()] == [1, 1], "rule 1 has no log any more"
    log.note(met(2))
    assert log.lines(after=2)[0].verdict == "reject"


def test_the_oldest_lines_go_first() -> None:
    clock = Clock()
    log = AclLog(Database(RULES).read, clock)
    for _ in range(KEPT + 5):
        clock.now += 1
        log.note(met(3))
    assert [line.number for line in log.lines()] == list(range(6, KEPT + 6))


def test_who_follows_gets_a_line_as_it_comes() -> None:
    log = AclLog(Database(RULES).read)
    assert log.lines(after=0, timeout=0.01) == ()
    found: list[int] = []
    follower = Thread(target=lambda: found.extend(line.number for line in log.lines(0, 60)))
    follower.start()
    log.note(met(1))
    follower.join()
    assert found == [1]
    assert [line.number for line in log.lines(after=900)] == [1], "a number of the daemon before this one"


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["reg3", "in_port"]), st.integers(0, 2**32)))
def test_no_bytes_break_it(data: bytes, fields: dict[str, int]) -> None:
    for frame in (
        data,
        MACS + b"\x08\x00" + data,
        MACS + b"\x86\xdd`" + data,
        UDP4 + data,
        UDP4[: len(data)],
    ):
        log = AclLog(Database(RULES).read)
        log.note(met(1, data=frame, fields=fields))
        (line,) = log.lines()
        assert line.packet.isprintable() and line_text(line).isprintable()


V6 = bytes.fromhex("fd000001000000000000000000000001fd000001000000000000000000000002")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (UDP4, "udp 10.0.0.1:40000 > 10.0.0.2:53"),
        (UDP4[:34], "udp 10.0.0.1 > 10.0.0.2"),
        (UDP4[:20] + b"\x00\x08" + UDP4[22:], "udp 10.0.0.1 > 10.0.0.2 (a later fragment)"),
        (UDP4[:23] + b"\x01" + UDP4[24:34] + b"\x08\x00\x00\x00", "icmp type 8 code 0 10.0.0.1 > 10.0.0.2"),
        (UDP4[:23] + b"\x2f" + UDP4[24:], "protocol 47 10.0.0.1 > 10.0.0.2"),
        (UDP4[:23] + b"\x84" + UDP4[24:], "sctp 10.0.0.1:40000 > 10.0.0.2:53"),
        (
            MACS + b"\x86\xdd" + bytes.fromhex("6000000000040640") + V6 + bytes.fromhex("9c400050"),
            "tcp [fd00:1::1]:40000 > [fd00:1::2]:80",
        ),
        (
            MACS + b"\x86\xdd" + bytes.fromhex("6000000000043a40") + V6 + bytes.fromhex("80000000"),
            "icmpv6 type 128 code 0 fd00:1::1 > fd00:1::2",
        ),
        (MACS + b"\x08\x06", "arp 02:00:00:00:00:01 > 02:00:00:00:00:02"),
        (MACS + b"\x08\x00\x45", "ip, cut off 02:00:00:00:00:01 > 02:00:00:00:00:02"),
        (MACS + b"\x88\xb5", "ethertype 0x88b5 02:00:00:00:00:01 > 02:00:00:00:00:02"),
        (b"abc", "a frame of 3 bytes"),
    ],
)
def test_a_packet_in_words(frame: bytes, words: str) -> None:
    assert frame_words(frame) == words
