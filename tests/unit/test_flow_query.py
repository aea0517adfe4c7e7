"""Queries over the compiled flows of an example: which they find, how they show them, in what order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.test_example_files import ROOT
from vswitchctl.compiler.compile import compile_topology, provisional
from vswitchctl.errors import NotFound, Unreachable, UserError
from vswitchctl.model.flow import CountedFlow
from vswitchctl.model.intent import Stored, allocate_meters, allocate_tags, allocate_zones
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.state import DesiredState, Facts
from vswitchctl.model.views import FlowView
from vswitchctl.pipeline.app import load_apps
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.words import Names, action_words, match_words
from vswitchctl.service.flow_query import Found, Selection, Viewer, counted, differences, in_order
from vswitchctl.service.flow_reads import FlowReads
from vswitchctl.service.names import HostNames
from vswitchctl.topology.load import load

TEXT = """
name: office
tenants: {red: {}, blue: {}}
networks:
  red-web: {tenant: red, subnets: [10.1.0.0/24]}
  blue-web: {tenant: blue, subnets: [10.1.0.0/24]}
nodes:
  br-a: {kind: bridge}
  br-b: {kind: bridge}
  web: {kind: namespace, tenant: red, interfaces: {eth0: {network: red-web, ip: 10.1.0.11/24, acls: web}}}
  client: {kind: namespace, tenant: red, interfaces: {eth0: {network: red-web, ip: 10.1.0.21/24}}}
  blue1: {kind: namespace, tenant: blue, interfaces: {eth0: {network: blue-web, ip: 10.1.0.11/24}}}
links:
  - {ends: [br-a, br-b]}
  - {ends: ["web:eth0", br-a]}
  - {ends: ["client:eth0", br-b]}
  - {ends: ["blue1:eth0", br-b]}
acls:
  web:
    - {direction: in, action: allow, protocol: icmp}
    - {direction: in, action: allow, protocol: tcp, ports: [80]}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[HostNames, DesiredState]:
    file = tmp_path_factory.mktemp("query") / "office.yaml"
    file.write_text(TEXT)
    document = load(file)
    topology = document.topology
    assert topology is not None, document.findings
    stored = Stored(
        topology, 1, allocate_tags(topology, {}), document.sources, allocate_zones(topology, {}, set()),
        allocate_meters(topology, {}),
    )  # fmt: skip
    desired = compile_topology(stored, Facts(), load_apps())
    facts = provisional(desired, Facts())
    desired = compile_topology(stored, facts, load_apps())
    return HostNames({"office": stored}, desired.ovs.bridges, desired.ovs.ports, facts.ofports), desired


def ask(compiled: tuple[HostNames, DesiredState], **asked: object) -> list[FlowView]:
    names, desired = compiled
    query = FlowQuery(**asked)  # type: ignore[arg-type]
    selection, viewer = Selection(query, names), Viewer(names, desired.cookies)
    found = (
        Found(bridge, counted(key, value))
        for bridge in selection.bridges
        for key, value in desired.flows[bridge].whole.items()
        if selection.on(bridge)(key, value)
    )
    return [viewer.view(one) for one in in_order(found, query, {})]


def test_everything_and_its_order(compiled: tuple[HostNames, DesiredState]) -> None:
    views = ask(compiled)
    assert len(views) == sum(len(table) for table in compiled[1].flows.values())
    places = [(view.bridge, view.table_id, -view.priority) for view in views]
    assert places == sorted(places)
    assert ask(compiled, limit=7) == views[:7]


def test_a_rule_with_its_line(compiled: tuple[HostNames, DesiredState]) -> None:
    views = ask(compiled, acl="web", rule=2)
    assert {view.entity for view in views} == {"office/acls/web"}
    assert {view.rule for view in views} == {2}
    assert all(str(view.source).endswith("office.yaml:19") for view in views)
    assert [view.words for view in views] == [
        "IPv4, TCP, ACLs web, not invalid and tracked, to port 80 → then commit_to",
        "IPv6, TCP, ACLs web, not invalid and tracked, to port 80 → then commit_to",
    ]
    assert {view.cookie for view in views} == {ask(compiled, cookie=views[0].cookie)[0].cookie}
    assert ask(compiled, cookie=f"{views[0].cookie}/0xffffffffffff0000", rule=2, acl="web") == views


