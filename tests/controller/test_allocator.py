"""What a leader says of claims while it learns what there is, and which address each gets."""

import pytest

from berth.controller.allocator import Deletion
from berth.controller.claims import Seen, read
from berth.controller.prospects import PATIENCE_SECONDS
from berth.core.ledger import Ledger
from berth.core.reasons import Reason
from berth.kube.client import Change, Listing
from tests.controller.stage import CLAIM, FIRST, allocator, endpoint, listing, opened, pool, settled

# 10.0.0.1 is all it has, and it is settled.
FULL = pool(ips=["10.0.0.1"], ledger=settled(1))


async def test_a_claim_that_waits_is_not_told_of_the_moment_before_its_pool_was_known() -> None:
    """Its only address is another's: the new leader sees the claim before it has judged the pool."""
    desk = allocator()
    desk.claims.replaced(listing(read(endpoint())))
    book = opened(desk, FULL)
    desk.judged({book.name: True})
    assert len(desk.waiting) == 1
    assert desk.statement(CLAIM) is None


@pytest.mark.parametrize(("doubts", "told"), [(1, None), (0, Reason.POOL_EXHAUSTED)])
async def test_who_waits_for_an_address_in_doubt_is_not_sent_away(doubts: int, told: Reason | None) -> None:
    """After a take-over, DELs of the time when nobody led have left it settled without an Endpoint."""
    now = 0.0
    desk = allocator(lambda: now)
    desk.claims.replaced(listing(read(endpoint())))
    book = opened(desk, FULL)
    desk.prospects.doubted = lambda pool: doubts
    desk.judged({book.name: True})
    now = 2 * PATIENCE_SECONDS
    desk.lose_patience()
    statement = desk.statement(CLAIM)
    assert not isinstance(statement, Deletion)
    assert (statement and statement[1] and statement[1].reason) == told


async def test_who_had_an_address_of_a_slice_gets_it_again_though_others_have_that_slice_now() -> None:
    """A restored backup is older than the slice; and a Pod may have lost its controller."""
    desk = allocator()
    desk.claims.replaced(listing(read(endpoint(reasserted=["10.0.0.5"]))))
    slices = {"shop/Deployment.apps/other": ["10.0.0.4-10.0.0.5"]}
    book = opened(desk, pool(ledger={"slices": slices}, slices={"size": 2}))
    desk.judged({book.name: True})
    assert book.ledger is not None
    assert book.ledger.granted_to(CLAIM) == 0x0A000005


async def test_what_runs_already_comes_first_and_takes_what_nobody_is_known_to_use() -> None:
    """After a restore: the address is in doubt, or kept for another Pod, and its agent says who has it."""
    for kept in (False, True):
        desk = allocator(holding_back=True)
        book = opened(desk, pool(ips=["10.0.0.1-10.0.0.2"], ledger=settled(1)))
        if kept:
            desk.keep(("another", "net", "eth0"), [("blue", FIRST)])
        desk.judged({"blue": True})
        desk.claims.replaced(listing(read(endpoint("new")), read(endpoint(reasserted=["10.0.0.1"]))))
        assert book.ledger is not None
        assert (book.ledger.granted_to(CLAIM), book.ledger.granted_to("new")) == (FIRST, None)
        assert desk.kept.berths() == set()
        desk.grant_on()
        assert book.ledger.granted_to("new") == FIRST + 1


async def test_what_an_endpoint_holds_yields_to_nobody() -> None:
    desk = allocator(holding_back=True)
    desk.claims.replaced(listing(read(endpoint("holder", held={"blue": "10.0.0.1"}, pod_uid="another"))))
    book = opened(desk, FULL)
    desk.judged({"blue": True})
    desk.claims.changed(Change("ADDED", endpoint(version="10", reasserted=["10.0.0.1"])))
    assert book.ledger is not None
    assert book.ledger.granted_to(CLAIM) is None
    assert desk.holders.of(("blue", FIRST)) == "holder"


async def test_a_claim_that_its_pod_did_not_live_to_see_is_suspected_at_first_sight() -> None:
    suspected: list[Seen] = []
    desk = allocator(suspect=suspected.append)
    desk.claims.replaced(listing(read(endpoint()), read(endpoint("orphan", pod_uid="gone"))))
    assert [seen.claim.uid for seen in suspected] == ["orphan"]


async def test_nobody_is_refused_while_it_is_not_known_which_pools_serve() -> None:
    written: list[str] = []
    desk = allocator(write=written.append)
    book = opened(desk, pool(), serving=False)
    desk.judged({})
    desk.claims.replaced(listing(read(endpoint())))
    assert written == []
    assert desk.statement(CLAIM) is None
    book.serving = True
    desk.judged({"blue": True})
    assert book.ledger is not None
    assert book.ledger.granted_to(CLAIM) == FIRST


