"""Every kind of NIC: on Open vSwitch by libvirt, of a network, plugged in later, and without a TAP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.conftest import until
from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic

A, B = "52:54:00:aa:00:01", "52:54:00:aa:00:02"

TOPOLOGY = """
name: t
tenants: {red: {}}
networks: {web: {tenant: red, subnets: [10.1.0.0/24]}}
nodes:
  br-a: {kind: bridge}
  ns1: {kind: namespace, tenant: red, interfaces: {eth0: {network: web, ip: 10.1.0.9/24}}}
  a1:
    kind: vm
    domain: guest é
    tenant: red
    interfaces: {"52:54:00:aa:00:01": {network: web, ip: 10.1.0.1/24}}
links:
  - {ends: ["ns1:eth0", br-a]}
  - {ends: ["a1:52:54:00:aa:00:01", br-a]}
"""
A1 = f"interfaces/a1:{A}"
DOMAIN = "guest é"


@pytest.fixture
def shared_ovs(host: Hypervisor, stack: HypervisorStack) -> Iterator[None]:
    """libvirt finds the Open vSwitch of `stack` where it looks for the system's."""
    host.run("ln", "-s", f"{stack.rundir}/db.sock", "/run/openvswitch/db.sock")
    yield
    host.run("rm", "/run/openvswitch/db.sock")


@pytest.mark.usefixtures("shared_ovs")
def test_a_port_that_libvirt_made_is_moved_and_put_back(host: Hypervisor, stack: HypervisorStack) -> None:
    stack.vsctl("add-br", "theirs", "--", "set", "Bridge", "theirs", "datapath_type=netdev")
    host.define(DOMAIN, Nic(A, "10.1.0.1/24", kind="bridge", source="theirs", openvswitch=True))
    host.boot(DOMAIN).close()
    tap = host.tap(DOMAIN, A)
    assert stack.port_bridge(tap) == "theirs"
    before = stack.external_ids(tap)

    stack.apply_text(TOPOLOGY)
    assert stack.port_bridge(tap) == "br-a"
    until(host.pings, "the namespace reaches the guest")
    assert stack.external_ids(tap)["iface-id"] == before["iface-id"]

    stack.cli("destroy", "t", "--yes")
    assert stack.port_bridge(tap) == "theirs"
    assert stack.external_ids(tap) == before

    # It starts while the topology is there, and ends: libvirt takes its own port away.
    stack.apply_text(TOPOLOGY)
    host.virsh("destroy", DOMAIN)
    until(lambda: stack.port_bridge(tap) == "", "the port went with the domain")
    host.boot(DOMAIN).close()
    until(lambda: stack.port_bridge(host.tap(DOMAIN, A)) == "br-a" and host.pings(), "it is plugged again")
    stack.cli("destroy", "t", "--yes")
    host.virsh("destroy", DOMAIN)
    until(lambda: stack.vsctl("list-ports", "theirs") == "", "nothing is left on their bridge")
    stack.vsctl("del-br", "theirs")


def test_a_nic_of_a_network_and_one_plugged_in_later(host: Hypervisor, stack: HypervisorStack) -> None:
    host.run("ip", "link", "add", "lan0", "type", "bridge")
    host.run("ip", "link", "set", "lan0", "up")
    network = host.directory / "network.xml"
    network.write_text("<network><name>lan</name><forward mode='bridge'/><bridge name='lan0'/></network>")
    host.virsh("net-define", str(network))
    host.virsh("net-start", "lan")
    host.define(DOMAIN, Nic(B))
    console = host.boot(DOMAIN)
    stack.apply_text(TOPOLOGY)
    assert stack.entity("t", A1) == ("pending", f"domain '{DOMAIN}' has no NIC with MAC address {A}")

    nic = host.directory / "nic.xml"
    nic.write_text(Nic(A, kind="network", source="lan").xml())
    host.virsh("attach-device", DOMAIN, str(nic))
    until(lambda: stack.entity("t", A1) == ("in-sync", ""), "the NIC is plugged")
    tap = host.tap(DOMAIN, A)
    assert stack.port_bridge(tap) == "br-a"
    until(lambda: console.succeeds(f"grep -q {A} /sys/class/net/eth1/address"), "the guest sees its NIC")
    assert console.succeeds("ip link set eth1 up && ip addr add 10.1.0.1/24 dev eth1")
    until(host.pings, "the namespace reaches the guest")

    host.virsh("detach-device", DOMAIN, str(nic))
    until(lambda: stack.entity("t", A1)[0] == "pending", "the NIC is seen to be gone")
    until(lambda: stack.port_bridge(tap) == "" and tap not in host.links(), "its port is gone")
    console.close()


def test_what_bypasses_the_switch_is_said_and_policy_on_it_refused(
    host: Hypervisor, stack: HypervisorStack
) -> None:
    host.define(DOMAIN, Nic(A, kind="user"))
    stack.apply_text(TOPOLOGY)
    status, reason = stack.entity("t", A1)
    assert status == "bypasses"
    assert reason == "a NIC of type 'user' bypasses the switch: QEMU itself makes its connections (SLIRP)"

    acl = "\nacls: {closed: [{direction: in, action: deny}]}\n"
    policy = TOPOLOGY.replace("ip: 10.1.0.1/24", "ip: 10.1.0.1/24, acls: closed") + acl
    file = host.directory / "policy.yaml"
    file.write_text(policy)
    said = stack.call("plan", str(file))
    assert said.returncode == 1
    assert "its ACLs cannot be enforced" in said.stderr
    file.write_text(policy.replace("acls: closed", "acls: closed, bypass: true"))
    assert stack.call("plan", str(file)).returncode in (0, 2)


def test_checksums_that_the_userspace_datapath_sends_out_wrong_are_warned_of(
    host: Hypervisor, stack: HypervisorStack
) -> None:
    """The warning is right: with the offload TCP from the guest's port is lost, while ping works."""
    host.define(DOMAIN, Nic(A, "10.1.0.1/24", offload=True))
    host.boot(DOMAIN).close()
    stack.apply_text(TOPOLOGY)
    assert "checksums" in stack.cli("plan", str(host.directory / "topology.yaml"))
    until(host.pings, "the namespace reaches the guest")
    probe = "import socket; socket.create_connection(('10.1.0.1', 80), 3).close()"
    assert not host.succeeds("ip", "netns", "exec", "ns1", "python3", "-c", probe)
