"""Changes to bridges and ports -> writes to rows in one transaction. Refuses what is not ours to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vswitchctl.drivers.ovsdb_rows import KEEP_TC, OPENFLOW, Snapshot, bridge_config, mark, only
from vswitchctl.drivers.ovsdb_vifs import adopt, give_back, set_vif
from vswitchctl.errors import Conflict, VswitchctlError
from vswitchctl.model.plan import Action, Change, Failure, Kind
from vswitchctl.model.state import OWNER_KEY, OvsBridgeSpec, OvsPortSpec, Owner, PortKey

_ORDER: Final = {
    (Action.REMOVE, Kind.PORT): 0,
    (Action.REMOVE, Kind.BRIDGE): 1,
    (Action.CHANGE, Kind.BRIDGE): 2,
    (Action.ADD, Kind.BRIDGE): 2,
    (Action.CHANGE, Kind.PORT): 3,
    (Action.ADD, Kind.PORT): 3,
}
"""Ports leave before their bridge does, and before a port of the same name joins another bridge."""


def in_order(changes: Sequence[Change]) -> list[Change]:
    """The changes in the order in which one transaction makes them."""
    return sorted(changes, key=lambda change: _ORDER[(change.action, change.kind)])


class ChangeWriter:
    """Writes changes into one transaction. `refused`: those that are not ours to make, with the reason.

    Every row that a decision rests on is verified, so a concurrent edit makes the transaction run again.
    """

    def __init__(self, transaction: Any, tables: Any, snapshot: Snapshot) -> None:
        self.refused: list[Failure] = []
        self._transaction = transaction
        self._tables = tables
        self._root = next(iter(tables["Open_vSwitch"].rows.values()))
        self._bridges = dict(snapshot.bridges)
        self._ports: dict[str, tuple[Any, Any]] = dict(snapshot.ports)
        self._interfaces = set(snapshot.interfaces)
        self._keeping_tc = dict(snapshot.keeping_tc)
        self._going: set[object] = set()

    def write(self, changes: Sequence[Change]) -> None:
        """Write them all, given `in_order`, and ask ovs-vswitchd to confirm (Open_vSwitch.next_cfg)."""
        self._going = {c.key for c in changes if c.kind is Kind.BRIDGE and c.action is Action.REMOVE}
        for change in changes:
            try:
                self._write(change)
            except VswitchctlError as error:
                self.refused.append(Failure(change, str(error), retryable=True))
        self._sweep()
        self._root.increment("next_cfg")

    def _write(self, change: Change) -> None:
        match change:
            case Change(kind=Kind.PORT, action=Action.REMOVE, key=PortKey() as key):
                self._remove_port(key, change.observed.owner)
            case Change(kind=Kind.BRIDGE, action=Action.REMOVE, key=str(name)):
                self._remove_bridge(name, change.observed.owner)
            case Change(kind=Kind.BRIDGE, key=str(name), desired=OvsBridgeSpec() as spec):
                self._set_bridge(name, spec, _owners(change))
            case Change(kind=Kind.PORT, key=PortKey() as key, desired=OvsPortSpec() as spec):
                self._set_port(key, spec, _owners(change))

    def _remove_port(self, key: PortKey, owner: Owner) -> None:
        found = self._ports.get(key.name)
        if found is None or found[1] is not self._bridges.get(key.bridge):
            return
        row, bridge = found
        _require_ours(row, f"port '{key.name}'", {owner})
        staying = {name: there for name, there in self._bridges.items() if name not in self._going}
        former = give_back(row, bridge, staying)
        if former is not None:
            self._ports[key.name] = (row, former)
            return
        self._interfaces.difference_update(interface.name for interface in row.interfaces)
        bridge.delvalue("ports", row)
        _let_go(row)
        del self._ports[key.name]

    def _remove_bridge(self, name: str, owner: Owner) -> None:
        row = self._bridges.get(name)
        if row is None:
            return
        _require_ours(row, f"bridge '{name}'", {owner})
        row.verify("ports")
        carried = [(port, port_row) for port, (port_row, bridge) in self._ports.items() if bridge is row]
        foreign = sorted(port for port, port_row in carried if port != name and mark(port_row) is None)
        if foreign:
            raise Conflict(
                f"bridge '{name}' carries ports that are not ours: {', '.join(foreign)}",
                "move or delete them first, then the bridge goes",
            )
        for port, port_row in carried:
            self._interfaces.difference_update(interface.name for interface in port_row.interfaces)
            _let_go(port_row)
            del self._ports[port]
        self._root.delvalue("bridges", row)
        row.delete()
        del self._bridges[name]

    def _set_bridge(self, name: str, spec: OvsBridgeSpec, owners: set[Owner]) -> None:
        row = self._bridges.get(name)
        if row is None:
            self._require_free(name)
            row = self._insert_bridge(name)
        else:
            _require_ours(row, f"bridge '{name}'", owners)
            row.verify("other_config")
            row.controller = []
            row.stp_enable = row.rstp_enable = row.mcast_snooping_enable = False
            if row.protocols and OPENFLOW not in row.protocols:
                row.protocols = sorted({*row.protocols, OPENFLOW})
        row.datapath_type = spec.datapath_type
        row.fail_mode = ["secure"]
        row.external_ids = {**row.external_ids, OWNER_KEY: spec.owner.text}
        row.other_config = {**row.other_config, **bridge_config(spec.owner, name)}

    def _insert_bridge(self, name: str) -> Any:
        local = self._insert_interface(name)
        local.type = "internal"
        port = self._transaction.insert(self._tables["Port"])
        port.name = name
        port.interfaces = [local]
        row = self._transaction.insert(self._tables["Bridge"])
        row.name = name
        row.ports = [port]
        row.external_ids = row.other_config = {}
        self._root.addvalue("bridges", row)
        self._bridges[name] = row
        self._ports[name] = (port, row)
        return row

    def _set_port(self, key: PortKey, spec: OvsPortSpec, owners: set[Owner]) -> None:
        found = self._ports.get(key.name)
        if found is None:
            self._insert_port(key, spec)
            return
        row, bridge = found
        if spec.vif is not None and mark(row) is None and key.bridge in self._bridges:
            adopt(row, spec, bridge, self._bridges[key.bridge])
            bridge = self._bridges[key.bridge]
            self._ports[key.name] = (row, bridge)
        else:
            _require_ours(row, f"port '{key.name}'", owners)
        if bridge is not self._bridges.get(key.bridge):
            raise Conflict(
                f"port '{key.name}' is on another bridge", "it is moved once its removal there succeeds"
            )
        row.tag, row.trunks, row.vlan_mode = [], [], []
        self._set_qos(row, bridge, spec)
        row.external_ids = {**row.external_ids, OWNER_KEY: spec.owner.text}
        interfaces = row.interfaces
        interface = next((one for one in interfaces if one.name == key.name), None)
        if interface is None:
            interface = self._insert_interface(key.name)
        else:
            interface.verify("external_ids")
        if interfaces != [interface]:
            row.interfaces = [interface]
        _set_interface(interface, spec)

    def _insert_port(self, key: PortKey, spec: OvsPortSpec) -> None:
        bridge = self._bridges.get(key.bridge)
        if bridge is None:
            raise Conflict(f"bridge '{key.bridge}' does not exist", "its own failure says why")
        if mark(bridge) is None:
            raise _not_ours(f"bridge '{key.bridge}'")
        self._require_free(key.name)
        interface = self._insert_interface(key.name)
        _set_interface(interface, spec)
        row = self._transaction.insert(self._tables["Port"])
        row.name = key.name
        row.interfaces = [interface]
        row.external_ids = {OWNER_KEY: spec.owner.text}
        row.qos = []
        self._set_qos(row, bridge, spec)
        bridge.addvalue("ports", row)
        self._ports[key.name] = (row, bridge)

    def _set_qos(self, row: Any, bridge: Any, spec: OvsPortSpec) -> None:
        """Leave tc settings of the port's device alone, and a QoS of somebody else's, too."""
        qos, owner = only(row.qos), mark(bridge)
        if (qos is not None and mark(qos) is None) or owner is None:
            return
        if spec.type:
            row.qos = []
            return
        if owner not in self._keeping_tc:
            made = self._keeping_tc[owner] = self._transaction.insert(self._tables["QoS"])
            made.external_ids = {OWNER_KEY: owner.text}
        keeping = self._keeping_tc[owner]
        keeping.type = KEEP_TC
        row.qos = [keeping]

    def _sweep(self) -> None:
        """QoS rows of bridges that are gone: Open vSwitch's database keeps rows that nothing refers to."""
        owners = {mark(row) for row in self._bridges.values()}
        for owner in self._keeping_tc.keys() - owners:
            row = self._keeping_tc[owner]
            if not any(row in port.qos for port, _ in self._ports.values()):
                row.delete()

    def _insert_interface(self, name: str) -> Any:
        row = self._transaction.insert(self._tables["Interface"])
        row.name = name
        row.external_ids = {}
        self._interfaces.add(name)
        return row

    def _require_free(self, name: str) -> None:
        """A name is one across ports and interfaces, a bridge's local port and bond members included."""
        if name in self._ports or name in self._interfaces:
            raise _not_ours(f"port or interface '{name}'")


def _owners(change: Change) -> set[Owner]:
    """Whose a row may be for us to change it: the desired owner's (tried again), or as it was observed."""
    return {spec.owner for spec in (change.desired, change.observed) if spec is not None}


def _require_ours(row: Any, what: str, owners: set[Owner]) -> None:
    row.verify("external_ids")
    owner = mark(row)
    if owner is None:
        raise _not_ours(what)
    if owner not in owners:
        raise Conflict(f"{what} belongs to {owner.text}", "give one of the two another name")


def _not_ours(what: str) -> Conflict:
    return Conflict(f"{what} exists and is not ours", "choose another name, or delete it yourself")


def _let_go(row: Any) -> None:
    """A port that leaves its bridge: the database removes it once it has looked who refers to what.

    So a reference is taken back first, else the QoS row could not go in the same transaction.
    """
    if row.qos:
        row.qos = []
    else:
        row.delete()


def _set_interface(row: Any, spec: OvsPortSpec) -> None:
    row.type = spec.type
    row.options = {"peer": spec.peer} if spec.peer is not None else {}
    row.external_ids = set_vif(row.external_ids, spec)
