"""The netlink driver's view is true, cached, shared, and leaves nothing behind; what is not ours stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from instances import run, unique
from netlink_host import NETNS, PATIENCE, Host, netlink_host, remove_name, until

from vswitchctl.drivers.netlink import NetlinkDriver, channel, message
from vswitchctl.model.plan import Kind
from vswitchctl.model.state import Owner, VethEnd, VethSpec


@pytest.fixture
def host() -> Iterator[Host]:
    with netlink_host() as made:
        yield made


@pytest.fixture
def web(host: Host) -> str:
    name = host.namespace(("10.8.0.0/16", "10.1.0.1"))
    host.bridge("lan0")
    host.link("web", name, "10.1.0.11/24", master="lan0")
    host.reconcile()
    return name


# -- events ----------------------------------------------------------------------------------------------

EVENTS: dict[str, Callable[[Host, str], object]] = {
    "device added": lambda h, n: h.ip("link", "add", "theirs", "type", "bridge"),
    "end down": lambda h, n: h.ip("link", "set", "web", "down"),
    "master": lambda h, n: h.ip("link", "set", "web", "nomaster"),
    "alias": lambda h, n: h.ip("link", "set", "web", "alias", ""),
    "inner mtu": lambda h, n: run("ip", "-n", n, "link", "set", "eth0", "mtu", "1400"),
    "address": lambda h, n: run("ip", "-n", n, "addr", "flush", "dev", "eth0"),
    "route": lambda h, n: run("ip", "-n", n, "route", "del", "10.8.0.0/16"),
    "loopback's alias": lambda h, n: run("ip", "-n", n, "link", "set", "lo", "alias", ""),
    "namespace added": lambda h, n: run("ip", "netns", "add", unique("vn")),
    "namespace deleted": lambda h, n: run("ip", "netns", "del", n),
    "namespace unmounted": lambda h, n: run("umount", str(NETNS / n)),
    "namespace mounted over": lambda h, n: run("mount", "--bind", "/proc/self/ns/net", str(NETNS / n)),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_change_by_hand_is_told_and_seen(host: Host, web: str, event: str) -> None:
    before = quiet(host)
    EVENTS[event](host, web)
    assert host.changed.wait(PATIENCE)
    until(lambda: host.driver.read() != before, "it is seen")


def quiet(host: Host) -> object:
    """Wait until the last change has been told; what is read from then on, the same object each time."""
    while True:
        host.changed.clear()
        before = host.driver.read()
        if not host.changed.wait(0.3) and host.driver.read() is before:
            return before


def test_nothing_is_read_where_nothing_happened(host: Host, web: str) -> None:
    before = quiet(host)
    assert all(host.driver.read() is before for _ in range(100))
    # What happens in another's namespace is no event for us.
    foreign = unique("vn")
    run("ip", "netns", "add", foreign)
    before = quiet(host)
    run("ip", "-n", foreign, "link", "set", "lo", "up")
    assert host.driver.read() is before


def test_a_change_is_told_also_while_others_read(host: Host, web: str) -> None:
    # A reader that takes the event off the socket must not keep it from those who wait for it.
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            host.driver.read()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(40):
            # Nothing else may be under way that would tell in its place.
            until(lambda: not told(host), "it is quiet")
            host.ip("link", "set", "web", "mtu", str(1400 + number))
            assert host.changed.wait(PATIENCE), f"change {number} was never told"
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def told(host: Host) -> bool:
    host.changed.clear()
    return host.changed.wait(0.05)


def test_more_events_than_the_buffer_holds(host: Host, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "BUFFER", 4096)
    gate = threading.Event()
    seen: list[NetlinkDriver] = []

    def hold() -> None:
        # Called by the thread that takes events: none is taken meanwhile.
        gate.wait(PATIENCE)

    driver = host.new_driver(hold)
    seen.append(driver)
    try:
        driver.read()
        for number in range(300):
            host.ip("link", "set", "web", "mtu", str(1280 + number))
        gate.set()
        until(lambda: driver.read().owned.veths, "it is read again")
        (veth,) = driver.read().owned.veths.values()
        assert veth.a.mtu == 1579
    finally:
        gate.set()
        driver.close()


def test_readers_and_a_writer_at_once(host: Host) -> None:
    names = [host.namespace() for _ in range(5)]
    for number, name in enumerate(names):
        host.link(f"v{number}", name, f"10.1.0.{number + 1}/24")
    wanted, stop = host.wanted, threading.Event()
    broken: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                assert set(host.driver.read().owned.veths) <= set(wanted.veths)
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            broken.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(10):
            host.wanted = wanted
            host.reconcile()
            host.clear()
            host.reconcile()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not broken


def test_two_drivers_of_one_host_see_each_others_work(host: Host, web: str) -> None:
    second = host.new_driver()
    try:
        assert not host.plan(second)
        name = host.namespace()
        host.link("more", name, "10.1.0.12/24")
        assert not host.try_once()
        until(lambda: not host.plan(second), "the second sees what the first made")
        host.clear()
        assert not host.try_once(second)
        until(lambda: not host.plan(), "the first sees what the second removed")
        assert set(host.links()) == {"lo"}
    finally:
        second.close()


def test_drivers_of_two_hosts_do_not_mind_each_other(host: Host, web: str) -> None:
    with netlink_host() as other:
        name = other.namespace()
        other.link("web", name, "10.1.0.11/24")
        other.reconcile()
        host.reconcile()
        # Each takes the other's namespaces for what they are: not its own.
        assert host.driver.read().namespaces[name] is None
        assert other.driver.read().namespaces[web] is None
        other.clear()
        other.reconcile()
        assert web in host.driver.read().owned.namespaces
        assert not (NETNS / name).exists()


def test_after_close_no_thread_and_no_descriptor_is_left(host: Host, web: str) -> None:
    def here() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    before = here()
    for _ in range(3):
        driver = host.new_driver()
        host.namespace()
        host.wanted.namespaces.pop(host.namespace())
        assert not host.try_once(driver)
        run("ip", "netns", "add", foreign := unique("vn"))
        driver.read()
        run("ip", "netns", "del", foreign)
        driver.read()
        driver.close()
        driver.close()
    host.clear()
    host.namespace(name=web)
    host.driver.read()
    until(lambda: here()[1] == before[1], "threads end")
    host.restart()
    host.driver.read()
    until(lambda: here()[0] <= before[0] + 2 * 3, "descriptors are closed")


# -- what is not ours ------------------------------------------------------------------------------------


def test_names_of_others_are_refused_and_the_rest_is_made(host: Host) -> None:
    taken, free = host.namespace(), host.namespace()
    run("ip", "netns", "add", taken)
    host.ip("link", "add", "theirs", "type", "veth", "peer", "name", "far")
    host.ip("link", "add", "lan0", "type", "bridge")
    host.bridge("lan0")
    host.link("theirs", free, "10.1.0.1/24")
    host.link("web", taken, "10.1.0.2/24")
    host.link("good", host.namespace(), "10.1.0.3/24")
    port = host.namespace()
    host.link("port", port, "10.1.0.4/24", master="lan0")
    said = host.refusals()
    assert "namespace" in said[taken] and "not ours" in said[taken]
    assert "'lan0'" in said["lan0"] and "not ours" in said["lan0"]
    assert len(said) == 5, said
    assert any("'theirs'" in text and "not ours" in text for text in said.values())
    assert any("lan0" in said[key] for key in said if "port" in key)
    assert set(host.links(taken)) == {"lo"}, "nothing was put into another's namespace"
    assert host.links()["theirs"]["link"] == "far"
    assert not any(link.get("master") == "lan0" for link in host.links().values())
    assert host.addresses(host.wanted.veths[next(k for k in host.wanted.veths if "good" in k)].b.namespace)
    run("ip", "netns", "del", taken)
    host.ip("link", "del", "theirs")
    host.ip("link", "del", "lan0")
    host.reconcile()


def test_devices_without_any_mark_under_our_names_are_not_ours(host: Host, web: str) -> None:
    host.ip("link", "set", "web", "alias", "")
    run("ip", "-n", web, "link", "set", "eth0", "alias", "")
    index = host.links()["web"]["ifindex"]
    said = host.refusals()
    assert all("'web'" in text and "not ours" in text for text in said.values())
    assert host.links()["web"]["ifindex"] == index


def test_a_pair_of_theirs_with_the_same_numbers_is_not_taken_for_ours(host: Host, web: str) -> None:
    # Interface numbers are each namespace's own, so they alone do not say whose peer a device is.
    theirs, far = unique("vn"), unique("vn")
    run("ip", "netns", "add", theirs)
    run("ip", "netns", "add", far)
    outer, inner = host.links()["web"]["ifindex"], host.links(web)["eth0"]["ifindex"]
    (key,) = host.wanted.veths
    run("ip", "-n", web, "link", "set", "eth0", "netns", theirs)
    run(
        "ip", "-n", web, "link", "add", "eth0", "index", str(inner), "type", "veth",
        "peer", "name", "x", "index", str(outer), "netns", far,
    )  # fmt: skip
    assert host.links(web)["eth0"]["link_index"] == outer
    said = host.refusals()
    assert "'eth0'" in said[key] and "not ours" in said[key]
    assert "x" in host.links(far)


def test_a_namespace_without_its_mark_is_anothers_until_it_has_it_again(host: Host, web: str) -> None:
    run("ip", "-n", web, "link", "set", "lo", "alias", "")
    host.driver.read()
    assert host.driver.read().namespaces[web] is None
    said = host.refusals()
    assert "not ours" in said[web]
    run("ip", "-n", web, "link", "set", "lo", "alias", host.owner(f"nodes/{web}").alias)
    until(lambda: not host.try_once(), "the namespace is ours again")
    host.reconcile()


def test_a_namespace_mounted_over_is_anothers_until_it_is_uncovered(host: Host, web: str) -> None:
    run("mount", "--bind", "/proc/self/ns/net", str(NETNS / web))
    until(lambda: host.driver.read().namespaces[web] is None, "what hides it is seen")
    assert "not ours" in host.refusals()[web]
    run("umount", str(NETNS / web))
    until(lambda: host.driver.read().namespaces[web] is not None, "it is seen again")
    host.reconcile()


@pytest.mark.parametrize("content", ["", "something"])
def test_a_file_without_a_namespace(host: Host, content: str) -> None:
    name = host.namespace()
    (NETNS / name).write_text(content)
    if content:
        assert "not ours" in host.refusals()[name]
        assert (NETNS / name).read_text() == content
        (NETNS / name).unlink()
    else:
        assert host.driver.read().namespaces.get(name) is None
    host.reconcile()
    host.clear()
    host.reconcile()
    assert not (NETNS / name).exists()


# -- refusals --------------------------------------------------------------------------------------------


def test_a_refusal_concerns_its_own_change_and_says_why(host: Host) -> None:
    name = host.namespace()
    keys = {
        "mac": host.link("m", name, mac="01:00:5e:00:00:01"),
        "mtu": host.link("n", name, mtu=70000),
        "long": host.link("l", name),
        "good": host.link("g", name, "10.1.0.1/24", mtu=1400),
    }
    for number, key in enumerate(keys.values()):
        host.alter(key, name=f"eth{number}")
    veth = host.wanted.veths.pop(keys["long"])
    owner = Owner(host.topology, "links/" + "x" * 300)
    host.wanted.veths[owner.text] = VethSpec(owner, veth.a, veth.b)
    said = host.refusals()
    assert set(said) == {keys["mac"], keys["mtu"], owner.text}
    assert "EADDRNOTAVAIL" in said[keys["mac"]] and "EINVAL" in said[keys["mtu"]]
    assert "255" in said[owner.text]
    assert set(host.links()) == {"lo", "g"}, "nothing is left of what was refused"
    del host.wanted.veths[owner.text]
    host.wanted.veths[keys["long"]] = veth
    host.alter(keys["mac"], mac="02:00:5e:00:00:01")
    host.wanted.veths[keys["mtu"]] = VethSpec(
        veth.owner._replace(entity=keys["mtu"].partition("/")[2]),
        VethEnd("", "n", 1500),
        VethEnd(name, "eth1", 1500, mac="02:00:00:00:00:09", tx_checksum=False),
    )
    host.reconcile()


def test_a_route_that_cannot_be_is_named(host: Host) -> None:
    name = host.namespace(("10.8.0.0/16", "10.99.0.1"), ("10.7.0.0/16", "10.1.0.254"))
    host.link("web", name, "10.1.0.1/24")
    said = host.refusals()
    assert set(said) == {name}
    assert "10.8.0.0/16 via 10.99.0.1" in said[name]
    assert host.routes(name) == {("10.7.0.0/16", "10.1.0.254")}


def test_a_route_of_theirs_to_the_same_place_stays(host: Host, web: str) -> None:
    run("ip", "-n", web, "route", "add", "10.9.0.0/16", "via", "10.1.0.5")
    host.route(web, ("10.8.0.0/16", "10.1.0.1"), ("10.9.0.0/16", "10.1.0.1"))
    assert "10.9.0.0/16 via 10.1.0.1" in host.refusals()[web]
    assert ("10.9.0.0/16", "10.1.0.5") in host.routes(web)


def test_a_name_that_comes_and_goes_meanwhile(host: Host, web: str) -> None:
    # The namespace goes between being read and being worked on: the change fails, the next pass succeeds.
    host.alter(next(iter(host.wanted.veths)), mtu=1400)
    plan = host.plan()
    run("ip", "netns", "del", web)
    host.driver.apply(plan.netlink_up)
    host.reconcile()
    plan_down = replace_all_with_nothing(host)
    run("ip", "netns", "del", web)
    assert not host.driver.apply(plan_down)
    host.reconcile()


def replace_all_with_nothing(host: Host) -> list[object]:
    host.clear()
    return list(host.plan().netlink_down)


def test_removal_of_what_is_gone_is_no_failure(host: Host, web: str) -> None:
    key, veth = next(iter(host.wanted.veths.items()))
    host.ip("link", "del", "web")
    assert not host.remove(Kind.VETH, key, veth.owner)
    host.ip("link", "del", "lan0")
    assert not host.remove(Kind.LINUX_BRIDGE, "lan0", host.owner("nodes/lan0"))


# -- crashes ---------------------------------------------------------------------------------------------

CRASH = """
import sys
from netlink_host import Host, NETNS
from instances import HostNamespace
host = Host(HostNamespace(sys.argv[1]))
host.topology = sys.argv[2]
names = sys.argv[3].split(",")
host.bridge("lan0")
for number, name in enumerate(names):
    host.namespace(("10.8.0.0/16", "10.1.0.1"), name=name)
    host.link(f"v{number}", name, f"10.1.0.{number + 2}/24", f"2001:db8::{number + 2:x}/64", master="lan0")
