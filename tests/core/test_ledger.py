"""One pool's ledger: which address comes next, what may be confirmed, and what is kept through it all."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.core.ledger import (
    PENDING_MOST,
    Already,
    Contested,
    Counts,
    Exhausted,
    Found,
    Free,
    Image,
    Ledger,
    Outside,
    Taken,
)
from berth.core.ranges import Ranges
from berth.core.settled import SPAN, Settled
from tests.invariants import check_ledger


def ledger_of(first: int, last: int, delay: float = 0.0) -> Ledger:
    return Ledger(Image(), Ranges(((first, last),)), delay)


def take(ledger: Ledger, claim: str, now: float = 0.0, wanted: int | None = None) -> int:
    """Find and grant, as the operator does."""
    found = ledger.find(claim, now, wanted)
    assert isinstance(found, Free)
    ledger.grant(claim, found.address)
    return found.address


def write(ledger: Ledger) -> list[tuple[str, int]]:
    return ledger.accept(ledger.draft())


def hold(ledger: Ledger, claim: str, now: float = 0.0) -> int:
    """The whole way: granted, written, confirmed, settled."""
    address = take(ledger, claim, now)
    assert write(ledger) == [(claim, address)]
    assert ledger.settle(address, claim) is None
    return address


# --- which address comes next -----------------------------------------------------------------------------------------


def test_addresses_never_used_come_lowest_first() -> None:
    ledger = Ledger(Image(), Ranges.of([(7, 8), (2, 3)]))
    assert [take(ledger, claim) for claim in "abcd"] == [2, 3, 7, 8]
    assert ledger.find("e", 0.0) == Exhausted()
    check_ledger(ledger)


def test_the_first_freed_is_the_first_reused() -> None:
    ledger = ledger_of(1, 4)
    for claim in "abcd":
        hold(ledger, claim)
    for address in (3, 1, 4, 2):
        ledger.release(address, now=0.0)
    assert [take(ledger, claim) for claim in "efgh"] == [3, 1, 4, 2]
    check_ledger(ledger)


@pytest.mark.parametrize(
    ("now", "next_ones"),
    [
        (39.9, [3, 4, 1, 2]),  # in its cool-down: those never used go first, then the first freed all the same
        (40.0, [1, 3, 4, 2]),  # over for the first freed
        (45.0, [1, 2, 3, 4]),  # over for both
    ],
)
def test_a_freed_address_rests_unless_nothing_else_is_left(now: float, next_ones: list[int]) -> None:
    ledger = ledger_of(1, 4, delay=30.0)
    for claim in "ab":
        hold(ledger, claim)
    ledger.release(1, now=10.0)
    ledger.release(2, now=15.0)
    assert [take(ledger, claim, now) for claim in "efgh"] == next_ones
    assert ledger.find("i", now) == Exhausted()
    check_ledger(ledger, now)


@pytest.mark.parametrize(
    ("delay", "now", "next_one"),
    [(0.0, 11.0, 1), (20.0, 29.0, 3), (20.0, 30.0, 1), (60.0, 50.0, 3), (60.0, 70.0, 1)],
)
def test_a_changed_reuse_delay_holds_for_those_already_resting(delay: float, now: float, next_one: int) -> None:
    ledger = ledger_of(1, 3, delay=30.0)
    for claim in "ab":
        hold(ledger, claim)
    ledger.release(1, now=10.0)
    ledger.reuse_delay = delay
    ledger.release(2, now=10.0)
    assert ledger.find("c", now) == Free(next_one)
    check_ledger(ledger, now)


def test_a_wanted_address_need_not_rest() -> None:
    ledger = ledger_of(1, 4, delay=30.0)
    hold(ledger, "web-0")
    ledger.release(1, now=10.0)
    assert take(ledger, "web-0 again", now=10.0, wanted=1) == 1
    check_ledger(ledger, 10.0)


def test_a_grant_that_was_never_written_frees_its_address_too() -> None:
    ledger = ledger_of(1, 1)
    take(ledger, "a")
    ledger.withdraw("a", now=0.0)
    ledger.withdraw("a", now=0.0)
    assert take(ledger, "b") == 1
    check_ledger(ledger)


@pytest.mark.parametrize(
    ("claim", "wanted", "found"),
    [
        ("new", None, Free(4)),
        ("new", 5, Free(5)),
        ("new", 1, Taken(1)),  # settled
        ("new", 2, Taken(2)),  # pending for another
        ("new", 3, Free(3)),  # freed just now
        ("new", 9, Outside(9)),
        ("pending", None, Already(2)),
        ("pending", 2, Already(2)),
        ("pending", 5, Taken(5)),  # an address is never taken back, nor changed
    ],
)
def test_what_is_found_for_whom(claim: str, wanted: int | None, found: Found) -> None:
    ledger = ledger_of(1, 5, delay=30.0)
    hold(ledger, "settled")
    take(ledger, "pending")
    write(ledger)
    hold(ledger, "freed")
    ledger.release(3, now=0.0)
    assert ledger.find(claim, 1.0, wanted) == found
    check_ledger(ledger, 1.0)


# --- what may be confirmed, and when ----------------------------------------------------------------------------------


def test_a_grant_is_confirmed_only_once_it_is_written() -> None:
    ledger = ledger_of(1, 4)
    take(ledger, "a")
    assert ledger.urgent
    assert ledger.confirmable("a") is None
    image = ledger.draft()
    assert ledger.confirmable("a") is None
    take(ledger, "b")
    assert ledger.accept(image) == [("a", 1)]
    assert ledger.confirmable("a") == 1
    assert ledger.confirmable("b") is None, "came while the write was under way: it is the next batch"
    assert ledger.urgent
    assert ledger.dirty
    assert write(ledger) == [("b", 2)]
    assert not ledger.urgent
    assert not ledger.dirty
    assert ledger.sequence == 2
    check_ledger(ledger)


def test_a_draft_is_not_changed_by_what_comes_after_it() -> None:
    ledger = ledger_of(1, 4)
    hold(ledger, "a")
    take(ledger, "b")
    image = ledger.draft()
    take(ledger, "c")
    ledger.settle(2, "b")
    ledger.release(1, now=0.0)
    assert (image.sequence, dict(image.pending), set(Settled(image.settled))) == (2, {2: "b"}, {1})
    check_ledger(ledger)


def withdrawn(ledger: Ledger) -> None:
    ledger.withdraw("old", now=0.0)


def regranted(ledger: Ledger) -> None:
    ledger.withdraw("old", now=0.0)
    assert take(ledger, "new", wanted=1) == 1


def regranted_twice(ledger: Ledger) -> None:
    regranted(ledger)
    ledger.withdraw("new", now=0.0)
    assert take(ledger, "newer", wanted=1) == 1


def seen_confirmed(ledger: Ledger) -> None:
    ledger.settle(1, "old")


@pytest.mark.parametrize(
    ("meanwhile", "sure", "then"),
    [
        (withdrawn, [], []),
        (regranted, [], [("new", 1)]),
        (regranted_twice, [], [("newer", 1)]),
        (seen_confirmed, [], []),
        (lambda ledger: None, [("old", 1)], []),
    ],
)
def test_a_write_confirms_only_what_is_still_so(
    meanwhile: Callable[[Ledger], None], sure: list[tuple[str, int]], then: list[tuple[str, int]]
) -> None:
    ledger = ledger_of(1, 2)
    take(ledger, "old")
    image = ledger.draft()
    meanwhile(ledger)
    assert ledger.accept(image) == sure
    assert [claim for claim in ("old", "new", "newer") if ledger.confirmable(claim)] == [claim for claim, _ in sure]
    assert ledger.dirty == (not sure), "memory says more than was written"
    assert write(ledger) == then
    check_ledger(ledger)


def test_a_refused_write_is_drafted_anew_with_all_that_came_since() -> None:
    ledger = ledger_of(1, 4)
    take(ledger, "a")
    first = ledger.draft()
    take(ledger, "b")
    ledger.retry()
    assert ledger.dirty
    assert ledger.confirmable("a") is None
    second = ledger.draft()
    assert (first.sequence, second.sequence) == (1, 1)
    assert second.pending == {1: "a", 2: "b"}
    assert ledger.accept(second) == [("a", 1), ("b", 2)]
    check_ledger(ledger)


def test_claims_past_the_most_a_write_carries_wait_for_the_next_one() -> None:
    ledger = ledger_of(0, 4 * PENDING_MOST)
    for number in range(PENDING_MOST):
        assert not ledger.full
        take(ledger, f"claim {number}")
    assert ledger.full
    write(ledger)
    assert ledger.full
    ledger.settle(0, "claim 0")
    assert not ledger.full
    check_ledger(ledger)


# --- settling and releasing -------------------------------------------------------------------------------------------


def test_an_endpoint_older_than_the_ledger_is_put_back() -> None:
    ledger = ledger_of(1, 4)
    assert ledger.settle(2, "restored") is None
    assert ledger.settle(2, "restored") is None
    assert ledger.settle(9, "of an older spec") is None
    assert ledger.counts == Counts(total=4, allocated=2, available=3)
    assert [take(ledger, claim) for claim in "abc"] == [1, 3, 4]
    check_ledger(ledger)


@pytest.mark.parametrize("written", ["in memory only", "under way", "written"])
def test_an_address_an_endpoint_says_it_holds_is_not_confirmed_to_another(written: str) -> None:
    ledger = ledger_of(1, 4)
    take(ledger, "granted")
    image = ledger.draft() if written != "in memory only" else None
    if image is not None and written == "written":
        ledger.accept(image)
    assert ledger.settle(1, "says so") == Contested(address=1, claim="granted")
    assert ledger.settle(1, "says so") is None, "said once"
    if image is not None and written == "under way":
        assert ledger.accept(image) == []
    assert ledger.confirmable("granted") is None
    assert take(ledger, "granted") == 2
    assert write(ledger) == [("granted", 2)]
    ledger.withdraw("granted", now=0.0)
    assert ledger.holds(1), "what became of the other claim does not free it"
    check_ledger(ledger)


def test_releasing_what_is_free_is_success() -> None:
    ledger = ledger_of(1, 4)
    hold(ledger, "a")
    write(ledger)
    ledger.release(1, now=0.0)
    write(ledger)
    for address in (1, 2, 9):
        ledger.release(address, now=5.0)
    assert not ledger.dirty
    assert ledger.counts == Counts(total=4, allocated=0, available=4)
    check_ledger(ledger)


def test_an_endpoint_seen_to_be_gone_twice_does_not_free_what_another_was_granted_in_between() -> None:
    ledger = ledger_of(1, 1)
    hold(ledger, "old")
    ledger.release(1, now=0.0)
    take(ledger, "new")
    write(ledger)
    ledger.release(1, now=0.0)
    assert ledger.confirmable("new") == 1
    assert ledger.find("newer", 0.0) == Exhausted()
    check_ledger(ledger)


def test_withdrawing_a_settled_claim_changes_nothing() -> None:
    ledger = ledger_of(1, 4)
    hold(ledger, "a")
    ledger.withdraw("a", now=0.0)
    assert ledger.holds(1)
    check_ledger(ledger)


# --- when the pool's addresses change ---------------------------------------------------------------------------------


def test_nobody_loses_what_he_holds_when_the_pool_shrinks() -> None:
    ledger = ledger_of(1, 6)
    hold(ledger, "settled")
    take(ledger, "pending")
    ledger.reshape(Ranges(((5, 6),)))
    assert ledger.counts == Counts(total=2, allocated=2, available=2)
    assert write(ledger) == [("pending", 2)]
    assert [take(ledger, claim) for claim in "ab"] == [5, 6]
    assert ledger.find("c", 0.0) == Exhausted()
    check_ledger(ledger)


def test_what_is_freed_outside_is_not_handed_out() -> None:
    ledger = ledger_of(1, 3)
    hold(ledger, "settled")
    take(ledger, "pending")
    ledger.reshape(Ranges(((3, 3),)))
    ledger.release(1, now=0.0)
    ledger.withdraw("pending", now=0.0)
    assert ledger.counts == Counts(total=1, allocated=0, available=1)
    assert take(ledger, "a") == 3
    assert ledger.find("b", 99.0) == Exhausted()
    check_ledger(ledger)


@pytest.mark.parametrize("freed_first", [True, False], ids=["freed, then reserved", "reserved, then freed"])
def test_a_reservation_made_and_taken_back_does_not_cut_the_rest_short(freed_first: bool) -> None:
    whole, reserved = Ranges(((1, 3),)), Ranges(((2, 3),))
    ledger = Ledger(Image(), whole, 30.0)
    for claim in "ab":
        hold(ledger, claim)
    if freed_first:
        ledger.release(1, now=0.0)
    ledger.reshape(reserved)
    if not freed_first:
        ledger.release(1, now=0.0)
    ledger.release(2, now=5.0)
    ledger.reshape(whole)
    assert [take(ledger, claim, now=29.0) for claim in "cde"] == [3, 1, 2], "the rest first, then in the order freed"
    check_ledger(ledger, 29.0)


def test_what_was_freed_outside_and_put_back_is_held_when_the_pool_grows_again() -> None:
    ledger = ledger_of(1, 3)
    hold(ledger, "a")
    ledger.reshape(Ranges(((2, 3),)))
    ledger.release(1, now=0.0)
    ledger.settle(1, "a, as its node says")
    ledger.reshape(Ranges(((1, 3),)))
    assert [take(ledger, claim) for claim in "bc"] == [2, 3]
    assert ledger.find("d", 99.0) == Exhausted()
    check_ledger(ledger, 99.0)


def test_addresses_added_below_the_mark_are_found() -> None:
    ledger = ledger_of(10, 11)
    take(ledger, "a")
    ledger.reshape(Ranges(((1, 1), (10, 11))))
    assert [take(ledger, claim) for claim in "bc"] == [1, 11]
    check_ledger(ledger)


# --- size, and the way to the API and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("base", [10 << 24, 0xFD << 120])
def test_a_huge_pool_costs_by_addresses_used(base: int) -> None:
    whole = Ranges(((base, base + (1 << 64) - 1 if base >= 1 << 32 else base + (1 << 24) - 1),))
    ledger = Ledger(Image(), whole)
    for number in range(2 * SPAN):
        address = take(ledger, f"claim {number}")
        ledger.settle(address, f"claim {number}")
    assert ledger.counts.available == whole.size - 2 * SPAN
    assert len(ledger.draft().settled) == 2
    check_ledger(ledger)


HELD = st.dictionaries(st.integers(0, 3 * SPAN), st.booleans(), max_size=60)


@given(HELD, st.lists(st.tuples(st.integers(0, 3 * SPAN), st.integers(0, 3 * SPAN)).map(sorted), max_size=4))
def test_a_ledger_is_drafted_as_it_was_loaded(held: dict[int, bool], runs: list[list[int]]) -> None:
    settled = Settled()
    for address, is_settled in held.items():
        if is_settled:
            settled.add(address)
    pending = {address: f"claim {address}" for address, is_settled in held.items() if not is_settled}
    ledger = Ledger(Image(7, pending, settled.blocks()), Ranges.of((first, last) for first, last in runs))
    assert all(ledger.confirmable(claim) == address for address, claim in pending.items()), "what is written is sure"
    assert not ledger.dirty
    assert ledger.draft() == Image(8, pending, settled.blocks())
    check_ledger(ledger)
