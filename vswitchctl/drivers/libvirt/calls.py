"""Calls about one domain, made when a person asks: its addresses, and NICs that come and go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal
from xml.sax.saxutils import quoteattr

import libvirt

from vswitchctl.errors import NotFound, UserError
from vswitchctl.model.domains import Addresses, Domain

SOURCES: Final[tuple[tuple[Literal["agent", "lease", "arp"], int], ...]] = (
    ("agent", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT),
    ("lease", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE),
    ("arp", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP),
)
"""Who knows a guest's addresses, the best first. Only an agent that is connected is asked."""


@contextmanager
def writable(domain: Domain) -> Iterator[Any]:
    """libvirt's own object of a domain, on a connection for this alone: the one that is kept only reads."""
    connection = libvirt.open(domain.uri)
    try:
        yield connection.lookupByUUIDString(domain.uuid)
    finally:
        connection.close()


def addresses(domain: Any, *, agent: bool) -> dict[str, Addresses]:
    """MAC -> what libvirt knows of a running domain's addresses."""
    found: dict[str, Addresses] = {}
    for name, source in SOURCES:
        if name == "agent" and not agent:
            continue
        try:
            said = domain.interfaceAddresses(source)
        except libvirt.libvirtError:
            continue  # this one does not know: no network with leases, an agent that does not answer
        for mac, texts in _parsed(said):
            found.setdefault(mac, Addresses(name, texts))
    return found


def _parsed(said: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for interface in said.values():
        texts = tuple(f"{one['addr']}/{one['prefix']}" for one in interface.get("addrs") or ())
        if interface.get("hwaddr") and texts:
            yield interface["hwaddr"].lower(), texts


def attach(found: Any, domain: Domain, mac: str, model: str, *, config: bool, checksums: bool) -> None:
    """Attach a NIC of type ethernet, which is plugged where a topology wants it.

    checksums: the guest may leave them to the host. Raises UserError.
    """
    if any(interface.mac == mac for interface in domain.interfaces):
        raise UserError(f"domain '{domain.name}' has a NIC {mac} already", "choose another MAC address")
    off = "csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'"
    driver = "" if checksums or not model.startswith("virtio") else f"<driver><host {off}/></driver>"
    xml = (
        f"<interface type='ethernet'><mac address={quoteattr(mac)}/>"
        f"<model type={quoteattr(model)}/>{driver}</interface>"
    )
    found.attachDeviceFlags(xml, _affect(domain, config))


def detach(found: Any, domain: Domain, mac: str, *, config: bool) -> None:
    """Ask the guest to let go of a NIC; it is gone when the guest does. Raises NotFound, UserError."""
    interface = next((one for one in domain.interfaces if one.mac == mac), None)
    if interface is None:
        raise NotFound(f"domain '{domain.name}' has no NIC {mac}", _listed(domain))
    xml = f"<interface type={quoteattr(interface.type)}><mac address={quoteattr(mac)}/></interface>"
    found.detachDeviceFlags(xml, _affect(domain, config))


def _listed(domain: Domain) -> str:
    return f"it has: {', '.join(one.mac for one in domain.interfaces) or 'none'}"


def _affect(domain: Domain, config: bool) -> int:
    if not domain.active and not config:
        raise UserError(
            f"domain '{domain.name}' does not run ({domain.state})", "--config changes it for its next start"
        )
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.active else 0
    return int(flags | (libvirt.VIR_DOMAIN_AFFECT_CONFIG if config else 0))


def sole(domains: Sequence[Domain], name: str) -> Domain:
    """The domain of this name or UUID. Raises NotFound, UserError where there are several."""
    found = [domain for domain in domains if name in (domain.name, domain.uuid)]
    if not found:
        raise NotFound(f"no domain '{name}'", "list them: vswitchctl vm list")
    if len(found) > 1:
        raise UserError(f"there are {len(found)} domains named '{name}'", "name it by its UUID")
    return found[0]