@pytest.mark.parametrize("network", ["net", ""], ids=["its own", "as its Pod's status tells, without the network"])
async def test_a_pod_regains_the_address_that_is_kept_for_it(network: str) -> None:
    desk = allocator()
    book = opened(desk, pool(ledger=settled(1, 2, 3)))
    desk.keep(("pod-uid", network, "eth0"), [("blue", FIRST + 2)])
    desk.judged({"blue": True})
    desk.claims.replaced(listing(read(endpoint())))
    assert book.ledger is not None
    assert book.ledger.granted_to(CLAIM) == FIRST + 2
    assert desk.kept.berths() == set()


async def test_a_claim_of_which_one_familys_address_was_kept_gets_the_other_family_too() -> None:
    desk = allocator()
    blue = opened(desk, pool(ledger=settled(1, 2)))
    red = opened(desk, pool("red", subnet="fd00::/120"))
    desk.keep(("pod-uid", "net", "eth0"), [("blue", FIRST + 1)])
    desk.judged({"blue": True, "red": True})
    desk.claims.replaced(listing(read(endpoint(pools6=["red"]))))
    assert blue.ledger is not None
    assert red.ledger is not None
    assert blue.ledger.granted_to(CLAIM) == FIRST + 1
    assert red.ledger.granted_to(CLAIM) is not None


async def test_half_of_a_pair_is_not_regained_while_the_other_half_cannot_be_had() -> None:
    """Its IPv6 pool is gone: what was kept stays kept, and it gets nothing."""
    desk = allocator()
    blue = opened(desk, pool(ledger=settled(1)))
    desk.keep(("pod-uid", "net", "eth0"), [("blue", FIRST)])
    desk.judged({"blue": True})
    desk.claims.replaced(listing(read(endpoint(pools6=["red"]))))
    assert blue.ledger is not None
    assert blue.ledger.granted_to(CLAIM) is None
    assert desk.kept.berths() == {("blue", FIRST)}


async def test_after_a_take_over_a_claim_with_one_family_pending_is_not_confirmed_before_it_has_both() -> None:
    desk = allocator()
    desk.claims.replaced(listing(read(endpoint(pools6=["red"]))))
    blue = opened(desk, pool(ledger={"pending": {"10.0.0.1": CLAIM}}))
    red = opened(desk, pool("red", subnet="fd00::/120"), serving=False)
    desk.accepted(blue, [])
    desk.judged({"blue": True})
    assert desk.statement(CLAIM) is None
    red.serving = True
    desk.judged({"blue": True, "red": True})
    assert red.ledger is not None
    assert desk.statement(CLAIM) is None
    red.ledger.accept(red.ledger.draft())
    said = desk.statement(CLAIM)
    assert isinstance(said, tuple)
    assert {entry["pool"] for entry in said[0]["addresses"]} == {"blue", "red"}  # type: ignore[attr-defined]


async def test_nor_is_it_confirmed_with_that_one_when_the_pool_of_the_other_is_gone() -> None:
    desk = allocator()
    desk.claims.replaced(listing(read(endpoint(pools6=["red"]))))
    blue = opened(desk, pool(ledger={"pending": {"10.0.0.1": CLAIM}}))
    desk.judged({"blue": True})
    said = desk.statement(CLAIM)
    assert isinstance(said, tuple)
    assert said[1] is not None
    assert said[1].reason is Reason.POOL_NOT_FOUND
    assert blue.ledger is not None
    assert blue.ledger.granted_to(CLAIM) == FIRST


@pytest.mark.parametrize("network", ["net", ""])
async def test_what_is_kept_for_a_pod_whose_claim_has_another_address_is_free(network: str) -> None:
    """The grant was under way when the doubt about the first address was settled for that Pod."""
    desk = allocator()
    book = opened(desk, pool(ledger=settled(1, 2)))
    desk.keep(("pod-uid", network, "eth0"), [("blue", FIRST)])
    desk.claims.replaced(Listing([read(endpoint(held={"blue": "10.0.0.2"}))], "9"))
    assert book.ledger is not None
    assert book.ledger.held_in(book.ledger.allowed).size == 1
    assert not book.ledger.holds(FIRST)
    assert desk.kept.berths() == set()


def test_an_address_is_occupied_while_it_is_held_or_kept_or_free_again() -> None:
    desk = allocator()
    opened(desk, pool(ledger=settled(1, 2, 3)))
    desk.keep(("pod-uid", "net", "eth0"), [("blue", FIRST)])
    desk.holders.hold(("blue", FIRST + 1), CLAIM)
    occupied = [desk.occupied(("blue", FIRST + number)) for number in range(4)]
    assert occupied == [True, True, False, True]


def test_a_ledger_read_after_claims_puts_back_what_they_hold_and_doubts_the_rest() -> None:
    desk = allocator()
    desk.claims.replaced(listing(read(endpoint(held={"blue": "10.0.0.2"}))))
    desk.keep(("pod-uid", "net", "eth1"), [("blue", FIRST + 2)])
    book = opened(desk, pool())
    assert book.ledger is not None
    ledger = Ledger(book.ledger.image(), book.ledger.allowed)
    for address in (FIRST, FIRST + 2):
        ledger.settle(address, "unknown")
    assert desk.attach(book, ledger) == {FIRST}
    assert ledger.holds(FIRST + 1)
