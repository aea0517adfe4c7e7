"""What a guest goes through, many at once, and who dies meanwhile. Nothing is left of any of it."""

from __future__ import annotations

import signal
import subprocess

from tests.system.conftest import until
from tests.vm.hypervisor import Hypervisor, HypervisorStack, Nic

HEAD = """
name: t
tenants: {red: {}}
networks: {web: {tenant: red, subnets: [10.1.0.0/24]}}
nodes:
  br-a: {kind: bridge}
  ns1: {kind: namespace, tenant: red, interfaces: {eth0: {network: web, ip: 10.1.0.9/24}}}
"""
LINKS = """
links:
  - {ends: ["ns1:eth0", br-a]}
"""


def mac(number: int) -> str:
    return f"52:54:00:aa:01:{number:02x}"


def name(number: int) -> str:
    return f"vm{number}"


def topology(*numbers: int, domain: str = "vm{}") -> str:
    """A virtual machine for each number, 10.1.0.1NN."""
    nodes, links = "", ""
    for number in numbers:
        interfaces = f'{{"{mac(number)}": {{network: web, ip: 10.1.0.{100 + number}/24}}}}'
        nodes += f"  {name(number)}: {{kind: vm, tenant: red, interfaces: {interfaces}, "
        nodes += f"domain: {domain.format(number)}}}\n"
        links += f'  - {{ends: ["{name(number)}:{mac(number)}", br-a]}}\n'
    return HEAD + nodes + LINKS + links


def define(host: Hypervisor, number: int, kind: str = "ethernet", source: str = "") -> None:
    host.define(name(number), Nic(mac(number), f"10.1.0.{100 + number}/24", kind=kind, source=source))


def pings(host: Hypervisor, number: int) -> bool:
    return host.pings(f"10.1.0.{100 + number}")


def status(stack: HypervisorStack, number: int) -> str:
    return stack.entity("t", f"interfaces/{name(number)}:{mac(number)}")[0]


def plugged(stack: HypervisorStack) -> int:
    """How many NICs are in sync."""
    entities = stack.json("show", "topology", "t")["entities"]
    nics = [one for one in entities if one["entity"].startswith("interfaces/vm")]
    return sum(one["status"] == "in-sync" for one in nics)


def taps(stack: HypervisorStack) -> set[str]:
    """The devices of virtual machines on the bridge."""
    return {port for port in stack.vsctl("list-ports", "br-a").split() if not port.startswith("ns1")}