wanted = host.wanted
print("ready", flush=True)
while True:
    host.wanted = wanted
    host.try_once()
    host.clear()
    host.try_once()
"""


def test_killed_at_any_moment_the_next_run_makes_it_whole(host: Host) -> None:
    names = [unique("vn") for _ in range(6)]
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{here.parents[1]}:{here}"}
    for attempt in range(25):
        process = subprocess.Popen(
            [sys.executable, "-c", CRASH, host.host.name, host.topology, ",".join(names)],
            env=env, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.0007 * attempt**1.3)  # some moment: there is no event for "in the middle"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        host.restart()
        if attempt % 2:
            declare(host, names)
            until(lambda: not host.try_once() and not host.plan(), f"whole after kill {attempt}")
            host.reconcile()
        host.clear()
        until(lambda: not host.try_once() and not host.plan(), f"clean after kill {attempt}")
        until(lambda: set(host.links()) == {"lo"}, f"no device is left after kill {attempt}")
        left = [name for name in names if (NETNS / name).exists()]
        assert not left, f"kill {attempt} left {left}"
        assert set(host.driver.read().devices) == {"lo"}


def declare(host: Host, names: list[str]) -> None:
    host.bridge("lan0")
    for number, name in enumerate(names):
        host.namespace(("10.8.0.0/16", "10.1.0.1"), name=name)
        host.link(
            f"v{number}", name, f"10.1.0.{number + 2}/24", f"2001:db8::{number + 2:x}/64", master="lan0"
        )


def test_what_a_crash_left_unmarked_is_cleaned(host: Host) -> None:
    """The steps between making and marking, one by one: a pair in its group, a file without a namespace."""
    name = host.namespace()
    host.link("web", name, "10.1.0.1/24")
    host.ip("link", "add", "web", "group", str(message.UNFINISHED), "type", "veth", "peer", "name", "left")
    host.ip("link", "set", "left", "group", str(message.UNFINISHED))
    host.ip("link", "add", "old", "group", str(message.UNFINISHED), "type", "bridge")
    (NETNS / name).touch(0o000)
    host.restart()
    host.reconcile()
    assert set(host.links()) == {"lo", "web"}
    assert replace(host.driver.read(), unopened=frozenset()).devices.keys() == {"lo", "web"}
    remove_name(name)
