"""ACLs: stateful by conntrack, one zone per interface; rules cost flows per set of ACLs, not per port.

Tables ct, acl and commit, once for what interfaces send (from: 40, 50, 55) and once for what goes to them
(to: 90, 100, 105). A packet of a connection's original direction is held against the rules each time, so that
a rule revoked ends what it had allowed: the connection is marked, and its replies are dropped from then on.

Open vSwitch matches no ports in fragments, but conntrack puts packets together. Of the first one it knows
the ports, so stateful rules take the connection's (of ICMP the type), which are the packet's own in its
original direction. Of the others Open vSwitch 3.1 knows the state alone. They pass: without the first, whose
verdict counts, nobody can make anything of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from openflow_apps.answers import reject
from vswitchctl.model.flow import Flow
from vswitchctl.model.policy import ND_TYPES
from vswitchctl.model.switch import AclRule, AclSet, AddressTerm, PortAcl, Switch, SwitchPort
from vswitchctl.pipeline import fields as f
from vswitchctl.pipeline.actions import Action, conjunction, ct, load
from vswitchctl.pipeline.cookies import cookie
from vswitchctl.pipeline.encode import Match, MatchValue, Template, Var, flow
from vswitchctl.pipeline.fields import Field
from vswitchctl.pipeline.punt import Answer, Opcode, PacketIn, PacketOut, continue_in, punt
from vswitchctl.pipeline.registers import (
    ACL_SET,
    DENIED,
    FLOODED,
    NETWORK,
    OUT_PORT,
    REJECTED,
    ZONE,
    Bits,
)
from vswitchctl.pipeline.tables import (
    ACL_FROM,
    ACL_TO,
    COMMIT_FROM,
    COMMIT_TO,
    CT_FROM,
    CT_TO,
    L2_LEARNING,
    OUTPUT,
    Table,
)

BACK, NEIGHBOURS, TRACKED, UNTRACKABLE, DEFAULT = 130, 120, 100, 90, 0
"""Priorities of ct: back to the sender; ARP and ND; IP of a port with ACLs; its other frames; others."""

STATELESS, INVALID, ENDED, REPLY, STATEFUL, OPEN = 65000, 32990, 32980, 32970, 32500, 100
"""Priorities of acl: stateless rules, what conntrack says, stateful rules, directions without rules.