def in_parallel(host: Hypervisor, *commands: tuple[str, ...]) -> list[subprocess.Popen[bytes]]:
    """virsh, one process for each command."""
    argv = [*host.prefix, "virsh", "-q", "-c", host.uri]
    return [
        subprocess.Popen([*argv, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]


def test_suspend_reset_save_and_restore(host: Hypervisor, stack: HypervisorStack) -> None:
    define(host, 1)
    stack.apply_text(topology(1))
    console = host.boot("vm1")
    until(lambda: pings(host, 1), "the guest is reached")
    tap = host.tap("vm1", mac(1))

    host.virsh("suspend", "vm1")
    assert not pings(host, 1)
    assert status(stack, 1) == "in-sync"
    assert taps(stack) == {tap}
    host.virsh("resume", "vm1")
    until(lambda: pings(host, 1), "it is reached once resumed")

    host.virsh("reset", "vm1")
    console.wait_for(" is ready")
    until(lambda: pings(host, 1), "it is reached after a reset")
    assert taps(stack) == {tap}
    console.close()

    image = str(host.directory / "vm1.save")
    host.virsh("save", "vm1", image)
    until(lambda: status(stack, 1) == "pending" and not taps(stack), "a saved one has no port")
    stack.nothing_leaked("br-a")
    host.virsh("restore", image)
    until(lambda: pings(host, 1), "it is reached once restored")
    assert taps(stack) == {host.tap("vm1", mac(1))}
    stack.nothing_leaked("br-a")


def test_a_renamed_domain_is_followed_by_its_uuid(host: Hypervisor, stack: HypervisorStack) -> None:
    define(host, 1)
    uuid = host.virsh("domuuid", "vm1").strip()
    stack.apply_text(topology(1, domain=uuid))
    host.virsh("start", "--paused", "vm1")
    until(lambda: status(stack, 1) == "in-sync", "it is plugged")
    host.virsh("destroy", "vm1")
    host.virsh("domrename", "vm1", "other")
    host.virsh("start", "--paused", "other")
    until(lambda: status(stack, 1) == "in-sync", "it is plugged under its other name")
    assert taps(stack) == {host.tap("other", mac(1))}

    # By its name it is the same NIC, and is not declared twice.
    file = host.directory / "twice.yaml"
    file.write_text(topology(1, domain="other").replace("name: t\n", "name: u\n").replace("br-a", "br-b"))
    text = file.read_text().replace("ns1", "ns2")
    file.write_text(text)
    said = stack.call("plan", str(file))
    assert said.returncode == 1
    assert "is the same NIC as t/interfaces/vm1" in said.stderr
    host.virsh("destroy", "other")


def test_odd_domains_get_a_clear_status(host: Hypervisor, stack: HypervisorStack) -> None:
    """Two NICs in one network, a MAC twice in one domain, and one that two domains have."""
    host.define("vm1", Nic(mac(1)), Nic(mac(2)))
    host.define("vm3", Nic(mac(3)), Nic(mac(3)))
    host.define("vm4", Nic(mac(4)))
    host.define("vm5", Nic(mac(4)))
    text = topology(3, 4)
    two = f'"{mac(1)}": {{network: web}}, "{mac(2)}": {{network: web}}'
    node = f"  vm1: {{kind: vm, tenant: red, domain: vm1, interfaces: {{{two}}}}}"
    text = text.replace("\nlinks:\n", f"\n{node}\nlinks:\n")
    text += "".join(f'  - {{ends: ["vm1:{mac(n)}", br-a]}}\n' for n in (1, 2))
    stack.apply_text(text)
    for domain in ("vm1", "vm3", "vm4", "vm5"):
        host.virsh("start", "--paused", domain)
    until(
        lambda: [stack.entity("t", f"interfaces/vm1:{mac(n)}")[0] for n in (1, 2)] == ["in-sync"] * 2,
        "both NICs are plugged",
    )
    until(lambda: status(stack, 4) == "in-sync", "another domain's MAC does not matter")
    assert stack.entity("t", f"interfaces/vm3:{mac(3)}") == (
        "pending", f"domain 'vm3' has {mac(3)} more than once",
    )  # fmt: skip
    assert taps(stack) == {host.tap("vm1", mac(1)), host.tap("vm1", mac(2)), host.tap("vm4", mac(4))}
    for domain in ("vm1", "vm3", "vm4", "vm5"):
        host.virsh("destroy", domain)
    until(lambda: not taps(stack), "nothing is left of them")
    stack.nothing_leaked("br-a")


def test_twenty_at_once_with_the_daemon_and_libvirtd_killed(host: Hypervisor, stack: HypervisorStack) -> None:
    """Twenty start together, and the daemon dies while they do; libvirtd dies while they end."""
    host.run("ip", "link", "add", "lan0", "type", "bridge")
    host.run("ip", "link", "set", "lan0", "up")
    numbers = range(20)
    for number in numbers:
        if number % 2:
            define(host, number)
        else:
            define(host, number, "bridge", "lan0")
    stack.apply_text(topology(*numbers))
    starts = in_parallel(host, *(("start", "--paused", name(number)) for number in numbers))
    until(lambda: len(taps(stack)) >= 3, "some are plugged")
    stack.kill_daemon()
    stack.cli("up")
    assert [start.wait(120) for start in starts] == [0] * len(starts)
    until(lambda: plugged(stack) == 20, "all are plugged")
    assert taps(stack) == {host.tap(name(number), mac(number)) for number in numbers}
    stack.nothing_leaked("br-a")

    ends = in_parallel(host, *(("destroy", name(number)) for number in numbers[:12]))
    until(lambda: len(taps(stack)) < 20, "some are gone")
    host.kill_libvirtd(signal.SIGKILL)
    for end in ends:
        end.wait(120)  # libvirtd is gone: it may fail
    host.start_libvirtd()
    until(lambda: status(stack, 19) == "in-sync", "libvirtd is heard again")
    for number in numbers[:12]:
        host.virsh("destroy", name(number), check=False)
    until(lambda: len(taps(stack)) == 8, "those that ended have no port")
    assert taps(stack) == {host.tap(name(number), mac(number)) for number in numbers[12:]}
    stack.nothing_leaked("br-a")

    stack.cli("destroy", "t", "--yes")
    assert all(host.master(host.tap(name(number), mac(number))) == "lan0" for number in (12, 14, 16, 18))
    assert not [link for link in host.links().values() if "vswitchctl" in link.get("ifalias", "")]
