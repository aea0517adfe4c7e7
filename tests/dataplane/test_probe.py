"""The probe itself, on networks that `ip` made: plain Linux bridges, one for each network, or one too few."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import pytest
from instances import HostNamespace, run, unique

from vswitchctl.drivers.probe import probe
from vswitchctl.errors import UserError
from vswitchctl.model.topology import Topology
from vswitchctl.topology.reachability import difference, expected_pairs

MAC = "02:00:00:00:0a:01"


class Lan:
    """Two networks with the same addresses: r1, r2 of red, b1, b2 of blue; r1 and b1 share a MAC, too."""

    def __init__(self) -> None:
        self.name = {short: unique(f"vt-{short}-") for short in ("r1", "r2", "b1", "b2")}
        self.topology = Topology.model_validate(
            {
                "name": "probe",
                "tenants": {"red": {}, "blue": {}},
                "networks": {"r": {"tenant": "red"}, "b": {"tenant": "blue"}},
                "nodes": {"br": {"kind": "bridge"}} | {self.name[s]: self._namespace(s) for s in self.name},
                "links": [{"ends": [f"{name}:eth0", "br"]} for name in self.name.values()],
            }
        )

    def _namespace(self, short: str) -> dict[str, object]:
        colour, number = short
        interface = {"network": colour, "ip": [f"10.9.0.{number}/24", f"2001:db8:9::{number}/64"]}
        return {
            "kind": "namespace",
            "tenant": {"r": "red", "b": "blue"}[colour],
            "interfaces": {"eth0": interface},
        }

    def end(self, short: str) -> str:
        return f"{self.name[short]}:eth0"

    def wire(self, host: HostNamespace, bridge: Mapping[str, str]) -> None:
        """Make it by hand: `bridge` names the Linux bridge that each endpoint is on."""
        for name in set(bridge.values()):
            host.run("ip", "link", "add", name, "type", "bridge")
            host.run("ip", "link", "set", name, "up")
        for short, name in self.name.items():
            run("ip", "netns", "add", name)
            host.run("ip", "link", "add", f"v-{short}", "type", "veth", "peer", "name", "eth0", "netns", name)
            host.run("ip", "link", "set", f"v-{short}", "master", bridge[short], "up")
            if short.endswith("1"):
                run("ip", "-n", name, "link", "set", "eth0", "address", MAC)
            run("ip", "-n", name, "link", "set", "eth0", "up")
            for address in self.topology.endpoints()[f"{name}:eth0"].ip:
                run("ip", "-n", name, "address", "add", address, "dev", "eth0", "nodad")

    def remove(self) -> None:
        for name in self.name.values():
            run("ip", "netns", "del", name, check=False)


@pytest.fixture
def make_lan(host_ns: HostNamespace) -> Iterator[Callable[..., Lan]]:
    with contextlib.ExitStack() as stack:

        def make(**bridge: str) -> Lan:
            lan = Lan()
            stack.callback(lan.remove)
            lan.wire(host_ns, bridge)
            return lan

        yield make


def test_two_networks_with_the_same_addresses_are_told_apart(make_lan: Callable[..., Lan]) -> None:
    lan = make_lan(r1="red", r2="red", b1="blue", b2="blue")
    expected = expected_pairs(lan.topology)
    matrix = probe(lan.topology)
    assert len(expected) == 4
    assert not difference(matrix, expected), difference(matrix, expected)


def test_the_wrong_tenant_s_answer_is_a_leak_and_not_an_answer(make_lan: Callable[..., Lan]) -> None:
    """b2 stands where r2 belongs and has its address: r1 gets an answer, from the wrong one."""
    lan = make_lan(r1="red", r2="blue", b1="blue", b2="red")
    matrix = probe(lan.topology, patience=3)
    found = difference(matrix, expected_pairs(lan.topology))
    assert (lan.end("r1"), lan.end("r2")) in found.missing
    assert (lan.end("r1"), lan.end("b2")) in found.leaked


def test_a_leak_below_ip_is_found_where_every_expected_pair_answers(make_lan: Callable[..., Lan]) -> None:
    """r1 and b1 have the same address and MAC, so no IP packet shows that they share a wire; a frame does."""
    lan = make_lan(r1="red", r2="blue", b1="red", b2="blue")
    matrix = probe(lan.topology, frozenset(), quiet=1)
    assert (lan.end("r1"), lan.end("b1")) in matrix.crossed


def test_a_cut_cable_is_missing(make_lan: Callable[..., Lan], host_ns: HostNamespace) -> None:
    lan = make_lan(r1="red", r2="red", b1="blue", b2="blue")
    host_ns.run("ip", "link", "set", "v-r2", "nomaster")
    found = difference(probe(lan.topology, patience=3), expected_pairs(lan.topology))
    r1, r2 = lan.end("r1"), lan.end("r2")
    assert found.missing == {(r1, r2), (r2, r1)}
    assert not found.leaked


def test_what_is_not_there_is_said_with_a_remedy(make_lan: Callable[..., Lan]) -> None:
    lan = make_lan(r1="red", r2="red", b1="blue", b2="blue")
    run("ip", "-n", lan.name["r2"], "link", "del", "eth0")
    with pytest.raises(UserError, match=f"device of '{lan.end('r2')}' is not on this host"):
        probe(lan.topology)
    run("ip", "netns", "del", lan.name["b2"])
    nodes = {name: node for name, node in lan.topology.nodes.items() if name != lan.name["r2"]}
    with pytest.raises(UserError, match=f"namespace '{lan.name['b2']}' is not on this host"):
        probe(lan.topology.model_copy(update={"nodes": nodes}))
