"""Takes slices back: whole ones from applications that are gone, and from the others what they no longer ask for.

First observation: no address of the slice is held. Then a grace, so that an application that is deleted and made anew
finds its slice again. Second observation: still none is held, and a live read does not find the application. One that
is scaled to nothing keeps its slice, and so does one that the operator may not read.

A slice is cut, and grows, with the grant that needs it. It shrinks here, to the most that any Pod of its application
asks for: in a roll-out old Pods and new ones may ask for different sizes. No address that is held leaves it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator

from berth.controller.allocator import Allocator
from berth.controller.book import Book
from berth.controller.owners import exists
from berth.core.ledger import Ledger
from berth.core.pool import Pool
from berth.core.request import slice_size_of
from berth.core.slicing import Application, application_of, trimmed
from berth.kube.client import Api
from berth.kube.errors import Denied, KubeError

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
GRACE_SECONDS = 10.0
RECHECK_SECONDS = 60.0

Key = tuple[str, str]  # a pool's name and an application


class Slicer:
    """The slices of one term that nobody uses, and when to look at each."""

    def __init__(self, api: Api, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._due: dict[Key, float] = {}

    async def run(self, allocator: Allocator) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not allocator.sliced:
                continue
            self._shrink(allocator)
            try:
                await self._take_back(allocator)
            except KubeError as error:
                log.warning("applications not readable, trying again", extra={"error": str(error)})

    # --- whole slices ------------------------------------------------------------------------------------------------

    async def _take_back(self, allocator: Allocator) -> None:
        now = self._clock()
        unused = {
            (book.name, application)
            for book, _, ledger in _sliced(allocator)
            for application, part in ledger.slices.items()
            if not ledger.held_in(part)
        }
        self._due = {key: self._due.get(key, now + GRACE_SECONDS) for key in unused}
        for (pool, application), due in self._due.items():
            if due > now:
                continue
            self._due[pool, application] = now + RECHECK_SECONDS
            if not await self.there(application):
                self._drop(allocator, pool, application)

    async def there(self, text: str) -> bool:
        """As far as one may know."""
        application = Application.read(text)
        if application is None:
            return False
        try:
            return await exists(self._api, application)
        except Denied as error:
            log.warning("its slices are kept, as it cannot be read", extra={"application": text, "error": str(error)})
            return True

    def _drop(self, allocator: Allocator, pool: str, application: str) -> None:
        """Unless a claim has come while the API was asked."""
        book = allocator.books.get(pool)
        if book is None or (ledger := book.ledger) is None or application not in ledger.slices:
            return
        if not ledger.held_in(ledger.slices[application]):
            log.info("slice taken back", extra={"pool": pool, "application": application})
            ledger.drop(application)
            allocator.resliced(book)

    # --- parts of slices ---------------------------------------------------------------------------------------------

    def _shrink(self, allocator: Allocator) -> None:
        asked = _asked(allocator)
        for book, default, ledger in _sliced(allocator):
            for application, part in list(ledger.slices.items()):
                sizes = asked.get(application)
                if sizes is None:
                    continue  # no Pod of it is there: nobody says that it wants less
                surplus = part.intersect(ledger.allowed).size - max(size or default for size in sizes)
                if surplus > 0 and (kept := trimmed(part, surplus, ledger.held_in(part))) != part:
                    ledger.allot(application, kept)
                    allocator.resliced(book)


def _sliced(allocator: Allocator) -> Iterator[tuple[Book, int, Ledger]]:
    """Each pool that is cut into slices: its book, the size of a slice that nobody gave a size, and its ledger."""
    for book in list(allocator.books.values()):
        if isinstance(book.pool, Pool) and book.pool.slice_size is not None and book.ledger is not None:
            yield book, book.pool.slice_size, book.ledger


def _asked(allocator: Allocator) -> dict[str, set[int | None]]:
    """The sizes that the Pods of each application ask for; None: that of the pool."""
    world = allocator.world
    asked: dict[str, set[int | None]] = {}
    owners: set[str] = set()
    for seen in world.pods.pods.values():
        owner = seen.described.owner
        if owner is not None:
            owners.add(owner.uid)
        if application := application_of(seen.namespace, owner, world.parents):
            asked.setdefault(application, set()).add(slice_size_of(seen.described.annotations))
    for uid in world.parents.keys() - owners:
        del world.parents[uid]  # of a claim whose Pod is in no view yet it is read again
    return asked
