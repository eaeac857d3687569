"""What is free or on its way back: whether one who waits has something to wait for, or waits in vain."""

from collections.abc import Callable, Iterator, Mapping

from berth.controller.book import Book
from berth.controller.claims import ClaimView
from berth.controller.succession import Succession
from berth.controller.surroundings import World
from berth.controller.waiting import Waiter, WaitingLines
from berth.core.claim import Holding
from berth.core.ledger import Ledger
from berth.core.pool import Pool
from berth.core.ranges import Ranges
from berth.core.reasons import Reason
from berth.core.reclaim import Release

# An exhausted pool is reported only after this: a Pod's replacement can ask before its predecessor's end is seen.
PATIENCE_SECONDS = 0.5


class Prospects:
    """Asked by the allocator, whose views and books it reads. `doubted`: how many addresses of a pool are in doubt."""

    def __init__(self, claims: ClaimView, world: World, books: Mapping[str, Book], succession: Succession) -> None:
        self._claims, self._world, self._books = claims, world, books
        self._succession = succession
        self.doubted: Callable[[str], int] = lambda pool: 0  # the reclaimer says

    def in_vain(self, waiting: WaitingLines, now: float) -> Iterator[tuple[str, Waiter, str]]:
        """Those who wait for longer than an address takes to be seen coming back, and are more than the addresses on
        their way: the claim, and the application whose slices it waits for."""
        for pools, application, line in waiting.lines():
            exhausted = waiting.waiter(line[0]).refusal.reason is Reason.POOL_EXHAUSTED
            if exhausted and self.available(pools, application):
                continue  # the next batch is full, no more
            for claim in line[self.returning(pools, application) :]:
                waiter = waiting.waiter(claim)
                if now - waiter.since >= PATIENCE_SECONDS:
                    yield claim, waiter, application

    def available(self, pools: tuple[str, ...], application: str) -> int:
        """Free addresses of these pools; of those cut into slices only what is in this application's."""
        return sum(
            ledger.free_for(application) if self._is_sliced(name) else ledger.counts.available
            for name in pools
            if (ledger := self._ledger(name)) is not None
        )

    def returning(self, pools: tuple[str, ...], application: str) -> int:
        """Addresses of these pools, or of this application's slices of them, whose Pods are on their way out, or do not
        come again; and those that nobody seems to have since nobody led, whose slices are of no account: it is for a
        moment."""
        leaving = [seen.claim for pod_uid in self._world.pods.leaving for seen in self._claims.of_pod(pod_uid)]
        parked = [seen.claim for seen in self._claims.parked()]
        ending = {
            claim.uid: claim for claim in (*leaving, *parked) if isinstance(self._succession.judge(claim), Release)
        }
        return sum(self.doubted(pool) for pool in pools) + sum(
            holding.pool in pools and self._is_within(holding, application)
            for claim in ending.values()
            for holding in claim.holdings
        )

    def _is_within(self, holding: Holding, application: str) -> bool:
        if not self._is_sliced(holding.pool):
            return True
        ledger = self._ledger(holding.pool)
        return ledger is not None and holding.address in ledger.slices.get(application, Ranges())

    def _is_sliced(self, pool: str) -> bool:
        book = self._books.get(pool)
        return book is not None and isinstance(book.pool, Pool) and book.pool.slice_size is not None

    def _ledger(self, pool: str) -> Ledger | None:
        return self._books[pool].ledger if pool in self._books else None
