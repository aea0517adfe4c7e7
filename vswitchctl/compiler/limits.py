"""A topology's limits as meters need them: whole kilobits and packets, each with its burst. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from vswitchctl.model.limits import BothWays, burst_bits, dscp_number, rate_bits
from vswitchctl.model.state import Owner
from vswitchctl.model.switch import Limit, PortLimits
from vswitchctl.model.topology import Qos, Topology

BURST_PART = 4
"""A burst is a quarter of what passes in a second, unless the file says otherwise. A sender of TCP who loses
the end of a flight waits for 200 ms at least (TCP_RTO_MIN in Linux' net/tcp.h), and what the meter gathers
meanwhile must fit its burst: with 100 ms, TCP got half of the rate, with 250 ms 98% of it."""

FRAMES = 2
"""And no less than so many frames of the interface, or slow limits would let no frame pass."""

HEADER = 18
"""Octets of an Ethernet header and an 802.1Q tag: meters count them, the MTU does not."""


def port_limits(topology: Topology, meters: Mapping[str, int], end: str) -> PortLimits | None:
    """The limits of the port that leads to 'node:interface' or to an uplink, or None where it has none."""
    interface = topology.interface(end)
    profile = topology.qos.get(interface.qos or "") if interface is not None else None
    storm = topology.storm(end)
    marked = profile is not None and profile.dscp is not None
    if end not in meters and not marked:
        return None
    entity = f"nodes/{end}" if interface is None else f"interfaces/{end}"
    frame = 8 * (topology.endpoint_mtu(end) + HEADER) if interface is not None else 0
    profile = profile or Qos()
    return PortLimits(
        Owner(topology.name, entity),
        meters.get(end, 0),
        rate_from=_rate(profile, frame, inbound=False),
        packets_from=_packets(_way(profile.max_pps, inbound=False)),
        rate_to=_rate(profile, frame, inbound=True),
        packets_to=_packets(_way(profile.max_pps, inbound=True)),
        broadcast=_packets(storm.broadcast),
        multicast=_packets(storm.multicast),
        unknown_unicast=_packets(storm.unknown_unicast),
        dscp=None if profile.dscp is None else dscp_number(profile.dscp),
    )


def limits_what_comes_in(topology: Topology, end: str) -> bool:
    """Whether what goes to the endpoint is limited."""
    interface = topology.interface(end)
    profile = topology.qos.get(interface.qos or "") if interface is not None else None
    if profile is None:
        return False
    return any(
        value is not None and value.way(inbound=True) is not None
        for value in (profile.max_rate, profile.max_pps)
    )


def _way(value: BothWays | None, inbound: bool) -> int | None:
    found: int | None = None if value is None else value.way(inbound)
    return found


def _rate(profile: Qos, frame: int, inbound: bool) -> Limit | None:
    """Kilobits per second, and at once."""
    if profile.max_rate is None or profile.max_rate.way(inbound) is None:
        return None
    rate = rate_bits(profile.max_rate.way(inbound)) // 1000
    burst = profile.burst.way(inbound) if profile.burst is not None else None
    if burst is not None:
        return Limit(rate, burst_bits(burst) // 1000)
    return Limit(rate, max(rate // BURST_PART, -(-FRAMES * frame // 1000)))


def _packets(rate: int | None) -> Limit | None:
    return None if rate is None else Limit(rate, max(rate // BURST_PART, 1))
