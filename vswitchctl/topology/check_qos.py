"""Checks of limits: profiles that make sense, and limits that something enforces; the rest is refused."""

from __future__ import annotations

from collections.abc import Iterator

from vswitchctl.model.limits import BothWays, burst_bits, rate_bits
from vswitchctl.model.topology import Interface, LinuxBridge, Qos, split_end
from vswitchctl.topology.source import Path
from vswitchctl.topology.subject import Issue, Placed, Subject

INSTEAD = "leave 'mechanism' out: meters hold max_rate and max_pps, both ways"
REFUSED = {
    "queue": "queues are not enforced: on the userspace datapath no packet reaches a queue of its own, and a "
    "port whose queue is full makes other ports lose packets",
    "police": "policing is not enforced: the userspace datapath hears a device before the kernel polices it",
}
"""Mechanism -> why it is none. tests/dataplane/test_mechanisms.py shows each."""

ETHERNET = 18
"""IEEE 802.3: octets of a header, which meters count, and an 802.1Q tag's four."""


def profiles(subject: Subject) -> Iterator[Issue]:
    """A profile says something, and nothing that contradicts itself."""
    for name, profile in subject.topology.qos.items():
        path: Path = ("qos", name)
        given = (profile.max_rate, profile.min_rate, profile.burst, profile.max_pps, profile.dscp)
        if all(value is None for value in given):
            yield Issue(path, "a profile without any rate", "add e.g. 'max_rate: 100mbit'")
        if profile.mechanism in REFUSED:
            yield Issue((*path, "mechanism"), REFUSED[profile.mechanism], INSTEAD)
        yield from _above_max(path, profile)


def _above_max(path: Path, profile: Qos) -> Iterator[Issue]:
    out = _way(profile.max_rate, inbound=False)
    if profile.min_rate is not None and out is not None and rate_bits(profile.min_rate) > rate_bits(out):
        message = f"{profile.min_rate} is above max_rate, {out}: the guaranteed rate cannot be kept"
        yield Issue((*path, "min_rate"), message, f"at most {out}")
    for inbound in (True, False):
        burst, rate = _way(profile.burst, inbound), _way(profile.max_rate, inbound)
        if burst is None:
            continue
        where: Path = (*path, "burst")
        if rate is None:
            yield Issue(where, "a burst without a max_rate limits nothing", "add 'max_rate: ...'")
            return
        if burst_bits(burst) > rate_bits(rate):
            message = f"{burst} is above max_rate, {rate}: a burst of more than a second cannot be kept"
            yield Issue(where, message, f"at most {rate}")
            return


def _way(value: BothWays | None, inbound: bool) -> str | None:
    found: str | None = None if value is None else value.way(inbound)
    return found


def interfaces(subject: Subject) -> Iterator[Issue]:
    """What an interface's profile says is enforced, or refused with what to do instead."""
    hidden = _hidden(subject)
    for placed in subject.interfaces:
        yield from _profile(subject, placed, hidden.get(placed.end))
        if placed.end in hidden and subject.topology.storm(placed.end):
            yield Issue(
                (*placed.path, "storm") if placed.interface.storm else placed.path,
                f"'{placed.end}' is behind Linux bridge '{hidden[placed.end]}', which limits no storm",
                "link it to an Open vSwitch bridge, or give a 'storm' to the others alone",
            )


def _profile(subject: Subject, placed: Placed, hidden_by: str | None) -> Iterator[Issue]:
    name = placed.interface.qos
    if name is None:
        return
    path: Path = (*placed.path, "qos")
    if name not in subject.topology.qos:
        if not subject.is_broken("qos", name):
            known = list(subject.topology.qos)
            remedy = subject.suggestion(name, known, "the profiles are") or "declare it under 'qos'"
            yield Issue(path, f"unknown profile '{name}'", remedy)
        return
    profile = subject.topology.qos[name]
    if hidden_by is not None:
        yield Issue(
            path,
            f"'{placed.end}' is behind Linux bridge '{hidden_by}', which knows no limits",
            "link it to an Open vSwitch bridge",
        )
    if profile.min_rate is not None:
        yield Issue(
            path,
            f"min_rate of profile '{name}' is not enforced: meters hold senders back and let none go first, "
            "and on the userspace datapath no packet reaches a queue that would",
            "remove min_rate, and give max_rate to those it is to be kept from",
        )
    yield from _smaller_than_a_frame(subject, placed.interface, profile, path)


def _smaller_than_a_frame(
    subject: Subject, interface: Interface, profile: Qos, path: Path
) -> Iterator[Issue]:
    network = subject.network(interface.network)
    if network is None:
        return
    frame = 8 * ((interface.mtu or network.mtu) + ETHERNET)
    for inbound in (True, False):
        burst = _way(profile.burst, inbound)
        if burst is not None and burst_bits(burst) // 1000 * 1000 < frame:
            yield Issue(
                path,
                f"a burst of {burst} is less than one frame of this interface, so no large frame ever passes",
                f"make the profile's burst at least {-(-frame // 1000)}kbit, or leave it out",
            )
            return


def _hidden(subject: Subject) -> dict[str, str]:
    """Endpoints behind Linux bridges, and which."""
    return {
        end: other
        for wired in subject.wired
        for end, _, other in wired.nodes
        if isinstance(subject.topology.nodes.get(split_end(other)[0]), LinuxBridge)
        and subject.topology.interface(end) is not None
    }
