"""Ports of virtual machines: marked as such, and taken over where libvirt itself made them.

libvirt adds the port of an <interface> with <virtualport type='openvswitch'> to the bridge that the XML
names, with the guest's MAC in external_ids:attached-mac, and deletes it by name, wherever it is,
when the guest ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vswitchctl.drivers.ovsdb_rows import DOMAIN_KEY, FORMER_KEY, only, vif_ids
from vswitchctl.errors import Conflict
from vswitchctl.model.state import OWNER_KEY, OvsPortSpec


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
    if row.tag or row.trunks or row.vlan_mode:
        raise Conflict(
            f"port '{row.name}' has VLAN settings of its own", "remove <vlan> from the domain's <interface>"
        )
    if bridge is not ours:
        bridge.delvalue("ports", row)
        ours.addvalue("ports", row)


def give_back(row: Any, bridge: Any, bridges: Mapping[str, Any]) -> Any:
    """Put a Port that libvirt made back into its bridge, without our marks; None where it is ours to delete.

    So it is where libvirt did not make it, where its bridge is gone, and where its device is. Else that
    bridge.
    """
    (interface, *_) = row.interfaces
    former = bridges.get(interface.external_ids.get(FORMER_KEY, ""))
    if former is None or only(interface.error):
        return None
    for one in (row, interface):
        ours = (OWNER_KEY, DOMAIN_KEY, FORMER_KEY)
        one.external_ids = {key: value for key, value in one.external_ids.items() if key not in ours}
    if former is not bridge:
        bridge.delvalue("ports", row)
        former.addvalue("ports", row)
    return former
