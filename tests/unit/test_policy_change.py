"""One ACL or group alone: read from a file, and checked against the topology that it is for."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policies import document, policy
from vswitchctl.errors import InvalidTopology
from vswitchctl.model.intent import PolicyChange, Stored
from vswitchctl.model.policy import Rule
from vswitchctl.model.topology import Group, Topology
from vswitchctl.service.policy import refuse_invalid_change
from vswitchctl.topology.check_policy import users
from vswitchctl.topology.document import Finding
from vswitchctl.topology.entry import load_entry
from vswitchctl.topology.validate import validate, validate_edit


def errors_alone(topology: Topology, change: PolicyChange, **sources: str) -> list[Finding]:
    changed = Stored(change.applied(topology), 2, {}, sources)
    try:
        refuse_invalid_change(changed, change, users(topology.nodes))
    except InvalidTopology as error:
        return [finding for finding in error.findings if isinstance(finding, Finding)]
    return []


def rules(*dicts: dict[str, Any]) -> tuple[Rule, ...]:
    return tuple(Rule.model_validate(found) for found in dicts)


def changes(random: Random, topology: Topology) -> list[PolicyChange]:
    """Good and bad ones: contents of other names, other tenants, nobody's, and none at all."""
    other = Topology.model_validate({**topology.model_dump(), **policy(random)})
    strange = Group.model_validate({"members": ["nobody:eth0"]})
    unknown = rules({"direction": "in", "action": "allow", "from": {"group": "strangers"}})
    late = rules(
        {"direction": "in", "action": "allow"}, {"direction": "in", "action": "deny", "stateful": False}
    )
    acls: list[Any] = [*other.acls.values(), unknown, late, (), None]
    groups: list[Any] = [*other.groups.values(), strange, Group(), None]
    return [
        *(PolicyChange("acls", random.choice(list(topology.acls)), value) for value in acls),
        *(PolicyChange("groups", random.choice(list(topology.groups)), value) for value in groups),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
def test_alone_it_is_refused_exactly_where_the_whole_would_be(seed: int) -> None:
    random = Random(seed)
    topology = document(random)
    assert not [found for found in validate(topology) if found.severity == "error"]
    for change in changes(random, topology):
        whole = {(f.path, f.message) for f in validate(change.applied(topology)) if f.severity == "error"}
        alone = {(f.path, f.message) for f in errors_alone(topology, change)}
        assert alone <= whole
        assert bool(alone) == bool(whole), (change, whole)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
def test_an_edit_of_several_is_refused_exactly_where_the_whole_would_be(seed: int) -> None:
    random = Random(seed)
    known = document(random)
    edited = known
    for change in random.sample(changes(random, known), 3):
        edited = change.applied(edited)
    whole = {(f.path, f.message) for f in validate(edited) if f.severity == "error"}
    found = {(f.path, f.message) for f in validate_edit(edited, known)}
    assert found <= whole and bool(found) == bool(whole)
    assert {(f.path, f.message) for f in validate_edit(edited, None)} == whole


def test_another_layout_is_checked_whole() -> None:
    known = document(Random(1))
    broken = known.model_copy(update={"tenants": {}})
    assert validate_edit(broken, known) == tuple(f for f in validate(broken) if f.severity == "error") != ()


def test_the_finding_says_what_where_and_what_to_do() -> None:
    topology = document(Random(1))
    end, interface = next((end, i) for end, i in topology.endpoints().items() if i.acls)
    change = PolicyChange("acls", interface.acls[0], None)
    found = errors_alone(topology, change, **{f"interfaces/{end}": "web.yaml:12"})
    assert any(str(f).startswith("web.yaml:12: error: nodes.") and "unknown acl" in f.message for f in found)
    wrong = PolicyChange("acls", interface.acls[0], rules(), "acl.yaml:3")
    (finding,) = errors_alone(topology, wrong)
    assert str(finding) == (
        f"acl.yaml:3: error: acls.{interface.acls[0]}: an ACL without a rule; "
        "add a rule, e.g. {direction: in, action: deny}"
    )


def test_an_acl_that_costs_too_much_is_refused_and_so_is_the_group_that_makes_it_so() -> None:
    topology = document(Random(1))
    many = Group.model_validate({"addresses": [f"10.{n >> 8}.{n & 255}.0/24" for n in range(6000)]})
    rule = {"direction": "in", "action": "allow", "protocol": "tcp", "from": {"group": "red-addresses"}}
    acl = PolicyChange("acls", "red2", rules(*[rule] * 2))
    small = topology.model_copy(update={"groups": {**topology.groups, "red-addresses": many}})
    assert any("flows, and 10000 are the most" in f.message for f in errors_alone(small, acl))
    with_rules = acl.applied(topology)
    found = errors_alone(with_rules, PolicyChange("groups", "red-addresses", many))
    assert any(f.path == "acls.red2" and "flows, and 10000" in f.message for f in found)


# -- from a file ---------------------------------------------------------------------------------------------

ACL = [{"direction": "in", "action": "allow", "protocol": "tcp", "ports": [80, "8000-8100"]}]
WHOLE = {"name": "t", "acls": {"web": ACL, "db": ACL[:0]}, "groups": {"web": {"addresses": ["10.0.0.0/8"]}}}


@pytest.mark.parametrize("content", [ACL, WHOLE], ids=["alone", "in a topology"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_an_acl_is_read_alone_or_out_of_a_topology(tmp_path: Path, content: Any, suffix: str) -> None:
    file = tmp_path / f"web{suffix}"
    file.write_text(yaml.safe_dump(content) if suffix == ".yaml" else json.dumps(content, indent=1))
    change = load_entry(file, "acls", "web")
    assert (change.section, change.name, change.value) == ("acls", "web", rules(*ACL))
    assert change.source.startswith(f"{file}:")


def test_a_group_is_read(tmp_path: Path) -> None:
    file = tmp_path / "group.yaml"
    file.write_text("members: [web1:eth0]\n")
    assert load_entry(file, "groups", "g").value == Group(members=("web1:eth0",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- {direction: inn, action: allow}\n",
            "{file}:1: error: acls.web[0].direction: unknown direction 'inn'",
        ),
        ("- {direction: in, action: allow, port: 80}\n", "did you mean 'ports'?"),
        ("name: t\nacls: {other: []}\n", "{file}: error: acls: there is no 'web'; write it under 'acls'"),
        ("direction: in\n", "acls.web"),
        ("", "the file is empty"),
        ("- [", "{file}:2: error: not YAML"),
    ],
)
def test_what_is_malformed_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(text)
    with pytest.raises(InvalidTopology) as caught:
        load_entry(file, "acls", "web")
    assert message.format(file=file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("none.yaml", "cannot be read: No such file"), ("web.txt", "unknown format '.txt'")]
)
def test_a_file_that_is_not_there_or_of_another_kind(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidTopology, match=message):
        load_entry(tmp_path / name, "acls", "web")
