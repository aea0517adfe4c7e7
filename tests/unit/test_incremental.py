"""Compiled change by change is what is compiled at once; what nobody changed stays the object it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policies import document, policy
from vswitchctl.compiler.compile import Compiler, compile_topology, provisional
from vswitchctl.compiler.flows import FlowCompiler
from vswitchctl.errors import InternalError
from vswitchctl.latest import Latest, Steady
from vswitchctl.model.domains import Vif, VifKey, VmFacts
from vswitchctl.model.flow import Flow, PartedTable, cookie
from vswitchctl.model.intent import PolicyChange, Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.state import DesiredState, Facts, Owner, PortKey
from vswitchctl.model.switch import Switch
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import Part, PartedApp, ReadingApp, load_apps
from vswitchctl.pipeline.cookies import resolve
from vswitchctl.topology.load import load
from vswitchctl.topology.validate import validate

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 1 << 32)


def stored(topology: Topology, generation: int = 1) -> Stored:
    zones = allocate_zones(topology, {}, ())
    return Stored(topology, generation, allocate_tags(topology, {}), zones=zones)


def numbered(topology: Topology) -> Facts:
    first = compile_topology(stored(topology), Facts(), load_apps())
    return provisional(first, Facts())


def a_change(random: Random, topology: Topology) -> PolicyChange:
    """Another content for one ACL or group, of those that other policies have under its name."""
    other = topology.model_validate({**topology.model_dump(), **policy(random)})
    section: Any = random.choice(["acls", "acls", "groups"])
    name = random.choice(sorted(getattr(topology, section)))
    if section == "groups" or random.random() < 0.5:
        return PolicyChange(section, name, getattr(other, section)[name])
    rules = list(topology.acls[name])
    rules[random.randrange(len(rules))] = random.choice(other.acls[name])
    return PolicyChange("acls", name, tuple(rules))


def valid_changes(random: Random, topology: Topology, count: int) -> Iterator[Topology]:
    for _ in range(count):
        changed = a_change(random, topology).applied(topology)
        if not any(finding.severity == "error" for finding in validate(changed)):
            topology = changed
            yield topology


def alike(found: DesiredState, expected: DesiredState) -> bool:
    return (found.netlink, found.ovs, found.pending, dict(found.cookies), found.meters) == (
        expected.netlink, expected.ovs, expected.pending, dict(expected.cookies), expected.meters
    ) and {name: table.whole for name, table in found.flows.items()} == {
        name: table.whole for name, table in expected.flows.items()
    }  # fmt: skip


@SLOW
@given(SEEDS)
def test_change_by_change_gives_what_one_compile_gives(seed: int) -> None:
    random = Random(seed)
    topology = document(random)
    facts, apps = numbered(topology), load_apps()
    again, generation = Compiler(apps), 1
    again.compile({topology.name: stored(topology)}, facts)
    for changed in valid_changes(random, topology, 8):
        generation += 1
        intent = {topology.name: stored(changed, generation)}
        assert alike(again.compile(intent, facts), Compiler(apps).compile(intent, facts))


@SLOW
@given(SEEDS)
def test_so_it_does_when_ports_come_and_go(seed: int) -> None:
    random = Random(seed)
    topology = document(random)
    facts, apps = numbered(topology), load_apps()
    again = Compiler(apps)
    for _ in range(5):
        moved = random.choice([0, 0, 1000])
        known = {key: n + moved for key, n in facts.ofports.items() if random.random() < 0.8}
        some = Facts(known, facts.system_datapath)
        intent = {topology.name: stored(topology)}
        assert alike(again.compile(intent, some), Compiler(apps).compile(intent, some))


def plugged(*names: str) -> VmFacts:
    """The guests of topologies/guests.yaml; those named run."""
    vifs = {}
    for number, name in enumerate(("red-guest", "blue-guest"), 1):
        device = f"vnet{number}" if name in names else ""
        status: Any = "in-sync" if device else "pending"
        mac = f"52:54:00:51:00:0{number}"
        vifs[VifKey(name, mac)] = Vif(device=device, vm=f"u-{number}", interface_id=name, status=status)
    return VmFacts(vifs, frozenset({"red-guest", "blue-guest"}))


@pytest.fixture(scope="module")
def guests() -> dict[str, Stored]:
    topology = load(Path(__file__).parents[2] / "topologies/guests.yaml").require()
    return {"guests": replace(stored(topology), meters=allocate_meters(topology, {}))}


def test_taps_that_come_and_go_give_what_one_compile_gives(guests: dict[str, Stored]) -> None:
    again, random = Compiler(load_apps()), Random(3)
    for _ in range(40):
        vms = plugged(*random.sample(("red-guest", "blue-guest"), random.randrange(3)))
        ports = Compiler(load_apps()).compile(guests, Facts(vms=vms)).ovs.ports
        numbers = {key: len(key.name) * 100 + at for at, key in enumerate(sorted(ports))}
        known = {key: n for key, n in numbers.items() if random.random() < 0.9}
        facts = Facts(known, vms=vms)
        assert alike(again.compile(guests, facts), Compiler(load_apps()).compile(guests, facts))


def test_a_tap_that_comes_changes_its_own_flows_and_its_network_s_flood(guests: dict[str, Stored]) -> None:
    again = Compiler(load_apps())
    first = again.compile(guests, Facts())
    others = {key: at for at, key in enumerate(first.ovs.ports, 1)}
    before = again.compile(guests, Facts(others, vms=plugged()))
    tap = PortKey("br-vm", "vnet1")
    there = again.compile(guests, Facts(others, vms=plugged("red-guest")))
    assert there.netlink.veths is before.netlink.veths
    assert there.netlink.taps.keys() == {"vnet1"}
    same = there.flows["br-vm"].changed_since(before.flows["br-vm"])
    assert same == ({}, {}), "without a number it has no flow"
    after = again.compile(guests, Facts({**others, tap: 99}, vms=plugged("red-guest")))
    was, now = after.flows["br-vm"].changed_since(before.flows["br-vm"])
    entities = {"interfaces/red-guest:52:54:00:51:00:01", "links/br-vm--red-guest:52:54:00:51:00:01"}
    shared = {"networks/red-lan", "nodes/br-vm", "acls/guest"}
    owners = {resolve(cookie(value), after.cookies) for value in (*was.values(), *now.values())}
    assert {found[0].entity for found in owners if found} <= entities | shared
    assert entities <= {found[0].entity for found in owners if found}


@SLOW
@given(SEEDS)
def test_what_differs_is_told_without_a_look_at_the_rest(seed: int) -> None:
    random = Random(seed)
    topology = document(random)
    facts, again = numbered(topology), Compiler(load_apps())
    before = again.compile({topology.name: stored(topology)}, facts).flows["br0"]
    for changed in valid_changes(random, topology, 4):
        after = again.compile({topology.name: stored(changed)}, facts).flows["br0"]
        was, now = after.changed_since(before)
        table = {key: value for key, value in before.whole.items() if key not in was}
        assert {**table, **now} == after.whole
        before = after


def test_a_rule_that_changes_is_the_only_part_that_does() -> None:
    random = Random(7)
    topology = document(random)
    facts, again = numbered(topology), Compiler(load_apps())
    name = next(interface.acls[0] for interface in topology.endpoints().values() if interface.acls)
    first = again.compile({topology.name: stored(topology)}, facts)
    rules = list(topology.acls[name])
    rules[-1] = rules[-1].model_copy(update={"protocol": 99, "ports": (), "icmp_type": None})
    changed = PolicyChange("acls", name, tuple(rules)).applied(topology)
    second = again.compile({topology.name: stored(changed)}, facts)
    was, now = second.flows["br0"].changed_since(first.flows["br0"])
    rule = Owner(topology.name, f"acls/{name}"), len(rules)
    assert {resolve(cookie(value), first.cookies) for value in (*was.values(), *now.values())} == {rule}
    unchanged = first.flows["br0"].apps.keys() - {"acl"}
    assert all(first.flows["br0"].apps[app] is second.flows["br0"].apps[app] for app in unchanged)
    assert first.netlink is second.netlink and first.ovs is second.ovs


def test_an_unchanged_intent_compiles_nothing() -> None:
    topology = document(Random(3))
    facts, again = numbered(topology), Compiler(load_apps())
    one = stored(topology)
    first = again.compile({topology.name: one}, facts).flows["br0"]
    second = again.compile({topology.name: replace(one, generation=2)}, facts).flows["br0"]
    assert all(first.apps[name] is second.apps[name] for name in first.apps)


# -- apps of either kind -------------------------------------------------------------------------------------


@dataclass
class Plain:
    """An app of before: it says neither what it reads nor what its parts are."""

    name: str = "plain"
    tables: tuple[Any, ...] = ()
    compiled: int = 0

    def compile(self, switch: Switch) -> Iterator[Flow]:
        self.compiled += 1
        yield Flow(b"\x00\x00\x01" + switch.name.encode(), bytes(16))


@dataclass
class Reading(Plain):
    name: str = "reading"
    reads: tuple[str, ...] = ("ports",)

    def compile(self, switch: Switch) -> Iterator[Flow]:
        self.compiled += 1
        yield Flow(b"\x01\x00\x01" + bytes([len(switch.ports)]), bytes(16))


@dataclass
class Parted(Reading):
    name: str = "parted"
    reads: tuple[str, ...] = ("macs",)
    made: list[Any] = field(default_factory=list)

    def _make(self, mac: Any) -> list[Flow]:
        self.made.append(mac)
        return [Flow(b"\x02\x00\x01" + repr(mac).encode(), bytes(16))]

    def parts(self, switch: Switch) -> Iterator[Part]:
        return (Part(mac, (mac,), self._make) for mac in switch.macs)


def bridge(name: str = "br0", ports: Sequence[Any] = (), macs: Sequence[Any] = ()) -> Switch:
    return Switch(name, Owner("t", "nodes/br0"), tuple(ports), tuple(macs), ())


def test_apps_are_asked_as_seldom_as_they_say() -> None:
    plain, reading, parted = Plain(), Reading(), Parted()
    assert isinstance(parted, PartedApp) and not isinstance(reading, PartedApp)
    assert isinstance(reading, ReadingApp) and not isinstance(plain, ReadingApp)
    compiler = FlowCompiler([plain, reading, parted])
    first = bridge(ports=("p",), macs=(1, 2))
    one = compiler.compile(first)
    assert compiler.compile(first) == one and len(one) == 4
    assert (plain.compiled, reading.compiled, parted.made) == (1, 1, [1, 2])
    two = compiler.compile(replace(first, macs=(2, 3)))
    assert (plain.compiled, reading.compiled, parted.made) == (2, 1, [1, 2, 3])
    was, now = two.changed_since(one)
    assert {key[0] for key in was} == {0, 2} and {key[0] for key in now} == {0, 2}
    assert one.apps["parted"][2] is two.apps["parted"][2]


class Noting:
    """A bridge that notes what is looked at."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self.seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.seen.add(name)
        return getattr(self._switch, name)


