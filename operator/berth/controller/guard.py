"""The finalizer on pools that serve: one deleted while addresses are held stays, ledger and all, until it is empty.

The webhook refuses such a deletion before it is begun; this holds when it was away, or was told to let it pass. A pool
gets it before it serves for the first time, and loses it when it is being deleted and the API's own ledger holds
nothing. Both are conditional writes of the object as just read. Where the API will not have it the pool serves all the
same: an old role must not stop allocation.
"""

import asyncio
import logging
from collections.abc import Iterable

from berth.controller.book import Book
from berth.core.pool import BadField
from berth.kube.client import Api, Object
from berth.kube.errors import Answer, Busy, Conflict, KubeError, NotFound, Unknown
from berth.kube.resources import POOLS

log = logging.getLogger(__name__)

FINALIZER = "ipam.berth.dev/in-use"
PAUSE_AFTER_FAILURE = 0.5


class Guard:
    """Puts the finalizer on, and takes it off."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._denied: set[str] = set()  # UIDs of pools that the API would not let us guard
        self._lifting: set[str] = set()

    async def put_on(self, books: Iterable[Book]) -> list[Book]:
        """Those of them that may serve now. One that just got its finalizer is read anew, and judged again."""
        books = list(books)
        bare = [book for book in books if not self._settled(book)]
        await asyncio.gather(*(self._put_on(book) for book in bare))
        return [book for book in books if self._settled(book)]

    def _settled(self, book: Book) -> bool:
        return FINALIZER in book.meta.finalizers or book.meta.uid in self._denied

    async def _put_on(self, book: Book) -> None:
        try:
            item = await self._api.get(POOLS.path(book.name))
            meta = item["metadata"]
            if meta["uid"] == book.meta.uid and "deletionTimestamp" not in meta:
                written = item
                if FINALIZER not in (meta.get("finalizers") or ()):
                    written = await self._write(item, [*(meta.get("finalizers") or ()), FINALIZER])
                if FINALIZER not in (written["metadata"].get("finalizers") or ()):
                    self._denied.add(book.meta.uid)
        except (Busy, Conflict, NotFound, Unknown) as error:
            log.info("finalizer not written yet", extra={"pool": book.name, "error": str(error)})
            await asyncio.sleep(PAUSE_AFTER_FAILURE)
        except Answer as error:
            log.warning("pool serves without its finalizer", extra={"pool": book.name, "error": str(error)})
            self._denied.add(book.meta.uid)
            return
        book.recheck()

    async def take_off(self, book: Book) -> None:
        """Of a pool that is being deleted, and empty as far as memory knows."""
        if FINALIZER not in book.meta.finalizers or book.meta.uid in self._lifting:
            return
        self._lifting.add(book.meta.uid)
        try:
            while empty(book):
                if await self._take_off(book):
                    return
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
        finally:
            self._lifting.discard(book.meta.uid)

    async def _take_off(self, book: Book) -> bool:
        """True when there is nothing more to do."""
        try:
            item = await self._api.get(POOLS.path(book.name))
            meta, ledger = item["metadata"], (item.get("status") or {}).get("ledger") or {}
            if meta["uid"] != book.meta.uid or FINALIZER not in (meta.get("finalizers") or ()):
                return True
            if ledger.get("pending") or ledger.get("blocks"):
                return False  # what memory knows is still to be written
            await self._write(item, [each for each in meta["finalizers"] if each != FINALIZER])
        except NotFound:
            return True
        except KubeError as error:
            log.info("finalizer not taken off yet", extra={"pool": book.name, "error": str(error)})
            return False
        return True

    async def _write(self, item: Object, finalizers: list[str]) -> Object:
        return await self._api.replace(
            POOLS.path(item["metadata"]["name"]), {**item, "metadata": {**item["metadata"], "finalizers": finalizers}}
        )


def empty(book: Book) -> bool:
    """Being deleted, and nobody holds an address of it. Of a spec that cannot be read the API's ledger alone tells."""
    if not book.terminating:
        return False
    return isinstance(book.pool, BadField) or (book.ledger is not None and not book.ledger.counts.allocated)
