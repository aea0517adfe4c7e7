"""`vswitchctl vm` and `vswitchctl import libvirt`, on what really runs."""

from __future__ import annotations

from typing import Any

from tests.system.conftest import until
from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic
from tests.vm.test_networks import NAT, OPEN_VSWITCH, start_network

A, B, C, D = (f"52:54:00:aa:00:0{n}" for n in (1, 2, 3, 4))

TOPOLOGY = """
name: t
tenants: {red: {}}
networks: {web: {tenant: red, subnets: [10.1.0.0/24]}}
nodes:
  br-a: {kind: bridge}
  a1:
    kind: vm
    domain: a1
    tenant: red
    interfaces: {"52:54:00:aa:00:02": {network: web, ip: 10.1.0.2/24}}
links:
  - {ends: ["a1:52:54:00:aa:00:02", br-a]}
"""


def nics(stack: HypervisorStack, domain: str) -> dict[str, Any]:
    """The NICs of a domain by their MAC addresses, as `vm list` says."""
    views = stack.json("vm", "list")
    return {nic["mac"]: nic for view in views if view["domain"] == domain for nic in view["nics"]}


def test_what_runs_is_imported_and_its_plan_has_no_changes(host: Hypervisor, stack: HypervisorStack) -> None:
    start_network(host, "default", NAT)
    host.run("ip", "link", "add", "lan0", "type", "bridge")
    host.run("ip", "link", "set", "lan0", "up")
    stack.vsctl("add-br", "theirs", "--", "set", "Bridge", "theirs", "datapath_type=netdev")
    host.run("ln", "-s", f"{stack.rundir}/db.sock", "/run/openvswitch/db.sock")
    start_network(host, "lan", OPEN_VSWITCH)
    host.define("a1", Nic(A, kind="network", source="default"), Nic(B, kind="bridge", source="lan0"))
    host.define("guest é", Nic(C, kind="user"), Nic(D, kind="network", source="lan", portgroup="web"))
    host.define("off", Nic("52:54:00:aa:00:05", kind="bridge", source="lan0"), Nic("52:54:00:aa:00:06"))
    for name in ("a1", "guest é"):
        host.virsh("start", "--paused", name)
    before = host.links()
    where = {tap: link.get("master") for tap, link in before.items()}

    file = str(host.directory / "all.yaml")
    until(lambda: len(nics(stack, "guest é")) == 2 and nics(stack, "a1")[A]["device"], "libvirt told of all")
    stack.cli("import", "libvirt", "--name", "all", "--output", file)
    text = " ".join((host.directory / "all.yaml").read_text().split())
    assert "virbr0: {kind: linux-bridge, network: default, external: true}" in text
    assert "10.1.0.0/24" in text
    assert "- ends: ['off:52:54:00:aa:00:05', lan0]" in text or '"off:52:54:00:aa:00:05"' in text
    assert "linked to a bridge of this topology it is taken over" in text
    assert stack.call("plan", file).returncode == 0, text
    stack.cli("apply", file, "--yes")
    assert {tap: link.get("master") for tap, link in host.links().items()} == where
    assert not [link for link in host.links().values() if link.get("ifalias")]
    assert nics(stack, "a1")[A]["status"] == "in-sync"
    assert nics(stack, "a1")[A]["bridge"] == "virbr0"
    assert nics(stack, "guest é")[C]["status"] is None or nics(stack, "guest é")[C]["network"] == "bypass"
    assert nics(stack, "guest é")[D]["bridge"] == "theirs"

    # What is declared is not imported again.
    again = stack.cli("import", "libvirt")
    assert A not in again and D not in again

    listed = {view["name"]: view for view in stack.json("vm", "networks")}
    assert listed["default"]["forward"] == "nat" and listed["default"]["topology"] == "all"
    assert (listed["lan"]["kind"], listed["lan"]["portgroups"]) == ("openvswitch", ["web"])
    assert listed["lan0"]["uri"] == ""
    for name in ("a1", "guest é"):
        host.virsh("destroy", name)
    host.run("rm", "/run/openvswitch/db.sock")
    stack.vsctl("del-br", "theirs")
    host.virsh("net-destroy", "default")


def test_a_nic_is_attached_and_detached_live(host: Hypervisor, stack: HypervisorStack) -> None:
    host.define("a1", Nic(A, "10.1.0.1/24"))
    stack.apply_text(TOPOLOGY)
    assert nics(stack, "a1")[B]["reason"] == f"domain 'a1' has no NIC with MAC address {B}"
    said = stack.call("vm", "attach", "a1", B)
    assert said.returncode == 1
    assert said.stderr == (
        "error: domain 'a1' does not run (shut off); --config changes it for its next start\n"
    )
    console = host.boot("a1")
    until(lambda: nics(stack, "a1")[A]["device"], "it is seen to run")
    stack.cli("vm", "attach", "a1", B)
    until(lambda: nics(stack, "a1")[B]["status"] == "in-sync", "the NIC is plugged")
    nic = nics(stack, "a1")[B]
    assert (nic["bridge"], nic["network"], nic["addresses_from"]) == ("br-a", "web", "topology")
    assert stack.port_bridge(nic["device"]) == "br-a"
    until(lambda: console.succeeds(f"grep -q {B} /sys/class/net/eth1/address"), "the guest sees it")
    assert "has a NIC" in stack.call("vm", "attach", "a1", B).stderr
    text = stack.cli("vm", "list")
    assert f"a1      running  {B}  {nic['device']}" in text
    assert "not declared" in text

    stack.cli("vm", "detach", "a1", B)
    until(lambda: nics(stack, "a1")[B]["status"] == "pending", "it is gone")
    assert stack.port_bridge(nic["device"]) == ""
    assert "has no NIC" in stack.call("vm", "detach", "a1", B).stderr
    assert "no domain 'a9'" in stack.call("vm", "detach", "a9", B).stderr
    console.close()


def test_addresses_come_from_leases(host: Hypervisor, stack: HypervisorStack) -> None:
    """The guest asks by DHCP; libvirt's dnsmasq knows what it gave. Nothing declared, nothing enforced."""
    start_network(host, "default", NAT)
    host.define("a1", Nic(A, kind="network", source="default"))
    console = host.boot("a1")
    assert console.succeeds("ip link set eth0 up")
    assert console.succeeds("udhcpc -i eth0 -n -q -s /bin/true")
    until(lambda: nics(stack, "a1")[A]["addresses_from"] == "lease", "the lease is seen")
    (address,) = nics(stack, "a1")[A]["addresses"]
    assert address.startswith("10.1.0.1")
    host.virsh("destroy", "a1")
    host.virsh("net-destroy", "default")
    console.close()
