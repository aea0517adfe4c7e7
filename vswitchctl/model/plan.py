"""A plan: ordered changes, each with its reason, and what became of them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vswitchctl.model.state import Owner


class Action(StrEnum):
    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


class Kind(StrEnum):
    """Kinds of resources, in the order they are added; removal goes in reverse."""

    NAMESPACE = "namespace"
    LINUX_BRIDGE = "linux-bridge"
    VETH = "veth"
    TAP = "tap"
    TUN = "tun"
    BRIDGE = "bridge"
    PORT = "port"
    METER = "meter"
    FLOW = "flow"


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one resource.

    key: the resource's key in its state mapping (a flow's is (bridge, FlowKey)).
    desired is None for a removal, observed is None for an addition. Values are the specs of `model/state.py`.
    """

    kind: Kind
    action: Action
    key: Any
    owner: Owner
    desired: Any
    observed: Any
    reason: str

    @property
    def name(self) -> str:
        """The resource's name for a person."""
        return self.key if isinstance(self.key, str) else ":".join(str(part) for part in self.key)


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that was refused, by whom and why. It concerns its entity alone."""

    change: Change
    message: str
    retryable: bool = True
