"""The log of ACLs: packets that a rule met, as lines in the daemon's log and in a ring to be read.

The switch sends up a copy of what a logged rule meets (`Opcode.LOG`), by the cookie of the rule's flow. Its
meter for controllers bounds how many; here each rule has lines for its own rate, and the rest is counted.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from vswitchctl.errors import VswitchctlError
from vswitchctl.model.intent import Intent
from vswitchctl.model.policy import Rule
from vswitchctl.model.state import Owner
from vswitchctl.model.views import AclLogLine
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.ip import frame_words
from vswitchctl.pipeline.punt import PacketIn, PacketOut
from vswitchctl.pipeline.registers import ZONE

LOG = logging.getLogger(__name__)

KEPT = 1000
"""Lines to be read; the oldest go first."""


@dataclass(frozen=True, slots=True)
class _Logged:
    """A rule that logs. interfaces: by their conntrack zone."""

    topology: str
    acl: str
    number: int
    rule: Rule
    interfaces: dict[int, str]


class _Rate:
    """A bucket of one second's lines, as RFC 2697 fills its committed one. left_out: since the last line."""

    def __init__(self, now: float) -> None:
        self._tokens: float | None = None
        self._then = now
        self.left_out = 0

    def allows(self, rate: int, now: float) -> bool:
        tokens = rate if self._tokens is None else self._tokens + (now - self._then) * rate
        self._then = now
        self._tokens = min(tokens, rate)
        if self._tokens < 1:
            self.left_out += 1
            return False
        self._tokens -= 1
        return True


class AclLog:
    """Thread-safe. read: the stored topologies, the same object until something changes.

    clock: seconds, for rates alone.
    """

    def __init__(self, read: Callable[[], Intent], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._intent: Intent | None = None
        self._rules: dict[int, _Logged] = {}
        self._rates: dict[int, _Rate] = {}
        self._lines: deque[AclLogLine] = deque(maxlen=KEPT)
        self._changed = threading.Condition()
        self._last = 0

    def note(self, packet: PacketIn) -> tuple[PacketOut, ...]:
        """Write down what a rule met; nothing goes back. From the thread of packets that come up."""
        logged = self._rule(packet.cookie)
        if logged is not None and logged.rule.log is not None:
            now = self._clock()
            rate = self._rates.setdefault(packet.cookie, _Rate(now))
            if rate.allows(logged.rule.log.rate, now):
                self._write(logged, packet, rate.left_out)
                rate.left_out = 0
        return ()

    def lines(self, after: int = 0, timeout: float = 0.0) -> tuple[AclLogLine, ...]:
        """Lines of a number above `after`; waits for one for up to `timeout` seconds.

        Numbers begin anew with the daemon: a number that it has not come to stands for the beginning.
        """
        with self._changed:
            if after > self._last:
                after = 0
            self._changed.wait_for(lambda: self._last > after, timeout)
            return tuple(line for line in self._lines if line.number > after)

    def _rule(self, number: int) -> _Logged | None:
        """The rule of a cookie. While the database cannot be read, rules are what they were."""
        try:
            intent = self._read()
        except VswitchctlError as error:
            LOG.debug("the log of ACLs goes by the rules as last read: %s", error)
        else:
            if intent is not self._intent:
                self._intent, self._rules = intent, _logged_rules(intent)
                self._rates = {key: rate for key, rate in self._rates.items() if key in self._rules}
        return self._rules.get(number)

    def _write(self, logged: _Logged, packet: PacketIn, left_out: int) -> None:
        with self._changed:
            self._last += 1
            line = AclLogLine(
                number=self._last, time=datetime.now(UTC), topology=logged.topology, acl=logged.acl,
                rule=logged.number, description=logged.rule.description, verdict=logged.rule.action,
                direction=logged.rule.direction, bridge=packet.bridge,
                interface=logged.interfaces.get(packet.register(ZONE), ""),
                packet=frame_words(packet.data), left_out=left_out,
            )  # fmt: skip
            self._lines.append(line)
            self._changed.notify_all()
        LOG.info("%s", line_text(line))


def line_text(line: AclLogLine) -> str:
    """key=value pairs; texts of the topology in quotes and escaped, so that none forges a line."""
    pairs = {
        "acl": f"{line.topology}/{line.acl}",
        "rule": line.rule,
        "verdict": line.verdict,
        "direction": line.direction,
        "interface": line.interface,
        "bridge": line.bridge,
        "packet": json.dumps(line.packet),
        "description": json.dumps(line.description),
        "left_out": line.left_out,
    }
    return " ".join(f"{key}={value}" for key, value in pairs.items() if value not in ("", '""', 0))


def _logged_rules(intent: Intent) -> dict[int, _Logged]:
    found = {}
    for name, stored in intent.items():
        interfaces = {zone: end for end, zone in stored.zones.items()}
        for acl, rules in stored.topology.acls.items():
            owner = Owner(name, f"acls/{acl}")
            for number, rule in enumerate(rules, 1):
                if rule.log is not None:
                    found[cookie(owner, number)] = _Logged(name, acl, number, rule, interfaces)
    return found
