"""NICs of libvirt's own networks: NAT on virbr0, and Open vSwitch with port groups. Taken, and given back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.system.conftest import ROOT, until
from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic

A = "52:54:00:aa:00:01"

TOPOLOGY = """
name: t
tenants: {red: {}}
networks: {web: {tenant: red, subnets: [10.1.0.0/24]}}
nodes:
  br-a: {kind: bridge}
  ns1: {kind: namespace, tenant: red, interfaces: {eth0: {network: web, ip: 10.1.0.9/24}}}
  a1:
    kind: vm
    domain: a1
    tenant: red
    interfaces: {"52:54:00:aa:00:01": {network: web, ip: 10.1.0.1/24}}
links:
  - {ends: ["ns1:eth0", br-a]}
  - {ends: ["a1:52:54:00:aa:00:01", br-a]}
"""

NAT = """
<network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>
<ip address='10.1.0.254' netmask='255.255.255.0'>
<dhcp><range start='10.1.0.100' end='10.1.0.199'/></dhcp>
</ip>
</network>
"""
OPEN_VSWITCH = """
<network><name>lan</name><forward mode='bridge'/><bridge name='theirs'/><virtualport type='openvswitch'/>
<portgroup name='web'><vlan><tag id='42'/></vlan></portgroup>
</network>
"""


def readme_example() -> str:
    """The topology of "Your VMs"."""
    (found,) = re.findall(r"```yaml\n(name: web-vm\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    return str(found)


def start_network(host: Hypervisor, name: str, xml: str) -> None:
    file = host.directory / f"{name}.xml"
    file.write_text(xml)
    host.virsh("net-define", str(file))
    host.virsh("net-start", name)


@pytest.fixture
def shared_ovs(host: Hypervisor, stack: HypervisorStack) -> Iterator[None]:
    """libvirt finds the Open vSwitch of `stack` where it looks for the system's."""
    host.run("ln", "-s", f"{stack.rundir}/db.sock", "/run/openvswitch/db.sock")
    yield
    host.run("rm", "/run/openvswitch/db.sock")


def test_the_default_network_is_left_and_come_back_to(host: Hypervisor, stack: HypervisorStack) -> None:
    """A guest on virbr0 talks to its host; while a topology has its NIC, to that alone; and then again."""
    start_network(host, "default", NAT)
    host.define("a1", Nic(A, "10.1.0.1/24", kind="network", source="default"))
    console = host.boot("a1")
    tap = host.tap("a1", A)
    assert host.master(tap) == "virbr0"
    until(lambda: console.succeeds("ping -c1 -W2 10.1.0.254"), "the guest reaches its host")

    stack.apply_text(TOPOLOGY)
    assert stack.port_bridge(tap) == "br-a"
    until(host.pings, "the namespace reaches the guest")
    assert not console.succeeds("ping -c1 -W2 10.1.0.254")

    stack.cli("destroy", "t", "--yes")
    assert host.master(tap) == "virbr0"
    until(lambda: console.succeeds("ping -c1 -W2 10.1.0.254"), "the guest reaches its host again")
    host.virsh("destroy", "a1")
    host.virsh("net-destroy", "default")
    console.close()


@pytest.mark.usefixtures("shared_ovs")
def test_a_port_group_s_tag_is_lifted_and_put_back(host: Hypervisor, stack: HypervisorStack) -> None:
    stack.vsctl("add-br", "theirs", "--", "set", "Bridge", "theirs", "datapath_type=netdev")
    start_network(host, "lan", OPEN_VSWITCH)
    nic = Nic(A, "10.1.0.1/24", kind="network", source="lan", portgroup="web")
    host.define("a1", nic)
    host.boot("a1").close()
    tap = host.tap("a1", A)
    assert stack.port_bridge(tap) == "theirs"
    assert stack.vsctl("get", "Port", tap, "tag") == "42"
    before = stack.external_ids(tap)

    stack.apply_text(TOPOLOGY)
    assert stack.port_bridge(tap) == "br-a"
    assert stack.vsctl("get", "Port", tap, "tag") == "[]"
    until(host.pings, "the namespace reaches the guest")
    # Somebody sets a tag on what is ours now: it is drift, and no place to go back to.
    stack.vsctl("set", "Port", tap, "tag=7")
    until(lambda: stack.vsctl("get", "Port", tap, "tag") == "[]", "the tag is lifted again")

    stack.kill_daemon()
    stack.cli("up")
    stack.cli("destroy", "t", "--yes")
    assert stack.port_bridge(tap) == "theirs"
    assert stack.vsctl("get", "Port", tap, "tag") == "42"
    assert stack.external_ids(tap) == before
    host.virsh("destroy", "a1")
    host.virsh("net-destroy", "lan")
    stack.vsctl("del-br", "theirs")


