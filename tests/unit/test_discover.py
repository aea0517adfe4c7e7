"""From what runs to a topology: valid whatever runs, and with nothing to do."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.compiler.vifs import vm_facts
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.model.domains import Domain, DomainInterface, LibvirtNetwork, ObservedDomains, VifKey
from vswitchctl.model.state import Facts, NetlinkState, ObservedNetlink, ObservedOvs, OvsState
from vswitchctl.service.discover import discover
from vswitchctl.topology.validate import validate

URI = "qemu:///system"
BRIDGES = ("virbr0", "lan0", "br.%s")

macs = st.sampled_from([f"52:54:00:00:00:0{n}" for n in range(6)] + ["01:00:5e:00:00:01"])
texts = st.sampled_from(["db", "guest é", "-x", "a" * 80, " web", "virbr0", "default"])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[ObservedDomains, ObservedNetlink, ObservedOvs]:
    """Domains, and where their TAPs are: in bridges, on Open vSwitch, in nothing."""
    taps: dict[str, str] = {}
    foreign: dict[str, str] = {}
    domains = []
    for number in range(draw(st.integers(0, 4))):
        active = draw(st.booleans())
        nics = []
        for mac in draw(st.lists(macs, max_size=3)):
            kind = draw(st.sampled_from(["ethernet", "bridge", "network", "user", "hostdev"]))
            device = f"vnet{len(taps)}" if active and kind in ("ethernet", "bridge", "network") else ""
            if device:
                taps[device] = draw(st.sampled_from(["", *BRIDGES]))
                if not taps[device] and draw(st.booleans()):
                    foreign[device] = "theirs tag=5"
            source, bridge = (
                draw(st.sampled_from(["", "default", "lan0"])),
                draw(st.sampled_from(["", "lan0"])),
            )
            nics.append(DomainInterface(mac, kind, device, source=source, bridge=bridge))
        domains.append(Domain(URI, draw(texts), f"u-{number}", "running", active, tuple(nics)))
    network = LibvirtNetwork(URI, "default", "n-1", True, bridge="virbr0", subnets=("10.1.0.0/24",))
    kernel = ObservedNetlink(NetlinkState(), {}, {}, {}, taps=taps, foreign_bridges=frozenset(BRIDGES))
    switch = ObservedOvs(OvsState(), {}, {}, {}, frozenset(), (), foreign)
    return ObservedDomains(tuple(domains), (network,)), kernel, switch


@given(worlds())
def test_what_is_discovered_is_valid_and_has_nothing_to_do(
    world: tuple[ObservedDomains, ObservedNetlink, ObservedOvs],
) -> None:
    domains, netlink, ovs = world
    topology = discover(domains, netlink, ovs, (), name="all", tenant="local")
    assert [str(finding) for finding in validate(topology) if finding.severity == "error"] == []
    facts = Facts(vms=vm_facts(domains, netlink, ovs), linux_bridges=netlink.foreign_bridges)
    wiring = compile_wiring(topology, facts)
    assert wiring.netlink == NetlinkState()
    assert wiring.ovs == OvsState()


def test_what_is_declared_is_left_out() -> None:
    nics = tuple(DomainInterface(f"52:54:00:00:00:0{n}", "ethernet", f"vnet{n}") for n in (1, 2))
    domain = Domain(URI, "db", "u-1", "running", True, nics)
    netlink = ObservedNetlink(NetlinkState(), {}, {}, {}, taps={"vnet1": "", "vnet2": ""})
    ovs = ObservedOvs(OvsState(), {}, {}, {}, frozenset(), ())
    domains = ObservedDomains((domain, replace(domain, name="x", uuid="u-2", interfaces=nics[:1])))
    taken = {VifKey("db", nics[0].mac), VifKey("u-2", nics[0].mac)}
    topology = discover(domains, netlink, ovs, taken, name="all", tenant="local")
    assert list(topology.endpoints()) == [f"db:{nics[1].mac}"]