def test_tenants_share_no_flow(compiled: tuple[HostNames, DesiredState]) -> None:
    red, blue = ask(compiled, tenant="red"), ask(compiled, tenant="office/blue")
    assert red and blue
    both = {(v.bridge, v.table, v.priority, v.match) for v in red} & {
        (v.bridge, v.table, v.priority, v.match) for v in blue
    }
    assert both == set()
    assert ask(compiled, network="blue-web") == [view for view in blue if "tenants/" not in view.entity]


def test_a_ports_flows_are_its_own_and_those_that_lead_to_it(
    compiled: tuple[HostNames, DesiredState],
) -> None:
    views = ask(compiled, port="web:eth0", bridge="br-a")
    assert {"classify", "port_security", "l2_lookup", "ct_to", "output"} <= {view.table for view in views}
    assert all("client:eth0" not in view.words for view in views if view.table != "flood")
    device = next(key.name for key, spec in compiled[0].ports.items() if "web:eth0" in spec.owner.entity)
    assert {v.match for v in ask(compiled, port=device, table="classify")} == {
        v.match for v in views if v.table == "classify"
    }
    assert {view.bridge for view in ask(compiled, port="br-a--br-b", table="classify")} == {"br-a", "br-b"}


def test_names_stand_in_for_numbers(compiled: tuple[HostNames, DesiredState]) -> None:
    (view,) = ask(compiled, table="classify", port="client:eth0")
    assert view.words == "in by client:eth0, untagged → network red-web, then port_security"
    words = {view.words for view in ask(compiled, table="classify", bridge="br-a", port="br-b")}
    assert words == {
        "in by br-b, VLAN 1 → tag off, network red-web, then ct_from",
    }
    (entity,) = {view.entity for view in ask(compiled, entity="networks/red-web")}
    assert entity == "office/networks/red-web"


def test_a_packet_finds_the_flows_of_each_table_that_would_match(
    compiled: tuple[HostNames, DesiredState],
) -> None:
    packet = "tcp,ip_src=10.1.0.21,ip_dst=10.1.0.11,tcp_dst=81"
    rules = ask(compiled, packet=packet, table="acl_to", bridge="br-a")
    assert [view.rule for view in rules] == [0]
    assert [
        view.rule for view in ask(compiled, packet=packet.replace("81", "80"), acl="web", table="acl_to")
    ] == [2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bridge": "br-c"}, "no bridge 'br-c'; did you mean"),
        ({"table": "clasify"}, "no table 'clasify'; did you mean 'classify'?"),
        ({"tenant": "rde"}, "no tenant 'rde'; did you mean 'red'?"),
        ({"network": "offfice/red-web"}, "no topology 'offfice'; did you mean 'office'?"),
        ({"port": "web:eth1"}, "no port 'web:eth1'; did you mean 'web:eth0'?"),
        ({"acl": "wbe"}, "no ACL 'wbe'; did you mean 'web'?"),
    ],
)
def test_an_unknown_name_is_said_with_the_nearest(
    compiled: tuple[HostNames, DesiredState], asked: dict[str, str], message: str
) -> None:
    with pytest.raises(NotFound) as raised:
        ask(compiled, **asked)
    assert str(raised.value).startswith(message)
    for wrong in ({"rule": 1}, {"cookie": "web"}):
        with pytest.raises(UserError):
            ask(compiled, **wrong)


def test_drift(compiled: tuple[HostNames, DesiredState]) -> None:
    desired = compiled[1].flows["br-a"].whole
    keys = sorted(desired)
    there = dict(desired)
    del there[keys[0]]
    there[keys[1]] = desired[keys[1]][:8] + b"\0\x05" + desired[keys[1]][10:]
    stale = b"\x52" + keys[2][1:]
    there |= {stale: desired[keys[2]], b"\x52\0\x05": bytes(len(desired[keys[2]]))}
    found = differences(desired, (counted(*item) for item in there.items()))
    assert {flow.key: drift for flow, drift in found} == {
        keys[0]: "missing", keys[1]: "differs", stale: "stale",
    }  # fmt: skip
    assert not list(differences(desired, (counted(*item) for item in desired.items())))


