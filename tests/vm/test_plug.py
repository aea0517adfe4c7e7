"""Guests of a real libvirtd on the bridges that the topology names, whatever came first."""

from __future__ import annotations

import signal

from tests.system.conftest import until
from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic

A, B, C = (f"52:54:00:aa:00:0{n}" for n in (1, 2, 3))

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
    interfaces: {"52:54:00:aa:00:01": {network: web, ip: 10.1.0.1/24, acls: [guest]}}
  a2:
    kind: vm
    domain: a2
    tenant: red
    interfaces: {"52:54:00:aa:00:02": {network: web, ip: 10.1.0.2/24}}
links:
  - {ends: ["ns1:eth0", br-a]}
  - {ends: ["a1:52:54:00:aa:00:01", br-a]}
  - {ends: ["a2:52:54:00:aa:00:02", br-a]}
acls:
  guest:
    - {direction: in, action: allow, protocol: icmp, from: {interface: "ns1:eth0"}}
    - {direction: in, action: allow, protocol: tcp, ports: [80]}
    - {direction: out, action: allow}
"""
_NODE_A2 = TOPOLOGY[TOPOLOGY.index("  a2:") : TOPOLOGY.index("links:")]
WITHOUT_A2 = TOPOLOGY.replace(_NODE_A2, "").replace('  - {ends: ["a2:52:54:00:aa:00:02", br-a]}\n', "")
A1, A2 = f"interfaces/a1:{A}", f"interfaces/a2:{B}"


def define_two(host: Hypervisor) -> None:
    """a1 with a NIC of type ethernet, a2 with one in the Linux bridge lan0."""
    host.run("ip", "link", "add", "lan0", "type", "bridge")
    host.run("ip", "link", "set", "lan0", "up")
    host.define("a1", Nic(A, "10.1.0.1/24"))
    host.define("a2", Nic(B, "10.1.0.2/24", kind="bridge", source="lan0"))


def fetches(host: Hypervisor, address: str, port: int = 80) -> bool:
    """Whether the namespace gets a TCP connection."""
    probe = f"import socket; socket.create_connection(('{address}', {port}), 3).close()"
    return host.succeeds("ip", "netns", "exec", "ns1", "python3", "-c", probe)


def plugged(stack: HypervisorStack, name: str, mac: str) -> bool:
    return stack.port_bridge(stack.host.tap(name, mac)) == "br-a"


def test_bridge_first(host: Hypervisor, stack: HypervisorStack) -> None:
    """A domain that does not run is no failure, and is plugged when its TAP appears."""
    define_two(host)
    stack.apply_text(TOPOLOGY)
    assert stack.in_sync("t")
    assert stack.entity("t", A1) == ("pending", "domain 'a1' is not running (shut off)")

    guest, other = host.boot("a1"), host.boot("a2")
    until(lambda: plugged(stack, "a1", A) and plugged(stack, "a2", B), "both are plugged")
    until(lambda: host.pings("10.1.0.1") and host.pings("10.1.0.2"), "the namespace reaches both guests")
    assert stack.entity("t", A1) == ("in-sync", "")
    assert host.master(host.tap("a2", B)) == ""

    # The guest's ACL: the other guest may not ping it, the namespace may; TCP to 80 and nowhere else.
    assert not other.succeeds("ping -c1 -W2 10.1.0.1")
    assert guest.succeeds("ping -c1 -W2 10.1.0.2")
    asked = other.run("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w5 10.1.0.1 80")[1]
    assert asked.endswith("a1"), asked
    assert fetches(host, "10.1.0.1")
    assert not fetches(host, "10.1.0.1", 7)
    # What it does not own it cannot send from.
    guest.run("ip addr add 10.1.0.77/24 dev eth0")
    assert not guest.succeeds("ping -c1 -W2 -I 10.1.0.77 10.1.0.2")

    tap = host.tap("a1", A)
    ids = stack.external_ids(tap)
    assert (ids["attached-mac"], ids["iface-id"]) == (A, f"a1/{A}")
    assert ids["vm-id"] == host.virsh("domuuid", "a1").strip()
    guest.close()
    other.close()
    stack.nothing_leaked("br-a")


def test_vm_first_and_given_back(host: Hypervisor, stack: HypervisorStack) -> None:
    """Guests run before anything is declared; what the topology lets go of is where it was."""
    define_two(host)
    guest, other = host.boot("a1"), host.boot("a2")
    tap = host.tap("a2", B)
    assert host.master(tap) == "lan0"
    stack.apply_text(TOPOLOGY)
    assert plugged(stack, "a1", A)
    assert plugged(stack, "a2", B)
    until(lambda: host.pings("10.1.0.2"), "the namespace reaches the guest that was in lan0")
    assert host.master(tap) == ""

    stack.apply_text(WITHOUT_A2)
    assert host.master(tap) == "lan0"
    stack.apply_text(TOPOLOGY)
    assert host.master(tap) == ""
    stack.cli("destroy", "t", "--yes")
    assert host.master(tap) == "lan0"
    assert host.links()[tap].get("ifalias", "") == ""
    assert host.tap("a1", A) in host.links()
    assert guest.succeeds("true")
    assert other.succeeds("true")
    guest.close()
    other.close()


def test_stop_start_and_restarts(host: Hypervisor, stack: HypervisorStack) -> None:
    """A guest that stops leaves nothing; one that starts is plugged, whoever was away meanwhile."""
    define_two(host)
    stack.apply_text(TOPOLOGY)
    host.boot("a1").close()
    until(lambda: host.pings("10.1.0.1"), "the guest is reached")

    host.virsh("destroy", "a1")
    until(lambda: stack.entity("t", A1)[0] == "pending", "its domain is seen to have ended")
    until(lambda: stack.vsctl("list-ports", "br-a").count("vnet") == 0, "its port is gone")
    stack.nothing_leaked("br-a")
    host.boot("a1").close()
    until(lambda: host.pings("10.1.0.1"), "the guest is reached again")

    # The daemon is away while one starts and the other ends.
    stack.kill_daemon()
    host.virsh("destroy", "a1")
    host.boot("a2").close()
    stack.cli("up")
    until(lambda: plugged(stack, "a2", B) and host.pings("10.1.0.2"), "what started meanwhile is plugged")
    until(lambda: stack.vsctl("list-ports", "br-a").count("vnet") == 1, "what ended meanwhile left no port")
    stack.nothing_leaked("br-a")


def test_libvirtd_goes_and_comes(host: Hypervisor, stack: HypervisorStack) -> None:
    """Without libvirtd ports stay, over a restart of the daemon, too, and it is said."""
    define_two(host)
    stack.apply_text(TOPOLOGY)
    host.boot("a1").close()
    host.boot("a2").close()
    until(lambda: host.pings("10.1.0.1") and host.pings("10.1.0.2"), "both guests are reached")
    taps = {host.tap("a1", A), host.tap("a2", B)}

    host.kill_libvirtd(signal.SIGKILL)
    until(lambda: stack.entity("t", A1)[0] == "stale", "libvirtd is missed")
    assert "does not answer" in stack.entity("t", A1)[1]
    stack.kill_daemon()
    stack.cli("up")
    until(lambda: stack.entity("t", A1)[0] == "stale", "libvirtd is missed by the next daemon, too")
    assert host.pings("10.1.0.1")
    assert host.pings("10.1.0.2")

    host.start_libvirtd()
    until(
        lambda: stack.entity("t", A1) == stack.entity("t", A2) == ("in-sync", ""), "libvirtd is heard again"
    )
    # libvirt puts TAPs back into its bridges when it starts; they are taken again.
    until(lambda: {host.master(tap) for tap in taps} == {""}, "no TAP is in a Linux bridge")
    until(lambda: host.pings("10.1.0.1") and host.pings("10.1.0.2"), "both guests are reached still")
    assert {host.tap("a1", A), host.tap("a2", B)} == taps
    stack.nothing_leaked("br-a")
