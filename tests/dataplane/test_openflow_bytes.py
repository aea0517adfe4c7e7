"""What the switch dumps is byte for byte what we sent: every field, mask and action, on a real switch.

The diff compares bytes, so a single difference here would be a flow that is rewritten for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from instances import Ovs

from vswitchctl.drivers.openflow import OpenFlowDriver
from vswitchctl.model.flow import Flow, FlowTable
from vswitchctl.pipeline import actions as act
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.actions import Action
from vswitchctl.pipeline.cookies import LEARNED_RULE, MAGIC
from vswitchctl.pipeline.decode import describe, ofctl_text
from vswitchctl.pipeline.encode import Match, flow
from vswitchctl.pipeline.fields import FIELDS, Field
from vswitchctl.pipeline.registers import LEARN, NETWORK, NO_FLOOD, OUT_PORT, REGISTERS, SCRATCH, Bits
from vswitchctl.pipeline.tables import Table

EVERYTHING = frozenset(FIELDS) | frozenset(REGISTERS)
SETS = EVERYTHING | {"output", "queue", "conjunction", "controller", "ct", "ct_clear", "learn:learned"}
NEXT = Table(9, "next")
LEARNED = Table(81, "learned", matches=EVERYTHING, sets=SETS, learned=True)
ANY = Table(5, "any", matches=EVERYTHING, sets=SETS, next=frozenset({"next"}))
COOKIE = MAGIC | 5
CT_BIT, CT_WHOLE = Bits(f.CT_MARK, 0, 1, "ct_mark"), Bits(f.CT_MARK, 0, 32, "ct_mark")
SPARE = Bits(f.REG[3], 0, 32, "reg3")
VID = 0x1001


def prerequisites(field: Field) -> dict[Field, int]:
    wanted = {FIELDS[need.field]: min(need.values) for need in field.prereq}
    return wanted | ({f.VLAN_VID: VID} if field is f.VLAN_PCP else {})


def value_of(field: Field) -> int:
    return VID if field is f.VLAN_VID else 1


def mask_of(field: Field) -> tuple[int, int]:
    """A value and mask that fits the field and that ovs-ofctl can say."""
    special = {f.VLAN_VID: (0x1000, 0x1000), f.IP_FRAG: (0, 2)}
    if field in special:
        return special[field]
    top = 1 << field.bits - 1
    return top, top


def matches() -> Iterator[Match]:
    for field in FIELDS.values():
        yield prerequisites(field) | {field: value_of(field)}
        if field.maskable:
            yield prerequisites(field) | {field: mask_of(field)}
    yield {}
    yield {f.VLAN_VID: 0}
    yield {f.VLAN_VID: (0, 0x1000)}
    yield {NETWORK: 7, LEARN: 1, NO_FLOOD: 0, OUT_PORT: 9}
    yield {LEARN: 1, NO_FLOOD: 1}


def crowded_matches() -> Iterator[Match]:
    """As many fields at once as go together, which is what shows the order among them."""
    ip = {f.IP_FRAG: 1, f.IP_DSCP: 3, f.IP_ECN: 1, f.IP_TTL: 255}
    ipv4 = {f.ETH_TYPE: f.ETH_TYPE_IPV4, f.IPV4_SRC: (0x0A000000, 0xFF000000), f.IPV4_DST: 5, **ip}
    ipv6 = {
        f.ETH_TYPE: f.ETH_TYPE_IPV6,
        f.IPV6_SRC: (1 << 127, 1 << 127),
        f.IPV6_DST: 9,
        f.IPV6_LABEL: 7,
        **ip,
    }
    link = {f.IN_PORT: 1, f.ETH_SRC: 2, f.ETH_DST: 3, f.VLAN_VID: VID, f.VLAN_PCP: 3}
    registers = dict.fromkeys(f.REG, 6)
    tunnel = {f.TUN_ID: 5, f.TUN_SRC: 6, f.TUN_DST: 7}
    tracked = {f.CT_STATE: (0x21, 0x21), f.CT_ZONE: 4, f.CT_MARK: 4, f.CT_LABEL: 5}
    rest = {f.CONJ_ID: 8, f.PKT_MARK: 3, f.METADATA: 6, **link, **registers, **tunnel, **tracked}
    ports = {f.PROTO_TCP: (f.TCP_SRC, f.TCP_DST), f.PROTO_UDP: (f.UDP_SRC, f.UDP_DST)}
    ports[f.PROTO_SCTP] = (f.SCTP_SRC, f.SCTP_DST)
    for protocol, (src, dst) in ports.items():
        for family in (ipv4, ipv6):
            yield {**rest, **family, f.IP_PROTO: protocol, src: 4, dst: (0x1000, 0xF000)}
    yield {**rest, **ipv4, f.IP_PROTO: f.PROTO_ICMP, f.ICMP_TYPE: 8, f.ICMP_CODE: 0}
    for kind, option in ((f.ICMPV6_NS, f.ND_SLL), (f.ICMPV6_NA, f.ND_TLL)):
        icmp = {f.IP_PROTO: f.PROTO_ICMPV6, f.ICMPV6_TYPE: kind, f.ICMPV6_CODE: 0}
        yield {**rest, **ipv6, **icmp, f.ND_TARGET: 5, option: 7, f.ND_RESERVED: 3, f.ND_OPTIONS_TYPE: 1}
    arp = {f.ARP_OP: 1, f.ARP_SPA: 3, f.ARP_TPA: 4, f.ARP_SHA: 5, f.ARP_THA: 6}
    yield {**rest, f.ETH_TYPE: f.ETH_TYPE_ARP, **arp}


def learning(**options: int) -> Action:
    specs = [
        act.copy_spec(NETWORK, NETWORK),
        act.copy_spec(f.ETH_SRC, f.ETH_DST),
        act.copy_spec(5, f.VLAN_VID),
        act.load_spec(f.IN_PORT, OUT_PORT),
        act.load_spec(7, SPARE),
        act.output_spec(f.IN_PORT),
    ]
    return act.learn(LEARNED, 10, specs, cookie=MAGIC | LEARNED_RULE, **options)


ACTIONS: dict[str, list[Action]] = {
    "drop": [act.drop()],
    "load 16 bits": [act.load(NETWORK, 5)],
    "load a register": [act.load(OUT_PORT, 0xFFFFFFFF)],
    "load bits": [act.load(LEARN, 1), act.load(NO_FLOOD, 0)],
    "move": [act.move(f.IN_PORT, OUT_PORT), act.move(NETWORK, Bits(f.REG[5], 4, 16, "reg5"))],
    "output": [act.output(3), act.in_port(), act.output_reg(OUT_PORT)],
    "vlan": [act.push_vlan(), act.set_vlan(5), act.output(4), act.pop_vlan()],
    "whole addresses": [act.move(f.ETH_SRC, f.ETH_DST), act.move(f.TUN_SRC, f.TUN_DST)],
    "from no port": [act.load(Bits(f.IN_PORT, 0, 32, "in_port"), 0), act.output(3)],
    "swap MACs": [
        *(act.move(f.ETH_SRC, SCRATCH), act.move(f.ETH_DST, f.ETH_SRC), act.move(SCRATCH, f.ETH_DST))
    ],
    "queue": [act.set_queue(3), act.output(3)],
    "resubmit": [act.resubmit(NEXT), act.output(1)],
    "conjunction": [act.conjunction(7, 1, 2), act.conjunction(8, 2, 2)],
    "controller": [act.controller(b"\x76\x01"), act.controller(b"\x76\x02\x03\x04\x05")],
    "learn": [learning(idle_timeout=300)],
    "learn with limit": [learning(limit=77, hard_timeout=3, delete_learned=False)],
    "set MAC": [act.set_field(f.ETH_SRC, 5), act.set_field(f.ETH_DST, 6)],
    "set metadata": [act.set_field(f.TUN_ID, 5), act.set_field(f.PKT_MARK, 4), act.set_field(f.METADATA, 3)],
}

CT_ACTIONS: dict[str, list[Action]] = {
    "ct": [act.ct(5)],
    "ct zone from register, on to a table": [act.ct(NETWORK, table=NEXT)],
    "ct_clear": [act.ct_clear()],
    "dec_ttl": [act.dec_ttl()],
    "ct commit": [act.ct(5, commit=True)],
    "ct commit and mark": [act.ct(NETWORK, commit=True, execute=[act.load(CT_BIT, 1)])],
    "ct commit and mark all": [act.ct(5, commit=True, execute=[act.load(CT_WHOLE, 0xFFFFFFFF)])],
}

SETTABLE = (
    (f.IPV4_SRC, f.IPV4_DST, f.IP_TTL, f.IP_ECN, f.IP_DSCP),
    (f.IPV6_SRC, f.IPV6_DST, f.IPV6_LABEL),
    *((f.TCP_SRC, f.TCP_DST), (f.UDP_SRC, f.UDP_DST), (f.SCTP_SRC, f.SCTP_DST)),
    (f.ARP_OP, f.ARP_SPA, f.ARP_TPA, f.ARP_SHA, f.ARP_THA),
    (f.ND_TARGET, f.ND_SLL, f.ND_RESERVED, f.ND_OPTIONS_TYPE),
    (f.ICMP_TYPE, f.ICMP_CODE),
    (f.ICMPV6_TYPE, f.ICMPV6_CODE),
)


def copied(field: Field) -> list[Action]:
    """The field as the source of a move, and as both sides of a learned match."""
    width = min(12 if field is f.VLAN_VID else field.bits, 32)
    moved = [act.move(field, SPARE, width)]
    if field is f.VLAN_PCP:
        return moved
    needed = [act.copy_spec(value, need) for need, value in prerequisites(field).items()]
    return [*moved, act.learn(LEARNED, 1, [*needed, act.copy_spec(field, field)])]


def action_flows() -> Iterator[tuple[str, Flow]]:
    shapes: list[tuple[str, Match, list[Action]]] = [(name, {}, done) for name, done in ACTIONS.items()]
    shapes += [(name, {f.ETH_TYPE: f.ETH_TYPE_IPV4}, done) for name, done in CT_ACTIONS.items()]
    for group in SETTABLE:
        needed = {need: value for field in group for need, value in prerequisites(field).items()}
        shapes.append((f"set {group[0].name}", needed, [act.set_field(field, 1) for field in group]))
    for field in FIELDS.values():
        if field not in {*f.REG, f.CONJ_ID}:
            shapes.append((f"copy {field.name}", prerequisites(field), copied(field)))
    for number, (name, match, done) in enumerate(shapes):
        yield (
            name,
            flow(ANY, 100 + number, match, done, None if name == "conjunction" else NEXT, cookie=COOKIE),
        )


def send_and_compare(driver: OpenFlowDriver, flows: FlowTable) -> None:
    assert driver.apply("br0", flows, ()) == []
    got = driver.read("br0").owned
    different = {describe(Flow(key, value)).text for key, value in flows.items() if got.get(key) != value}
    assert not different
    assert got == flows


def test_every_field_and_mask_comes_back_as_sent(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    flows = dict(flow(ANY, 1, match, cookie=COOKIE) for match in matches())
    assert len(flows) > len(FIELDS) * 3 // 2
    send_and_compare(bridge[1], flows)


def test_many_fields_at_once_come_back_in_the_same_order(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    flows = dict(flow(ANY, 1, match, cookie=COOKIE) for match in crowded_matches())
    assert len(flows) == 10
    send_and_compare(bridge[1], flows)


def test_every_action_comes_back_as_sent(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    send_and_compare(bridge[1], dict(flow for _, flow in action_flows()))


def test_ovs_ofctl_reads_our_text_as_the_same_flows(bridge: tuple[Ovs, OpenFlowDriver]) -> None:
    ovs, driver = bridge
    flows = dict(flow for _, flow in action_flows())
    # diff-flows of Open vSwitch 3.1 finds its own "ip_frag=not_later" different from itself.
    sayable = (
        match for match in (*matches(), *crowded_matches()) if match.get(f.IP_FRAG) != mask_of(f.IP_FRAG)
    )
    flows |= dict(flow(ANY, 1, match, cookie=COOKIE) for match in sayable)
    assert driver.apply("br0", flows, ()) == []
    text = ovs.rundir / "flows.txt"
    text.write_text("".join(f"{ofctl_text(Flow(key, value))}\n" for key, value in flows.items()))
    assert ovs.ofctl("diff-flows", "br0", str(text)) == ""
