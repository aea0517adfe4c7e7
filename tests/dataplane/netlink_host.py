"""A host of its own for the netlink driver: what tests declare, what they damage, and `ip` as the witness."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from instances import HostNamespace, host_namespace, run, unique

from vswitchctl.drivers.netlink import NetlinkDriver, message
from vswitchctl.drivers.netlink.channel import Channel
from vswitchctl.model.plan import Action, Change, Failure, Kind
from vswitchctl.model.state import (
    ROOT,
    LinuxBridgeSpec,
    NamespaceSpec,
    NetlinkState,
    ObservedOvs,
    OvsState,
    Owner,
    RouteSpec,
    VethEnd,
    VethSpec,
)
from vswitchctl.reconcile.plan import WiringPlan, plan_wiring

NETNS = Path("/run/netns")
PATIENCE = 30.0
"""Seconds that something certain may take on a slow machine."""

NAMES = f"v{secrets.token_hex(2)}"
"""How namespaces of this process are called: other processes have theirs under the same directory."""

NO_OVS = ObservedOvs(OvsState(), {}, {}, {}, frozenset(), ())


def until(true: Callable[[], Any], what: str) -> None:
    """Ask an outside witness again and again until it holds."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)


class Host:
    """A driver in a network namespace that plays the host. `wanted` is what `reconcile` makes true."""

    def __init__(self, host: HostNamespace) -> None:
        self.host = host
        self.topology = unique("t")
        self.wanted = NetlinkState()
        self.changed = threading.Event()
        self.driver = self.new_driver()

    def new_driver(self, on_change: Callable[[], None] | None = None) -> NetlinkDriver:
        with self.host.enter():
            return NetlinkDriver(on_change or self.changed.set)

    def restart(self) -> None:
        """A driver that knows nothing of what was before."""
        self.driver.close()
        self.driver = self.new_driver()

    # -- what is declared --------------------------------------------------------------------------------

    def owner(self, entity: str) -> Owner:
        return Owner(self.topology, entity)

    def namespace(self, *routes: tuple[str, str], name: str = "") -> str:
        """Declare a namespace; its name, which no other test has."""
        name = name or unique(NAMES)
        spec = NamespaceSpec(self.owner(f"nodes/{name}"), frozenset(RouteSpec(*route) for route in routes))
        self.wanted.namespaces[name] = spec
        return name

    def bridge(self, name: str = "lan0", mtu: int = 1500) -> str:
        self.wanted.linux_bridges[name] = LinuxBridgeSpec(self.owner(f"nodes/{name}"), mtu)
        return name

    def link(self, outer: str, namespace: str, *addresses: str, **inner: Any) -> str:
        """Declare a veth pair: `outer` in the root namespace, eth0 in `namespace`; its key."""
        owner = self.owner(f"links/{outer}--{namespace}:eth0")
        master, mtu = inner.pop("master", None), inner.pop("mtu", 1500)
        end = {"mac": f"02:00:00:00:00:{len(self.wanted.veths) + 1:02x}", "tx_checksum": False, **inner}
        self.wanted.veths[owner.text] = VethSpec(
            owner,
            VethEnd(ROOT, outer, mtu, master=master),
            VethEnd(namespace, "eth0", mtu, addresses=frozenset(addresses), **end),
        )
        return owner.text

    def alter(self, key: str, **inner: Any) -> None:
        """Declare the inner end of a pair otherwise."""
        veth = self.wanted.veths[key]
        self.wanted.veths[key] = replace(veth, b=replace(veth.b, **inner))

    def route(self, namespace: str, *routes: tuple[str, str]) -> None:
        spec = self.wanted.namespaces[namespace]
        self.wanted.namespaces[namespace] = replace(
            spec, routes=frozenset(RouteSpec(*route) for route in routes)
        )

    # -- what is done ------------------------------------------------------------------------------------

    def plan(self, driver: NetlinkDriver | None = None) -> WiringPlan:
        return plan_wiring(self.wanted, OvsState(), (driver or self.driver).read(), NO_OVS)

    def try_once(self, driver: NetlinkDriver | None = None) -> list[Failure]:
        """One pass, as the loop makes it; what was refused."""
        chosen = driver or self.driver
        plan = self.plan(chosen)
        refused = chosen.apply(plan.netlink_up) if plan.netlink_up else []
        return refused + (chosen.apply(plan.netlink_down) if plan.netlink_down else [])

    def reconcile(self) -> None:
        """One pass must do: nothing is refused, and the kernel reads back as declared.

        Where a name has lost its namespace, that may be an `ip netns del` half way, and is waited for.
        """
        refused = self.try_once()
        if any("just now" in failure.message for failure in refused):
            until(lambda: not self.try_once(), "a name without a namespace is taken again")
            refused = []
        assert not refused, [failure.message for failure in refused]
        left = [f"{change.action} {change.name}: {change.reason}" for change in self.plan()]
        assert not left, left
        assert not self.driver.read().broken
        assert self.driver.read().owned == self.wanted

    def refusals(self) -> dict[str, str]:
        """One pass in which something is refused: name of the resource -> why."""
        refused = {failure.change.name: failure.message for failure in self.try_once()}
        assert refused
        return refused

    def remove(self, kind: Kind, key: str, owner: Owner) -> list[Failure]:
        return self.driver.apply([Change(kind, Action.REMOVE, key, owner, None, None, "test")])

    def clear(self) -> None:
        self.wanted = NetlinkState()

    # -- the witness -------------------------------------------------------------------------------------

    def ip(self, *argv: str, check: bool = True) -> str:
        """`ip` on the host."""
        return self.host.run("ip", *argv, check=check)

    def links(self, namespace: str = "") -> dict[str, dict[str, Any]]:
        """Device name -> what `ip -d -j link` says of it."""
        text = run("ip", "-n", namespace or self.host.name, "-d", "-j", "link", "show")
        return {link["ifname"]: link for link in json.loads(text)}

    def addresses(self, namespace: str, device: str = "eth0") -> set[str]:
        """Global addresses of a device."""
        text = run("ip", "-n", namespace, "-j", "addr", "show", "dev", device, "scope", "global")
        found = [link for link in json.loads(text) if link]
        return {f"{a['local']}/{a['prefixlen']}" for link in found for a in link["addr_info"] if a}

    def addresses_of_any_scope(self, device: str) -> set[str]:
        """Addresses of a device on the host, link-local ones too."""
        found = [link for link in json.loads(self.ip("-j", "addr", "show", "dev", device)) if link]
        return {a["local"] for link in found for a in link["addr_info"] if a}

    def add_marked(self, namespace: str, text: str, device: str = "eth0") -> None:
        """Add an address with our mark, which `ip` of before iproute2 6.3 cannot."""
        with self.inside(namespace):
            channel = Channel(0)
        with contextlib.closing(channel):
            assert channel.run([message.address(channel.index(device), text, add=True)]) == [None]

    def inside(self, namespace: str) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread inside."""
        return HostNamespace(namespace).enter()

    def routes(self, namespace: str) -> set[tuple[str, str]]:
        """(destination, gateway) of every route with a gateway, of IPv4 and IPv6."""
        found = set()
        for family in ("-4", "-6"):
            text = run("ip", "-n", namespace, family, "-j", "route", "show")
            found |= {(r["dst"], r["gateway"]) for r in json.loads(text or "[]") if "gateway" in r}
        return found


@contextlib.contextmanager
def netlink_host() -> Iterator[Host]:
    """A host with a driver. Namespaces of this process that the test left go."""
    with host_namespace() as namespace:
        host = Host(namespace)
        mine = set(host.driver.read().namespaces)
        try:
            yield host
        finally:
            host.driver.close()
            for path in NETNS.iterdir():
                if path.name not in mine and path.name.startswith(NAMES):
                    remove_name(path.name)


def remove_name(name: str) -> None:
    """What stands under /run/netns, however many mounts are on it."""
    while run("sh", "-c", f"umount {NETNS / name} 2>/dev/null && echo again || true"):
        pass
    (NETNS / name).unlink(missing_ok=True)