The rule at position n of its set has n less than its kind: 32 ACLs of 1000 rules fit in each.
"""

REVOKED_TOLD, STATELESS_TOLD, STATELESS_REJECT = 120, 111, 110
REVOKED, REFUSED_TOLD, REFUSED, ALLOWED = 100, 95, 90, 80
"""Priorities of commit. Told: the sender is."""

NEW, EST, REL, RPL, INV = 1, 2, 4, 8, 16
"""Flags of ct_state, ovs-fields(7)."""

LATER = (2, 2)
"""ip_frag: any fragment but the first, ovs-fields(7)."""

MARK = Bits(f.CT_MARK, 0, 1, "ct_mark")
"""Of a connection: 1 once a packet of its original direction was denied."""

FAMILIES = {4: f.ETH_TYPE_IPV4, 6: f.ETH_TYPE_IPV6}
PORTS = {f.PROTO_TCP: f.TCP_DST, f.PROTO_UDP: f.UDP_DST, f.PROTO_SCTP: f.SCTP_DST}
ICMP_TYPES = {f.PROTO_ICMP: f.ICMP_TYPE, f.PROTO_ICMPV6: f.ICMPV6_TYPE}
IPS = tuple(FAMILIES.values())


def _is(*flags: int) -> tuple[int, int]:
    """A match on ct_state: all of the flags."""
    return sum(flags), sum(flags)


class Stage:
    """The three tables of one side. peer: family (0: MAC) -> the field with the other side's address."""

    def __init__(
        self, tables: tuple[Table, Table, Table, Table], port: Field | Bits, peer: dict[int, Field]
    ) -> None:
        self.ct, self.acl, self.commit, self.next = tables
        self.port = port
        self.peer = peer
        self.inbound = port is OUT_PORT
        entering = [load(ZONE, Var("zone")), load(ACL_SET, Var("set")), ct(ZONE, table=self.acl)]
        self._tracked = [
            Template(self.ct, TRACKED, {port: Var("port"), f.ETH_TYPE: ip}, entering) for ip in IPS
        ]
        self._untrackable = Template(self.ct, UNTRACKABLE, {port: Var("port")})
        # A flood comes by the port it came from, too. There conntrack would take it for one coming in.
        self._back = Template(CT_TO, BACK, {f.IN_PORT: Var("port"), OUT_PORT: Var("port")})
        self._shared = [
            *self._neighbours(),
            *self._states(),
            *self._commits(),
            Template(self.acl, DEFAULT, {}, [load(DENIED, 1)], goto=self.commit),
        ]
        self._rejecting = list(self._rejects())
        self._without = Template(self.ct, DEFAULT, {}, goto=self.next)

    def _neighbours(self) -> Iterator[Template]:
        """ARP and ND find out who is there, whatever the rules."""
        yield Template(self.ct, NEIGHBOURS, {f.ETH_TYPE: f.ETH_TYPE_ARP}, goto=self.next)
        for kind in ND_TYPES:
            match: Match = {
                f.ETH_TYPE: f.ETH_TYPE_IPV6,
                f.IP_PROTO: f.PROTO_ICMPV6,
                f.ICMPV6_TYPE: kind,
            }
            yield Template(self.ct, NEIGHBOURS, match, goto=self.next)

    def _states(self) -> Iterator[Template]:
        """Where conntrack decides: not about packets of a connection's original direction."""
        yield Template(self.acl, INVALID, {f.CT_STATE: _is(INV)})
        for answer in (RPL, REL):
            yield Template(self.acl, ENDED, {f.CT_STATE: _is(answer), f.CT_MARK: (1, 1)})
        yield Template(self.acl, REPLY, {f.CT_STATE: _is(EST, RPL)}, goto=self.next)
        yield Template(self.acl, REPLY - 1, {f.CT_STATE: _is(REL)}, goto=self.next)
        for ip in IPS:
            later: Match = {f.ETH_TYPE: ip, f.IP_FRAG: LATER}
            ended: Match = {**later, f.CT_STATE: _is(EST), f.CT_MARK: (1, 1)}
            yield Template(self.acl, ENDED, ended)
            yield Template(self.acl, REPLY - 2, later, goto=self.commit)

    def _commits(self) -> Iterator[Template]:
        """+new is remembered; a mark is set, or taken away again, where the rules changed their mind."""
        known: Match = {f.CT_STATE: _is(EST), f.CT_MARK: (0, 1)}
        ended: Match = {f.CT_STATE: _is(EST), f.CT_MARK: (1, 1)}
        end, resume = ([load(MARK, value)] for value in (1, 0))
        for ip in IPS:
            family: Match = {f.ETH_TYPE: ip}
            denied: Match = {**family, DENIED: 1, **known}
            yield Template(self.commit, REVOKED, denied, [ct(ZONE, commit=True, execute=end)])
            fresh: Match = {**family, f.CT_STATE: _is(NEW)}
            yield Template(self.commit, ALLOWED, fresh, [ct(ZONE, commit=True)], goto=self.next)
            again: Match = {**family, **ended}
            back = [ct(ZONE, commit=True, execute=resume)]
            yield Template(self.commit, ALLOWED, again, back, goto=self.next)
        yield Template(self.commit, REFUSED, {DENIED: 1})
        yield Template(self.commit, DEFAULT, {}, goto=self.next)

    def _rejects(self) -> Iterator[Template]:
        """As for what is denied, and the sender is told: by TCP or ICMP, so for one that sent to one alone.

        Only the port that a packet is for may answer it, which of a flood's copies nobody can say.
        """
        told = [punt(Opcode.REJECT_RECEIVER if self.inbound else Opcode.REJECT_SENDER)]
        asked: Match = {REJECTED: 1, f.ETH_DST: (0, f.GROUP_BIT)}
        if self.inbound:
            asked = {**asked, FLOODED: 0}
        for ip in IPS:
            revoked: Match = {**asked, DENIED: 1, f.ETH_TYPE: ip, f.CT_STATE: _is(EST), f.CT_MARK: (0, 1)}
            end = ct(ZONE, commit=True, execute=[load(MARK, 1)])
            yield Template(self.commit, REVOKED_TOLD, revoked, [end, *told])
        yield Template(self.commit, STATELESS_TOLD, {**asked, DENIED: 0}, told)
        yield Template(self.commit, STATELESS_REJECT, {REJECTED: 1, DENIED: 0})
        yield Template(self.commit, REFUSED_TOLD, {**asked, DENIED: 1}, told)

    def shared(self, mark: int, acls: Sequence[PortAcl]) -> Iterator[Flow]:
        """What a bridge needs once: one flow as long as no port has ACLs."""
        yield self._without(mark)
        if acls:
            for template in self._shared:
                yield template(mark)
        if any(acl.rejects_in if self.inbound else acl.rejects_out for acl in acls):
            for template in self._rejecting:
                yield template(mark)

    def of_port(self, port: SwitchPort, acl: PortAcl) -> Iterator[Flow]:
        mark = cookie(acl.owner)
        for template in self._tracked:
            yield template(mark, port=port.ofport, zone=acl.zone, set=acl.set)
        if self.inbound:
            yield self._back(mark, port=port.ofport)
        if acl.covers_in if self.inbound else acl.covers_out:
            yield self._untrackable(mark, port=port.ofport)

    def of_set(self, acl_set: AclSet) -> Iterator[Flow]:
        if not acl_set.covers(self.inbound):
            match: Match = {ACL_SET: acl_set.number}
            mark = cookie(acl_set.owner)
            yield flow(self.acl, OPEN, match, goto=self.commit, cookie=mark)
            untracked: Match = {ACL_SET: acl_set.number, f.CT_STATE: _is(INV)}
            yield flow(self.acl, INVALID + 1, untracked, goto=self.next, cookie=mark)
        for rule in acl_set.rules:
            if rule.inbound == self.inbound:
                yield from self._rule(rule, acl_set.number)

    def _rule(self, rule: AclRule, number: int) -> Iterator[Flow]:
        """The flows of a rule: peers and ports as a conjunction where both are several, else each its own."""
        write = _Writer(self, rule, number)
        for family in rule.families_apart:
            base = _base(rule, family)
            peers = _peers(rule, family, self.peer)
            ports = _ports(rule)
            if len(peers) > 1 and len(ports) > 1:
                for at, clauses in enumerate((peers, ports), 1):
                    for clause in clauses:
                        yield write.clause({**base, **clause}, at)
            else:
                for peer in peers:
                    for port in ports:
                        yield from write.verdict({**base, **peer, **port})
        if write.conjunctive:
            yield from write.verdict({f.CONJ_ID: rule.conjunction})


