"""What an interface declares, as the sources that its port may send from."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.compiler.endpoints import has_strangers, link_local, mac_number, own_addresses, port_security
from vswitchctl.model.switch import PortSecurity
from vswitchctl.model.topology import Topology

MAC = "02:00:00:00:00:01"
LINK_LOCAL = (int(IPv6Address("fe80::ff:fe00:1")), 128)


def topology(**interfaces: dict[str, Any]) -> Topology:
    """One namespace in one network, linked to a bridge; its first interface has the MAC above."""
    given = {name: {"network": "lan", **keys} for name, keys in interfaces.items()}
    next(iter(given.values())).setdefault("mac", MAC)
    return Topology.model_validate(
        {
            "name": "t",
            "tenants": {"red": {}},
            "networks": {"lan": {"tenant": "red"}},
            "nodes": {
                "br": {"kind": "bridge"},
                "n": {"kind": "namespace", "tenant": "red", "interfaces": given},
            },
            "links": [{"ends": [f"n:{name}", "br"]} for name in given],
        }
    )


def security(**keys: Any) -> PortSecurity:
    found = port_security(topology(eth0=keys), "n:eth0")
    assert found is not None
    return found


def v4(*texts: str) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((int(n.network_address), n.prefixlen) for n in map(IPv4Network, texts)))


def v6(*texts: str) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((int(n.network_address), n.prefixlen) for n in map(IPv6Network, texts)))


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        ("02:00:00:00:00:01", "fe80::ff:fe00:1"),
        ("34:56:78:9a:bc:de", "fe80::3656:78ff:fe9a:bcde"),  # RFC 4291 appendix A flips this very bit
        ("ff:ff:ff:ff:ff:ff", "fe80::fdff:ffff:feff:ffff"),
    ],
)
def test_the_link_local_address_is_the_host_s_own(mac: str, address: str) -> None:
    assert link_local(mac_number(mac)) == (6, int(IPv6Address(address)), 128)


def test_addresses_go_with_the_mac_and_so_does_the_link_local_one() -> None:
    (source,) = security(ip=["10.1.0.11/24", "2001:db8::11/64"]).sources
    assert (source.mac, source.ipv4) == (1 | 2 << 40, v4("10.1.0.11"))
    assert source.ipv6 == tuple(sorted([*v6("2001:db8::11"), LINK_LOCAL]))
    assert not source.any_address


def test_without_addresses_any_goes_with_the_mac() -> None:
    (source,) = security().sources
    assert source.any_address
    assert (source.ipv4, source.ipv6) == ((), ())


def test_off_is_off() -> None:
    assert port_security(topology(eth0={"port_security": False, "router": True}), "n:eth0") is None
    assert port_security(topology(eth0={}), "br") is None


def test_what_a_pair_leaves_out_is_the_interface_s_own() -> None:
    vrrp = "00:00:5e:00:01:07"
    pairs = [{"ip": "10.1.0.100"}, {"mac": vrrp, "ip": "10.1.0.200"}, {"mac": "02:00:00:00:00:99"}]
    by_mac = {source.mac: source for source in security(ip="10.1.0.11/24", allowed=pairs).sources}
    assert by_mac[mac_number(MAC)].ipv4 == v4("10.1.0.11", "10.1.0.100")
    assert by_mac[mac_number(vrrp)].ipv4 == v4("10.1.0.200")
    assert by_mac[mac_number("02:00:00:00:00:99")].ipv4 == v4("10.1.0.11")
    assert len(by_mac) == 3


def test_a_pair_with_an_address_binds_its_mac_even_where_the_interface_has_none() -> None:
    by_mac = {s.mac: s for s in security(allowed=[{"mac": "02:00:00:00:00:99", "ip": "10.1.0.0/24"}]).sources}
    assert by_mac[mac_number(MAC)].any_address
    assert by_mac[mac_number("02:00:00:00:00:99")].ipv4 == v4("10.1.0.0/24")


def test_what_another_covers_is_left_out() -> None:
    pairs = [{"ip": "10.1.0.0/24"}, {"ip": "10.1.0.0/16"}, {"ip": "10.1.0.7"}, {"ip": "fe80::/10"}]
    (source,) = security(ip="10.1.0.11/24", allowed=pairs).sources
    assert (source.ipv4, source.ipv6) == (v4("10.1.0.0/16"), v6("fe80::/10"))


@given(
    st.lists(
        st.ip_addresses(v=4).flatmap(
            lambda a: st.builds(
                lambda length: IPv4Network((int(a), length), strict=False), st.integers(0, 32)
            )
        ),
        max_size=6,
    ),
    st.ip_addresses(v=4),
)
def test_any_pairs_allow_exactly_their_addresses(subnets: list[IPv4Network], address: Any) -> None:
    (source,) = security(ip="192.0.2.1/24", allowed=[{"ip": str(subnet)} for subnet in subnets]).sources
    for probe in [address, *(subnet.network_address for subnet in subnets)]:
        found = [p for p in source.ipv4 if not (p[0] ^ int(probe)) >> 32 - p[1]]
        wanted = probe == ip_address("192.0.2.1") or any(probe in subnet for subnet in subnets)
        assert len(found) == wanted, "one flow, and not two of the same priority"


def test_an_address_that_another_may_use_is_nobody_s_alone() -> None:
    both = topology(
        eth0={"ip": ["10.1.0.1/24", "10.1.0.2/24"], "allowed": [{"ip": "10.1.0.0/24"}]},
        eth1={"ip": ["10.1.0.3/24", "2001:db8::3/64", "10.2.0.3/24"]},
    )
    own = own_addresses(both)
    assert own["n:eth0"] == ((4, 0x0A010001), (4, 0x0A010002))
    assert own["n:eth1"] == ((6, int(IPv6Address("2001:db8::3"))), (4, 0x0A020003))


def test_who_has_strangers_behind_it() -> None:
    assert has_strangers(topology(eth0={"port_security": False}), "n:eth0")
    assert has_strangers(topology(eth0={"allowed": [{"mac": "02:00:00:00:00:99"}]}), "n:eth0")
    assert not has_strangers(
        topology(eth0={"ip": "10.1.0.1/24", "allowed": [{"mac": MAC, "ip": "10.1.0.2"}]}), "n:eth0"
    )
    assert not has_strangers(topology(eth0={}), "n:eth0")
