"""Which flows a query asks for, and how each is shown. Pure: flows in, views out, one at a time."""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vswitchctl.errors import NotFound, UserError
from vswitchctl.model.flow import CountedFlow, Flow, FlowKey, FlowTable, cookie
from vswitchctl.model.query import FlowQuery
from vswitchctl.model.state import Owner
from vswitchctl.model.views import FlowView
from vswitchctl.pipeline import cookies
from vswitchctl.pipeline.actions import load
from vswitchctl.pipeline.decode import describe
from vswitchctl.pipeline.fields import IN_PORT
from vswitchctl.pipeline.registers import NETWORK, OUT_PORT, Bits
from vswitchctl.pipeline.tables import TABLES
from vswitchctl.pipeline.words import Names, action_words, match_words
from vswitchctl.service.matching import Known, known_fields, oxm_fields, would_match
from vswitchctl.service.names import HostNames, Scope
from vswitchctl.topology.nearest import one_of

Drift = Literal["", "missing", "differs", "stale"]

Test = Callable[[FlowKey, bytes], bool]
"""Whether a flow, as key and value, is one."""

MOST_WORDS = 4096
"""Texts that are kept while a query is answered."""

WINDOW = 1.0
"""Seconds over which rates are measured where they are asked for without a window."""


class Found(NamedTuple):
    """A flow that was asked for. drift: of source=diff, see `FlowView`."""

    bridge: str
    flow: CountedFlow
    drift: Drift = ""


Rates = Mapping[tuple[str, FlowKey], CountedFlow]
"""The counters of a moment before, by bridge and key."""


class Selection:
    """A query as tests of flows, cheapest first. Raises NotFound and UserError where it makes no sense."""

    def __init__(self, query: FlowQuery, names: HostNames) -> None:
        self._query = query
        self._names = names
        if query.rule is not None and query.acl is None and query.entity is None:
            raise UserError("which ACL's rule?", "give its ACL, too: acl=web")
        self._tables = None if query.table is None else _table_ids(query.table)
        self._cookie = None if query.cookie is None else _cookie(query.cookie)
        self._known: Known = known_fields(query.match)
        self._packet: Known = {} if query.packet is None else known_fields([query.packet], whole=True)
        asked = (
            (query.tenant, names.tenant),
            (query.network, names.network),
            (query.port, names.port),
            (query.acl, names.acl),
            (query.entity, self._entity),
        )
        self._scopes = [find(text) for text, find in asked if text is not None]

    @property
    def bridges(self) -> tuple[str, ...]:
        """Those where such flows may be."""
        names, query = self._names, self._query
        if query.topology is not None:
            names.topology(query.topology)
        if query.bridge is not None:
            names.bridge(query.bridge)
        return tuple(
            name
            for name, spec in sorted(names.bridges.items())
            if query.bridge in (None, name) and query.topology in (None, spec.owner.topology)
        )

    def on(self, bridge: str) -> Test:
        """The whole of the conditions, for flows of one bridge."""
        tests: list[Test] = []
        if self._tables is not None:
            tests.append(_in_tables(self._tables))
        if self._cookie is not None:
            tests.append(_of_cookie(*self._cookie))
        if self._query.rule is not None:
            tests.append(_of_rule(self._query.rule))
        topology = self._names.bridge(bridge).owner.topology
        tests += [_in_scope(scope, bridge, topology) for scope in self._scopes]
        tests += [_matching(known) for known in (self._known, self._packet) if known]
        return _all(tests)

    def _entity(self, text: str) -> Scope:
        """'two-tenants/networks/red-web', or 'networks/red-web' of any topology."""
        names = self._names.intent
        topology, _, rest = text.partition("/")
        owners = [Owner(topology, rest)] if topology in names else [Owner(name, text) for name in names]
        return Scope(frozenset(owners))


