"""The shelf of books: which pools there are, what is reserved, and reading a ledger anew when it must be.

One mechanism reads ledgers, at the start, at a take-over, for a new pool, and after a write whose outcome is not sure
(design, section 2, rule 5): the pool is read, and after it the Endpoints, both consistently, so that what is learnt of
the holders is younger than the ledger it is held against.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import ValidationError

from berth.api.ippool import write_counts
from berth.controller.allocator import Allocator
from berth.controller.book import Book
from berth.controller.claims import read
from berth.controller.metrics import METRICS
from berth.controller.promotion import Promotion
from berth.core.ledger import Ledger
from berth.core.pool import BadField
from berth.core.ranges import Family, Ranges
from berth.kube.client import Api, Listing, Object
from berth.kube.errors import KubeError, NotFound, Rewound
from berth.kube.resources import ENDPOINTS, POOLS

log = logging.getLogger(__name__)

PAUSE_AFTER_FAILURE = 0.5

Doubts = Callable[[str, set[int]], None]


class Shelf:
    """All books of a term."""

    def __init__(
        self, api: Api, allocator: Allocator, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._api = api
        self._allocator = allocator
        self._spawn = spawn
        self.promotion = Promotion(api, allocator, spawn)
        self.reserved: dict[str, dict[Family, Ranges]] = {}
        self.doubt: Doubts = lambda pool, addresses: None
        self._to_load: set[str] = set()
        self._load_wanted = asyncio.Event()

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
            self.promotion.judge()

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
        """Several may learn that it is gone; by then another may have its name."""
        if self._books.get(book.name) is not book:
            return
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
        self.promotion.judge()

    # --- reading ledgers ---------------------------------------------------------------------------------------------

    async def lost(self, book: Book) -> None:
        """A write was refused, or nobody knows: see what the API says (design, section 2, rule 1)."""
        item = await self._reread(book)
        if item is None:
            return
        sequence = ((item.get("status") or {}).get("ledger") or {}).get("sequence", 0)
        if book.ledger is not None and item["metadata"]["uid"] == book.meta.uid and sequence < book.ledger.sequence:
            raise Rewound(f"the ledger of IPPool {book.name} went back from {book.ledger.sequence} to {sequence}")
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
                self._remove(book)
                self.promotion.judge()
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
        listing = await self._api.list(ENDPOINTS.path(), reading=read)
        self._take(list(self._books.values()), listing)
        return listing

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._load_on())
            tasks.create_task(self.promotion.run())

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
            if self._books.get(book.name) is not book:
                continue  # removed while it was read
            if item["metadata"]["uid"] != book.meta.uid:
                self._remove(book)
                self._add(item)
                continue
            book.absorb(item)
            present.append(book)
        METRICS.reloads.inc(len(present))
        self._take(present, await self._api.list(ENDPOINTS.path(), reading=read))

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
        self.promotion.judge()

    def _accepted(self, book: Book, granted: list[tuple[str, int]]) -> None:
        self._allocator.accepted(book, granted)
        self.promotion.written(book)


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
