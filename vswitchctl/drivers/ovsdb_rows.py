"""Rows of Open vSwitch's database -> what we observe. Parsed rows are kept until the row changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from vswitchctl.model.state import (
    OWNER_KEY,
    Foreign,
    ObservedOvs,
    OvsBridgeSpec,
    OvsPortSpec,
    OvsState,
    Owner,
    PortKey,
    VifMarks,
    parse_owner,
)

OPENFLOW: Final = "OpenFlow14"
"""The version our session speaks; a bridge whose `protocols` leave it out is cut off from us."""

KEEP_TC: Final = "linux-noop"
"""QoS.type by which Open vSwitch leaves the tc settings of a port's device alone, ovs-vswitchd.conf.db(5).
Else it takes away whatever qdisc it finds when it opens the port. One row serves all ports of a bridge."""


DOMAIN_KEY, FORMER_KEY = "vswitchctl-domain", "vswitchctl-former"
"""external_ids of a virtual machine's Interface beside those of ovs-vswitchd.conf.db(5)."""


def vif_ids(marks: VifMarks) -> dict[str, str]:
    """external_ids of a virtual machine's Interface."""
    former = {FORMER_KEY: marks.former} if marks.former else {}
    return {
        "attached-mac": marks.attached_mac,
        "iface-id": marks.iface_id,
        "iface-status": "active",
        "vm-id": marks.vm_id,
        DOMAIN_KEY: marks.domain,
        **former,
    }


def parse_vif(ids: Mapping[str, str]) -> VifMarks | None:
    """What external_ids of an Interface of ours say of a virtual machine; None where it is not one's."""
    if DOMAIN_KEY not in ids:
        return None
    iface_id, mac, vm_id = (ids.get(key, "") for key in ("iface-id", "attached-mac", "vm-id"))
    return VifMarks(iface_id, mac, vm_id, ids[DOMAIN_KEY], ids.get(FORMER_KEY, ""))


def vlan_words(row: Any) -> str:
    """A Port's VLAN settings in words, 'tag=5 vlan_mode=access'; '' where it has none."""
    words = [f"tag={row.tag[0]}"] if row.tag else []
    words += [f"trunks={','.join(map(str, sorted(row.trunks)))}"] if row.trunks else []
    words += [f"vlan_mode={row.vlan_mode[0]}"] if row.vlan_mode else []
    return " ".join(words)


def datapath_id(owner: Owner, bridge: str) -> str:
    """A stable datapath id, 16 hexadecimal digits.

    Left to itself it follows the lowest MAC address among the ports, and every change of it makes
    ovs-vswitchd drop the bridge's OpenFlow connections (ofproto_set_datapath_id).
    """
    return hashlib.blake2b(f"{owner.text}/{bridge}".encode(), digest_size=8).hexdigest()


def bridge_config(owner: Owner, bridge: str) -> dict[str, str]:
    """The keys of Bridge.other_config that we set; others there are the user's."""
    return {"datapath-id": datapath_id(owner, bridge), "disable-in-band": "true"}


def mark(row: Any) -> Owner | None:
    """The owner in a row's external_ids, or None where it is not ours."""
    return parse_owner(row.external_ids.get(OWNER_KEY, ""))


def only(values: list[Any]) -> Any:
    """The value of an optional column, or None."""
    return values[0] if values else None