def _table_ids(text: str) -> frozenset[int]:
    """By names or numbers, with commas."""
    ids = {table.name: table.id for table in TABLES}
    found = set()
    for word in text.split(","):
        if word.isdigit() and int(word) < 255:
            found.add(int(word))
        elif word in ids:
            found.add(ids[word])
        else:
            raise NotFound(f"no table '{word}'", one_of(word, list(ids), "tables are:") or ", ".join(ids))
    return frozenset(found)


def _cookie(text: str) -> tuple[int, int]:
    value, slash, mask = text.partition("/")
    try:
        wanted = int(mask, 0) if slash else (1 << 64) - 1
        return int(value, 0) & wanted, wanted
    except ValueError:
        raise UserError(f"'{text}' is no cookie", "one is 0x76..., with a mask behind a slash") from None


def _all(tests: Sequence[Test]) -> Test:
    """Every flow of a switch is tested, so that a generator for each would be most of the time."""
    if not tests:
        return lambda key, value: True
    first = tests[0]
    if len(tests) == 1:
        return first
    rest = _all(tests[1:])
    return lambda key, value: first(key, value) and rest(key, value)


def _of_rule(number: int) -> Test:
    """The last bytes of the cookie, which a flow's value begins with."""
    wanted = number.to_bytes(cookies.RULE_BITS // 8, "big")
    return lambda key, value: value[6:8] == wanted


def _in_tables(tables: frozenset[int]) -> Test:
    return lambda key, value: key[0] in tables


def _of_cookie(wanted: int, mask: int) -> Test:
    return lambda key, value: (cookie(value) ^ wanted) & mask == 0


def _matching(known: Known) -> Test:
    return lambda key, value: would_match(key[3:], known)


def _in_scope(scope: Scope, bridge: str, topology: str) -> Test:
    """Its owner's, or one that matches or chooses a network or a port of it."""
    mine = frozenset(cookies.cookie(owner).to_bytes(8, "big")[:6] for owner in scope.owners)
    tags = [tag for of, tag in scope.tags if of == topology]
    ports = scope.ports.get(bridge, frozenset())
    if not tags and not ports:
        return lambda key, value: value[:6] in mine
    loads = [_loaded(NETWORK, tag) for tag in tags] + [_loaded(OUT_PORT, port) for port in ports]
    registers = {
        NETWORK.field.header & ~0x1FF: (NETWORK.mask, frozenset(tags)),
        OUT_PORT.field.header & ~0x1FF: (OUT_PORT.mask, ports),
        IN_PORT.header & ~0x1FF: (-1, ports),
    }

    def test(key: FlowKey, value: bytes) -> bool:
        if value[:6] in mine or any(one in value for one in loads):
            return True
        for name, number, mask in oxm_fields(key[3:]):
            bits, wanted = registers.get(name, (0, frozenset()))
            if wanted and mask & bits and number & bits in wanted:
                return True
        return False

    return test


def _loaded(bits: Bits, value: int) -> bytes:
    """The bytes of the action in a flow."""
    return b"".join(part for part in load(bits, value).parts if isinstance(part, bytes))


def differences(desired: FlowTable, observed: Iterable[CountedFlow]) -> Iterator[tuple[CountedFlow, Drift]]:
    """Flows that are not as declared, and how; not those of others, and not what the switch learned."""
    missing = dict(desired)
    for flow in observed:
        mark = cookie(flow.value)
        wanted = missing.pop(flow.key, None)
        if wanted is None and cookies.is_ours(mark) and not cookies.is_learned(mark):
            yield flow, "stale"
        elif wanted is not None and wanted != flow.value:
            yield flow, "differs"
    yield from ((counted(key, value), "missing") for key, value in missing.items())


def counted(key: FlowKey, value: bytes) -> CountedFlow:
    """A flow that is in no switch."""
    return CountedFlow(key, value, 0, 0, 0.0)


def in_order(found: Iterable[Found], query: FlowQuery, before: Rates) -> Iterator[Found]:
    """As the query wants them; holds them all only where it must."""
    if query.sort == "none":
        return itertools.islice(found, query.limit)
    rank = _rank(query.sort, before)
    if query.limit is not None:
        return iter(heapq.nsmallest(query.limit, found, key=rank))
    return iter(sorted(found, key=rank))


def _rank(sort: str, before: Rates) -> Callable[[Found], tuple[object, ...]]:
    place: Callable[[Found], tuple[object, ...]] = lambda one: (  # noqa: E731
        one.bridge, one.flow.key[0], -int.from_bytes(one.flow.key[1:3], "big"), one.flow.key[3:]
    )  # fmt: skip
    first: dict[str, Callable[[Found], float]] = {
        "packets": lambda one: -one.flow.packets,
        "bytes": lambda one: -one.flow.octets,
        "age": lambda one: one.flow.seconds,
        "rate": lambda one: -(rates(one, before)[0] or 0.0),
    }
    return place if sort not in first else lambda one: (first[sort](one), *place(one))


def rates(one: Found, before: Rates) -> tuple[float | None, float | None]:
    """Packets and bytes a second since the moment before, by the switch's own clock."""
    was = before.get((one.bridge, one.flow.key))
    if was is None or one.flow.seconds <= was.seconds:
        return None, None
    seconds = one.flow.seconds - was.seconds
    return (
        round(max(0, one.flow.packets - was.packets) / seconds, 3),
        round(max(0, one.flow.octets - was.octets) / seconds, 3),
    )


@dataclass
class Viewer:
    """Shows flows of one host. owners: cookie without its rule -> entity, of what is declared now."""

    names: HostNames
    owners: Mapping[int, Owner]
    before: Rates = field(default_factory=dict)
    _bridges: dict[str, Names] = field(default_factory=dict)
    _words: dict[tuple[str, str], str] = field(default_factory=dict)

    def view(self, one: Found) -> FlowView:
        said = describe(Flow(one.flow.key, one.flow.value))
        names = self._bridges.get(one.bridge)
        if names is None:
            names = self._bridges[one.bridge] = self.names.of_bridge(one.bridge)
        owner = self.owners.get(cookies.without_rule(said.cookie))
        number = cookies.rule_number(said.cookie) if owner is not None else 0
        if cookies.is_learned(said.cookie):
            owner = self._learned_from(one.bridge, said.actions_text)
        packets, octets = rates(one, self.before)
        return FlowView(
            bridge=one.bridge,
            table=said.table_name,
            table_id=one.flow.key[0],
            priority=said.priority,
            match=said.match_text,
            actions=said.actions_text,
            words=f"{match_words(said.match_text, names)} → {self._does(one.bridge, said.actions_text)}",
            cookie=f"0x{said.cookie:016x}",
            entity=owner.text if owner is not None else "",
            rule=number,
            source=self.names.source(owner) if owner is not None else None,
            packets=one.flow.packets,
            bytes=one.flow.octets,
            packets_per_second=packets,
            bytes_per_second=octets,
            age=round(one.flow.seconds, 3),
            idle_timeout=said.idle_timeout,
            hard_timeout=said.hard_timeout,
            drift=one.drift,
        )

    def _does(self, bridge: str, actions: str) -> str:
        """Many flows do the same."""
        key = bridge, actions
        if key not in self._words:
            if len(self._words) >= MOST_WORDS:
                self._words.clear()
            self._words[key] = action_words(actions, self._bridges[bridge])
        return self._words[key]

    def _learned_from(self, bridge: str, actions: str) -> Owner | None:
        """Of a flow that the switch learned: the port that it leads to."""
        port = _LEARNED_PORT.search(actions)
        return None if port is None else self.names.port_owners.get((bridge, int(port[1], 0)))


_LEARNED_PORT = re.compile(r"load:(\w+)->reg1\[")
