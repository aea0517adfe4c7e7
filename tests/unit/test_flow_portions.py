"""Reading in portions: together they are every flow there is, and none is in two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vswitchctl.drivers.openflow.portions import ALL_TABLES, MOST_BITS, PORTION, Portion, portions

TABLES = st.integers(0, 254)
COOKIES = st.integers(0, 2**64 - 1)


def holds(portion: Portion, table: int, cookie: int) -> bool:
    return portion.table in (table, ALL_TABLES) and not (cookie ^ portion.cookie) & portion.mask


@given(st.dictionaries(TABLES, st.integers(1, 2_000_000), min_size=1, max_size=20), COOKIES, st.data())
def test_every_flow_is_in_one_portion(counts: dict[int, int], cookie: int, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(counts)))
    assert sum(holds(portion, table, cookie) for portion in portions(counts)) == 1


def test_a_small_bridge_is_one_request_and_a_large_table_many() -> None:
    assert portions({}) == portions({0: PORTION - 1, 9: 1}) == [Portion()]
    assert len(portions({0: 1, 9: PORTION})) == 1 + 2
    assert len(portions({9: 100_000})) == 32
    assert len(portions({9: 10_000_000})) == 1 << MOST_BITS