class _Writer:
    """Flows of one rule."""

    def __init__(self, stage: Stage, rule: AclRule, number: int) -> None:
        self._stage = stage
        self._rule = rule
        self._number = number
        self._priority = (STATEFUL if rule.stateful else STATELESS) - rule.position
        self._cookie = cookie(rule.owner, rule.number)
        self.conjunctive = False

    def verdict(self, match: Match) -> Iterator[Flow]:
        """One flow; two where only what opens a connection is logged."""
        if self._rule.logs_opening:
            value, mask = f.CT_VALID if f.CT_STATE in match else (0, 0)
            yield self._verdict({**match, f.CT_STATE: (value | NEW, mask | NEW)}, log=True)
            yield self._verdict({**match, f.CT_STATE: (value, mask | NEW)}, log=False)
        else:
            yield self._verdict(match, log=self._rule.log)

    def _verdict(self, match: Match, log: bool) -> Flow:
        stage, rule = self._stage, self._rule
        actions: list[Action] = [load(DENIED, 1)] if rule.stateful and not rule.allow else []
        goto: Table | None = stage.next if rule.allow else None
        if rule.reject:
            actions.append(load(REJECTED, 1))
        if log:
            actions.append(punt(Opcode.LOG))
        if rule.stateful or rule.reject:
            goto = stage.commit
        whole: Match = {ACL_SET: self._number, **match}
        return flow(stage.acl, self._priority, whole, actions, goto, cookie=self._cookie)

    def clause(self, match: Match, at: int) -> Flow:
        self.conjunctive = True
        part = [conjunction(self._rule.conjunction, at, 2)]
        whole: Match = {ACL_SET: self._number, **match}
        return flow(self._stage.acl, self._priority, whole, part, cookie=self._cookie)


