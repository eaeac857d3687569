"""Which pools serve.

A pool that should serve, and does not say so for its present spec, is first written Ready, then all pools are read
again, and only if no rival is Ready it grants. Of two operators that both believe they lead, each writes before it
reads, so at least one sees the other.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from berth.api.ippool import IPPoolSpec, IPPoolStatus
from berth.controller.allocator import Allocator
from berth.controller.book import UNDECIDED, Book, Standing
from berth.controller.guard import Guard, empty
from berth.core.overlap import Contender, conflicts, shared
from berth.core.pool import BadField, Pool
from berth.core.ranges import Ranges
from berth.core.reasons import Reason
from berth.core.settled import Settled
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError
from berth.kube.resources import POOLS

log = logging.getLogger(__name__)

SERVING = Standing(True, Reason.SERVING, "")
PAUSE_AFTER_FAILURE = 0.5
# One pool that the API server refuses to write must not keep the others from serving.
PROMOTION_SECONDS = 5.0


class Promotion:
    """Judges the books of a term, and promotes those that may serve."""

    def __init__(
        self, api: Api, allocator: Allocator, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._api = api
        self._allocator = allocator
        self._spawn = spawn
        self._guard = Guard(api)
        self._straying: set[str] = set()  # pools of which addresses are held that they do not hand out any more
        self._wanted = asyncio.Event()

    @property
    def _books(self) -> dict[str, Book]:
        return self._allocator.books

    def written(self, book: Book) -> None:
        """Its ledger was: it may hold less than before."""
        self._part_with(book)
        if book.name in self._straying:
            self.judge()

    def judge(self) -> None:
        """Decide for all pools who may serve; those that may and do not yet are promoted."""
        self._straying = {book.name for book in self._books.values() if _strays(book)}
        lost = conflicts(filter(None, (_contender(book) for book in self._books.values())))
        for book in self._books.values():
            standing = self._standing(book)
            if standing.ready and (conflict := lost.get(book.name)) is not None:
                assert isinstance(book.pool, Pool)
                common = conflict.common.format(book.pool.family)
                standing = Standing(
                    False,
                    Reason.OVERLAP,
                    f"{common} also belong to IPPool {conflict.winner}, which serves: take them out of spec.ips, "
                    "or exclude them with spec.excludeIPs",
                )
            if standing.ready and not book.ready_in_api():
                self._wanted.set()
            elif standing is not UNDECIDED:
                book.serving = standing.ready
                book.state(standing)
            self._part_with(book)
        self._tell()

    def _part_with(self, book: Book) -> None:
        """One that is being deleted may go once nobody holds an address of it."""
        if empty(book):
            self._spawn(self._guard.take_off(book))

    def _tell(self) -> None:
        """To the allocator: serving or not; of those being promoted nothing yet."""
        self._allocator.judged({book.name: book.serving for book in self._books.values() if not self._promotable(book)})

    def _promotable(self, book: Book) -> bool:
        return not book.serving and book.standing in (UNDECIDED, SERVING)

    def _standing(self, book: Book) -> Standing:
        if isinstance(book.pool, BadField):
            return Standing(False, Reason.INVALID_SPEC, f"{book.pool}: mend the spec")
        image = book.image(book.pool.family)
        if book.ledger is None and isinstance(image, BadField):
            return Standing(
                False,
                Reason.LEDGER_CORRUPT,
                f"{image}: nothing is granted from or freed in this pool. Restore status.ledger, or remove it and "
                "restart the operator: it is made anew from the Endpoints",
            )
        if book.ledger is None:
            return UNDECIDED
        if book.terminating:
            return Standing(False, Reason.TERMINATING, "is being deleted")
        if book.pool.disabled:
            return Standing(False, Reason.DISABLED, "spec.disabled is set: no new addresses; releases go on")
        return SERVING

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._promote()
            except KubeError as error:
                log.warning("pools not readable, trying again", extra={"error": str(error)})
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
                self._wanted.set()

    def _candidates(self) -> list[Book]:
        lost = conflicts(filter(None, (_contender(book) for book in self._books.values())))
        return [
            book
            for book in self._books.values()
            if not book.serving and book.name not in lost and self._standing(book) == SERVING
        ]

    async def _promote(self) -> None:
        guarded = await self._guard.put_on(self._candidates())
        candidates = [book for book in self._candidates() if book in guarded]
        if not candidates:
            return
        stating = {asyncio.create_task(book.stated(SERVING)) for book in candidates}
        _, unfinished = await asyncio.wait(stating, timeout=PROMOTION_SECONDS)
        for task in unfinished:
            task.cancel()
            self._wanted.set()
        rivals = [each for item in (await self._api.list(POOLS.path())).items if (each := _rival(item)) is not None]
        for book in candidates:
            own = _contender(book)
            if own is None or book.standing != SERVING or not book.ready_in_api():
                continue
            rival = next((each for each in rivals if each.uid != own.uid and shared(own, each)), None)
            if rival is None:
                book.serving = True
            else:
                book.state(Standing(False, Reason.OVERLAP, f"IPPool {rival.name} serves some of the same addresses"))
                if rival.name in self._books:
                    self._books[rival.name].recheck()
        self._tell()


def _contender(book: Book) -> Contender | None:
    if isinstance(book.pool, BadField):
        return None
    held = book.ledger is not None and book.ledger.counts.allocated > 0
    return Contender(
        book.name,
        book.meta.uid,
        book.pool.family,
        book.pool.offered.union(_strays(book)),
        book.meta.creation_timestamp,
        incumbent=book.serving or book.ready_in_api(),
        in_use=held,
    )


def _strays(book: Book) -> Ranges:
    """What is held of a pool and it does not hand out any more: no other pool may hand it out either."""
    if isinstance(book.pool, BadField) or book.ledger is None:
        return Ranges()
    counts = book.ledger.counts
    if counts.total - counts.available == counts.allocated:
        return Ranges()
    return _outside(book.pool.offered, book.ledger.held())


def _outside(offered: Ranges, held: Iterable[int]) -> Ranges:
    return Ranges.of((address, address) for address in held if address not in offered)


def _rival(item: Object) -> Contender | None:
    """What a pool, as just read, hands out (if it is Ready for its present spec) and what is held of it."""
    meta = item["metadata"]
    pool = IPPoolSpec.model_validate(item["spec"]).to_core(meta["name"])
    if isinstance(pool, BadField):
        return None
    status = IPPoolStatus.model_validate(item.get("status") or {})
    ready = next((each for each in status.conditions if each.type == "Ready"), None)
    serves = ready is not None and ready.status == "True" and ready.observed_generation == meta["generation"]
    image = status.ledger.to_core(pool.family)
    # Of a ledger that cannot be read nothing is known: all of it may be held.
    held = (
        pool.offered if isinstance(image, BadField) else _outside(Ranges(), [*image.pending, *Settled(image.settled)])
    )
    taken = held.union(pool.offered) if serves else held
    return Contender(meta["name"], meta["uid"], pool.family, taken, meta["creationTimestamp"], incumbent=serves)
