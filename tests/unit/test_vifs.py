"""Where a NIC is, from what libvirt, the kernel and Open vSwitch say; and what is wired of it."""

from __future__ import annotations

from typing import Any

import pytest

from vswitchctl.compiler.vifs import unexplained, vm_facts
from vswitchctl.compiler.wiring import compile_wiring
from vswitchctl.model.domains import Domain, DomainInterface, ObservedDomains, Vif, VifKey, VmFacts
from vswitchctl.model.state import (
    Facts,
    NetlinkState,
    ObservedNetlink,
    ObservedOvs,
    OvsPortSpec,
    OvsState,
    Owner,
    PortKey,
    Remark,
    TapSpec,
    VifMarks,
)
from vswitchctl.model.topology import Topology

MAC, URI = "52:54:00:aa:00:01", "qemu:///system"
KEY = VifKey("db", MAC)
LINK, NIC = Owner("t", f"links/br-a--db1:{MAC}"), Owner("t", f"interfaces/db1:{MAC}")
TOPOLOGY = Topology.model_validate(
    {
        "name": "t",
        "tenants": {"red": {}},
        "networks": {"web": {"tenant": "red"}},
        "nodes": {
            "br-a": {"kind": "bridge"},
            "db1": {"kind": "vm", "domain": "db", "tenant": "red", "interfaces": {MAC: {"network": "web"}}},
        },
        "links": [{"ends": [f"db1:{MAC}", "br-a"]}],
    }
)


def nic(**changes: Any) -> DomainInterface:
    return DomainInterface(**{"mac": MAC, "type": "bridge", "device": "vnet0"} | changes)


def domain(*nics: DomainInterface, **changes: Any) -> Domain:
    values = {"uri": URI, "name": "db", "uuid": "u-1", "state": "running", "active": True, "interfaces": nics}
    return Domain(**values | changes)


def netlink(taps: dict[str, str], marked: dict[str, TapSpec] | None = None) -> ObservedNetlink:
    return ObservedNetlink(NetlinkState(taps=marked or {}), {}, {}, {}, taps=taps)


def ovs(
    ports: dict[PortKey, OvsPortSpec] | None = None, foreign: dict[str, str] | None = None
) -> ObservedOvs:
    return ObservedOvs(OvsState(ports=ports or {}), {}, {}, {}, frozenset(), (), foreign or {})


def where(observed: ObservedDomains, kernel: ObservedNetlink, switch: ObservedOvs | None = None) -> Vif:
    return vm_facts(observed, kernel, switch or ovs()).vif(KEY)


def test_a_running_domain_s_tap_is_where_libvirt_put_it() -> None:
    observed = ObservedDomains((domain(nic(interface_id="i-1")),))
    assert where(observed, netlink({"vnet0": "virbr0"})) == Vif("vnet0", "u-1", "i-1", "virbr0", "virbr0")
    assert where(observed, netlink({"vnet0": ""}), ovs(foreign={"vnet0": "ovsbr0"})) == Vif(
        "vnet0", "u-1", "i-1", "", "", "ovsbr0"
    )


def test_where_it_came_from_is_remembered_and_where_libvirt_puts_it_back_counts() -> None:
    observed = ObservedDomains((domain(nic()),))
    marked = {"vnet0": TapSpec(LINK, "lan0")}
    assert where(observed, netlink({"vnet0": ""}, marked)).linux_bridge == "lan0"
    moved = where(observed, netlink({"vnet0": "lan1"}, marked))
    assert (moved.master, moved.linux_bridge) == ("lan1", "lan0")
    facts = Facts(vms=VmFacts({KEY: moved}))
    assert compile_wiring(TOPOLOGY, facts).netlink.taps == {"vnet0": TapSpec(LINK, "lan1")}
    marks = VifMarks("i-1", MAC, "u-1", "db", "ovsbr0")
    ports = {PortKey("br-a", "vnet0"): OvsPortSpec(LINK, vif=marks)}
    assert where(observed, netlink({"vnet0": ""}), ovs(ports)).ovs_bridge == "ovsbr0"


