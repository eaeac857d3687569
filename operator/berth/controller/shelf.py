"""The shelf of books: which pools there are, which of them serve, and reading a ledger anew when it must be.

One mechanism reads ledgers, at the start, at a take-over, for a new pool, and after a write whose outcome is not sure
(design, section 2, rule 5): the pool is read, and after it the Endpoints, both consistently, so that what is learnt of
the holders is younger than the ledger it is held against.

One mechanism decides who serves. A pool that should, and does not say so for its present spec, is first written Ready,
then all pools are read again, and only if no rival is Ready it grants. Of two operators that both believe they lead,
each writes before it reads, so at least one sees the other.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from pydantic import ValidationError

from berth.api.ippool import IPPoolSpec, IPPoolStatus, write_counts
from berth.controller.allocator import Allocator
from berth.controller.book import UNDECIDED, Book, Standing
from berth.controller.guard import Guard, empty
from berth.controller.metrics import METRICS
from berth.core.ledger import Ledger
from berth.core.overlap import Contender, conflicts, shared
from berth.core.pool import BadField, Pool
from berth.core.ranges import Family, Ranges
from berth.core.reasons import Reason
from berth.core.settled import Settled
from berth.kube.client import Api, Listing, Object
from berth.kube.errors import KubeError, NotFound
from berth.kube.resources import ENDPOINTS, POOLS

log = logging.getLogger(__name__)

SERVING = Standing(True, Reason.SERVING, "")
PAUSE_AFTER_FAILURE = 0.5
# One pool that the API server refuses to write must not keep the others from serving.
PROMOTION_SECONDS = 5.0

Doubts = Callable[[str, set[int]], None]


class Shelf:
    """All books of a term."""

    def __init__(
        self, api: Api, allocator: Allocator, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._api = api
        self._allocator = allocator
        self._spawn = spawn
        self._guard = Guard(api)
        self.reserved: dict[str, dict[Family, Ranges]] = {}
        self.doubt: Doubts = lambda pool, addresses: None
        self._to_load: set[str] = set()
        self._straying: set[str] = set()  # pools of which addresses are held that they do not hand out any more
        self._load_wanted, self._promotion_wanted = asyncio.Event(), asyncio.Event()

    @property
    def _books(self) -> dict[str, Book]:
        return self._allocator.books

    # --- facts: pools and reservations -------------------------------------------------------------------------------

    def pool_seen(self, item: Object) -> None:
        """A pool as a watch shows it."""
        meta = item["metadata"]
        book = self._books.get(meta["name"])
        if book is None or book.meta.uid != meta["uid"]:
            if book is not None:
                self._remove(book)
            self._add(item)
            return
        book.shown(int(meta["resourceVersion"]))

    def pool_gone(self, item: Object) -> None:
        book = self._books.get(item["metadata"]["name"])
        if book is not None and book.meta.uid == item["metadata"]["uid"]:
            self._remove(book)
            self.judge()

    def reserve(self, name: str, reserved: dict[Family, Ranges] | None) -> None:
        """What a ReservedIP takes off all pools; None when it is gone."""
        if reserved is None:
            self.reserved.pop(name, None)
        else:
            self.reserved[name] = reserved
        withheld = self._withheld()
        for book in self._books.values():
            if book.ledger is not None:
                book.ledger.reshape(book.allowed(withheld))
                book.touch()
        self._allocator.drain()

    def _withheld(self) -> dict[Family, Ranges]:
        return {
            family: Ranges.of(run for each in self.reserved.values() for run in each[family].runs) for family in Family
        }

    def _add(self, item: Object) -> None:
        book = _open_book(self._api, item, self._accepted, self.lost)
        if book is None:
            return
        self._books[book.name] = book
        book.start(self._spawn)
        self.want(book)

    def _remove(self, book: Book) -> None:
        book.stop()
        book.unload()
        self._allocator.detach(book)
        del self._books[book.name]

    def _respec(self, book: Book, item: Object) -> None:
        """The spec has changed, and nobody has written the ledger: it goes on with the new ranges."""
        book.undecide()
        book.absorb(item)
        if isinstance(book.pool, BadField) or book.ledger is None:
            self.want(book)
            return
        book.ledger.reuse_delay = book.pool.reuse_delay
        book.ledger.reshape(book.allowed(self._withheld()))
        self.judge()

    # --- reading ledgers ---------------------------------------------------------------------------------------------

    async def lost(self, book: Book) -> None:
        """A write was refused, or nobody knows: see what the API says (design, section 2, rule 1)."""
        item = await self._reread(book)
        if item is None:
            return
        sequence = ((item.get("status") or {}).get("ledger") or {}).get("sequence", 0)
        if book.ledger is None or sequence != book.ledger.sequence or item["metadata"]["uid"] != book.meta.uid:
            self.want(book)
            return
        # Only spec, metadata or conditions have moved. If a rival leader took Ready away, it is decided anew.
        book.ledger.retry()
        self._respec(book, item)

    async def _reread(self, book: Book) -> Object | None:
        while True:
            try:
                return await self._api.get(POOLS.path(book.name))
            except NotFound:
                if self._books.get(book.name) is book:
                    self._remove(book)
                    self.judge()
                return None
            except KubeError as error:
                log.warning("pool not readable, trying again", extra={"pool": book.name, "error": str(error)})
                await asyncio.sleep(PAUSE_AFTER_FAILURE)

    def want(self, book: Book) -> None:
        """Have its ledger read anew. Until then nothing is granted from it."""
        book.unload()
        self._allocator.detach(book)
        self._to_load.add(book.name)
        self._load_wanted.set()

    async def load_all(self, pools: Listing) -> Listing:
        """The start of a term: every pool, then every Endpoint."""
        for item in pools.items:
            self._add(item)
        self._to_load.clear()
        listing = await self._api.list(ENDPOINTS.path())
        self._take(list(self._books.values()), listing)
        return listing

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._load_on())
            tasks.create_task(self._promote_on())

    async def _load_on(self) -> None:
        while True:
            await self._load_wanted.wait()
            self._load_wanted.clear()
            names, self._to_load = self._to_load, set()
            try:
                await self._load([self._books[name] for name in names if name in self._books])
            except KubeError as error:
                log.warning("ledgers not readable, trying again", extra={"pools": sorted(names), "error": str(error)})
                self._to_load |= names
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
                self._load_wanted.set()

    async def _load(self, books: list[Book]) -> None:
        present: list[Book] = []
        for book in books:
            try:
                item = await self._api.get(POOLS.path(book.name))
            except NotFound:
                self._remove(book)
                continue
            if item["metadata"]["uid"] != book.meta.uid:
                self._remove(book)
                self._add(item)
                continue
            book.absorb(item)
            present.append(book)
        METRICS.reloads.inc(len(present))
        self._take(present, await self._api.list(ENDPOINTS.path()))

    def _take(self, books: list[Book], listing: Listing) -> None:
        self._allocator.claims.replaced(listing)
        withheld = self._withheld()
        for book in books:
            if self._books.get(book.name) is not book or isinstance(book.pool, BadField):
                continue
            if book.name in self._to_load:
                continue  # lost again while it was read: this reading is too old, and another follows
            image = book.image(book.pool.family)
            if isinstance(image, BadField):
                continue
            ledger = Ledger(image, book.allowed(withheld), book.pool.reuse_delay)
            doubts = self._allocator.attach(book, ledger)
            if write_counts(ledger.counts) != book.counts_in_api:
                ledger.rewrite()  # reservations have come or gone while nobody led
            book.look_again()
            if doubts:
                self.doubt(book.name, doubts)
        self.judge()

    def _accepted(self, book: Book, granted: list[tuple[str, int]]) -> None:
        self._allocator.accepted(book, granted)
        self._part_with(book)
        if book.name in self._straying:
            self.judge()

    # --- who serves --------------------------------------------------------------------------------------------------

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
                self._promotion_wanted.set()
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

    async def _promote_on(self) -> None:
        while True:
            await self._promotion_wanted.wait()
            self._promotion_wanted.clear()
            try:
                await self._promote()
            except KubeError as error:
                log.warning("pools not readable, trying again", extra={"error": str(error)})
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
                self._promotion_wanted.set()

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
            self._promotion_wanted.set()
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


def _open_book(
    api: Api,
    item: Object,
    accepted: Callable[[Book, list[tuple[str, int]]], None],
    lost: Callable[[Book], Coroutine[Any, Any, None]],
) -> Book | None:
    try:
        return Book(api, item, accepted=accepted, lost=lost)
    except ValidationError as error:
        log.error("pool not understood", extra={"pool": item["metadata"]["name"], "why": str(error)})
        return None


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
