"""The builder gives the same object as a file, and its findings name the line of the call."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from vswitchctl.errors import InvalidTopology
from vswitchctl.topology import TopologyBuilder, load_text

SAME = """\
name: ring
description: a ring
tenants: {red: {description: first}, blue: {}}
networks:
  lan: {tenant: red, subnets: [10.1.0.0/24, "fd00::/64"], gateway: 10.1.0.1, vlan: 7, mtu: 1400}
  sea: {tenant: blue}
nodes:
  br-a: {kind: bridge, datapath: netdev}
  br-b: {kind: bridge, datapath: netdev}
  lan0: {kind: linux-bridge, network: lan}
  wan0: {kind: uplink, interface: eth9, trunk: {lan: 100, sea: 101}}
  web1:
    kind: namespace
    tenant: red
    default_route: false
    interfaces:
      eth0: {network: lan, ip: 10.1.0.11/24, mac: "02:00:00:00:00:11"}
      eth1: {network: lan, ip: [10.1.0.12/24, "fd00::1/64"], mtu: 1300}
      eth2: {network: lan, acls: [closed]}
    routes: [{to: default, via: 10.1.0.1}]
links:
  - {ends: ["web1:eth0", br-a]}
  - {ends: ["web1:eth1", lan0]}
  - {ends: ["web1:eth2", br-b]}
  - {ends: [lan0, br-b]}
  - {ends: [br-a, br-b], kind: patch, cost: 10}
  - {ends: [wan0, br-a]}
qos: {gold: {max_rate: 100mbit}}
groups: {all: {members: ["web1:eth0"], addresses: [10.9.0.0/16]}}
acls:
  closed:
    - {direction: in, action: allow, protocol: tcp, ports: [80], from: {group: all}}
    - {direction: out, action: deny, stateful: false}
routers:
  r1:
    tenant: red
    networks: [lan]
    routes: [{to: 10.7.0.0/16, via: 10.1.0.9, mac: "02:00:00:00:00:fe"}]
expect: {reachable: [["web1:eth0", "web1:eth1"]]}
"""


def ring() -> TopologyBuilder:
    t = TopologyBuilder("ring", description="a ring")
    t.tenant("red", description="first").tenant("blue")
    t.network("lan", tenant="red", subnets=["10.1.0.0/24", "fd00::/64"], gateway="10.1.0.1", vlan=7, mtu=1400)
    t.network("sea", tenant="blue")
    t.bridge("br-a", datapath="netdev").bridge("br-b", datapath="netdev")
    t.linux_bridge("lan0", network="lan")
    t.uplink("wan0", interface="eth9", trunk={"lan": 100, "sea": 101})
    t.namespace("web1", tenant="red", default_route=False)
    t.interface("web1", "eth0", network="lan", ip="10.1.0.11/24", mac="02:00:00:00:00:11")
    t.interface("web1", "eth1", network="lan", ip=("10.1.0.12/24", "fd00::1/64"), mtu=1300)
    t.interface("web1", "eth2", network="lan", acls=["closed"])
    t.route("web1", "default", via="10.1.0.1")
    t.link("web1:eth0", "br-a").link("web1:eth1", "lan0").link("web1:eth2", "br-b").link("lan0", "br-b")
    t.link("br-a", "br-b", kind="patch", cost=10)
    t.link("wan0", "br-a")
    t.qos("gold", max_rate="100mbit")
    way_out = {"to": "10.7.0.0/16", "via": "10.1.0.9", "mac": "02:00:00:00:00:fe"}
    t.router("r1", tenant="red", networks=["lan"], routes=[way_out])
    t.group("all", members=["web1:eth0"], addresses=["10.9.0.0/16"])
    t.rule("closed", direction="in", action="allow", protocol="tcp", ports=[80], from_={"group": "all"})
    t.rule("closed", direction="out", action="deny", stateful=False)
    return t.expect(["web1:eth0", "web1:eth1"])


def test_the_same_topology_as_a_file() -> None:
    assert ring().build() == load_text(SAME).require()


def line_of(text: str, of: Callable[[], None]) -> int:
    """The first line of a test with this text."""
    lines, first = inspect.getsourcelines(of)
    return next(first + number for number, line in enumerate(lines) if text in line)


def test_findings_and_sources_name_the_line_of_the_call() -> None:
    here = test_findings_and_sources_name_the_line_of_the_call
    t = TopologyBuilder("bad")
    t.tenant("red")
    t.network("lan", tenant="rde", mtu=12)
    t.bridge("br-a")
    t.link("br-a", "br-b")
    document = t.document()
    assert [(f.file, f.line, f.path) for f in document.errors] == [
        (__file__, line_of("t.network(", of=here), "networks.lan.mtu"),
        (__file__, line_of("t.link(", of=here), "links[0].ends[1]"),
    ]
    assert document.sources["nodes/br-a"] == f"{__file__}:{line_of('t.bridge(', of=here)}"
    with pytest.raises(InvalidTopology, match="unknown node 'br-b'"):
        t.build()


def test_a_name_declared_twice() -> None:
    t = TopologyBuilder("bad").tenant("red")
    t.namespace("web1", tenant="red")
    t.bridge("web1")
    t.interface("web1", "eth0", network="lan").interface("web1", "eth0", network="lan")
    first = [finding.message.partition(", first at ") for finding in t.document().errors]
    assert [(what, place) for what, _, place in first if place] == [
        ("'web1' is declared twice", f"{__file__}:{line_of('t.namespace(', of=test_a_name_declared_twice)}"),
        ("'eth0' is declared twice", f"{__file__}:{line_of('t.interface(', of=test_a_name_declared_twice)}"),
    ]


def test_an_interface_of_nobody_is_a_finding() -> None:
    t = TopologyBuilder("bad").tenant("red").bridge("br-a").namespace("web1", tenant="red")
    t.interface("web2", "eth0", network="lan").route("br-a", "default", via="10.0.0.1")
    said = {(finding.message, finding.remedy) for finding in t.document().errors}
    assert said == {
        ("interface 'eth0' belongs to 'web2', which is no namespace", "did you mean 'web1'?"),
        ("the route to 'default' belongs to 'br-a', which is no namespace", "the namespaces are web1"),
    }


def test_a_wrong_type_is_a_finding_too() -> None:
    t = TopologyBuilder("bad").tenant("red").network("lan", tenant="red", mtu=True)
    t.expect("web1:eth0")
    assert [finding.path for finding in t.document().errors] == ["networks.lan.mtu", "expect.reachable[0]"]


def test_a_builder_can_go_on_after_a_document() -> None:
    t = TopologyBuilder("more").bridge("br-a")
    assert list(t.build().nodes) == ["br-a"]
    assert list(t.bridge("br-b").build().nodes) == ["br-a", "br-b"]