@dataclass
class Taking(Plain):
    """Keeps the bridges it is shown."""

    switches: list[Switch] = field(default_factory=list)

    def compile(self, switch: Switch) -> Iterator[Flow]:
        self.switches.append(switch)
        return iter(())


def bridges_of(file: Path) -> list[Switch]:
    topology = load(file).require()
    zones, meters = allocate_zones(topology, {}, ()), allocate_meters(topology, {})
    whole = Stored(topology, 1, allocate_tags(topology, {}), zones=zones, meters=meters)
    taking = Taking()
    facts = provisional(compile_topology(whole, Facts(), [Plain()]), Facts())
    compile_topology(whole, facts, [taking])
    return taking.switches


@pytest.mark.parametrize("app", load_apps(), ids=lambda app: app.name)
def test_an_app_reads_no_more_than_it_says(app: ReadingApp) -> None:
    seen: set[str] = set()
    for file in (*Path("topologies").glob("*.yaml"), Path("tests/golden/pipeline/sample.yaml")):
        for switch in bridges_of(file):
            noting = Noting(switch)
            list(app.compile(noting))  # type: ignore[arg-type]
            seen |= noting.seen
    assert seen <= {"name", *app.reads}


def test_two_flows_of_one_match_are_a_defect() -> None:
    class Twice(Plain):
        def compile(self, switch: Switch) -> Iterator[Flow]:
            yield from [Flow(b"\x00\x00\x01", bytes(16)), Flow(b"\x00\x00\x01", bytes(17))]

    with pytest.raises(InternalError, match="1 flows of app 'plain' on bridge 'br0'"):
        FlowCompiler([Twice()]).compile(bridge())
    both = PartedTable({"a": {"": {b"k": b"1"}}, "b": {"": {b"k": b"2"}}})
    assert len(both) == 2
    with pytest.raises(InternalError, match="1 flows have the match of a flow of another part"):
        both.get(b"k")


# -- what keeps results --------------------------------------------------------------------------------------


def test_a_result_is_kept_while_its_arguments_are_the_same_objects() -> None:
    asked: list[Any] = []
    latest = Latest(lambda *args: asked.append(args) or len(asked))
    one, other = [1], [1]
    assert [latest(one), latest(one), latest(other), latest(one), latest()] == [1, 1, 2, 3, 4]


def test_an_error_is_not_kept() -> None:
    latest = Latest(int)
    with pytest.raises(ValueError, match="x"):
        latest("x")
    assert latest("1") == 1


def test_an_equal_object_is_the_former_one() -> None:
    steady, one = Steady[list[int]](), [1]
    assert steady(one) is one and steady([1]) is one and steady([2]) == [2] and steady(one) is one