@dataclass(frozen=True, slots=True)
class PortRow:
    """A parsed Port with its Interface. `spec` is None where it is not ours. interfaces: their names.

    foreign_qos: the type of its QoS where somebody else set that.
    vlan: its VLAN settings where it is not ours, see `vlan_words`.
    """

    name: str
    spec: OvsPortSpec | None
    ofport: int | None
    error: str
    interfaces: tuple[str, ...]
    foreign_qos: str | None = None
    vlan: str = ""

    @property
    def owner(self) -> Owner | None:
        return self.spec.owner if self.spec else None


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """A parsed Bridge. `spec` is None where it is not ours."""

    name: str
    spec: OvsBridgeSpec | None

    @property
    def owner(self) -> Owner | None:
        return self.spec.owner if self.spec else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent look at the database: what we observe, and the rows behind it by name.

    next_cfg: the configuration last asked for; cur_cfg: the one that ovs-vswitchd last applied.
    keeping_tc: a bridge's owner -> the QoS row of its ports.

    Rows may only be used under the replica's lock, and while its seqno is still this one.
    """

    seqno: int
    observed: ObservedOvs
    next_cfg: int
    cur_cfg: int
    version: str
    bridges: Mapping[str, Any]
    ports: Mapping[str, tuple[Any, Any]]
    interfaces: frozenset[str]
    keeping_tc: Mapping[Owner, Any]


def _flags(row: Any, *columns: str) -> Iterator[str]:
    return (column for column in columns if getattr(row, column))


def _bridge_drift(row: Any, owner: Owner, name: str) -> Iterator[str]:
    fail_mode = only(row.fail_mode)
    if fail_mode != "secure":
        yield f"fail_mode={fail_mode or ''}"
    if row.controller:
        yield "controller set"
    if row.protocols and OPENFLOW not in row.protocols:
        yield f"protocols without {OPENFLOW}"
    yield from _flags(row, "stp_enable", "rstp_enable", "mcast_snooping_enable")
    config = row.other_config
    for key, value in bridge_config(owner, name).items():
        if config.get(key) != value:
            yield f"other_config:{key}={config.get(key, '')}"


def _parse_bridge(row: Any) -> BridgeRow:
    name, owner = row.name, mark(row)
    if owner is None:
        return BridgeRow(name, None)
    drift = ", ".join(_bridge_drift(row, owner, name))
    return BridgeRow(name, OvsBridgeSpec(owner, row.datapath_type, drift))


def _port_drift(row: Any, interfaces: list[Any], owner: Owner, options: Mapping[str, str]) -> Iterator[str]:
    if vlan := vlan_words(row):
        yield vlan
    if [interface.name for interface in interfaces] != [row.name]:
        yield f"interfaces={','.join(sorted(interface.name for interface in interfaces))}"
    elif mark(interfaces[0]) != owner:
        yield "mark of the interface"
    yield from _qos_drift(row, interfaces[0])
    extra = sorted(options.keys() - {"peer"})
    if extra:
        yield f"options:{','.join(extra)}"


def _qos_drift(row: Any, interface: Any) -> Iterator[str]:
    """Whatever QoS somebody else gave the port is theirs."""
    qos = only(row.qos)
    if interface.type:
        if qos is not None and mark(qos) is not None:
            yield "qos set"
    elif qos is None:
        yield "no qos"
    elif mark(qos) is not None and qos.type != KEEP_TC:
        yield f"qos:type={qos.type}"


def _parse_port(row: Any, interfaces: list[Any]) -> PortRow:
    first = interfaces[0]
    ofport = only(first.ofport)
    error = " ".join((only(first.error) or "").split())
    spec = None
    owner, vlan = mark(row), ""
    if owner is None:
        vlan = vlan_words(row)
    else:
        options = first.options
        drift = ", ".join(_port_drift(row, interfaces, owner, options))
        spec = OvsPortSpec(owner, first.type, options.get("peer"), drift, parse_vif(first.external_ids))
    names = tuple(interface.name for interface in interfaces)
    qos = only(row.qos)
    foreign_qos = qos.type if qos is not None and mark(qos) is None else None
    return PortRow(row.name, spec, ofport if ofport and ofport > 0 else None, error, names, foreign_qos, vlan)


@dataclass(slots=True)
class _Draft:
    """An ObservedOvs and the index of rows while they are put together."""

    state: OvsState = field(default_factory=OvsState)
    ofports: dict[PortKey, int] = field(default_factory=dict)
    errors: dict[PortKey, str] = field(default_factory=dict)
    names: dict[str, Owner | None] = field(default_factory=dict)
    foreign_ports: dict[str, str] = field(default_factory=dict)
    foreign: list[Foreign] = field(default_factory=list)
    bridges: dict[str, Any] = field(default_factory=dict)
    ports: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    interfaces: list[str] = field(default_factory=list)

    def add_bridge(self, row: Any, bridge: BridgeRow) -> None:
        self.bridges[bridge.name] = row
        self.names[bridge.name] = bridge.owner
        if bridge.spec is not None:
            self.state.bridges[bridge.name] = bridge.spec
        else:
            self.foreign.append(Foreign("bridge", bridge.name))

    def add_port(self, row: Any, port: PortRow, bridge_row: Any, bridge: BridgeRow) -> None:
        self.ports[port.name] = (row, bridge_row)
        self.interfaces.extend(port.interfaces)
        if port.name == bridge.name:
            return  # the local port is a part of its bridge
        for name in port.interfaces:
            self.names[name] = port.owner
        self.names[port.name] = port.owner
        key = PortKey(bridge.name, port.name)
        if port.spec is not None:
            self.state.ports[key] = port.spec
            if port.foreign_qos is not None:
                self.foreign.append(Foreign("qos", port.name, port.foreign_qos))
        else:
            self.foreign_ports[port.name] = f"{bridge.name} {port.vlan}".rstrip()
            if bridge.spec is not None:
                self.foreign.append(Foreign("port", port.name, f"on bridge {bridge.name}"))
        if bridge.spec is not None:
            if port.ofport is not None:
                self.ofports[key] = port.ofport
            if port.error:
                self.errors[key] = port.error


class RowReader:
    """Parses rows once and forgets them when they change. Used under the replica's lock only."""

    def __init__(self) -> None:
        self._bridges: dict[UUID, BridgeRow] = {}
        self._ports: dict[UUID, PortRow] = {}
        self._port_of: dict[UUID, UUID] = {}
        self._qos: set[UUID] = set()

    def forget(self, uuid: UUID) -> None:
        """A row changed or went away."""
        self._bridges.pop(uuid, None)
        self._ports.pop(uuid, None)
        if uuid in self._qos:
            self._ports.clear()  # many ports share one
        port = self._port_of.pop(uuid, None)
        if port is not None:
            self._ports.pop(port, None)

    def snapshot(self, tables: Any, seqno: int) -> Snapshot:
        """Everything as the replica has it now."""
        draft = _Draft()
        for row in tables["Bridge"].rows.values():
            bridge = self._bridges.get(row.uuid)
            if bridge is None:
                bridge = self._bridges[row.uuid] = _parse_bridge(row)
            draft.add_bridge(row, bridge)
            for port_row in row.ports:
                port = self._ports.get(port_row.uuid) or self._parse(port_row)
                if port is not None:
                    draft.add_port(port_row, port, row, bridge)
        root = next(iter(tables["Open_vSwitch"].rows.values()), None)
        return Snapshot(
            seqno=seqno,
            observed=_observed(draft, frozenset(root.datapath_types if root else ())),
            next_cfg=root.next_cfg if root else 0,
            cur_cfg=root.cur_cfg if root else 0,
            version=(only(root.ovs_version) or "") if root else "",
            bridges=draft.bridges,
            ports=draft.ports,
            interfaces=frozenset(draft.interfaces),
            keeping_tc={
                owner: row for row in tables["QoS"].rows.values() if (owner := mark(row)) is not None
            },
        )

    def _parse(self, row: Any) -> PortRow | None:
        interfaces = row.interfaces
        if not interfaces:
            return None  # the replica is between two updates of a reconnect; the next one completes it
        for interface in interfaces:
            self._port_of[interface.uuid] = row.uuid
        self._qos.update(qos.uuid for qos in row.qos)
        port = self._ports[row.uuid] = _parse_port(row, interfaces)
        return port


def _observed(draft: _Draft, datapath_types: frozenset[str]) -> ObservedOvs:
    return ObservedOvs(
        owned=draft.state,
        ofports=draft.ofports,
        errors=draft.errors,
        names=draft.names,
        datapath_types=datapath_types,
        foreign=tuple(sorted(draft.foreign, key=lambda foreign: (foreign.kind, foreign.name))),
        foreign_ports=draft.foreign_ports,
    )