def test_rates_come_from_the_switchs_own_clock_and_order_flows(
    compiled: tuple[HostNames, DesiredState],
) -> None:
    names, desired = compiled
    items = sorted(desired.flows["br-a"].whole.items())[:3]
    before = {("br-a", key): CountedFlow(key, value, 10, 600, 1.0) for key, value in items}
    after = [CountedFlow(key, value, 10 + 4 * n, 600, 3.0) for n, (key, value) in enumerate(items)]
    query = FlowQuery(sort="rate", limit=2)
    found = in_order([Found("br-a", flow) for flow in after], query, before)
    views = [Viewer(names, desired.cookies, before).view(one) for one in found]
    assert [(view.packets_per_second, view.bytes_per_second) for view in views] == [(4.0, 0.0), (2.0, 0.0)]


def test_words_stay_with_what_has_no_better_word() -> None:
    assert match_words("", Names()) == "anything"
    assert match_words("reg0=0x1/0xffff,oxm:0x1234", Names()) == "network 1, oxm:0x1234"
    assert action_words("action:0x00ff,learn(table=81,x=(1,2)),drop", Names()) == (
        "action:0x00ff, learn where the sender is, drop"
    )
    assert action_words("", Names()) == "drop"


def test_every_flow_of_the_examples_has_words() -> None:
    for file in ("two-tenants.yaml", "routed.yaml"):
        document = load(ROOT / "topologies" / file)
        assert document.topology is not None
        stored = Stored(document.topology, 1, allocate_tags(document.topology, {}))
        desired = compile_topology(stored, Facts(), load_apps())
        desired = compile_topology(stored, provisional(desired, Facts()), load_apps())
        for table in desired.flows.values():
            for key, value in table.whole.items():
                said = describe(CountedFlow(key, value, 0, 0, 0.0)[:2])  # type: ignore[arg-type]
                assert "goto_table" not in action_words(said.actions_text, Names())
                assert "reg0=" not in match_words(said.match_text, Names())


class Switch:
    """Counts how often it is read; a read ends when the gate opens."""

    def __init__(self) -> None:
        self.reads = 0
        self.moment = 0
        self.begun, self.gate = threading.Semaphore(0), threading.Event()

    def read(self, bridge: str) -> tuple[CountedFlow, ...]:
        self.reads += 1
        number = self.reads
        self.begun.release()
        assert self.gate.wait(30)
        if bridge == "gone":
            raise Unreachable("no session")
        return (counted(b"%d" % number, b""),)


def test_a_hundred_queries_at_once_are_one_read() -> None:
    switch = Switch()
    reads = FlowReads(switch.read, lambda: switch.moment)
    with ThreadPoolExecutor(101) as pool:
        first = pool.submit(reads, "br-a")
        assert switch.begun.acquire(timeout=30)
        rest = [pool.submit(reads, "br-a") for _ in range(100)]
        switch.gate.set()
        answers = {tuple(one.result(30)) for one in (first, *rest)}
    assert (switch.reads, len(answers)) == (1, 1)


def test_who_comes_after_a_change_gets_a_read_of_its_own_and_an_error_is_everybodys() -> None:
    switch = Switch()
    reads = FlowReads(switch.read, lambda: switch.moment)
    with ThreadPoolExecutor(4) as pool:
        early = pool.submit(reads, "br-a")
        assert switch.begun.acquire(timeout=30)
        switch.moment += 1
        late = pool.submit(reads, "br-a")
        assert switch.begun.acquire(timeout=30)
        switch.gate.set()
        assert tuple(early.result(30)) != tuple(late.result(30))
        with pytest.raises(Unreachable):
            pool.submit(reads, "gone").result(30)
    assert switch.reads == 3
