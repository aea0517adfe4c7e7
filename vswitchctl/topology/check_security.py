"""Checks of port security: what would be written in vain is told, and what cannot be meant refused."""

from __future__ import annotations

from collections.abc import Iterator

from vswitchctl.model.topology import LEARN_LIMIT, AllowedPair
from vswitchctl.topology.source import Path
from vswitchctl.topology.subject import Issue, Placed, Subject

EXEMPTIONS = ("allowed", "dhcp_server", "router")
"""Keys that permit more; without port security everything is permitted."""


def enforceable(subject: Subject) -> Iterator[Issue]:
    """Behind a Linux bridge endpoints share one port, and what they send to each other never comes by."""
    shared = dict(subject.behind_linux_bridges)
    for placed in subject.interfaces:
        linux = shared.get(placed.end)
        if linux is None:
            continue
        for key in ("port_security", "learn_limit", *EXEMPTIONS):
            if getattr(placed.interface, key) != type(placed.interface).model_fields[key].default:
                message = (
                    f"changes nothing: '{placed.end}' is behind Linux bridge '{linux}', where none is checked"
                )
                remedy = "link it to an Open vSwitch bridge, or remove the key"
                yield Issue((*placed.path, key), message, remedy, "warning")


def learn_limits(subject: Subject) -> Iterator[Issue]:
    """An interface teaches the switch MACs only where it may send from others than its own."""
    for placed in subject.interfaces:
        interface = placed.interface
        if interface.learn_limit == LEARN_LIMIT:
            continue
        own = (None, subject.topology.endpoint_mac(placed.end))
        if interface.port_security and all(pair.mac in own for pair in interface.allowed):
            message = "changes nothing: the interface sends from its own MAC alone, which is not learned"
            yield Issue((*placed.path, "learn_limit"), message, "remove the key", "warning")


def exemptions(subject: Subject) -> Iterator[Issue]:
    for placed in subject.interfaces:
        if placed.interface.port_security:
            continue
        for key in EXEMPTIONS:
            if getattr(placed.interface, key):
                message = "changes nothing: 'port_security' is off, so everything is allowed"
                yield Issue((*placed.path, key), message, "remove one of the two", "warning")


def allowed_pairs(subject: Subject) -> Iterator[Issue]:
    owners = {
        (placed.interface.network, subject.topology.endpoint_mac(placed.end)): placed.end
        for placed in subject.interfaces
    }
    for placed in subject.interfaces:
        for number, pair in enumerate(placed.interface.allowed):
            yield from _pair(subject, placed, pair, (*placed.path, "allowed", number))
            owner = owners.get((placed.interface.network, pair.mac or ""))
            if owner not in (None, placed.end):
                message = (
                    f"MAC address {pair.mac} is that of '{owner}' in this network: frames to it go there"
                )
                yield Issue((*placed.path, "allowed", number, "mac"), message, "choose another MAC address")


def _pair(subject: Subject, placed: Placed, pair: AllowedPair, path: Path) -> Iterator[Issue]:
    own = pair.mac in (None, subject.topology.endpoint_mac(placed.end))
    if own and pair.ip is None:
        message = "a pair that allows nothing more than the interface's own MAC and addresses"
        yield Issue(path, message, "give it a 'mac' of another, an 'ip', or both")
    elif own and not placed.interface.ip:
        message = "changes nothing: an interface without 'ip' may use any address with its MAC"
        yield Issue((*path, "ip"), message, "give the interface its 'ip'", "warning")
