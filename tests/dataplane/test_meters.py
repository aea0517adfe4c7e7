"""Meters on a real switch: read back as sent, changed, removed; what is not ours stays; restarts."""

from __future__ import annotations

from instances import Ovs

from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.model.meter import OURS, meter_id
from vswitchctl.pipeline import actions as act
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.cookies import MAGIC
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.encode import Template, Var
from vswitchctl.pipeline.meters import bits, meter_text, packets
from vswitchctl.pipeline.registers import OUT_PORT
from vswitchctl.pipeline.tables import Table

NEXT = Table(110, "next", sets=frozenset({"meter"}), next=frozenset({"end"}), matches=frozenset({"out_port"}))
END = Table(120, "end", sets=frozenset({"output"}), matches=frozenset({"out_port"}))
ANY = Table(
    *(5, "any", frozenset({"in_port", "dl_type"})),
    frozenset({"meter", "ip_dscp", "out_port"}),
    frozenset({"next"}),
)
METERED = Template(
    *(
        ANY,
        100,
        {f.IN_PORT: Var("port"), f.ETH_TYPE: f.ETH_TYPE_IPV4},
        [act.set_field(f.IP_DSCP, Var("dscp"))],
    ),
    *(NEXT,),
    meter=Var("meter"),
)
FIRST, SECOND = meter_id(0, 0), meter_id(7, 3)


def test_meters_come_back_as_sent_and_change_and_go(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    ovs, driver = bridge
    meters = {FIRST: bits(20_000, 5_000), SECOND: packets(100, 25), OURS[-1]: bits(1, 1)}
    assert driver.apply_meters("br0", meters, (), ()) == {}
    assert driver.read_meters("br0").owned == meters
    assert driver.read_meters("br0").most >= OURS[-1], "what the datapath says it takes"
    changed = {FIRST: bits(30_000, 7_500)}
    assert driver.apply_meters("br0", changed, changed, [SECOND]) == {}
    assert driver.read_meters("br0").owned == {FIRST: changed[FIRST], OURS[-1]: meters[OURS[-1]]}
    witness = " ".join(ovs.ofctl("dump-meters", "br0").split())
    assert f"meter={FIRST} kbps burst bands= type=drop rate=30000 burst_size=7500" in witness
    assert meter_text(changed[FIRST]) == "kbps,burst,band=type=drop,rate=30000,burst_size=7500"


def test_a_refused_meter_is_named_and_the_others_are_there(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    _, driver = bridge
    impossible = bits(1, 1)[:2] + b"\0\x09" + bits(1, 1)[4:]
    refused = driver.apply_meters("br0", {FIRST: bits(5, 5), SECOND: impossible}, (), ())
    assert list(refused) == [SECOND]
    assert "OFPET_" in refused[SECOND]
    assert driver.read_meters("br0").owned == {FIRST: bits(5, 5)}


def test_meters_of_others_are_told_apart_and_those_of_the_standard_are_nobodys(
    bridge: tuple[Ovs, OpenFlowDriver],
) -> None:
    ovs, driver = bridge
    ovs.ofctl("add-meter", "br0", "meter=7,kbps,bands=type=drop,rate=5")
    ovs.ofctl("add-meter", "br0", "meter=controller,pktps,bands=type=drop,rate=5")
    driver.apply_meters("br0", {FIRST: bits(5, 5)}, (), ())
    read = driver.read_meters("br0")
    assert (list(read.owned), list(read.foreign)) == ([FIRST], [7])


def test_a_metered_flow_comes_back_as_sent(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    _, driver = bridge
    driver.apply_meters("br0", {FIRST: bits(5, 5)}, (), ())
    one = METERED(MAGIC | 7, port=1, dscp=46, meter=FIRST)
    assert driver.apply("br0", dict([one]), ()) == []
    assert driver.read("br0").owned == dict([one])
    assert describe(one).actions_text == f"meter:{FIRST},set_field:46->ip_dscp,goto_table:110"
    missing = METERED(MAGIC | 7, port=2, dscp=46, meter=SECOND)
    assert len(driver.apply("br0", dict([missing]), ())) == 1


def test_a_copy_that_a_meter_drops_ends_nothing_else(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    """The datapath's clone around the meter: Open vSwitch makes one only for what it cannot undo."""
    ovs, driver = bridge
    for number in (1, 2, 3):
        ovs.vsctl(
            "add-port",
            "br0",
            f"p{number}",
            "--",
            "set",
            "interface",
            f"p{number}",
            "type=dummy",
            f"ofport_request={number}",
        )
    driver.apply_meters("br0", {FIRST: packets(5, 5), SECOND: packets(5, 5)}, (), ())
    flood = Template(
        *(Table(5, "any", sets=frozenset({"out_port"}), next=frozenset({"next"})), 1, {}),
        [
            act.apart(act.load(OUT_PORT, 2), act.resubmit(NEXT)),
            act.apart(act.load(OUT_PORT, 3), act.resubmit(NEXT)),
        ],
    )
    limited = Template(NEXT, 1, {OUT_PORT: Var("port")}, goto=END, meter=Var("meter"))
    out = Template(END, 1, {OUT_PORT: Var("port")}, [act.output(Var("port"))])
    enter = Template(Table(0, "enter", next=frozenset({"any"})), 1, {}, goto=ANY)
    flows = dict(
        [
            *(enter(MAGIC), flood(MAGIC)),
            *(limited(MAGIC, port=2, meter=FIRST), limited(MAGIC, port=3, meter=SECOND)),
            *(out(MAGIC, port=2), out(MAGIC, port=3)),
        ]
    )
    assert driver.apply("br0", flows, ()) == []
    assert driver.read("br0").owned == flows
    traced = ovs.appctl("ofproto/trace", "br0", "in_port=1")
    assert traced.splitlines()[-1].startswith("Datapath actions: clone(meter(0),"), traced
    assert ",clone(meter(1)," in traced or traced.splitlines()[-1].count("meter") == 2
