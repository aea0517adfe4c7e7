"""Packets that come up: read off whatever they hold, queued without an end to the session or to the queue."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.drivers.openflow.packets import (
    WAITING,
    PacketIns,
    is_packet_in,
    packet_out,
    parse_packet_in,
)
from vswitchctl.errors import InternalError
from vswitchctl.pipeline.fields import IN_PORT, REG
from vswitchctl.pipeline.punt import Answer, Opcode, PacketIn, PacketOut, answers_of, continue_in
from vswitchctl.pipeline.registers import DENIED, NETWORK, OUT_PORT
from vswitchctl.pipeline.tables import L2_LOOKUP

SECONDS = 20


def prop(kind: int, value: bytes) -> bytes:
    whole = pack(">HH", kind, 4 + len(value)) + value
    return whole + bytes(-len(whole) % 8)


def packet_in(frame: bytes, opcode: int = 1, userdata: bytes | None = None) -> bytes:
    """An NXT_PACKET_IN2, nicira-ext.h."""
    regs = ((IN_PORT, 7), (REG[0], 0x10A), (REG[1], 3), (REG[3], 0x10005))
    metadata = b"".join(pack(">II", field.header, value) for field, value in regs)
    body = b"".join(
        (
            prop(0, frame),
            prop(3, b"\x37"),
            prop(4, bytes(4) + pack(">Q", 0x7600000000050001)),
            prop(5, b"\x01"),
            prop(6, metadata),
            prop(7, bytes([0x76, opcode]) if userdata is None else userdata),
        )
    )
    return pack(">BBHIII", 5, 4, 16 + len(body), 0, 0x2320, 30) + body


def test_a_packet_is_read_with_its_registers() -> None:
    found = parse_packet_in("br0", packet_in(b"frame"))
    assert found is not None
    assert (found.bridge, found.opcode, found.table, found.data) == ("br0", 1, 55, b"frame")
    assert found.cookie == 0x7600000000050001
    assert found.in_port == 7
    assert [found.register(bits) for bits in (NETWORK, OUT_PORT, DENIED)] == [0x10A, 3, 1]


@pytest.mark.parametrize("userdata", [b"", b"\x76", b"\x75\x01", b"\x76\x01\x02"])
def test_packets_of_others_are_not_ours(userdata: bytes) -> None:
    assert parse_packet_in("br0", packet_in(b"frame", userdata=userdata)) is None


def test_only_packets_are_taken_off() -> None:
    assert is_packet_in(4, packet_in(b""))
    assert is_packet_in(10, bytes(40))
    assert not is_packet_in(4, packet_in(b"")[:12])
    assert not is_packet_in(19, packet_in(b""))


@given(st.data())
def test_a_damaged_packet_is_read_or_left(data: st.DataObject) -> None:
    whole = bytearray(packet_in(b"a frame of some bytes"))
    places = st.tuples(st.integers(16, len(whole) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(places, max_size=5)):
        whole[at] = value
    found = parse_packet_in("br0", bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    assert found is None or isinstance(found.register(NETWORK), int)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_left(data: bytes) -> None:
    parse_packet_in("br0", data)


def test_what_is_too_much_pushes_out_the_oldest() -> None:
    seen: list[int] = []
    entered, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def handle(packet: PacketIn) -> list[PacketOut]:
        entered.set()
        assert go_on.wait(SECONDS)
        seen.append(int(packet.data))
        if seen[-1] == WAITING + 5:
            done.set()
        return []

    packets = PacketIns(handle, lambda bridge, message: None)
    packets.put("br0", packet_in(b"0"))
    assert entered.wait(SECONDS)
    for number in range(1, WAITING + 6):
        packets.put("br0", packet_in(b"%d" % number))
    go_on.set()
    assert done.wait(SECONDS)
    packets.close()
    assert packets.dropped == 5
    assert seen == [0, *range(6, WAITING + 6)]


def test_one_that_cannot_be_answered_ends_nothing() -> None:
    sent: list[tuple[str, bytes]] = []
    done = threading.Event()

    def handle(packet: PacketIn) -> list[PacketOut]:
        if packet.data == b"bad":
            raise ValueError("cannot be read")
        return [PacketOut(packet.data, b"")]

    def send(bridge: str, message: bytes) -> None:
        sent.append((bridge, message))
        done.set()

    packets = PacketIns(handle, send)
    for data in (packet_in(b"bad"), b"\0", packet_in(b"good")):
        packets.put("br0", data)
    assert done.wait(SECONDS)
    packets.close()
    assert sent == [("br0", packet_out(PacketOut(b"good", b"")))]


def test_a_frame_goes_on_in_a_table_with_registers() -> None:
    sent = packet_out(continue_in(L2_LOOKUP, b"frame", {NETWORK: 5}))
    load, resubmit = (
        "ffff0018000023200007000f000100040000000000000005",
        "ffff001000002320000efff850000000",
    )
    assert sent[:24].hex() == f"050d{len(sent):04x}80000000fffffffffffffffd0028000000000000"
    assert sent[24:].hex() == load + resubmit + b"frame".hex()


class Answering:
    """An app that answers."""

    name = "answering"
    tables = ()

    def __init__(self, opcode: Opcode) -> None:
        self.answers: Mapping[int, Answer] = {opcode: lambda packet: ()}

    def compile(self, switch: object) -> object:
        raise AssertionError(switch)


def test_each_question_has_one_app() -> None:
    one, other = Answering(Opcode.REJECT_SENDER), Answering(Opcode.TIME_EXCEEDED)
    assert answers_of([one, other]).keys() == {1, 3}  # type: ignore[list-item]
    with pytest.raises(InternalError, match="opcode 1 of app 'answering'"):
        answers_of([one, Answering(Opcode.REJECT_SENDER)])  # type: ignore[list-item]
