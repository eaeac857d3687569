"""Holds what the leader remembers against the API, now and then; drift is reported first, and mended then.

Nothing here is part of a normal day: it finds what events and answers should have told and did not. Each kind is mended
by the mechanism that there is for it: a ledger is read anew, a watch begins anew with a list, a claim is suspected.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable

from berth.api.ippool import IPPoolStatus
from berth.api.names import STATIC_HASH
from berth.controller.allocator import Allocator
from berth.controller.book import Book
from berth.controller.herald import Herald, Word, of_endpoint, of_pool
from berth.controller.metrics import METRICS
from berth.controller.reclaimer import Reclaimer
from berth.controller.shelf import Shelf
from berth.controller.surroundings import UNFINISHED
from berth.core.comparing import ClaimFact, Drift, Facts, LedgerFact, compare, sure
from berth.core.pool import BadField, Pool
from berth.core.reasons import Reason
from berth.kube.client import Api, Listing, Object
from berth.kube.errors import KubeError
from berth.kube.resources import ENDPOINTS, PODS, POOLS, Resource

log = logging.getLogger(__name__)

# Between the two looks: longer than a watch lags, or is cut and taken up again.
SECOND_LOOK_SECONDS = 20.0
LINES_MOST = 20
OF_LEDGERS = (Reason.LEDGER_DIFFERS, Reason.HOLDING_UNRECORDED, Reason.ADDRESS_UNHELD)


class Comparer:
    """Of one term. `anew` makes a watch begin anew."""

    def __init__(
        self,
        api: Api,
        allocator: Allocator,
        shelf: Shelf,
        reclaimer: Reclaimer,
        herald: Herald,
        anew: Callable[[Resource], None],
    ) -> None:
        self._api = api
        self._allocator = allocator
        self._shelf = shelf
        self._reclaimer = reclaimer
        self._herald = herald
        self._anew = anew
        self._wanted = asyncio.Event()
        self._known: set[Drift] = set()  # addresses found twice: each is counted once

    def want(self) -> None:
        """Compare now: something does not fit."""
        self._wanted.set()

    async def run(self, seconds: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.compare()
            except KubeError as error:
                log.warning("comparison could not read, next time again", extra={"error": str(error)})

    async def compare(self) -> list[Drift]:
        """One full comparison. Returns what was reported."""
        first = compare(await self._facts())
        found = [each for each in first if each.kind is Reason.ADDRESS_TWICE]
        if first:
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            found = list(dict.fromkeys([*found, *sure(first, compare(await self._facts()))]))
        found = [each for each in found if each not in self._known]
        self._known |= {each for each in found if each.kind is Reason.ADDRESS_TWICE}
        self._report(found)
        self._mend(found)
        return found

    # --- facts -------------------------------------------------------------------------------------------------------

    async def _facts(self) -> Facts:
        pools = await self._api.list(POOLS.path())
        endpoints = await self._api.list(ENDPOINTS.path(), metadata=True, reading=_version)
        pods = await self._api.list(PODS.path(), UNFINISHED, metadata=True, reading=_static)
        allocator = self._allocator
        doubts = {(book.name, address) for book in allocator.books.values() for address in self._doubted(book)}
        return Facts(
            ledgers=tuple(self._ledgers(pools)),
            pools_as_of=int(pools.version),
            claims=tuple(
                ClaimFact(
                    seen.claim.uid,
                    seen.version,
                    seen.claim.pod_uid,
                    seen.claim.holdings,
                    self._reclaimer.suspects(seen.claim.uid) or not seen.claim.container,
                )
                for seen in allocator.claims
            ),
            listed_claims=dict(endpoints.items),
            as_of=int(endpoints.version),
            pods=frozenset(allocator.world.pods.pods),
            listed_pods=dict(pods.items),
            excused=frozenset(allocator.kept.berths() | doubts),
            kept_for=frozenset(allocator.kept.pods()),
        )

    def _doubted(self, book: Book) -> list[int]:
        if book.ledger is None:
            return []
        return [address for address in book.ledger.settled if self._reclaimer.doubts((book.name, address))]

    def _ledgers(self, listing: Listing) -> list[LedgerFact]:
        found = []
        for item in listing.items:
            book = self._allocator.books.get(item["metadata"]["name"])
            if book is None or book.meta.uid != item["metadata"]["uid"] or not isinstance(book.pool, Pool):
                continue
            listed = IPPoolStatus.model_validate(item.get("status") or {}).ledger.to_core(book.pool.family)
            if not isinstance(listed, BadField):
                found.append(LedgerFact(book.name, book.pool.family, book.settled_image(), int(book.version), listed))
        return found

    # --- drift -------------------------------------------------------------------------------------------------------

    def _report(self, found: list[Drift]) -> None:
        for kind, count in Counter(each.kind for each in found).items():
            METRICS.drift.labels(kind.value).inc(count)
            log.error("memory is not what the API has", extra={"kind": kind.value, "count": count})
        for drift in found[:LINES_MOST]:
            log.error("drift", extra={"kind": drift.kind.value, "of": drift.of, "detail": drift.detail})
            self._tell(drift)

    def _tell(self, drift: Drift) -> None:
        book, seen = self._allocator.books.get(drift.of), self._allocator.claims.get(drift.of)
        if drift.kind in OF_LEDGERS and book is not None:
            self._herald.say(Word(of_pool(book.name, book.meta.uid), "Compare", drift.kind, drift.detail))
        elif seen is not None:
            self._herald.say(Word(of_endpoint(seen.claim), "Compare", drift.kind, drift.detail))

    def _mend(self, found: list[Drift]) -> None:
        for drift in found:
            book, seen = self._allocator.books.get(drift.of), self._allocator.claims.get(drift.of)
            match drift.kind:
                case Reason.LEDGER_DIFFERS | Reason.HOLDING_UNRECORDED | Reason.ADDRESS_UNHELD if book is not None:
                    book.recheck() if book.ledger is None else self._shelf.want(book)
                case Reason.POD_MISSING if seen is not None:
                    self._reclaimer.suspect(seen)
                case Reason.KEPT_FOR_NOBODY:
                    self._allocator.parted(drift.of)
                case Reason.ADDRESS_TWICE:
                    # Nothing here can tell which of the two is to go: a person has to.
                    METRICS.violations.inc()
        kinds = {each.kind for each in found}
        for kind, resource in ((Reason.CLAIM_DIFFERS, ENDPOINTS), (Reason.POD_DIFFERS, PODS)):
            if kind in kinds:
                self._anew(resource)


def _version(item: Object) -> tuple[str, int]:
    return item["metadata"]["uid"], int(item["metadata"]["resourceVersion"])


def _static(item: Object) -> tuple[str, str | None]:
    return item["metadata"]["uid"], (item["metadata"].get("annotations") or {}).get(STATIC_HASH)
