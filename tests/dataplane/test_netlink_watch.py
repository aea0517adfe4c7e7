"""The netlink driver's view is true and cached, whoever reads and changes at once; nothing is left behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from instances import run, unique
from netlink_host import NAMES, NETNS, PATIENCE, Host, netlink_host, until

from vswitchctl.drivers.netlink import channel


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
    "namespace added": lambda h, n: run("ip", "netns", "add", unique(NAMES)),
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
    foreign = unique(NAMES)
    run("ip", "netns", "add", foreign)
    before = quiet(host)
    run("ip", "-n", foreign, "link", "set", "lo", "up")
    assert host.driver.read() is before


TAPS: dict[str, tuple[str, ...]] = {
    "added": ("tuntap", "add", "{tap}", "mode", "tap"),
    "gone": ("link", "del", "{tap}"),
    "up": ("link", "set", "{tap}", "up"),
    "down": ("link", "set", "{tap}", "down"),
    "plugged": ("link", "set", "{tap}", "master", "lan0"),
    "unplugged": ("link", "set", "{tap}", "nomaster"),
    "marked": ("link", "set", "{tap}", "alias", "vswitchctl:t/links/x lan0"),
    "unmarked": ("link", "set", "{tap}", "alias", ""),
    "renamed": ("link", "set", "{tap}", "name", "renamed"),
    "named back": ("link", "set", "renamed", "name", "{tap}"),
    "of another kind": ("link", "add", "{tap}", "type", "bridge"),
    "end of a pair": ("link", "set", "web", "nomaster"),
    "promiscuous": ("link", "set", "{tap}", "promisc", "on"),
}


def test_what_is_read_of_taps_alone_is_what_a_fresh_look_sees(host: Host, web: str) -> None:
    """Whatever happens to them, and to others beside them; some of it fails, which is no event."""
    random = Random(11)
    for _ in range(30):
        for _ in range(random.randrange(1, 4)):
            event, tap = random.choice(list(TAPS)), random.choice(("tap0", "tap1"))
            with contextlib.suppress(AssertionError):
                host.ip(*(word.format(tap=tap) for word in TAPS[event]))
        fresh = host.new_driver()
        try:
            until(lambda other=fresh: host.driver.read() == other.read(), "both see the same")
        finally:
            fresh.close()


def test_a_tap_that_comes_leaves_pairs_the_objects_they_were(host: Host, web: str) -> None:
    quiet(host)
    before = host.driver.read()
    host.ip("tuntap", "add", "tap0", "mode", "tap")
    until(lambda: "tap0" in host.driver.read().taps, "it is seen")
    assert host.driver.read().owned.veths is before.owned.veths


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

    def hold() -> None:
        # Called by the thread that takes events: none is taken meanwhile.
        gate.wait(PATIENCE)

    driver = host.new_driver(hold)
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


def test_after_close_no_thread_and_no_descriptor_is_left() -> None:
    def open_now() -> set[str]:
        numbers = Path("/proc/self/fd").iterdir()
        return {f"{path.name} {path.readlink()}" for path in numbers if path.is_symlink()}

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = open_now(), threads()
    for _ in range(3):
        with netlink_host() as host:
            first, second = host.namespace(), host.namespace()
            host.link("web", first, "10.1.0.11/24")
            host.reconcile()
            run("ip", "netns", "add", foreign := unique(NAMES))
            host.driver.read()
            run("ip", "netns", "del", second)
            run("ip", "netns", "del", foreign)
            host.restart()
            host.reconcile()
            host.driver.close()
            host.driver.close()
        until(lambda: threads() == before[1], "threads end")
        assert open_now() == before[0]