@pytest.mark.usefixtures("shared_ovs")
def test_a_port_that_libvirt_puts_on_our_bridge_goes_with_it(
    host: Hypervisor, stack: HypervisorStack
) -> None:
    """The domain names our bridge itself: its port is adopted where it is, and not given back to it."""
    stack.apply_text(TOPOLOGY)
    host.define("a1", Nic(A, "10.1.0.1/24", kind="bridge", source="br-a", openvswitch=True))
    host.boot("a1").close()
    until(host.pings, "the namespace reaches the guest")
    stack.cli("destroy", "t", "--yes")
    assert "br-a" not in stack.vsctl("list-br").split()
    host.virsh("destroy", "a1")


LINKED = """
name: t
tenants: {red: {}}
networks: {web: {tenant: red, subnets: [10.1.0.0/24]}}
nodes:
  br-a: {kind: bridge}
  virbr0: {kind: linux-bridge, network: web, external: true}
  ns1: {kind: namespace, tenant: red, interfaces: {eth0: {network: web, ip: 10.1.0.9/24}}}
  a1:
    kind: vm
    domain: a1
    tenant: red
    interfaces: {"52:54:00:aa:00:01": {network: web, ip: 10.1.0.1/24}}
links:
  - {ends: ["ns1:eth0", br-a]}
  - {ends: [virbr0, br-a]}
  - {ends: ["a1:52:54:00:aa:00:01", virbr0]}
"""


def test_virbr0_is_linked_as_it_is(host: Hypervisor, stack: HypervisorStack) -> None:
    """libvirt's bridge comes and goes as libvirt likes; a veth joins it; its guests stay where they are."""
    stack.apply_text(LINKED)
    assert stack.entity("t", "nodes/virbr0") == ("pending", "there is no Linux bridge 'virbr0' yet")
    assert stack.in_sync("t")

    start_network(host, "default", NAT)
    host.define("a1", Nic(A, "10.1.0.1/24", kind="network", source="default"))
    host.boot("a1").close()
    until(lambda: host.pings() and host.pings("10.1.0.254"), "the namespace reaches the guest and its host")
    tap = host.tap("a1", A)
    assert host.master(tap) == "virbr0"
    assert host.links()[tap].get("ifalias", "") == ""
    assert stack.entity("t", f"interfaces/a1:{A}") == ("in-sync", "")
    file = str(host.directory / "topology.yaml")
    assert stack.call("plan", file).returncode == 0

    # It is moved out by hand, and is put where it is declared; and then it is where libvirt has it, too.
    host.run("ip", "link", "set", tap, "nomaster")
    until(lambda: host.master(tap) == "virbr0", "the TAP is back")

    host.virsh("destroy", "a1")
    host.virsh("net-destroy", "default")
    until(lambda: stack.entity("t", "nodes/virbr0")[0] == "pending", "its bridge is seen to be gone")
    until(lambda: not any("virbr0" in link for link in host.links()), "and the veth with it")
    host.virsh("net-start", "default")
    until(lambda: host.pings("10.1.0.254"), "it is linked again")
    stack.cli("destroy", "t", "--yes")
    assert "virbr0" in host.links()
    host.virsh("net-destroy", "default")


def test_the_readme_s_guest_leaves_virbr0_and_goes_on_behind_it(
    host: Hypervisor, stack: HypervisorStack
) -> None:
    """Its gateway is libvirt's still, over a veth pair, and now its ACL says who reaches it."""
    start_network(host, "default", NAT.replace("10.1.0.", "192.168.122."))
    host.define("web", Nic(A, "192.168.122.10/24", kind="network", source="default"))
    console = host.boot("web")
    tap = host.tap("web", A)
    assert host.master(tap) == "virbr0"
    assert reaches(host, 7)

    stack.apply_text(readme_example())
    assert stack.port_bridge(tap) == "br-lan"
    until(lambda: console.succeeds("ping -c1 -W2 192.168.122.254"), "the guest reaches its gateway")
    assert reaches(host, 80)
    assert not reaches(host, 7)

    stack.cli("destroy", "web-vm", "--yes")
    assert host.master(tap) == "virbr0"
    until(lambda: reaches(host, 7), "it is as it was")
    host.virsh("destroy", "web")
    host.virsh("net-destroy", "default")
    console.close()


def reaches(host: Hypervisor, port: int) -> bool:
    """Whether the host itself gets a TCP connection to the README's guest."""
    probe = f"import socket; socket.create_connection(('192.168.122.10', {port}), 3).close()"
    return host.succeeds("python3", "-c", probe)
