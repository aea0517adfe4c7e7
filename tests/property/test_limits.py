"""Limits on paper: meters and the flows that use them belong together, and one that is over silences one."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openflow_apps.qos import PACKETS_TO, RATE_TO
from tests.property.test_forwarding import endpoints_of, members
from tests.simulation import BROADCAST, Fabric, Frame
from tests.strategies import topologies
from vswitchctl.compiler.compile import compile_topology, provisional
from vswitchctl.compiler.limits import limits_what_comes_in
from vswitchctl.model.intent import Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.meter import OURS, SLOTS
from vswitchctl.model.state import DesiredState, Facts
from vswitchctl.model.topology import Topology
from vswitchctl.pipeline.app import load_apps

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def meter_of_flow(value: bytes) -> int | None:
    """The meter instruction, which comes first where there is one."""
    return int.from_bytes(value[18:22], "big") if value[14:16] == b"\0\6" else None


def compiled(topology: Topology, kept: dict[str, int]) -> tuple[DesiredState, dict[str, int]]:
    meters = allocate_meters(topology, kept)
    stored = Stored(topology, 1, allocate_tags(topology, {}), {}, allocate_zones(topology, {}, ()), meters)
    facts = provisional(compile_topology(stored, Facts(), load_apps()), Facts())
    return compile_topology(stored, facts, load_apps()), meters


@SLOW
@given(topologies(acls=True))
def test_flows_and_meters_of_a_bridge_belong_together(topology: Topology) -> None:
    desired, _ = compiled(topology, {})
    for bridge, flows in desired.flows.items():
        used = {meter_of_flow(value) for value in flows.values()} - {None}
        assert used == set(desired.meters[bridge])
        assert used <= set(OURS)
        assert {(bridge, one) for one in used} <= desired.meter_owners.keys()


@SLOW
@given(topologies(), st.data())
def test_a_flood_reaches_all_but_those_over_their_limit(topology: Topology, data: st.DataObject) -> None:
    fabric = Fabric(topology)
    limited = [end for end in topology.endpoints() if limits_what_comes_in(topology, end)]
    over = set(data.draw(st.lists(st.sampled_from(limited)))) if limited else set()
    for (bridge, one), owner in fabric.desired.meter_owners.items():
        slot = (one - OURS.start) % SLOTS
        if slot in (RATE_TO, PACKETS_TO) and owner.entity.removeprefix("interfaces/") in over:
            fabric.switches[bridge].over.add(one)
    for network, groups in members(topology).items():
        for end in endpoints_of(topology, network):
            group = next(group for group in groups if end in group)
            got = fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
            assert got == {other: 1 for other in group - over if other != end}


@SLOW
@given(topologies())
def test_what_an_endpoint_sends_never_counts_as_what_goes_to_it(topology: Topology) -> None:
    fabric = Fabric(topology)
    for network in topology.networks:
        for end in endpoints_of(topology, network):
            fabric.send(end, Frame(topology.endpoint_mac(end), BROADCAST))
            for bridge, switch in fabric.switches.items():
                owners = {fabric.desired.meter_owners[bridge, one].entity for one in switch.metered
                          if (one - OURS.start) % SLOTS in (RATE_TO, PACKETS_TO)}  # fmt: skip
                assert f"interfaces/{end}" not in owners
                switch.metered.clear()


@SLOW
@given(topologies(), st.data())
def test_whoever_comes_or_goes_leaves_the_meters_of_the_others(
    topology: Topology, data: st.DataObject
) -> None:
    ends = topology.limited()
    if not ends:
        return
    before, numbers = compiled(topology, {})
    gone = data.draw(st.sampled_from(ends))
    numbers_after = allocate_meters(topology, {end: n for end, n in numbers.items() if end != gone})
    assert {end: n for end, n in numbers_after.items() if end != gone} == {
        end: n for end, n in numbers.items() if end != gone
    }
    again, _ = compiled(topology, numbers)
    assert (again.meters, again.flows) == (before.meters, before.flows)
