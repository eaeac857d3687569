"""What a ledger says is in use, read as runs: the same addresses as one by one, and quickly."""

import time

from hypothesis import given
from hypothesis import strategies as st

from berth.core.admission import held_in
from berth.core.ledger import Image
from berth.core.ranges import Ranges
from berth.core.settled import SPAN, Settled


@given(
    st.dictionaries(st.integers(0, 5 * SPAN), st.text(min_size=1, max_size=2), max_size=5),
    st.dictionaries(st.integers(0, 4), st.integers(1, 2**SPAN - 1) | st.just(2**SPAN - 1), max_size=3),
    st.none() | st.lists(st.tuples(st.integers(0, 3000), st.integers(3000, 6000)), max_size=2).map(Ranges.of),
)
def test_every_address_of_the_ledger_and_no_other(
    pending: dict[int, str], settled: dict[int, int], within: Ranges | None
) -> None:
    every = Ranges.of((address, address) for address in (*pending, *Settled(settled)))
    assert held_in(Image(1, pending, settled), within) == (every if within is None else every.intersect(within))


def test_two_hundred_full_pools_of_a_16_are_read_in_a_moment() -> None:
    full = Image(1, {}, dict.fromkeys(range(200 * 64), 2**SPAN - 1))
    began = time.monotonic()
    assert held_in(full).runs == ((0, 200 * 65536 - 1),)
    assert time.monotonic() - began < 2