def _base(rule: AclRule, family: int) -> dict[Field | Bits, MatchValue]:
    match: dict[Field | Bits, MatchValue] = {}
    if family:
        match[f.ETH_TYPE] = FAMILIES[family]
    if rule.protocol is not None:
        match[f.IP_PROTO] = rule.protocol
    return match | _icmp_type(rule)


def _of_connection(protocol: int) -> dict[Field | Bits, MatchValue]:
    return {f.CT_STATE: f.CT_VALID, f.CT_NW_PROTO: protocol}


def _icmp_type(rule: AclRule) -> dict[Field | Bits, MatchValue]:
    if rule.protocol is None or rule.icmp_type is None:
        return {}
    if rule.stateful:
        return {**_of_connection(rule.protocol), f.CT_TP_SRC: rule.icmp_type}
    return {ICMP_TYPES[rule.protocol]: rule.icmp_type}


def _peers(rule: AclRule, family: int, fields: dict[int, Field]) -> list[Match]:
    if rule.peers is None:
        return [{}]
    return [_peer(term, fields) for term in rule.peers if term.family in (0, family)]


def _peer(term: AddressTerm, fields: dict[int, Field]) -> Match:
    return {fields[term.family]: (term.value, term.mask)}


def _ports(rule: AclRule) -> list[Match]:
    if rule.ports is None or rule.protocol is None:
        return [{}]
    if rule.stateful:
        return [{**_of_connection(rule.protocol), f.CT_TP_DST: pair} for pair in rule.ports]
    return [{PORTS[rule.protocol]: pair} for pair in rule.ports]


FROM = Stage(
    (CT_FROM, ACL_FROM, COMMIT_FROM, L2_LEARNING), f.IN_PORT, {4: f.IPV4_DST, 6: f.IPV6_DST, 0: f.ETH_DST}
)
TO = Stage((CT_TO, ACL_TO, COMMIT_TO, OUTPUT), OUT_PORT, {4: f.IPV4_SRC, 6: f.IPV6_SRC, 0: f.ETH_SRC})


def to_sender(packet: PacketIn) -> Iterator[PacketOut]:
    """Denied where it entered: the answer leaves by the port it came from."""
    told = reject(packet.data)
    if told is not None:
        where = {NETWORK: packet.register(NETWORK), OUT_PORT: packet.in_port}
        yield continue_in(TO.next, told, where)


def from_receiver(packet: PacketIn) -> Iterator[PacketOut]:
    """Denied before its receiver: the answer takes the way that the receiver's own would take."""
    told = reject(packet.data)
    if told is not None:
        where = {NETWORK: packet.register(NETWORK)}
        yield continue_in(FROM.next, told, where, in_port=packet.register(OUT_PORT))


@lru_cache(maxsize=1024)
def rule_flows(acl_set: AclSet) -> tuple[Flow, ...]:
    """The flows of a set, the same on every bridge: made again only where the set changed."""
    return tuple(flow for stage in (FROM, TO) for flow in stage.of_set(acl_set))


@dataclass(frozen=True)
class Acl:
    """The app. A port without ACLs costs no flow; a bridge without any, two."""

    name: str = "acl"
    tables: tuple[Table, ...] = (CT_FROM, ACL_FROM, COMMIT_FROM, CT_TO, ACL_TO, COMMIT_TO)
    answers: Mapping[int, Answer] = field(
        default_factory=lambda: {Opcode.REJECT_SENDER: to_sender, Opcode.REJECT_RECEIVER: from_receiver}
    )

    def compile(self, switch: Switch) -> Iterator[Flow]:
        """Every flow of one bridge's ACLs."""
        mark = cookie(switch.owner)
        acls = [port.acl for port in switch.ports if port.acl is not None]
        for stage in (FROM, TO):
            if switch.networks:
                yield from stage.shared(mark, acls)
            for port in switch.ports:
                if port.acl is not None:
                    yield from stage.of_port(port, port.acl)
        for acl_set in switch.acl_sets:
            yield from rule_flows(acl_set)


APP = Acl()