@pytest.mark.parametrize(
    ("domains", "status", "reason"),
    [
        ((), "pending", "there is no domain 'db' yet"),
        ((domain(),), "pending", f"domain 'db' has no NIC with MAC address {MAC}"),
        (
            (domain(nic(), active=False, state="shut off"),),
            "pending",
            "domain 'db' is not running (shut off)",
        ),
        ((domain(nic(device="eth0")),), "pending", "domain 'db' is running, but its TAP 'eth0' is not there"),
        ((domain(nic(device="")),), "pending", "domain 'db' is running, but it has no TAP"),
        ((domain(nic(), nic()),), "pending", f"domain 'db' has {MAC} more than once"),
        ((domain(nic()), domain(nic(), uuid="u-2")), "pending", "there are several domains named 'db'"),
        (
            (domain(nic(type="vhostuser")),),
            "bypasses",
            "a NIC of type 'vhostuser' bypasses the switch: it is a socket that another process serves, "
            "not a device of the host",
        ),
        (
            (domain(nic(type="new")),),
            "bypasses",
            "a NIC of type 'new' bypasses the switch: it has no device on this host",
        ),
    ],
)
def test_why_a_nic_is_not_plugged(domains: tuple[Domain, ...], status: str, reason: str) -> None:
    vif = where(ObservedDomains(domains), netlink({"vnet0": ""}))
    assert (vif.device, vif.status, vif.reason) == ("", status, reason)


def test_a_silent_libvirt_takes_nothing_back() -> None:
    silent = {URI: "libvirt does not answer"}
    kept = where(ObservedDomains((domain(nic()),), silent=silent), netlink({"vnet0": ""}))
    assert (kept.device, kept.status, kept.reason) == ("vnet0", "stale", "libvirt does not answer")

    marks = VifMarks("i-1", MAC, "u-1", "db")
    ports = {PortKey("br-a", "vnet0"): OvsPortSpec(LINK, vif=marks)}
    asked_never = ObservedDomains(silent=silent)
    remembered = where(asked_never, netlink({"vnet0": ""}), ovs(ports))
    assert remembered == Vif("vnet0", "u-1", "i-1", status="stale", reason="libvirt does not answer")
    assert where(asked_never, netlink({}), ovs(ports)).device == ""
    assert where(ObservedDomains(), netlink({"vnet0": ""}), ovs(ports)).device == ""


def test_a_plugged_nic_is_a_tap_and_a_port() -> None:
    facts = Facts(vms=VmFacts({KEY: Vif("vnet0", "u-1", "i-1", "lan0", "lan0", "ovsbr0")}))
    wiring = compile_wiring(TOPOLOGY, facts)
    assert wiring.netlink == NetlinkState(taps={"vnet0": TapSpec(LINK, "lan0")})
    marks = VifMarks("i-1", MAC, "u-1", "db", "ovsbr0")
    assert wiring.ovs.ports == {PortKey("br-a", "vnet0"): OvsPortSpec(LINK, vif=marks)}
    assert wiring.remarks == {}


def test_one_that_is_not_there_is_a_remark_alone() -> None:
    wiring = compile_wiring(TOPOLOGY, Facts())
    assert wiring.netlink == NetlinkState()
    assert wiring.ovs.ports == {}
    remark = Remark("pending", "there is no domain 'db' yet")
    assert wiring.remarks == {LINK: remark, NIC: remark}


def in_linux_bridge(external: bool) -> Topology:
    lan = {"kind": "linux-bridge", "network": "web", "external": external}
    document = TOPOLOGY.model_dump(mode="json")
    document["nodes"] = {"lan0": lan, "db1": document["nodes"]["db1"]}
    return Topology.model_validate(document | {"links": [{"ends": [f"db1:{MAC}", "lan0"]}]})


IN_LAN = Owner("t", f"links/db1:{MAC}--lan0")


