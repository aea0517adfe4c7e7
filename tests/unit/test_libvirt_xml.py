"""What is read of libvirt's XML; whatever stands there, a clear answer and never an exception."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.drivers.libvirt import xml
from vswitchctl.model.domains import DomainInterface

MAC = "52:54:00:aa:00:01"


def domain(*interfaces: str) -> str:
    return f"<domain><name>a</name><devices>{''.join(interfaces)}</devices></domain>"


def test_a_nic_of_a_network_says_all_of_itself() -> None:
    nic = (
        f"<interface type='network'><mac address='{MAC.upper()}'/>"
        "<source network='lan' portgroup='web' portid='1' bridge='ovsbr0'/>"
        "<virtualport type='openvswitch'><parameters interfaceid='i-1'/></virtualport>"
        "<target dev='vnet3'/><model type='virtio'/><link state='down'/><mtu size='9000'/></interface>"
    )
    assert xml.interfaces(domain(nic)) == xml.Interfaces(
        (
            DomainInterface(
                MAC,
                "network",
                "vnet3",
                "virtio",
                "lan",
                "ovsbr0",
                "web",
                "openvswitch",
                "i-1",
                9000,
                False,
                True,
            ),
        )
    )


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("<source network='pool' dev='eth0' mode='bridge'/>", "direct"),
        (
            "<source network='vfs'><address type='pci' domain='0' bus='1' slot='2' function='3'/></source>",
            "hostdev",
        ),
        ("<source network='default' bridge='virbr0'/>", "network"),
    ],
)
def test_a_network_is_what_it_came_down_to(source: str, kind: str) -> None:
    found = xml.interfaces(domain(f"<interface type='network'><mac address='{MAC}'/>{source}</interface>"))
    assert [interface.type for interface in found.found] == [kind]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (domain("<interface type='bridge'/>"), "NIC 1 has no MAC address"),
        (domain("<interface type='bridge'><mac address='x'/></interface>"), "NIC 1 has MAC 'x'"),
        ("", "its XML cannot be read: it is not XML: no element found: line 1, column 0"),
        ("<domain>", "its XML cannot be read: it is not XML: no element found: line 1, column 8"),
        ("<!DOCTYPE d [<!ENTITY a 'b'>]><d>&a;</d>", "its XML cannot be read: it declares a DOCTYPE"),
        (" " * (xml.MAX_XML + 1), f"its XML cannot be read: it has more than {xml.MAX_XML} characters"),
        (
            "<d>\0</d>",
            "its XML cannot be read: it is not XML: not well-formed (invalid token): line 1, column 3",
        ),
    ],
)
def test_odd_xml_is_a_problem_with_a_name(text: str, problem: str) -> None:
    assert xml.interfaces(text) == xml.Interfaces((), problem)


def test_the_others_of_a_domain_with_an_odd_nic_are_read() -> None:
    good = f"<interface type='ethernet'><mac address='{MAC}'/><mtu size='-1'/></interface>"
    found = xml.interfaces(domain("<interface/>", good))
    assert found.problem == "NIC 1 has no MAC address"
    assert [(interface.mac, interface.mtu) for interface in found.found] == [(MAC, 0)]


def test_more_nics_than_a_domain_can_have_are_not_all_looked_at() -> None:
    nic = f"<interface type='user'><mac address='{MAC}'/></interface>"
    found = xml.interfaces(domain(*[nic] * (xml.MAX_INTERFACES + 1)))
    assert len(found.found) == xml.MAX_INTERFACES
    assert (
        found.problem == f"it has {xml.MAX_INTERFACES + 1} NICs, of which {xml.MAX_INTERFACES} are looked at"
    )


def test_control_characters_reach_no_terminal() -> None:
    nic = f"<interface type='bridge'><mac address='{MAC}'/><source bridge='a&#x85;&#10;b'/></interface>"
    assert xml.interfaces(domain(nic)).found[0].source == "a??b"


@given(st.text() | st.text().map(lambda text: f"<interface type='bridge'>{text}</interface>").map(domain))
def test_no_text_raises(text: str) -> None:
    xml.interfaces(text)
    xml.network(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<network><bridge name='virbr0'/><forward/></network>", xml.Network("virbr0", "nat")),
        ("<network><bridge name='virbr1'/></network>", xml.Network("virbr1", "")),
        (
            "<network><forward mode='bridge'/><bridge name='ovsbr0'/><virtualport type='openvswitch'/>"
            "<portgroup name='web'/><portgroup name='db'/></network>",
            xml.Network("ovsbr0", "bridge", "openvswitch", ("web", "db")),
        ),
    ],
)
def test_a_network(text: str, wanted: xml.Network) -> None:
    assert xml.network(text) == wanted
