"""Access control: the rules of an ACL, and the groups that they name. Frozen pydantic models, no I/O."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

MAX_RULES, MAX_ACLS = 1000, 32
"""Rules of an ACL and ACLs of an interface: each rule has an OpenFlow priority (16 bits) of its own."""

PROTOCOLS = ("any", "tcp", "udp", "sctp", "icmp", "icmpv6")
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
ICMP_PROTOCOLS = ("icmp", "icmpv6")

ND_TYPES = range(133, 137)
"""Router and Neighbour Solicitation and Advertisement, RFC 4861 section 4: they pass whatever an ACL says."""


PORT_MEANT = "neither a port nor a range of ports; write 80, or 8000-8100 with the lower one first"


def _cidr(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("an address or subnet is a text, e.g. 10.1.0.0/24")
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"not an address or subnet, e.g. 10.1.0.0/24: {error}") from error


def _port(value: Any) -> int | str:
    text = str(value)
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if found is None or isinstance(value, bool):
        raise ValueError(PORT_MEANT)
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last <= 65535:
        raise ValueError(PORT_MEANT)
    return first if first == last else f"{first}-{last}"


def _protocol(value: Any) -> int | str:
    found = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,3}", value) else value
    if found in PROTOCOLS or (type(found) is int and found in range(256)):
        return found
    raise ValueError(f"not a protocol; write {_or(PROTOCOLS)}, or a number from 0 to 255")


def _peer(value: Any) -> Any:
    if value == "any":
        return {}
    return {"cidr": value} if isinstance(value, str) else value


def _log(value: Any) -> Any:
    if value in (True, False) and isinstance(value, bool):
        return {} if value else None
    return value


Cidr = Annotated[str, BeforeValidator(_cidr)]
Port = Annotated[int | str, BeforeValidator(_port)]
Protocol = Annotated[int | str, BeforeValidator(_protocol)]


class Peer(BaseModel):
    """The other side of a rule: a subnet, a network, a group or an interface; none of them is anybody."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cidr: Cidr | None = None
    network: str | None = None
    group: str | None = None
    interface: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Peer:
        if len(self.named) > 1:
            raise ValueError("a peer is one of cidr, network, group and interface; write a rule for each")
        return self

    @property
    def named(self) -> dict[str, str]:
        """What is given: nothing for anybody, else one key and its value."""
        return {key: value for key, value in self if value is not None}


AnyPeer = Annotated[Peer, BeforeValidator(_peer)]

MOST_LINES = 1000
"""Log lines a second that a rule may ask for: as many packets as a bridge sends up."""


class Log(BaseModel):
    """A rule's log: a line for the packets that it decides about, of connections for those that open one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: int = Field(10, ge=1, le=MOST_LINES, description="lines a second, at most")


AnyLog = Annotated[Log | None, BeforeValidator(_log)]


class RuleBase(BaseModel):
    """One rule; the first one that matches decides. Directions are seen from the interface."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    direction: Literal["in", "out"] = Field(description="in: towards the interface; out: from it")
    action: Literal["allow", "deny", "reject"] = Field(description="reject: denied, and the sender is told")
    protocol: Protocol = "any"
    ports: tuple[Port, ...] = Field((), description="destination ports of tcp, udp or sctp")
    icmp_type: int | None = Field(None, ge=0, le=255)
    stateful: bool = Field(True, strict=True, description="false: decides about each packet by itself")
    log: AnyLog = Field(None, description="true, or {rate: lines a second}: says which packets it met")

    @model_validator(mode="after")
    def _fits(self) -> RuleBase:
        if self.ports and self.protocol not in PORT_PROTOCOLS:
            raise ValueError(f"ports without a protocol that has any; add {_or(PORT_PROTOCOLS)} as protocol")
        if self.icmp_type is not None and self.protocol not in ICMP_PROTOCOLS:
            raise ValueError(f"icmp_type of a protocol without; add {_or(ICMP_PROTOCOLS)} as protocol")
        wrong = "to" if self.direction == "in" else "from"
        if getattr(self, wrong).named:
            right = "from" if self.direction == "in" else "to"
            raise ValueError(f"'{wrong}' in a rule of direction {self.direction}; the peer is in '{right}'")
        return self

    @property
    def peer(self) -> Peer:
        """Who the interface talks to: the source of what comes in, the destination of what goes out."""
        found: Peer = getattr(self, "from" if self.direction == "in" else "to")
        return found


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


if TYPE_CHECKING:
    Rule = RuleBase
else:
    # 'from' is a word of Python, so no class statement can declare it.
    Rule = create_model(
        "Rule",
        __base__=RuleBase,
        __doc__=RuleBase.__doc__,
        **{"from": (AnyPeer, Peer()), "to": (AnyPeer, Peer())},
    )
