"""What cannot be stored is refused with its reason: devices taken twice, texts that OVSDB has no form for."""

from __future__ import annotations

import pytest

from vswitchctl.errors import Conflict, InvalidTopology
from vswitchctl.intent.commands import check_claims, check_texts
from vswitchctl.intent.rows import Part, to_part
from vswitchctl.model.intent import allocate_tags
from vswitchctl.model.topology import Topology


def topology(name: str, **nodes: dict[str, str]) -> Topology:
    document = {"name": name, "tenants": {"t": {}}, "networks": {"n": {"tenant": "t"}}, "nodes": nodes}
    return Topology.model_validate(document)


def stored(it: Topology, host: str = "hv1") -> Part:
    return to_part(it, {}, allocate_tags(it, {}), host, None)


BRIDGE = {"kind": "bridge"}
NAMESPACE = {"kind": "namespace", "tenant": "t"}
UPLINK = {"kind": "uplink", "interface": "eth1", "network": "n"}


def test_a_device_of_another_topology() -> None:
    other = stored(topology("first", br=BRIDGE))
    with pytest.raises(Conflict) as caught:
        check_claims(topology("second", br=BRIDGE), "hv1", [other])
    for word in ("device 'br'", "nodes/br", "'first'", "'second'", "'hv1'"):
        assert word in caught.value.message
    assert "destroy topology 'first' first" in caught.value.remedy


def test_an_uplink_that_another_topology_made_as_a_bridge() -> None:
    other = stored(topology("first", eth1=BRIDGE))
    with pytest.raises(Conflict, match=r"device 'eth1', that nodes/wan .* \(nodes/eth1\)"):
        check_claims(topology("second", wan=UPLINK), "hv1", [other])


def test_a_network_namespace_of_another_topology() -> None:
    with pytest.raises(Conflict, match="network namespace 'web'"):
        check_claims(topology("second", web=NAMESPACE), "hv1", [stored(topology("first", web=NAMESPACE))])


def test_a_namespace_and_a_bridge_of_one_name_are_two_things() -> None:
    check_claims(topology("second", web=NAMESPACE), "hv1", [stored(topology("first", web=BRIDGE))])


def test_the_same_device_name_on_another_host() -> None:
    check_claims(topology("second", br=BRIDGE), "hv1", [stored(topology("first", br=BRIDGE), host="hv2")])


def test_a_device_taken_twice_by_one_topology() -> None:
    with pytest.raises(Conflict, match="takes device 'eth1' twice: for nodes/eth1 and nodes/wan"):
        check_claims(topology("one", eth1=BRIDGE, wan=UPLINK), "hv1", [])


@pytest.mark.parametrize("character", ["\0", "\ud800", "\udfff"])
def test_a_text_that_cannot_be_stored(character: str) -> None:
    part = stored(topology("one", br=BRIDGE))
    check_texts(part)
    part.parts["bridges"]["br", 0].columns["description"] = f"a{character}b"
    with pytest.raises(InvalidTopology, match=r"Bridge 'br': the character .* in its description"):
        check_texts(part)


def test_a_list_with_a_text_that_cannot_be_stored() -> None:
    part = stored(topology("one", br=BRIDGE))
    part.parts["networks"]["n", 0].columns["subnets"] = {0: "a\0"}
    with pytest.raises(InvalidTopology, match="Network 'n'"):
        check_texts(part)
