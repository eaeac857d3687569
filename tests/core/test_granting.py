"""One decision for one claim: an address of every family wanted, or none at all."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from berth.core.granting import Granted, Waiting, grant
from berth.core.ledger import PENDING_MOST, Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family, Malformed, parse_address
from berth.core.reasons import Reason
from berth.core.selection import Choice, Refused
from tests.core.stories import CLAIM, ledgers_of, pool_of
from tests.invariants import check_ledger

V4, V6 = Family.IPV4, Family.IPV6
FOUR, FALLBACK, SIX = pool_of("four", "10.0.0.0/30"), pool_of("fallback", "10.0.1.0/30"), pool_of("six", "fd00::/126")
DUAL = Choice({V4: (FOUR,), V6: (SIX,)})
ORDERED = Choice({V4: (FOUR, FALLBACK)})


def address(text: str) -> int:
    parsed = parse_address(text)
    assert not isinstance(parsed, Malformed)
    return parsed[1]


def fill(ledger: Ledger) -> None:
    for first, last in ledger.allowed.runs:
        for each in range(first, last + 1):
            if not ledger.holds(each):
                ledger.settle(each, f"holder of {each}")


def crowd(ledger: Ledger, pool: Pool) -> None:
    """As many grants under way as one write carries."""
    for number in range(PENDING_MOST):
        ledger.grant(f"crowd {number}", pool.offered.runs[0][0] + number)
    assert ledger.full


def given(answer: object) -> list[tuple[str, int]]:
    assert isinstance(answer, Granted)
    return [(pool.name, each) for pool, each in answer.addresses]


def check_all(ledgers: Mapping[str, Ledger]) -> None:
    for ledger in ledgers.values():
        check_ledger(ledger)


def test_each_family_gets_its_address() -> None:
    ledgers = ledgers_of(FOUR, SIX)
    answer = grant(CLAIM, DUAL, ledgers, 0.0)
    assert given(answer) == [("four", address("10.0.0.1")), ("six", address("fd00::1"))]
    assert ledgers["four"].granted_to(CLAIM.uid) == address("10.0.0.1")
    check_all(ledgers)


def test_asked_again_the_answer_is_the_same_and_nothing_changes() -> None:
    ledgers = ledgers_of(FOUR, SIX)
    first = grant(CLAIM, DUAL, ledgers, 0.0)
    counts = [ledger.counts for ledger in ledgers.values()]
    assert grant(CLAIM, DUAL, ledgers, 99.0) == first
    assert [ledger.counts for ledger in ledgers.values()] == counts
    check_all(ledgers)


@pytest.mark.parametrize("lacking", ["four", "six"])
def test_with_one_family_lacking_neither_is_granted(lacking: str) -> None:
    ledgers = ledgers_of(FOUR, SIX)
    fill(ledgers[lacking])
    answer = grant(CLAIM, DUAL, ledgers, 0.0)
    assert isinstance(answer, Waiting)
    assert answer.pools == (lacking,)
    assert answer.refusal.reason is Reason.POOL_EXHAUSTED
    assert f"pool {lacking} has no free" in answer.refusal.message
    assert [ledger.granted_to(CLAIM.uid) for ledger in ledgers.values()] == [None, None]
    check_all(ledgers)


def test_a_family_already_pending_is_kept_even_in_a_later_pool() -> None:
    ledgers = ledgers_of(FOUR, FALLBACK, SIX)
    ledgers["fallback"].grant(CLAIM.uid, address("10.0.1.2"))
    answer = grant(CLAIM, Choice({V4: (FOUR, FALLBACK), V6: (SIX,)}), ledgers, 0.0)
    assert given(answer) == [("fallback", address("10.0.1.2")), ("six", address("fd00::1"))]
    check_all(ledgers)


def test_a_family_already_pending_is_kept_while_the_other_waits() -> None:
    ledgers = ledgers_of(FOUR, SIX)
    ledgers["four"].grant(CLAIM.uid, address("10.0.0.2"))
    fill(ledgers["six"])
    assert isinstance(grant(CLAIM, DUAL, ledgers, 0.0), Waiting)
    assert ledgers["four"].granted_to(CLAIM.uid) == address("10.0.0.2"), "never taken back"
    check_all(ledgers)


def test_pools_are_drawn_from_in_order() -> None:
    ledgers = ledgers_of(FOUR, FALLBACK)
    answers = [grant(replace(CLAIM, uid=f"uid-{number}"), ORDERED, ledgers, 0.0) for number in range(5)]
    assert [given(answer) for answer in answers[:4]] == [
        [("four", address("10.0.0.1"))],
        [("four", address("10.0.0.2"))],
        [("fallback", address("10.0.1.1"))],
        [("fallback", address("10.0.1.2"))],
    ]
    last = answers[4]
    assert isinstance(last, Waiting)
    assert last.pools == ("four", "fallback")
    assert "pool four, fallback has no free IPv4 address (4 in all)" in last.refusal.message
    check_all(ledgers)


@pytest.mark.parametrize(
    ("wanted", "outcome"),
    [
        ("10.0.0.2", ("four", "10.0.0.2")),
        ("10.0.1.2", ("fallback", "10.0.1.2")),
        ("10.0.0.1", Reason.ADDRESS_TAKEN),
        ("10.0.1.1", Reason.ADDRESS_TAKEN),
        ("10.0.0.3", Reason.ADDRESS_OUTSIDE),  # the broadcast address
        ("192.0.2.1", Reason.ADDRESS_OUTSIDE),
    ],
)
def test_a_wanted_address_is_that_one_or_none(wanted: str, outcome: tuple[str, str] | Reason) -> None:
    ledgers = ledgers_of(FOUR, FALLBACK)
    ledgers["four"].settle(address("10.0.0.1"), "another")
    ledgers["fallback"].grant("another", address("10.0.1.1"))
    answer = grant(replace(CLAIM, wanted={V4: address(wanted)}), ORDERED, ledgers, 0.0)
    match outcome:
        case (pool, text):
            assert given(answer) == [(pool, address(text))]
        case Reason.ADDRESS_TAKEN:
            assert isinstance(answer, Waiting), "it may come back"
            assert answer.refusal.reason is outcome
            assert f"{wanted} of pool four, fallback is held" in answer.refusal.message
        case _:
            assert isinstance(answer, Refused), "waiting would not help"
            assert answer.reason is outcome
            assert wanted in answer.message
    check_all(ledgers)


def test_a_wanted_address_of_one_family_that_is_taken_keeps_the_other_back_too() -> None:
    ledgers = ledgers_of(FOUR, SIX)
    ledgers["six"].settle(address("fd00::2"), "another")
    assert isinstance(grant(replace(CLAIM, wanted={V6: address("fd00::2")}), DUAL, ledgers, 0.0), Waiting)
    assert ledgers["four"].granted_to(CLAIM.uid) is None
    check_all(ledgers)


@pytest.mark.parametrize("wanted", [None, "10.0.9.9"])
def test_a_claim_past_the_most_a_write_carries_waits_for_the_next_and_goes_nowhere_else(wanted: str | None) -> None:
    busy = pool_of("busy", "10.0.0.0/20")
    ledgers = ledgers_of(busy, pool_of("fallback", "10.1.0.0/24"))
    crowd(ledgers["busy"], busy)
    claim = replace(CLAIM, wanted={V4: address(wanted)} if wanted else {})
    choice = Choice({V4: (busy, pool_of("fallback", "10.1.0.0/24"))})
    answer = grant(claim, choice, ledgers, 0.0)
    assert isinstance(answer, Waiting)
    assert "next write" in answer.refusal.message
    ledgers["busy"].settle(busy.offered.runs[0][0], "crowd 0")
    assert [pool for pool, _ in given(grant(claim, choice, ledgers, 0.0))] == ["busy"]
    check_all(ledgers)


def test_a_claim_that_has_its_address_is_answered_however_many_wait() -> None:
    busy = pool_of("busy", "10.0.0.0/20")
    ledgers = ledgers_of(busy)
    crowd(ledgers["busy"], busy)
    answer = grant(replace(CLAIM, uid="crowd 7"), Choice({V4: (busy,)}), ledgers, 0.0)
    assert given(answer) == [("busy", busy.offered.runs[0][0] + 7)]
