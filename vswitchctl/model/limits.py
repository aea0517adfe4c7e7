"""Limits: rates, packets per second, DSCP and storms, as a topology declares them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

_BITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9, "tbit": 10**12}
_BYTES = {"byte": 8, "kbyte": 8 * 10**3, "mbyte": 8 * 10**6, "gbyte": 8 * 10**9}
_PACKETS = {"pps": 1, "kpps": 10**3, "mpps": 10**6}

MOST = 0xFFFFFFFF
"""The rate and the burst of a meter have 32 bits (ofp_meter_band_drop): kilobits, or packets."""

DSCP = {
    **{f"cs{number}": 8 * number for number in range(8)},
    **{f"af{group}{drop}": 8 * group + 2 * drop for group in range(1, 5) for drop in range(1, 4)},
    "ef": 46,
    "va": 44,
    "le": 1,
}
"""Names of code points: RFC 2474 section 4.2.2, RFC 2597 section 6, RFC 3246, RFC 5865, RFC 8622."""


def _bits(value: str, units: Mapping[str, int]) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", value.strip())
    if match is None:
        raise ValueError("a rate is a number and a unit, e.g. 100mbit")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"a rate without a unit; write {number}mbit, {number}kbit or {number}gbit")
    if unit.lower() not in units:
        raise ValueError(f"unknown unit '{unit}'; the units are {', '.join(units)}")
    bits = int(float(number) * units[unit.lower()])
    if bits <= 0:
        raise ValueError("a rate must be above zero")
    return bits


def rate_bits(value: str) -> int:
    """'100mbit' -> 100_000_000: bits per second. Decimal units, as in tc(8).

    Raises ValueError where the unit is missing or unknown.
    """
    return _bits(value, _BITS)


def burst_bits(value: str) -> int:
    """'1mbit' or '125kbyte' -> 1_000_000 bits. Raises ValueError where the unit is missing or unknown."""
    return _bits(value, _BITS | _BYTES)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a rate without a unit; write {value}mbit, {value}kbit or {value}gbit")
    return value


def _rate(value: Any) -> str:
    bits = rate_bits(_text(value))
    if bits % 1000 or bits > MOST * 1000:
        raise ValueError(
            f"meters count whole kilobits, at most 4294967295; write {min(MOST, max(1, bits // 1000))}kbit"
        )
    return str(value)


def _burst(value: Any) -> str:
    if burst_bits(_text(value)) > MOST * 1000:
        raise ValueError("at most 4294967295kbit fit a meter; write less")
    return str(value)


def _packets(value: Any) -> int:
    found = re.fullmatch(r"(\d+)\s*([a-zA-Z]*)", str(value).strip())
    unit = "pps" if found is None else (found[2] or "pps").lower()
    if found is None or isinstance(value, bool) or unit not in _PACKETS:
        raise ValueError("not a number of packets per second; write it like 100pps or 2kpps")
    number = int(found[1]) * _PACKETS[unit]
    if not 0 < number <= MOST:
        raise ValueError("packets per second are 1 to 4294967295; write it like 100pps or 2kpps")
    return number


def _dscp(value: Any) -> int | str:
    found = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,2}", value) else value
    if type(found) is int and found in range(64):
        return found
    if isinstance(found, str) and found.lower() in DSCP:
        return found.lower()
    raise ValueError(f"not a DSCP; write a number from 0 to 63, or one of {', '.join(DSCP)}")


def dscp_number(value: int | str) -> int:
    """'af41' -> 34."""
    return value if isinstance(value, int) else DSCP[value]


Rate = Annotated[str, BeforeValidator(_rate)]
Burst = Annotated[str, BeforeValidator(_burst)]
PacketRate = Annotated[int, BeforeValidator(_packets)]
Dscp = Annotated[int | str, BeforeValidator(_dscp)]


class BothWays(BaseModel):
    """A value for each direction, seen from the interface as in ACLs. in: towards it; out: from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _any(self) -> BothWays:
        if all(value is None for _, value in self):
            raise ValueError("neither direction is given; write {in: ...}, {out: ...} or both")
        return self

    def way(self, inbound: bool) -> Any:
        """The value towards the interface, or from it; None where none is given."""
        return getattr(self, "in" if inbound else "out")


def _both(check: Callable[[Any], Any]) -> BeforeValidator:
    """One value for both directions; checked once, so that one mistake is told once."""

    def spread(value: Any) -> Any:
        if isinstance(value, Mapping | BothWays):
            return value
        checked = check(value)
        return {"in": checked, "out": checked}

    return BeforeValidator(spread)


if TYPE_CHECKING:

    class RateBothWays(BothWays): ...

    class BurstBothWays(BothWays): ...

    class PacketsBothWays(BothWays): ...

else:
    # 'in' is a word of Python, so no class statement can declare it.
    def _ways(name: str, kind: Any) -> type[BothWays]:
        keys = {"in": (kind | None, None), "out": (kind | None, None)}
        return create_model(name, __base__=BothWays, __doc__=BothWays.__doc__, **keys)

    RateBothWays, BurstBothWays, PacketsBothWays = (
        _ways("RateBothWays", Rate),
        _ways("BurstBothWays", Burst),
        _ways("PacketsBothWays", PacketRate),
    )

Rates = Annotated[RateBothWays, _both(_rate)]
Bursts = Annotated[BurstBothWays, _both(_burst)]
PacketRates = Annotated[PacketsBothWays, _both(_packets)]


class Storm(BaseModel):
    """How many frames of a kind a port may send each second; what is not given is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    broadcast: PacketRate | None = None
    multicast: PacketRate | None = Field(None, description="to group addresses but broadcast")
    unknown_unicast: PacketRate | None = Field(None, description="to MACs that nobody declared or learned")

    def over(self, default: Storm) -> Storm:
        """These limits, and those of the default where this has none."""
        given = {key: value for key, value in self if value is not None}
        return default.model_copy(update=given)

    def __bool__(self) -> bool:
        return any(value is not None for _, value in self)
