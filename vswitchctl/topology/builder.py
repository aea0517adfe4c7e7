"""The topology in Python: a fluent builder whose findings name the line of the call."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Self

from vswitchctl.model.topology import Topology
from vswitchctl.topology.assemble import assemble
from vswitchctl.topology.document import Document
from vswitchctl.topology.nearest import one_of
from vswitchctl.topology.source import MarkedDict, MarkedList, Path, Place, Source, mark, shown


def _caller() -> Place:
    """The line of the first frame outside this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


class TopologyBuilder:
    """Collects the parts of a topology; `build()` checks them all and gives the same object as a file does.

    Every method returns the builder. Nothing is checked before `document()` or `build()`, but duplicates.
    """

    def __init__(self, name: str, *, description: str = "") -> None:
        self._place = _caller()
        self._source = Source(self._place)
        self._data = MarkedDict(self._place)
        self._data.put("name", name, self._place)
        if description:
            self._data.put("description", description, self._place)

    def tenant(self, name: str, *, description: str = "") -> Self:
        return self._named("tenants", name, {"description": description})

    def network(
        self,
        name: str,
        *,
        tenant: str,
        subnets: Iterable[str] = (),
        gateway: str | Iterable[str] = (),
        vlan: int | None = None,
        mtu: int | None = None,
        storm: Mapping[str, int | str] | None = None,
        description: str = "",
    ) -> Self:
        keys = {
            "tenant": tenant,
            "subnets": _listed(subnets),
            "gateway": _listed(gateway),
            "vlan": vlan,
            "mtu": mtu,
            "storm": None if storm is None else dict(storm),
            "description": description,
        }
        return self._named("networks", name, keys)

    def bridge(self, name: str, *, datapath: str | None = None, description: str = "") -> Self:
        """An Open vSwitch bridge. datapath: 'auto' where None, 'system' or 'netdev'."""
        return self._named(
            "nodes", name, {"kind": "bridge", "datapath": datapath, "description": description}
        )

    def linux_bridge(
        self,
        name: str,
        *,
        network: str,
        external: bool | None = None,
        learn_limit: int | None = None,
        description: str = "",
    ) -> Self:
        keys = {
            "network": network,
            "external": external,
            "learn_limit": learn_limit,
            "description": description,
        }
        return self._named("nodes", name, {"kind": "linux-bridge", **keys})

    def namespace(
        self, name: str, *, tenant: str, default_route: bool | None = None, description: str = ""
    ) -> Self:
        keys = {"tenant": tenant, "default_route": default_route, "description": description}
        return self._named("nodes", name, {"kind": "namespace", **keys})

    def tun(
        self,
        name: str,
        *,
        tenant: str,
        ip: str | Iterable[str] = (),
        device: str | None = None,
        mtu: int | None = None,
        user: int | None = None,
        description: str = "",
    ) -> Self:
        """A namespace with a TUN device that forwards to its interfaces.

        user: the user id that may open it.
        """
        keys = {
            "kind": "tun",
            "tenant": tenant,
            "ip": _listed(ip),
            "device": device,
            "mtu": mtu,
            "user": user,
            "description": description,
        }
        return self._named("nodes", name, keys)

    def vm(self, name: str, *, tenant: str, domain: str, description: str = "") -> Self:
        """A virtual machine; its interfaces are named by their MAC addresses."""
        keys = {"kind": "vm", "tenant": tenant, "domain": domain, "description": description}
        return self._named("nodes", name, keys)

    def uplink(
        self,
        name: str,
        *,
        interface: str,
        network: str | None = None,
        trunk: Mapping[str, int] | None = None,
        learn_limit: int | None = None,
        storm: Mapping[str, int | str] | None = None,
        description: str = "",
    ) -> Self:
        """A device of the host. network: untagged. trunk: network -> VLAN tag on the wire."""
        keys = {
            "interface": interface,
            "network": network,
            "trunk": trunk,
            "learn_limit": learn_limit,
            "storm": None if storm is None else dict(storm),
            "description": description,
        }
        return self._named("nodes", name, {"kind": "uplink", **keys})

    def interface(
        self,
        node: str,
        name: str,
        *,
        network: str,
        ip: str | Iterable[str] = (),
        mac: str | None = None,
        mtu: int | None = None,
        port_security: bool | None = None,
        allowed: Iterable[Mapping[str, str]] = (),
        dhcp_server: bool | None = None,
        router: bool | None = None,
        acls: str | Iterable[str] = (),
        bypass: bool | None = None,
        learn_limit: int | None = None,
        qos: str | None = None,
        storm: Mapping[str, int | str] | None = None,
        description: str = "",
    ) -> Self:
        """An interface of a namespace or virtual machine named before.

        allowed: pairs, each of 'mac', 'ip' or both.
        """
        keys = {
            "network": network,
            "ip": _listed(ip),
            "mac": mac,
            "mtu": mtu,
            "port_security": port_security,
            "allowed": [dict(pair) for pair in allowed],
            "dhcp_server": dhcp_server,
            "router": router,
            "acls": _listed(acls),
            "bypass": bypass,
            "learn_limit": learn_limit,
            "qos": qos,
            "storm": None if storm is None else dict(storm),
            "description": description,
        }
        namespace = self._namespace(node, f"interface '{name}'", ("namespace", "vm"))
        if namespace is not None:
            interfaces = self._child(namespace, "interfaces", MarkedDict)
            self._add(interfaces, name, keys, ("nodes", node, "interfaces", name))
        return self

    def route(self, node: str, to: str, *, via: str, description: str = "") -> Self:
        """A route of a namespace named before. to: CIDR or 'default'."""
        namespace = self._namespace(node, f"the route to '{to}'")
        if namespace is not None:
            self._append(
                self._child(namespace, "routes", MarkedList),
                {"to": to, "via": via, "description": description},
            )
        return self

    def link(
        self, a: str, b: str, *, kind: str | None = None, cost: int | None = None, description: str = ""
    ) -> Self:
        """A link between two ends, each 'node' or 'node:interface'."""
        keys = {"ends": [a, b], "kind": kind, "cost": cost, "description": description}
        return self._append(self._child(self._data, "links", MarkedList), keys)

    def qos(
        self,
        name: str,
        *,
        max_rate: str | Mapping[str, str] | None = None,
        burst: str | Mapping[str, str] | None = None,
        min_rate: str | None = None,
        max_pps: int | str | Mapping[str, int | str] | None = None,
        dscp: int | str | None = None,
        mechanism: str | None = None,
        description: str = "",
    ) -> Self:
        """A profile of limits. A mapping has 'in', 'out' or both, seen from the interface."""
        keys = {
            "max_rate": max_rate,
            "burst": burst,
            "min_rate": min_rate,
            "max_pps": max_pps,
            "dscp": dscp,
            "mechanism": mechanism,
            "description": description,
        }
        return self._named("qos", name, keys)

    def group(
        self,
        name: str,
        *,
        members: Iterable[str] = (),
        addresses: Iterable[str] = (),
        description: str = "",
    ) -> Self:
        """Endpoints of one tenant, or addresses, that rules name together."""
        keys = {"members": list(members), "addresses": list(addresses), "description": description}
        return self._named("groups", name, keys)

    def router(
        self,
        name: str,
        *,
        tenant: str,
        networks: Iterable[str],
        connects: str | Iterable[str] = (),
        routes: Iterable[Mapping[str, str]] = (),
        description: str = "",
    ) -> Self:
        """Routes between networks. routes: each 'to' and 'via', and 'mac' of a next hop not declared."""
        keys = {
            "tenant": tenant,
            "networks": _listed(networks),
            "connects": _listed(connects),
            "routes": [dict(route) for route in routes],
            "description": description,
        }
        return self._named("routers", name, keys)

    def rule(self, acl: str, **keys: Any) -> Self:
        """One more rule of an ACL, by the keys of the file; `from`, a word of Python, is written from_."""
        given = {key.rstrip("_"): value for key, value in keys.items()}
        acls = self._child(self._data, "acls", MarkedDict)
        return self._append(self._child(acls, acl, MarkedList), given)

    def expect(self, *groups: Iterable[str]) -> Self:
        """Groups of endpoints; all of a group reach each other, and nobody else."""
        expect = self._child(self._data, "expect", MarkedDict)
        reachable = self._child(expect, "reachable", MarkedList)
        place = _caller()
        for group in groups:
            reachable.put(mark(group if isinstance(group, str) else list(group), place), place)
        return self

    def document(self) -> Document:
        """Topology, sources and findings; never raises for what was declared."""
        findings = list(self._source.findings)
        return assemble(Source(self._place, self._data, findings))

    def build(self) -> Topology:
        """The topology. Raises InvalidTopology with every error, each with the line of its call."""
        return self.document().require()

    def _named(self, section: str, name: str, keys: Mapping[str, Any]) -> Self:
        self._add(self._child(self._data, section, MarkedDict), name, keys, (section, name))
        return self

    def _add(self, container: MarkedDict, name: str, keys: Mapping[str, Any], path: Path) -> None:
        place = _caller()
        if name in container:
            message = f"{shown(name)} is declared twice, first at {container.places[name]}"
            self._error(place, path, message, "remove one, or give it another name")
        else:
            container.put(name, _given(keys, place), place)

    def _append(self, container: MarkedList, keys: Mapping[str, Any]) -> Self:
        place = _caller()
        container.put(_given(keys, place), place)
        return self

    def _child(self, parent: MarkedDict, key: str, kind: type[Any]) -> Any:
        if key not in parent:
            place = _caller()
            parent.put(key, kind(place), place)
        return parent[key]

    def _namespace(self, node: str, what: str, kinds: tuple[str, ...] = ("namespace",)) -> MarkedDict | None:
        nodes: MarkedDict = self._child(self._data, "nodes", MarkedDict)
        found = nodes.get(node)
        if isinstance(found, MarkedDict) and found.get("kind") in kinds:
            return found
        namespaces = [name for name, other in nodes.items() if other.get("kind") in kinds]
        remedy = one_of(node, namespaces, "the namespaces are") or "declare it first, by namespace()"
        self._error(
            _caller(), ("nodes", node), f"{what} belongs to {shown(node)}, which is no namespace", remedy
        )
        return None

    def _error(self, place: Place, path: Path, message: str, remedy: str) -> None:
        errors = Source(Place(place.file), findings=self._source.findings)
        errors.error(place.line, path, message, remedy)


def _listed(value: str | Iterable[str]) -> Any:
    return value if isinstance(value, str) else list(value)


def _given(keys: Mapping[str, Any], place: Place) -> MarkedDict:
    """Only what was given: the rest is as by default."""
    given = MarkedDict(place)
    for key, value in keys.items():
        if value is not None and value not in ("", [], {}):
            given.put(key, mark(value, place), place)
    return given
