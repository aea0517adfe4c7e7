"""The keyed diff, the ordered plan with its reasons, and the back-off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.model.plan import Action, Change, Kind
from vswitchctl.model.state import (
    DesiredState,
    NamespaceSpec,
    NetlinkState,
    ObservedNetlink,
    ObservedOvs,
    OvsBridgeSpec,
    OvsPortSpec,
    OvsState,
    Owner,
    PortKey,
    RouteSpec,
    VethEnd,
    VethSpec,
    parse_alias,
    parse_owner,
)
from vswitchctl.reconcile.backoff import FIRST, LONGEST, BackOff
from vswitchctl.reconcile.delta import diff
from vswitchctl.reconcile.plan import WiringPlan, difference, plan_wiring
from vswitchctl.reconcile.work import overtaken

OWNER, OTHER = Owner("t", "links/w:eth0--a"), Owner("t", "links/x:eth0--a")
KEYED = st.dictionaries(st.integers(0, 8), st.integers(0, 3))


@given(KEYED, KEYED)
def test_applying_a_delta_gives_the_desired_state(desired: dict[int, int], observed: dict[int, int]) -> None:
    delta = diff(desired, observed)
    result = {key: value for key, value in observed.items() if key not in delta.remove}
    result |= delta.add | {key: after for key, (_, after) in delta.change.items()}
    assert result == desired
    assert bool(delta) == (desired != observed)
    assert not delta.add.keys() & observed.keys()


def changes_to(state: DesiredState, netlink: ObservedNetlink, ovs: ObservedOvs) -> WiringPlan:
    return plan_wiring(state.netlink, state.ovs, netlink, ovs)


def veth(mtu: int = 1500, mac: str = "02:00:00:00:00:01") -> VethSpec:
    return VethSpec(OWNER, VethEnd("", "v-1", mtu), VethEnd("w", "eth0", mtu, mac, tx_checksum=False))


def desired() -> DesiredState:
    return DesiredState(
        NetlinkState(namespaces={"w": NamespaceSpec(Owner("t", "nodes/w"))}, veths={OWNER.text: veth()}),
        OvsState(
            {"a": OvsBridgeSpec(Owner("t", "nodes/a"), "netdev")}, {PortKey("a", "v-1"): OvsPortSpec(OWNER)}
        ),
    )


def nothing() -> tuple[ObservedNetlink, ObservedOvs]:
    return (
        ObservedNetlink(NetlinkState(), {}, {}, {}),
        ObservedOvs(OvsState(), {}, {}, {}, frozenset({"netdev"}), ()),
    )


def there(state: DesiredState) -> tuple[ObservedNetlink, ObservedOvs]:
    return (
        ObservedNetlink(state.netlink, {}, {}, {}),
        ObservedOvs(state.ovs, {}, {}, {}, frozenset({"netdev"}), ()),
    )


def test_all_is_added_in_dependency_order() -> None:
    kinds = [(change.kind, change.action) for change in changes_to(desired(), *nothing())]
    assert kinds == [
        (Kind.NAMESPACE, Action.ADD),
        (Kind.VETH, Action.ADD),
        (Kind.BRIDGE, Action.ADD),
        (Kind.PORT, Action.ADD),
    ]


def test_all_is_removed_in_reverse() -> None:
    plan = changes_to(DesiredState(), *there(desired()))
    assert [change.kind for change in plan.netlink_down] == [Kind.VETH, Kind.NAMESPACE]
    assert {change.action for change in plan} == {Action.REMOVE}
    assert {change.owner.topology for change in plan} == {"t"}


def test_what_is_as_declared_is_left_alone() -> None:
    assert not changes_to(desired(), *there(desired()))


def test_a_broken_pair_is_a_change_and_then_a_removal() -> None:
    netlink, ovs = there(desired())
    broken = ObservedNetlink(
        NetlinkState(netlink.owned.namespaces), {OWNER.text: (VethEnd("", "v-1", 1500),)}, {}, {}
    )
    (change,) = changes_to(desired(), broken, ovs)
    assert (change.action, change.owner) == (Action.CHANGE, OWNER)
    assert "missing" in change.reason
    removal = changes_to(DesiredState(), broken, nothing()[1]).netlink_down
    assert (Kind.VETH, OWNER) in [(change.kind, change.owner) for change in removal]


def test_reasons_say_what_differs() -> None:
    assert difference(veth(1500), veth(1400)) == "mtu 1500 -> 1400, mtu 1500 -> 1400"
    routes = frozenset({RouteSpec("0.0.0.0/0", "10.0.0.1")})
    before = NamespaceSpec(Owner("t", "nodes/w"))
    assert difference(before, NamespaceSpec(before.owner, routes)) == "routes {} -> {0.0.0.0/0 via 10.0.0.1}"


def test_owners_survive_their_text() -> None:
    assert parse_owner(OWNER.text) == OWNER
    assert parse_alias(OWNER.alias) == OWNER
    assert parse_alias("uplink to rack 4") is None
    assert parse_alias(None) is None


def test_back_off_grows_to_its_limit_and_ends_with_success() -> None:
    back_off = BackOff()
    waits = []
    now = 0.0
    for _ in range(12):
        back_off.failed(OWNER, now)
        due = back_off.next_due()
        assert due is not None
        assert back_off.waiting(OWNER, now)
        waits.append(due - now)
        now = due
        assert not back_off.waiting(OWNER, now)
    assert waits[0] == FIRST
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    back_off.succeeded(OWNER)
    assert back_off.next_due() is None


def test_an_edited_topology_starts_afresh_and_others_do_not() -> None:
    back_off = BackOff()
    other = Owner("u", "nodes/x")
    back_off.failed(OWNER, 0.0)
    back_off.failed(other, 0.0)
    back_off.forget("t")
    assert not back_off.waiting(OWNER, 0.0)
    assert back_off.waiting(other, 0.0)


def test_a_port_that_moves_leaves_the_old_bridge_with_the_same_transaction() -> None:
    state = desired()
    moved = DesiredState(
        state.netlink, OvsState(state.ovs.bridges, {PortKey("b", "v-1"): OvsPortSpec(OWNER)})
    )
    plan = changes_to(moved, *there(state))
    assert [(change.action, change.key) for change in plan.ovs_up] == [
        (Action.REMOVE, PortKey("a", "v-1")),
        (Action.ADD, PortKey("b", "v-1")),
    ]
    assert not plan.ovs_down


def test_what_is_left_to_do_waits_for_a_retry_only_where_it_was_tried() -> None:
    """A TAP that goes while its port is added leaves a port to remove, and its successor's to add."""
    spec, other = OvsPortSpec(OWNER), OvsPortSpec(OTHER)
    add = Change(Kind.PORT, Action.ADD, PortKey("a", "vnet0"), OWNER, spec, None, "")
    remove = Change(Kind.PORT, Action.REMOVE, PortKey("a", "vnet0"), OWNER, None, spec, "")
    successor = Change(Kind.PORT, Action.ADD, PortKey("a", "vnet1"), OWNER, spec, None, "")
    others = Change(Kind.PORT, Action.ADD, PortKey("a", "v-2"), OTHER, other, None, "")
    assert overtaken([add], []) == set()
    assert overtaken([add], [add]) == set()
    assert overtaken([add], [remove]) == {OWNER}
    assert overtaken([add, others], [remove, successor, others]) == {OWNER}
    assert overtaken([add], [remove, add]) == set()
    assert overtaken([add], [others]) == set(), "nobody tried that one"
