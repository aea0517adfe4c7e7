"""Meters as bytes and as text: OpenFlow 1.4.1 section 7.3.4.4, with one band that drops."""

from __future__ import annotations

from struct import Struct

from vswitchctl.errors import InternalError
from vswitchctl.model.meter import MeterValue

KBPS, PKTPS, BURST = 1, 2, 4
"""ofp_meter_flags: kilobits or packets per second; with a size of the burst. Open vSwitch counts a meter's
packets whatever OFPMF_STATS says, so that flag stays out."""

_DROP = 1
"""ofp_meter_band_type."""

_BAND = Struct(">HHII4x")
"""ofp_meter_band_drop: type, length, rate, burst size."""

_MOST = 0xFFFFFFFF


def _meter(unit: int, rate: int, burst: int) -> MeterValue:
    if not (0 < rate <= _MOST and 0 < burst <= _MOST):
        raise InternalError(f"a meter of rate {rate} and burst {burst}")
    return (unit | BURST).to_bytes(2, "big") + _BAND.pack(_DROP, _BAND.size, rate, burst)


def bits(rate: int, burst: int) -> MeterValue:
    """Drops what exceeds `rate` kilobits per second, once `burst` kilobits are used up. 1000 bits each."""
    return _meter(KBPS, rate, burst)


def packets(rate: int, burst: int) -> MeterValue:
    """Drops what exceeds `rate` packets per second, once `burst` packets are used up."""
    return _meter(PKTPS, rate, burst)


def meter_text(value: MeterValue) -> str:
    """As ovs-ofctl(8) writes a meter; hex for what `bits` and `packets` never make. Raises nothing."""
    flags = int.from_bytes(value[:2], "big")
    unit = {KBPS | BURST: "kbps", PKTPS | BURST: "pktps"}.get(flags)
    if unit is None or len(value) != 2 + _BAND.size:
        return f"0x{value.hex()}"
    kind, _, rate, burst = _BAND.unpack_from(value, 2)
    if kind != _DROP:
        return f"0x{value.hex()}"
    return f"{unit},burst,band=type=drop,rate={rate},burst_size={burst}"
