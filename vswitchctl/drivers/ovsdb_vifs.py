"""Ports of virtual machines: marked as such, and taken over where libvirt itself made them.

libvirt adds the port of an <interface> with <virtualport type='openvswitch'> to the bridge that the XML
names, with the guest's MAC in external_ids:attached-mac, and deletes it by name, wherever it is,
when the guest ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vswitchctl.drivers.ovsdb_rows import DOMAIN_KEY, FORMER_KEY, mark, only, vif_ids, vlan_words
from vswitchctl.errors import Conflict
from vswitchctl.model.state import OWNER_KEY, OvsPortSpec

VLAN_MODES = ("access", "dot1q-tunnel", "native-tagged", "native-untagged", "trunk")
"""Port.vlan_mode: ovs-vswitchd.conf.db(5)."""


def set_vif(ids: Mapping[str, str], spec: OvsPortSpec) -> dict[str, str]:
    """external_ids of an Interface: those there, our mark, and what a virtual machine's port says of it."""
    kept = {key: value for key, value in ids.items() if key not in (DOMAIN_KEY, FORMER_KEY)}
    return {**kept, OWNER_KEY: spec.owner.text, **(vif_ids(spec.vif) if spec.vif is not None else {})}


def adopt(row: Any, spec: OvsPortSpec, bridge: Any, ours: Any) -> None:
    """Move the Port that libvirt made for this very NIC from `bridge` to `ours`. Else raises Conflict."""
    row.verify("external_ids")
    macs = [interface.external_ids.get("attached-mac", "").lower() for interface in row.interfaces]
    if spec.vif is None or macs != [spec.vif.attached_mac]:
        raise Conflict(f"port '{row.name}' exists and is not ours", "delete it, and it is made anew")
    for column in ("tag", "trunks", "vlan_mode"):
        row.verify(column)
    if vlan_words(row) != spec.vif.former.partition(" ")[2]:
        raise Conflict(f"the VLAN of port '{row.name}' just changed", "it is taken over with the next try")
    if bridge is not ours:
        bridge.delvalue("ports", row)
        ours.addvalue("ports", row)


def give_back(row: Any, bridge: Any, bridges: Mapping[str, Any]) -> Any:
    """Put a Port that libvirt made back into its bridge and VLAN; None where it is ours to delete.

    So it is where libvirt did not make it, where its bridge is gone, and where its device is. Else that
    bridge.
    """
    (interface, *_) = row.interfaces
    name, *words = interface.external_ids.get(FORMER_KEY, "").split(" ")
    former = bridges.get(name)
    if former is None or only(interface.error):
        return None
    for one in (row, interface):
        ours = (OWNER_KEY, DOMAIN_KEY, FORMER_KEY)
        one.external_ids = {key: value for key, value in one.external_ids.items() if key not in ours}
    qos = only(row.qos)
    if qos is not None and mark(qos) is not None:
        row.qos = []
    _set_vlan(row, dict(word.partition("=")[::2] for word in words))
    if former is not bridge:
        bridge.delvalue("ports", row)
        former.addvalue("ports", row)
    return former


def _set_vlan(row: Any, words: Mapping[str, str]) -> None:
    """What `vlan_words` said of it; a word that is not one of its own is left."""
    tag, trunks, mode = (words.get(key, "") for key in ("tag", "trunks", "vlan_mode"))
    row.tag = [int(tag)] if tag.isdecimal() else []
    row.trunks = [int(number) for number in trunks.split(",") if number.isdecimal()]
    row.vlan_mode = [mode] if mode in VLAN_MODES else []
