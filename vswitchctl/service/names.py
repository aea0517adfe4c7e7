"""What a host's numbers stand for, and which of them a name stands for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vswitchctl.compiler.policy import set_numbers
from vswitchctl.compiler.routing import router_numbers
from vswitchctl.errors import NotFound
from vswitchctl.model.intent import Intent, Stored
from vswitchctl.model.state import OvsBridgeSpec, OvsPortSpec, Owner, PortKey
from vswitchctl.model.topology import EndpointNode, Link, LinuxBridge, link_name, split_end
from vswitchctl.pipeline.words import Names
from vswitchctl.topology.nearest import one_of


@dataclass(frozen=True, slots=True)
class Scope:
    """What belongs to something named: owners of flows, networks by (topology, tag), ports by bridge."""

    owners: frozenset[Owner] = frozenset()
    tags: frozenset[tuple[str, int]] = frozenset()
    ports: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class HostNames:
    """The intent, and the bridges and ports made of it with their numbers."""

    intent: Intent
    bridges: Mapping[str, OvsBridgeSpec]
    ports: Mapping[PortKey, OvsPortSpec]
    ofports: Mapping[PortKey, int]

    @cached_property
    def links(self) -> Mapping[Owner, Link]:
        return {
            Owner(name, f"links/{link_name(link)}"): link
            for name, stored in self.intent.items()
            for link in stored.topology.links
        }

    @cached_property
    def behind(self) -> Mapping[tuple[str, int], str]:
        """(bridge, OpenFlow port) -> the other end of its link: 'web1:eth0', 'br-b', 'wan0'."""
        return {
            (key.bridge, self.ofports[key]): end
            for key, spec in self.ports.items()
            if key in self.ofports and spec.owner in self.links
            for end in self.links[spec.owner].ends
            if end != key.bridge
        }

    @cached_property
    def port_owners(self) -> Mapping[tuple[str, int], Owner]:
        """(bridge, OpenFlow port) -> what it is there for."""
        return {
            (key.bridge, self.ofports[key]): spec.owner
            for key, spec in self.ports.items()
            if key in self.ofports
        }

    @cached_property
    def _tags(self) -> Mapping[str, Mapping[int, str]]:
        return {
            name: {tag: network for network, tag in stored.tags.items()}
            for name, stored in self.intent.items()
        }

    @cached_property
    def _ports(self) -> Mapping[str, Mapping[int, str]]:
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for (bridge, number), end in self.behind.items():
            found[bridge][number] = end
        return found

    @cached_property
    def _sets(self) -> Mapping[str, Mapping[int, str]]:
        return {
            name: {number: " + ".join(names) for names, number in set_numbers(stored.topology).items()}
            for name, stored in self.intent.items()
        }

    @cached_property
    def _routers(self) -> Mapping[str, Mapping[int, str]]:
        return {
            name: {number: router for router, number in router_numbers(stored.topology).items()}
            for name, stored in self.intent.items()
        }

    def of_bridge(self, bridge: str) -> Names:
        """The names of a bridge's numbers. Raises NotFound."""
        topology = self.bridge(bridge).owner.topology
        return Names(
            self._tags.get(topology, {}),
            self._ports.get(bridge, {}),
            self._sets.get(topology, {}),
            self._routers.get(topology, {}),
        )

    def bridge(self, name: str) -> OvsBridgeSpec:
        """Raises NotFound."""
        if name not in self.bridges:
            raise NotFound(f"no bridge '{name}'", _remedy(name, self.bridges, "bridges"))
        return self.bridges[name]

    def source(self, owner: Owner) -> str | None:
        """'file:line' of an entity."""
        stored = self.intent.get(owner.topology)
        return None if stored is None else stored.sources.get(owner.entity)

    # -- what a name stands for: each raises NotFound ------------------------------------------------------

    def topology(self, name: str) -> Stored:
        if name not in self.intent:
            raise NotFound(f"no topology '{name}'", _remedy(name, self.intent, "topologies"))
        return self.intent[name]

    def network(self, text: str) -> Scope:
        return _union(
            self._of_networks(stored, [name]) for stored, name in self._found("networks", "network", text)
        )

    def tenant(self, text: str) -> Scope:
        return _union(
            self._of_tenant(stored, name) for stored, name in self._found("tenants", "tenant", text)
        )

    def acl(self, text: str) -> Scope:
        found = self._found("acls", "ACL", text)
        return Scope(frozenset(Owner(stored.topology.name, f"acls/{name}") for stored, name in found))

    def port(self, text: str) -> Scope:
        """By an end ('web1:eth0'), a node at the other side ('lan0', 'br-b'), a link or a device."""
        topology, name = _split(text)
        owners: set[Owner] = set()
        for stored in self._stored(topology):
            ends = [end for end in stored.topology.endpoints() if name in (end, split_end(end)[0])]
            owners.update(Owner(stored.topology.name, f"interfaces/{end}") for end in ends)
            owners.update(
                Owner(stored.topology.name, f"links/{link_name(link)}")
                for link in stored.topology.links
                if name == link_name(link) or name in link.ends or not set(ends).isdisjoint(link.ends)
            )
        return self._with_ports(owners, name, text)

    def _with_ports(self, owners: set[Owner], device: str, text: str) -> Scope:
        ports: dict[str, set[int]] = defaultdict(set)
        for key, spec in self.ports.items():
            if key in self.ofports and (spec.owner in owners or key.name == device) and key.bridge != device:
                ports[key.bridge].add(self.ofports[key])
        if not owners and not ports:
            known = {end for stored in self.intent.values() for end in stored.topology.endpoints()}
            raise NotFound(
                f"no port '{text}'", _remedy(text, known, "ends") or "list them: vswitchctl show ports"
            )
        return Scope(frozenset(owners), ports={bridge: frozenset(found) for bridge, found in ports.items()})

    def _of_tenant(self, stored: Stored, tenant: str) -> Scope:
        topology = stored.topology
        networks = [name for name, network in topology.networks.items() if network.tenant == tenant]
        nodes = [
            name
            for name, node in topology.nodes.items()
            if isinstance(node, EndpointNode) and node.tenant == tenant
        ]
        routers = [name for name, router in topology.routers.items() if router.tenant == tenant]
        own = Scope(
            frozenset(
                Owner(topology.name, entity)
                for entity in (
                    f"tenants/{tenant}", *(f"nodes/{n}" for n in nodes), *(f"routers/{n}" for n in routers)
                )
            )
        )  # fmt: skip
        return _union((own, self._of_networks(stored, networks)))

    def _of_networks(self, stored: Stored, networks: Iterable[str]) -> Scope:
        """The networks, their endpoints with links and ACLs, and Linux bridges of theirs."""
        topology, names = stored.topology, frozenset(networks)
        ends = {end: found for end, found in topology.endpoints().items() if found.network in names}
        linux = {
            name
            for name, node in topology.nodes.items()
            if isinstance(node, LinuxBridge) and node.network in names
        }
        entities = [f"networks/{name}" for name in names] + [f"interfaces/{end}" for end in ends]
        entities += [f"nodes/{name}" for name in linux]
        entities += [f"acls/{acl}" for found in ends.values() for acl in found.acls]
        entities += [
            f"links/{link_name(link)}"
            for link in topology.links
            if not (linux | ends.keys()).isdisjoint(link.ends)
        ]
        owners = frozenset(Owner(topology.name, entity) for entity in entities)
        return Scope(owners, frozenset((topology.name, stored.tags[n]) for n in names if n in stored.tags))

    def _stored(self, topology: str | None) -> Iterator[Stored]:
        yield from self.intent.values() if topology is None else (self.topology(topology),)

    def _found(self, section: str, noun: str, text: str) -> list[tuple[Stored, str]]:
        topology, name = _split(text)
        found = [(one, name) for one in self._stored(topology) if name in getattr(one.topology, section)]
        if not found:
            known = {known for one in self.intent.values() for known in getattr(one.topology, section)}
            raise NotFound(f"no {noun} '{text}'", _remedy(name, known, f"{noun}s"))
        return found


def _split(text: str) -> tuple[str | None, str]:
    """'two-tenants/red' -> its topology and its name."""
    topology, slash, name = text.rpartition("/")
    return (topology if slash else None), name


def _union(scopes: Iterable[Scope]) -> Scope:
    owners: set[Owner] = set()
    tags: set[tuple[str, int]] = set()
    for scope in scopes:
        owners |= scope.owners
        tags |= scope.tags
    return Scope(frozenset(owners), frozenset(tags))


def _remedy(name: str, known: Iterable[str], noun: str) -> str:
    return one_of(name, sorted(known), f"{noun} are:")
