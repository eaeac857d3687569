"""Ledgers are read while pools change, go, and are written by others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from berth.controller import term
from berth.controller.allocator import Allocator
from berth.controller.reservations import Reservations
from berth.controller.restored import Restored
from berth.controller.settings import Settings
from berth.controller.shelf import Shelf
from berth.controller.term import Term
from berth.core.ranges import Family, Ranges
from berth.kube.resources import ENDPOINTS, POOLS
from tests.controller.stage import FIRST, Cluster, allocator, endpoint, listing, pool

SMALL = ["10.0.0.1-10.0.0.4"]
ONE = {Family.IPV4: Ranges.of([(FIRST, FIRST)]), Family.IPV6: Ranges()}


@asynccontextmanager
async def shelf_of(cluster: Cluster, desk: Allocator) -> AsyncIterator[Shelf]:
    """At work: ledgers are read as soon as they are wanted, and written."""
    async with asyncio.TaskGroup() as tasks:
        shelf = Shelf(cluster, desk, tasks.create_task)  # type: ignore[arg-type]  # what it reads and writes
        working = tasks.create_task(shelf._load_on())
        yield shelf
        working.cancel()
        for book in desk.books.values():
            book.stop()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not holds():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_there", [False, True], ids=["gone when it is read", "read before it went"])
async def test_a_pool_that_goes_while_its_ledger_is_read_is_removed_once(is_there: bool) -> None:
    item, desk = pool(), allocator()
    cluster = Cluster(*([item] if is_there else []))
    async with shelf_of(cluster, desk) as shelf:
        cluster.during = lambda path: shelf.pool_gone(item)
        shelf.pool_seen(item)
        await eventually(lambda: not desk.books)
        # The next one of its name is read as any other.
        cluster.during, cluster.pools = (lambda path: None), {"blue": pool()}
        shelf.pool_seen(cluster.pools["blue"])
        await eventually(lambda: desk.books["blue"].ledger is not None)


async def test_a_pool_that_is_lost_again_while_it_is_read_is_not_taken_over_from_the_older_reading() -> None:
    desk, cluster = allocator(), Cluster(pool())
    async with shelf_of(cluster, desk) as shelf:
        taken: list[bool] = []

        def during(path: str) -> None:
            book = desk.books["blue"]
            if path == POOLS.path("blue"):
                taken.append(book.ledger is not None)
            elif len(taken) == 1:
                cluster.pools["blue"] = pool(version="6", ledger={"sequence": 2})
                shelf.want(book)

        cluster.during = during
        shelf.pool_seen(cluster.pools["blue"])
        await eventually(lambda: len(taken) == 2 and desk.books["blue"].ledger is not None)
        assert taken == [False, False]
        ledger = desk.books["blue"].ledger
        assert ledger is not None
        assert ledger.sequence == 2


async def test_a_write_of_an_earlier_leader_that_lands_after_its_successor_has_read_is_seen() -> None:
    """It is told of while the Endpoints are listed: too early to look, and never told of again."""
    desk, cluster = allocator(), Cluster(pool())
    async with shelf_of(cluster, desk) as shelf:

        def land(path: str) -> None:
            if path == ENDPOINTS.path():
                cluster.during = lambda path: None
                cluster.pools["blue"] = pool(version="6", ledger={"sequence": 2, "pending": {"10.0.0.1": "gone"}})
                shelf.pool_seen(cluster.pools["blue"])

        cluster.during = land
        shelf.pool_seen(cluster.pools["blue"])
        await eventually(lambda: (ledger := desk.books["blue"].ledger) is not None and ledger.sequence == 2)
        ledger = desk.books["blue"].ledger
        assert ledger is not None
        assert not ledger.holds(FIRST)


@pytest.mark.parametrize(
    ("story", "available", "dirty"), [("as they should be", 3, False), ("of before the reservation", 4, True)]
)
async def test_counts_that_went_out_of_date_while_nobody_led_are_written(
    story: str, available: int, dirty: bool
) -> None:
    item = pool(ips=SMALL, ready=True)
    item["status"] |= {"total": 3, "allocated": 0, "available": available}
    desk, cluster = allocator(), Cluster(item)
    shelf = Shelf(cluster, desk, asyncio.create_task)  # type: ignore[arg-type]  # what it reads
    shelf.reserved["vips"] = ONE
    await shelf.load_all(await cluster.list(POOLS.path()))
    book = desk.books["blue"]
    book.stop()
    assert book.ledger is not None
    assert book.ledger.dirty is dirty, story


async def test_counts_of_an_idle_pool_follow_a_reservation() -> None:
    desk, cluster = allocator(), Cluster(pool(ips=SMALL, ready=True))
    async with shelf_of(cluster, desk) as shelf:
        shelf.pool_seen(cluster.pools["blue"])
        await eventually(lambda: cluster.pools["blue"]["status"].get("available") == 4)
        shelf.reserve("vips", ONE)
        await eventually(lambda: cluster.pools["blue"]["status"]["available"] == 3)
        shelf.reserve("vips", None)
        await eventually(lambda: cluster.pools["blue"]["status"]["available"] == 4)


async def test_a_reservation_that_went_while_kopf_was_not_told_withholds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that comes while they are listed stays."""
    monkeypatch.setattr(term, "SWEEP_SECONDS", 0.01)
    cluster = Cluster()
    made = Term(cluster, Settings(), Restored())  # type: ignore[arg-type]  # what it reads
    shelf = Shelf(cluster, made.allocator, asyncio.create_task)  # type: ignore[arg-type]
    shelf.reserve("gone", ONE)
    cluster.during = lambda path: shelf.reserve("new", ONE) if not shelf.reserved.keys() - {"gone"} else None
    sweeping = asyncio.create_task(made._sweep(shelf, Reservations(cluster, made.allocator, shelf)))  # type: ignore[arg-type]
    await eventually(lambda: shelf.reserved.keys() == {"new"})
    sweeping.cancel()


async def test_what_a_claim_holds_is_learnt_after_the_ledger_was_read() -> None:
    """The Endpoint is confirmed by another leader between the two readings."""
    desk, cluster = allocator(), Cluster(pool())
    async with shelf_of(cluster, desk) as shelf:

        def confirm(path: str) -> None:
            if path == POOLS.path("blue"):
                cluster.endpoints = [endpoint(held={"blue": "10.0.0.1"})]

        cluster.during = confirm
        desk.claims.replaced(listing())
        shelf.pool_seen(cluster.pools["blue"])
        await eventually(lambda: desk.books["blue"].ledger is not None)
        ledger = desk.books["blue"].ledger
        assert ledger is not None
        assert ledger.holds(FIRST)
