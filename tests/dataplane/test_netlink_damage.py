"""The netlink driver makes what is declared, from any starting point, and takes it away again."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from instances import run, unique
from netlink_host import NAMES, NETNS, Host, netlink_host, until

from vswitchctl.drivers.netlink import message


@pytest.fixture
def host() -> Iterator[Host]:
    with netlink_host() as made:
        yield made


@pytest.fixture
def web(host: Host) -> str:
    """A namespace with a link to a bridge, addresses and routes of both families, made."""
    name = host.namespace(("10.8.0.0/16", "10.1.0.1"), ("0.0.0.0/0", "10.1.0.1"), ("::/0", "2001:db8::1"))
    host.bridge("lan0")
    host.link("web", name, "10.1.0.11/24", "2001:db8::11/64", master="lan0")
    other = host.namespace()
    host.link("other", other, "10.1.0.12/24", "2001:db8::12/64", master="lan0")
    host.reconcile()
    return name


def test_what_is_declared_is_there_as_the_witness_sees_it(host: Host, web: str) -> None:
    outer, lan, inner = host.links()["web"], host.links()["lan0"], host.links(web)["eth0"]
    alias = f"vswitchctl:{host.topology}/links/web--{web}:eth0"
    assert outer["ifalias"] == inner["ifalias"] == alias
    assert outer["master"] == "lan0" and outer["group"] == inner["group"] == "default"
    assert "UP" in outer["flags"] and "UP" in inner["flags"] and "UP" in lan["flags"]
    assert inner["address"] == "02:00:00:00:00:01" and inner["mtu"] == outer["mtu"] == 1500
    assert lan["ifalias"] == f"vswitchctl:{host.topology}/nodes/lan0"
    assert lan["linkinfo"]["info_data"]["stp_state"] == 0
    lo = host.links(web)["lo"]
    assert lo["ifalias"] == f"vswitchctl:{host.topology}/nodes/{web}" and "UP" in lo["flags"]
    assert host.addresses(web) == {"10.1.0.11/24", "2001:db8::11/64"}
    assert host.routes(web) == {
        ("10.8.0.0/16", "10.1.0.1"), ("default", "10.1.0.1"), ("default", "2001:db8::1"),
    }  # fmt: skip
    assert "tx-checksumming: off" in run("ip", "netns", "exec", web, "ethtool", "-k", "eth0")
    # The root end carries other people's frames: no address of its own. Marks name their maker.
    assert host.addresses_of_any_scope("web") == set()
    assert run("ip", "-n", web, "route", "show", "proto", "118").count("via") == 2


def test_an_ipv6_address_serves_at_once(host: Host, web: str) -> None:
    # A tentative address cannot be bound, and answers nobody.
    run("ip", "netns", "exec", web, "ping", "-6", "-c1", "-W5", "2001:db8::12")
    with host.inside(web), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as bound:
        bound.bind(("2001:db8::11", 0))


def test_everything_goes_and_nothing_is_left(host: Host, web: str) -> None:
    host.clear()
    host.reconcile()
    assert set(host.links()) == {"lo"}
    assert not (NETNS / web).exists()


def test_made_removed_and_made_again_by_one_driver(host: Host, web: str) -> None:
    wanted = host.wanted
    for _ in range(3):
        host.clear()
        host.reconcile()
        host.wanted = wanted
        host.reconcile()
    assert host.addresses(web) == {"10.1.0.11/24", "2001:db8::11/64"}


def test_a_second_driver_reads_what_the_first_made(host: Host, web: str) -> None:
    host.restart()
    assert not host.plan()
    host.reconcile()
    assert web in host.driver.read().owned.namespaces


def test_a_hundred_namespaces(host: Host) -> None:
    names = [host.namespace(("10.9.0.0/16", "10.1.0.1")) for _ in range(100)]
    for number, name in enumerate(names):
        host.link(f"v{number}", name, f"10.1.0.{number + 2}/24")
    host.reconcile()
    assert len(host.links()) == 101
    host.clear()
    host.reconcile()
    assert set(host.links()) == {"lo"}


# -- any starting point ----------------------------------------------------------------------------------


def _foreign_namespace(host: Host) -> str:
    name = unique(NAMES)
    run("ip", "netns", "add", name)
    return name


def _other(host: Host, web: str) -> str:
    return next(name for name in host.wanted.namespaces if name != web)


DAMAGES: dict[str, Callable[[Host, str], object]] = {
    "outer end deleted": lambda h, n: h.ip("link", "del", "web"),
    "inner end deleted": lambda h, n: run("ip", "-n", n, "link", "del", "eth0"),
    "outer end down": lambda h, n: h.ip("link", "set", "web", "down"),
    "inner end down": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "down"),
    "loopback down": lambda h, n: run("ip", "-n", n, "link", "set", "lo", "down"),
    "outer end without master": lambda h, n: h.ip("link", "set", "web", "nomaster"),
    "outer end at another bridge": lambda h, n: (
        h.ip("link", "add", "theirs", "type", "bridge"),
        h.ip("link", "set", "web", "master", "theirs"),
    ),
    "outer mtu": lambda h, n: h.ip("link", "set", "web", "mtu", "1400"),
    "inner mtu": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "mtu", "9000"),
    "inner mtu too small for IPv6": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "mtu", "1000"),
    "mac": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "address", "02:00:00:00:99:99"),
    "checksum offload on": lambda h, n: run("ip", "netns", "exec", n, "ethtool", "-K", "eth0", "tx", "on"),
    "address deleted": lambda h, n: run("ip", "-n", n, "addr", "del", "10.1.0.11/24", "dev", "eth0"),
    "every address deleted": lambda h, n: run("ip", "-n", n, "addr", "flush", "dev", "eth0"),
    "address of ours too many": lambda h, n: h.add_marked(n, "10.5.0.1/24"),
    "address made anew without the mark": lambda h, n: (
        run("ip", "-n", n, "addr", "del", "10.1.0.11/24", "dev", "eth0"),
        run("ip", "-n", n, "addr", "add", "10.1.0.11/24", "dev", "eth0"),
    ),
    "IPv6 address made anew without the mark": lambda h, n: (
        run("ip", "-n", n, "addr", "del", "2001:db8::11/64", "dev", "eth0"),
        run("ip", "-n", n, "addr", "add", "2001:db8::11/64", "dev", "eth0", "nodad"),
    ),
    "address with another prefix": lambda h, n: (
        run("ip", "-n", n, "addr", "del", "10.1.0.11/24", "dev", "eth0"),
        h.add_marked(n, "10.1.0.11/16"),
    ),
    "IPv6 address with another prefix": lambda h, n: (
        run("ip", "-n", n, "addr", "del", "2001:db8::11/64", "dev", "eth0"),
        h.add_marked(n, "2001:db8::11/48"),
    ),
    "route deleted": lambda h, n: run("ip", "-n", n, "route", "del", "10.8.0.0/16"),
    "default route deleted": lambda h, n: run("ip", "-n", n, "-6", "route", "del", "default"),
    "route by another gateway": lambda h, n: run(
        "ip", "-n", n, "route", "replace", "10.8.0.0/16", "via", "10.1.0.2", "proto", "118"
    ),
    "route of ours too many": lambda h, n: run(
        "ip", "-n", n, "route", "add", "10.7.0.0/16", "via", "10.1.0.1", "proto", "118"
    ),
    "outer alias cleared": lambda h, n: h.ip("link", "set", "web", "alias", ""),
    "inner alias cleared": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "alias", ""),
    "inner alias altered": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "alias", "mine"),
    "outer end renamed": lambda h, n: h.ip("link", "set", "web", "name", "moved"),
    "inner end renamed": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "name", "moved"),
    "inner end renamed and alias cleared": lambda h, n: run(
        "ip", "-n", n, "link", "set", "eth0", "name", "moved", "alias", ""
    ),
    "ends exchange names": lambda h, n: (
        h.ip("link", "set", "web", "name", "tmp"),
        h.ip("link", "set", "other", "name", "web"),
        h.ip("link", "set", "tmp", "name", "other"),
    ),
    "inner end in the root namespace": lambda h, n: run(
        "ip", "-n", n, "link", "set", "eth0", "netns", h.host.name
    ),
    "inner end in another's namespace": lambda h, n: run(
        "ip", "-n", n, "link", "set", "eth0", "netns", _foreign_namespace(h)
    ),
    "inner end in another of ours": lambda h, n: run(
        "ip", "-n", n, "link", "set", "eth0", "name", "eth1", "netns", _other(h, n)
    ),
    "outer end in another's namespace": lambda h, n: h.ip(
        "link", "set", "web", "netns", _foreign_namespace(h)
    ),
    "outer end in a namespace of ours": lambda h, n: h.ip("link", "set", "web", "netns", n),
    "bridge deleted": lambda h, n: h.ip("link", "del", "lan0"),
    "bridge down": lambda h, n: h.ip("link", "set", "lan0", "down"),
    "bridge mtu": lambda h, n: h.ip("link", "set", "lan0", "mtu", "1300"),
    "bridge renamed": lambda h, n: h.ip("link", "set", "lan0", "name", "lan9"),
    "bridge with spanning tree": lambda h, n: h.ip("link", "set", "lan0", "type", "bridge", "stp_state", "1"),
    "namespace deleted": lambda h, n: run("ip", "netns", "del", n),
    "every namespace deleted": lambda h, n: [run("ip", "netns", "del", name) for name in h.wanted.namespaces],
    "namespace unmounted, its file left": lambda h, n: run("umount", str(NETNS / n)),
    "left between being chosen for deletion and being deleted": lambda h, n: h.ip(
        "link", "set", "web", "group", str(message.DOOMED)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("restarted", [False, True], ids=["seen", "met at start"])
def test_any_starting_point(host: Host, web: str, damage: str, restarted: bool) -> None:
    if restarted:
        host.driver.close()
    DAMAGES[damage](host, web)
    if restarted:
        host.driver = host.new_driver()
    host.reconcile()
    assert host.addresses(web) == {"10.1.0.11/24", "2001:db8::11/64"}
    assert len(host.routes(web)) == 3
    run("ip", "netns", "exec", web, "ping", "-c1", "-W5", "10.1.0.12")
    run("ip", "netns", "exec", web, "ping", "-6", "-c1", "-W5", "2001:db8::12")
    # Nothing is left that a later removal would take along, or not.
    host.clear()
    host.reconcile()
    assert set(host.links()) - {"theirs"} == {"lo"}


def test_doomed_devices_of_a_crash_do_not_go_with_later_ones(host: Host, web: str) -> None:
    index = host.links()["web"]["ifindex"]
    host.ip("link", "set", "web", "group", str(message.DOOMED))
    extra = host.namespace()
    key = host.link("extra", extra, "10.1.0.13/24")
    host.driver.apply([change for change in host.plan().netlink_up if extra in change.name])
    del host.wanted.veths[key], host.wanted.namespaces[extra]
    host.driver.apply(host.plan().netlink_down)
    assert host.links()["web"]["ifindex"] == index


@pytest.mark.parametrize("end", ["outer", "inner"])
def test_an_end_without_its_alias_is_known_by_the_other_and_kept(host: Host, web: str, end: str) -> None:
    index = host.links()["web"]["ifindex"]
    if end == "outer":
        host.ip("link", "set", "web", "alias", "")
    else:
        run("ip", "-n", web, "link", "set", "eth0", "alias", "")
    observed = host.driver.read()
    (key,) = (key for key in host.wanted.veths if "web--" in key)
    assert key in observed.broken
    assert observed.devices["web"] == host.owner(f"links/web--{web}:eth0")
    host.reconcile()
    assert host.links()["web"]["ifindex"] == index, "repaired, not made anew"


# -- changes in place keep what is not concerned ---------------------------------------------------------


CHANGES: dict[str, Callable[[Host, str, str], None]] = {
    "mac": lambda h, key, n: h.alter(key, mac="02:00:00:00:77:77"),
    "mtu": lambda h, key, n: h.alter(key, mtu=1400),
    "an address more": lambda h, key, n: h.alter(
        key, addresses=frozenset({"10.1.0.11/24", "2001:db8::11/64", "10.6.0.1/24", "2001:db8:6::1/64"})
    ),
    "another address in the same subnet": lambda h, key, n: h.alter(
        key, addresses=frozenset({"10.1.0.99/24", "2001:db8::99/64"})
    ),
    "another prefix": lambda h, key, n: h.alter(
        key, addresses=frozenset({"10.1.0.11/16", "2001:db8::11/48"})
    ),
    "a route less": lambda h, key, n: h.route(n, ("0.0.0.0/0", "10.1.0.1")),
    "other gateways": lambda h, key, n: h.route(n, ("0.0.0.0/0", "10.1.0.2"), ("::/0", "2001:db8::2")),
    "master": lambda h, key, n: h.wanted.veths.update(
        {key: replace(h.wanted.veths[key], a=replace(h.wanted.veths[key].a, master=h.bridge("lan1")))}
    ),
    "no master": lambda h, key, n: h.wanted.veths.update(
        {key: replace(h.wanted.veths[key], a=replace(h.wanted.veths[key].a, master=None))}
    ),
    "checksum offload": lambda h, key, n: h.alter(key, tx_checksum=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_place_keeps_the_rest(host: Host, web: str, change: str) -> None:
    run("ip", "-n", web, "addr", "add", "10.1.0.200/24", "dev", "eth0")
    run("ip", "-n", web, "addr", "add", "192.0.2.1/24", "dev", "eth0")
    run("ip", "-n", web, "addr", "add", "2001:db8::200/64", "dev", "eth0", "nodad")
    run("ip", "-n", web, "route", "add", "198.51.100.0/24", "via", "10.1.0.1")
    run("ip", "-n", web, "route", "add", "2001:db8:9::/48", "via", "2001:db8::1")
    index = host.links()["web"]["ifindex"], host.links(web)["eth0"]["ifindex"]
    (key,) = (key for key in host.wanted.veths if "web--" in key)
    CHANGES[change](host, key, web)
    host.reconcile()
    veth, inner = host.wanted.veths[key], host.links(web)["eth0"]
    assert (host.links()["web"]["ifindex"], inner["ifindex"]) == index
    assert (inner["address"], inner["mtu"]) == (veth.b.mac, veth.b.mtu)
    assert host.links()["web"].get("master") == veth.a.master
    theirs = {"10.1.0.200/24", "192.0.2.1/24", "2001:db8::200/64"}
    assert host.addresses(web) == veth.b.addresses | theirs
    wanted = {
        (route.to.replace("0.0.0.0/0", "default").replace("::/0", "default"), route.via)
        for route in host.wanted.namespaces[web].routes
    }
    foreign = {("198.51.100.0/24", "10.1.0.1"), ("2001:db8:9::/48", "2001:db8::1")}
    assert host.routes(web) == wanted | foreign


@pytest.mark.parametrize("bridge_mtu, end_mtu", [(1500, 9000), (9000, 1500), (1500, 1400)])
def test_a_bridge_keeps_its_mtu_whatever_its_ports_have(host: Host, bridge_mtu: int, end_mtu: int) -> None:
    host.bridge("lan0", mtu=bridge_mtu)
    host.link("web", host.namespace(), "10.1.0.1/24", master="lan0", mtu=end_mtu)
    host.reconcile()
    assert (host.links()["lan0"]["mtu"], host.links()["web"]["mtu"]) == (bridge_mtu, end_mtu)


def test_a_link_between_two_namespaces(host: Host) -> None:
    first, second = sorted((host.namespace(), host.namespace()))
    key = host.link("x", second, "10.1.0.2/24")
    veth = host.wanted.veths[key]
    end = replace(veth.b, namespace=first, mac="02:00:00:00:01:01", addresses=frozenset({"10.1.0.1/24"}))
    host.wanted.veths[key] = replace(veth, a=end)
    host.reconcile()
    run("ip", "netns", "exec", first, "ping", "-c1", "-W5", "10.1.0.2")
    run("ip", "-n", first, "link", "set", "eth0", "alias", "")
    host.reconcile()
    host.clear()
    host.reconcile()


def test_a_namespace_deleted_by_hand_takes_its_links_along(host: Host, web: str) -> None:
    run("ip", "netns", "del", web)
    # Nobody asks the driver: its own thread lets go of the sockets that keep the namespace.
    until(lambda: "web" not in host.links(), "the other end goes with the namespace")
    host.reconcile()
