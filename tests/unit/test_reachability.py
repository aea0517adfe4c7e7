"""Who should reach whom, what has to be asked, and what the answers mean: no packet is sent here."""

from __future__ import annotations

from itertools import permutations

from rich.console import Console

from vswitchctl.cli.probe import LEAKED, MISSING, NOT_REACHED, REACHED, render
from vswitchctl.model.topology import Topology
from vswitchctl.topology.reachability import (
    Matrix,
    Observations,
    difference,
    expected_answers,
    expected_pairs,
    ip_targets,
    judge,
)

RED1, RED2, BLUE1, BLUE2 = "r1:eth0", "r2:eth0", "b1:eth0", "b2:eth0"
ENDS = (RED1, RED2, BLUE1, BLUE2)
ADDRESSES = {
    RED1: ["10.0.0.1/24", "2001:db8::1/64"],
    RED2: ["10.0.0.2/24"],
    BLUE1: ["10.0.0.1/24", "2001:db8::1/64"],
    BLUE2: ["10.0.0.2/24", "2001:db8::2/64"],
}


def two_tenants(**changes: object) -> Topology:
    nodes: dict[str, object] = {"br": {"kind": "bridge"}}
    for end, addresses in ADDRESSES.items():
        colour = "red" if end.startswith("r") else "blue"
        interfaces = {"eth0": {"network": colour, "ip": addresses}}
        nodes[end.split(":")[0]] = {"kind": "namespace", "tenant": colour, "interfaces": interfaces}
    document = {
        "name": "t",
        "tenants": {"red": {}, "blue": {}},
        "networks": {"red": {"tenant": "red"}, "blue": {"tenant": "blue"}},
        "nodes": nodes,
        "links": [{"ends": [end, "br"]} for end in ENDS],
    }
    return Topology.model_validate(document | changes)


def both(a: str, b: str) -> set[tuple[str, str]]:
    return {(a, b), (b, a)}


def test_without_expectations_a_network_reaches_itself() -> None:
    assert expected_pairs(two_tenants()) == both(RED1, RED2) | both(BLUE1, BLUE2)


def test_an_endpoint_that_no_link_joins_is_expected_nowhere() -> None:
    links = [{"ends": [end, "br"]} for end in ENDS if end != RED2]
    assert expected_pairs(two_tenants(links=links)) == both(BLUE1, BLUE2)


def test_two_bridges_that_nothing_joins_are_two_groups() -> None:
    nodes = two_tenants().model_dump()["nodes"] | {"far": {"kind": "bridge"}}
    links = [{"ends": [end, "far" if end == BLUE2 else "br"]} for end in ENDS]
    assert expected_pairs(two_tenants(nodes=nodes, links=links)) == both(RED1, RED2)


def test_expectations_of_the_document_come_first() -> None:
    expect = {"reachable": [[RED1, BLUE1, BLUE2]]}
    assert expected_pairs(two_tenants(expect=expect)) == set(permutations((RED1, BLUE1, BLUE2), 2))


def test_nobody_asks_an_address_of_its_own() -> None:
    targets = ip_targets(two_tenants())
    assert targets[RED1, 4] == {"10.0.0.2"}
    assert targets[RED1, 6] == {"2001:db8::2"}
    assert (RED2, 6) not in targets


def test_an_answer_counts_for_who_gave_it_not_for_its_address() -> None:
    topology = two_tenants()
    wrong = Observations(answered=frozenset({(RED1, BLUE2, 4)}), heard=frozenset())
    matrix = judge(topology, wrong)
    found = difference(matrix, expected_pairs(topology))
    assert (RED1, RED2) in found.missing
    assert found.leaked == {(RED1, BLUE2)}


def test_all_common_ip_versions_must_answer() -> None:
    topology = two_tenants()
    expected = expected_pairs(topology)
    answers = expected_answers(topology, expected)
    assert (BLUE1, BLUE2, 6) in answers
    assert (RED1, RED2, 6) not in answers
    complete = judge(topology, Observations(answers, frozenset()))
    assert not difference(complete, expected)
    half = judge(topology, Observations(answers - {(BLUE1, BLUE2, 6)}, frozenset()))
    assert difference(half, expected).missing == {(BLUE1, BLUE2)}


def test_an_ethernet_frame_in_the_wrong_network_is_a_leak() -> None:
    topology = two_tenants()
    expected = expected_pairs(topology)
    heard = frozenset({(RED1, BLUE1), (RED1, RED2)})
    matrix = judge(topology, Observations(expected_answers(topology, expected), heard))
    assert difference(matrix, expected).leaked == {(RED1, BLUE1)}


def test_without_a_common_ip_version_frames_decide() -> None:
    nodes = two_tenants().model_dump()["nodes"]
    nodes["r2"]["interfaces"]["eth0"]["ip"] = ["2001:db8::2/64"]
    nodes["r1"]["interfaces"]["eth0"]["ip"] = ["10.0.0.1/24"]
    topology = two_tenants(nodes=nodes)
    heard_both_ways = judge(topology, Observations(frozenset(), frozenset(both(RED1, RED2))))
    assert heard_both_ways.reached == both(RED1, RED2)
    heard_once = judge(topology, Observations(frozenset(), frozenset({(RED1, RED2)})))
    assert not heard_once.reached


def drawn(matrix: Matrix, expected: frozenset[tuple[str, str]]) -> list[str]:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(render(matrix, expected))
    return capture.get().splitlines()


def test_the_matrix_stands_beside_the_expected_one() -> None:
    expected = frozenset(both(RED1, RED2) | both(BLUE1, BLUE2))
    lines = drawn(Matrix(ENDS, expected), expected)
    assert lines[0].split() == ["measured", "expected"]
    row = next(line for line in lines if RED1 in line)
    assert row.split() == ["1", RED1, REACHED, NOT_REACHED, NOT_REACHED, REACHED, NOT_REACHED, NOT_REACHED]


def test_differences_have_signs_of_their_own() -> None:
    expected = frozenset(both(RED1, RED2))
    matrix = Matrix(ENDS, frozenset({(RED2, RED1)}), crossed=frozenset({(RED1, BLUE2)}))
    row = next(line for line in drawn(matrix, expected) if RED1 in line)
    assert row.split()[2:5] == [MISSING, NOT_REACHED, LEAKED]
