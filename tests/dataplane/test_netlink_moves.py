"""What takes another's place, changes hands, or became another's since the plan; and who is told of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from instances import run, unique
from netlink_host import NAMES, PATIENCE, Host, netlink_host

from vswitchctl.drivers.netlink import kernel, message
from vswitchctl.drivers.netlink.channel import Channel
from vswitchctl.drivers.netlink.requests import GROUPS
from vswitchctl.model.plan import Action, Change, Kind
from vswitchctl.model.state import VethEnd, VethSpec


@pytest.fixture
def host() -> Iterator[Host]:
    with netlink_host() as made:
        yield made


@pytest.fixture
def web(host: Host) -> str:
    """A namespace and another, on one Linux bridge; web with a route by way of the other."""
    name, other = host.namespace(("10.8.0.0/16", "10.1.0.12")), host.namespace()
    host.bridge("lan0")
    host.link("web", name, "10.1.0.11/24", master="lan0")
    host.link("db", other, "10.1.0.12/24", master="lan0")
    host.reconcile()
    return name


def of(host: Host, outer: str) -> VethSpec:
    """The declared pair whose end on the host has that name."""
    return next(veth for veth in host.wanted.veths.values() if veth.a.name == outer)


def change(kind: Kind, key: str, desired: Any, observed: Any = None) -> Change:
    """A change as a plan would hold it, whatever is really there."""
    action = Action.REMOVE if desired is None else Action.CHANGE if observed is not None else Action.ADD
    return Change(kind, action, key, (desired or observed).owner, desired, observed, "test")


def everything(host: Host, remove: bool = False) -> list[Change]:
    """Each declared resource as if nothing of it were there, or to be removed."""
    by_kind = (
        (Kind.NAMESPACE, host.wanted.namespaces),
        (Kind.LINUX_BRIDGE, host.wanted.linux_bridges),
        (Kind.VETH, host.wanted.veths),
    )
    pairs = [(kind, key, spec) for kind, specs in by_kind for key, spec in specs.items()]
    if remove:
        return [change(kind, key, None, spec) for kind, key, spec in reversed(pairs)]
    return [change(kind, key, spec) for kind, key, spec in pairs]


def ping(start: str, target: str) -> None:
    run("ip", "netns", "exec", start, "ping", "-c1", "-W5", target)


# -- places and owners -----------------------------------------------------------------------------------


def test_an_endpoint_moves_to_another_link_and_keeps_its_route(host: Host, web: str) -> None:
    """Its device keeps its name, and the old pair is to be removed only afterwards."""
    old = of(host, "web")
    del host.wanted.veths[old.owner.text]
    owner = host.owner("links/moved")
    host.wanted.veths[owner.text] = VethSpec(owner, replace(old.a, name="moved"), old.b)
    host.reconcile()
    assert host.links(web)["eth0"]["ifalias"] == owner.alias
    assert "web" not in host.links()
    assert host.routes(web) == {("10.8.0.0/16", "10.1.0.12")}
    ping(web, "10.1.0.12")


def test_two_pairs_swap_their_names(host: Host, web: str) -> None:
    first, second = of(host, "web"), of(host, "db")
    host.wanted.veths[first.owner.text] = replace(first, a=replace(first.a, name="db"))
    host.wanted.veths[second.owner.text] = replace(second, a=replace(second.a, name="web"))
    host.reconcile()
    assert host.links()["db"]["ifalias"] == first.owner.alias
    ping(web, "10.1.0.12")


def test_a_bridge_takes_the_name_of_a_link_that_goes(host: Host, web: str) -> None:
    del host.wanted.veths[of(host, "db").owner.text]
    host.bridge("db")
    host.reconcile()
    assert host.links()["db"]["linkinfo"]["info_kind"] == "bridge"


def test_things_change_hands_and_stay(host: Host, web: str) -> None:
    before = host.links()["lan0"]["ifindex"], host.links(web)["lo"]["ifindex"], host.links()["web"]["ifindex"]
    owner = host.owner("nodes/renamed")
    host.wanted.namespaces[web] = replace(host.wanted.namespaces[web], owner=owner)
    host.wanted.linux_bridges["lan0"] = replace(host.wanted.linux_bridges["lan0"], owner=owner)
    host.reconcile()
    assert host.links(web)["lo"]["ifalias"] == host.links()["lan0"]["ifalias"] == owner.alias
    after = host.links()["lan0"]["ifindex"], host.links(web)["lo"]["ifindex"], host.links()["web"]["ifindex"]
    assert after == before


def test_a_pair_between_two_bridges(host: Host) -> None:
    owner = host.owner("links/trunk")
    host.wanted.veths[owner.text] = VethSpec(owner, VethEnd("", "t-a", 1504), VethEnd("", "t-b", 1504))
    host.reconcile()
    assert host.links()["t-a"]["link"] == "t-b"
    host.ip("link", "set", "t-b", "alias", "")
    host.reconcile()
    host.clear()
    host.reconcile()
    assert set(host.links()) == {"lo"}


def test_applying_again_changes_nothing(host: Host, web: str) -> None:
    before = {name: link["ifindex"] for name, link in host.links().items()}
    counts: list[int] = []
    changes = everything(host)
    assert host.driver.apply(changes, counts.append) == []
    assert sum(counts) == len(changes)
    assert {name: link["ifindex"] for name, link in host.links().items()} == before
    host.reconcile()
    ping(web, "10.1.0.12")


def test_removing_again_is_no_failure(host: Host, web: str) -> None:
    counts: list[int] = []
    removals = everything(host, remove=True)
    for _ in range(2):
        assert host.driver.apply(removals, counts.append) == []
        assert set(host.links()) == {"lo"}
    assert sum(counts) == 2 * len(removals)


def test_a_link_goes_while_a_process_keeps_its_namespace(host: Host, web: str) -> None:
    with subprocess.Popen(["ip", "netns", "exec", web, "cat"], stdin=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            while not run("ip", "netns", "pids", web).split():
                assert process.poll() is None, "it is about to be inside"
            host.clear()
            host.reconcile()
            assert set(host.links()) == {"lo"}
        finally:
            process.kill()


# -- what became of it since the plan --------------------------------------------------------------------


def test_what_is_another_s_by_now_is_neither_changed_nor_removed(host: Host, web: str) -> None:
    removals, again = everything(host, remove=True), everything(host)
    for name in ("lan0", "web"):
        host.ip("link", "set", name, "alias", "theirs now")
    for name in ("lo", "eth0"):
        run("ip", "-n", web, "link", "set", name, "alias", "theirs now")
    host.ip("link", "set", "lan0", "mtu", "1400")
    taken = {failure.change.name: failure.message for failure in host.driver.apply(again)}
    assert {"lan0", web, of(host, "web").owner.text} <= taken.keys()
    assert host.driver.apply(removals) == []
    assert {"lan0", "web"} <= host.links().keys()
    assert "db" not in host.links(), "that one was ours"
    assert host.links()["lan0"]["mtu"] == 1400
    assert set(host.links(web)) == {"lo", "eth0"}


def test_an_end_never_goes_into_another_s_namespace(host: Host) -> None:
    run("ip", "netns", "add", theirs := unique(NAMES))
    key = host.link("web", theirs)
    (failure,) = host.driver.apply([change(Kind.VETH, key, host.wanted.veths[key])])
    assert theirs in failure.message
    assert set(host.links(theirs)) == set(host.links()) == {"lo"}


def test_other_devices_with_a_mark_like_ours_are_none_of_ours(host: Host) -> None:
    """We make veth pairs and bridges, nothing else."""
    host.ip("link", "add", "d0", "type", "vxlan", "id", "7", "dstport", "4789")
    host.ip("link", "set", "d0", "alias", host.owner("nodes/d0").alias)
    assert host.driver.read().devices["d0"] is None
    host.bridge("d0")
    assert "'d0' exists" in host.refusals()["d0"]
    host.clear()
    host.reconcile()
    assert "d0" in host.links()


def test_the_group_that_goes_holds_nothing_else(host: Host, web: str) -> None:
    for number in range(20):
        host.ip("link", "add", f"x{number}", "type", "bridge")
        host.ip("link", "set", f"x{number}", "group", str(GROUPS[number]))
    host.clear()
    host.reconcile()
    assert set(host.links()) == {"lo", *(f"x{number}" for number in range(20))}


@contextlib.contextmanager
def half_made(host: Host, name: str) -> Iterator[Channel]:
    """A pair and a bridge as a kill leaves them, before any of them is marked."""
    with host.inside(host.host.name):
        channel = Channel(0)
    descriptor = kernel.open_namespace(name)
    try:
        peer = message.Peer("eth0", 1500, "02:00:00:00:00:01", descriptor)
        requests = [message.new_veth("web", 1500, None, peer), message.new_bridge("lan0", 1500)]
        assert channel.run(requests) == [None, None]
        yield channel
    finally:
        os.close(descriptor)
        channel.close()


def test_a_pair_of_which_one_end_is_marked_is_finished(host: Host) -> None:
    name = host.namespace()
    host.reconcile()
    key = host.link("web", name, "10.1.0.11/24")
    with half_made(host, name) as channel:
        alias = host.wanted.veths[key].owner.alias
        assert channel.run([message.set_link("web", alias=alias, up=True, group=0)]) == [None]
    index = host.links()["web"]["ifindex"]
    host.restart()
    host.reconcile()
    assert host.links()["web"]["ifindex"] == index, "not made anew"
    assert set(host.links()) == {"lo", "web"}, "what nobody wants is gone"


def test_a_removal_takes_what_was_half_made_along(host: Host) -> None:
    name = host.namespace()
    host.reconcile()
    with half_made(host, name):
        host.restart()
    host.clear()
    host.reconcile()
    assert set(host.links()) == {"lo"}


# -- who is told -----------------------------------------------------------------------------------------


def quiet(host: Host) -> None:
    """Until all that was made has been told."""
    while host.changed.wait(0.3):
        host.changed.clear()
        host.driver.read()


def test_what_others_do_to_their_own_is_not_told(host: Host, web: str) -> None:
    host.ip("link", "add", "theirs", "type", "veth", "peer", "name", "theirs2")
    told: list[bool] = []
    gate = threading.Event()

    def note() -> None:
        told.append(True)
        gate.set()

    driver = host.new_driver(note)
    try:
        driver.read()
        host.ip("link", "set", "theirs", "up", "mtu", "1300")
        host.ip("link", "set", "theirs2", "up")
        host.ip("addr", "add", "192.0.2.1/24", "dev", "theirs")
        run("ip", "-n", web, "route", "add", "198.51.100.0/24", "via", "10.1.0.12")
        # Events come in order: those before this one were looked at when it is told.
        host.ip("link", "set", "lan0", "mtu", "1400")
        assert gate.wait(PATIENCE)
        driver.read()
        assert len(told) == 1
    finally:
        driver.close()


def test_a_device_that_a_switch_opens_is_told(host: Host, web: str) -> None:
    host.ip("link", "add", "uplink0", "type", "bridge")
    quiet(host)
    assert "uplink0" in host.driver.read().unopened
    host.ip("link", "set", "uplink0", "promisc", "on")
    assert host.changed.wait(PATIENCE)
    assert "uplink0" not in host.driver.read().unopened
    assert "web" not in host.driver.read().unopened, "a bridge listens to its ports"


def test_a_namespace_of_others_is_not_kept_alive(host: Host) -> None:
    run("ip", "netns", "add", theirs := unique(NAMES))
    host.ip("link", "add", "out", "type", "veth", "peer", "name", "in", "netns", theirs)
    assert host.driver.read().namespaces[theirs] is None
    with deletions(host) as gone:
        run("ip", "netns", "del", theirs)
        assert gone("out"), "the kernel takes the namespace apart"


@contextlib.contextmanager
def deletions(host: Host) -> Iterator[Callable[[str], bool]]:
    """What waits until `ip monitor` on the host says that a device was deleted."""
    argv = ["nsenter", f"--net={host.host.path}", "ip", "-o", "monitor", "link"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            lines = process.stdout
            while process.poll() is None and not listens(process.pid):
                continue
            yield lambda name: any(line.startswith("Deleted") and f" {name}@" in line for line in lines)
        finally:
            timer.cancel()
            process.kill()


def listens(pid: int) -> bool:
    """Whether a process has joined a netlink group: /proc/PID/net/netlink, column Groups."""
    rows = (line.split() for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:])
    return any(row[2] == str(pid) and int(row[3], 16) for row in rows)