@pytest.mark.parametrize(
    ("vif", "taps"),
    [
        (Vif("vnet0", master="lan0", linux_bridge="lan0"), {}),
        (Vif("vnet0", master="", linux_bridge="lan0"), {"vnet0": TapSpec(IN_LAN, "lan0", "lan0")}),
        (Vif("vnet0", master="", linux_bridge=""), {"vnet0": TapSpec(IN_LAN, "", "lan0")}),
        (Vif("vnet0", master="lan1", linux_bridge="lan1"), {"vnet0": TapSpec(IN_LAN, "lan1", "lan0")}),
        (Vif("vnet0", master="lan0", linux_bridge="lan1"), {"vnet0": TapSpec(IN_LAN, "lan1", "lan0")}),
        (Vif("vnet0", master="lan2", linux_bridge="lan1"), {"vnet0": TapSpec(IN_LAN, "lan2", "lan0")}),
    ],
)
def test_a_nic_in_a_linux_bridge_is_moved_there_and_left_where_libvirt_puts_it_there(
    vif: Vif, taps: dict[str, TapSpec]
) -> None:
    facts = Facts(vms=VmFacts({KEY: vif}), linux_bridges=frozenset({"lan0"}))
    for external in (False, True):
        wiring = compile_wiring(in_linux_bridge(external), facts)
        assert wiring.netlink.taps == taps
        assert set(wiring.netlink.linux_bridges) == (set() if external else {"lan0"})
        assert wiring.ovs.ports == {}
        assert wiring.remarks == {}


def test_a_linux_bridge_of_others_that_is_not_there_is_waited_for() -> None:
    facts = Facts(vms=VmFacts({KEY: Vif("vnet0")}))
    wiring = compile_wiring(in_linux_bridge(external=True), facts)
    assert wiring.netlink == NetlinkState()
    remark = Remark("pending", "there is no Linux bridge 'lan0' yet")
    assert wiring.remarks == {Owner("t", "nodes/lan0"): remark, IN_LAN: remark, NIC: remark}


def test_a_port_of_open_vswitch_is_not_put_into_a_linux_bridge() -> None:
    facts = Facts(vms=VmFacts({KEY: Vif("vnet0", ovs_bridge="theirs tag=5")}))
    wiring = compile_wiring(in_linux_bridge(external=False), facts)
    assert wiring.netlink.taps == {}
    assert wiring.remarks[IN_LAN].reason == (
        "libvirt has its TAP in Open vSwitch bridge 'theirs'; link it to a bridge of that kind"
    )


def test_a_tap_in_a_linux_bridge_stays_while_libvirt_is_silent() -> None:
    observed = ObservedDomains(silent={URI: "libvirt does not answer"})
    facts = vm_facts(observed, netlink({"vnet0": "lan0"}, {"vnet0": TapSpec(IN_LAN, "lan1", "lan0")}), ovs())
    wiring = compile_wiring(in_linux_bridge(external=False), Facts(vms=facts))
    assert wiring.netlink.taps == {"vnet0": TapSpec(IN_LAN, "lan1", "lan0")}
    assert wiring.remarks[IN_LAN] == Remark("stale", "libvirt does not answer")


def test_a_domain_is_known_by_its_uuid_too() -> None:
    observed = ObservedDomains((domain(nic()), domain(nic(device="vnet1"), uuid="u-2")))
    facts = vm_facts(observed, netlink({"vnet0": "", "vnet1": ""}), ovs())
    assert facts.vif(KEY).reason == "there are several domains named 'db'"
    assert [facts.vif(VifKey(uuid, MAC)).device for uuid in ("u-1", "u-2")] == ["vnet0", "vnet1"]
    assert facts.vif(VifKey("u-3", MAC)).reason == "there is no domain 'u-3' yet"


def test_a_tap_that_no_domain_has_and_a_domain_whose_tap_is_gone_are_noticed() -> None:
    running = domain(nic(), nic(mac="52:54:00:aa:00:02", type="user", device=""))
    ended = domain(nic(device="vnet1"), uuid="u-2", active=False)
    observed = ObservedDomains((running, ended))
    assert unexplained(observed, netlink({"vnet0": ""})) == (frozenset(), frozenset())
    assert unexplained(observed, netlink({"vnet0": "", "vnet1": ""})) == (frozenset({"vnet1"}), frozenset())
    assert unexplained(observed, netlink({})) == (frozenset(), frozenset({"u-1"}))
