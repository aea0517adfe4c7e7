"""What is not ours stays, a refusal concerns its own change, and a crash leaves what the next run cleans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from instances import run, unique
from netlink_host import NAMES, NETNS, Host, netlink_host, until

from vswitchctl.drivers.netlink import message
from vswitchctl.model.plan import Change, Kind
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
    theirs, far = unique(NAMES), unique(NAMES)
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
    plan_down = plan_of_nothing(host)
    run("ip", "netns", "del", web)
    assert not host.driver.apply(plan_down)
    host.reconcile()


def plan_of_nothing(host: Host) -> Sequence[Change]:
    host.clear()
    return host.plan().netlink_down


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
    names = [unique(NAMES) for _ in range(6)]
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
    assert host.driver.read().devices.keys() == {"lo", "web"}
