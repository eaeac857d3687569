"""Bugs on purpose in ledger, claims, reclaim, pools and slices: see bugs.py, which lists them."""

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest import mock

import berth_cni.releasing
from berth.api.ippool import LedgerEntry
from berth.controller import guard, promotion, reclaimer
from berth.controller.allocator import Allocator
from berth.controller.book import Book
from berth.controller.claims import ClaimView, Seen, read
from berth.controller.grants import Grants
from berth.controller.guard import Guard
from berth.controller.promotion import Promotion
from berth.controller.shelf import Shelf
from berth.core.ledger import Image, Ledger
from berth.core.ranges import Family, Ranges
from berth.core.reasons import Reason
from berth.core.reclaim import Held as Kept
from berth.core.reclaim import NodeFact, PodFact, Release, judge
from berth.kube.client import Listing, Object
from berth.kube.errors import Conflict, KubeError, NotFound
from berth.kube.resources import ENDPOINTS, POOLS
from berth_cni.calls import Attachment
from berth_cni.claims import Claims
from berth_cni.endpoints import Held

Patches = Iterator[Any]

CACHE_SECONDS = 4.0


def no_precondition() -> Patches:
    """The ledger is written without a resourceVersion: the last writer wins."""
    body = Book._body

    def unconditional(self: Book, *args: Any) -> Object:
        written = body(self, *args)
        del written["metadata"]["resourceVersion"]
        return written

    yield mock.patch.object(Book, "_body", unconditional)


def take_back() -> Patches:
    """At a take-over what is pending for a claim that exists is freed: it is not confirmed yet, after all."""
    attach = Allocator.attach

    def freeing(self: Allocator, book: Book, ledger: Ledger) -> set[int]:
        for claim in list(ledger.pending.values()):
            ledger.withdraw(claim, self._clock())
        return attach(self, book, ledger)

    yield mock.patch.object(Allocator, "attach", freeing)


def claims_before_ledger() -> Patches:
    """The Endpoints come from a cache that is some seconds behind the ledger that they are held against."""

    async def load(self: Shelf, books: list[Book]) -> None:
        listing = await self._api.list(ENDPOINTS.path(), reading=read)
        await asyncio.sleep(CACHE_SECONDS)
        for book in books:
            try:
                book.absorb(await self._api.get(POOLS.path(book.name)))
            except NotFound:
                self._remove(book)
        self._take(books, listing)

    async def load_all(self: Shelf, pools: Listing) -> Listing:
        listing = await self._api.list(ENDPOINTS.path(), reading=read)
        await asyncio.sleep(CACHE_SECONDS)
        for item in (await self._api.list(POOLS.path())).items:
            self._add(item)
        self._to_load.clear()
        self._take(list(self._books.values()), listing)
        return listing

    yield mock.patch.object(Shelf, "_load", load)
    yield mock.patch.object(Shelf, "load_all", load_all)


def release_by_name() -> Patches:
    """Whether a claim's Pod is there is told by its name: a Pod made again under it keeps the old claim for ever."""

    def by_name(pod_uid: str, pod: PodFact | None, node: NodeFact | None) -> Kept | Release:
        return Kept("its Pod is alive") if pod is not None and not pod.finished else judge(pod_uid, pod, node)

    yield mock.patch.object(reclaimer, "judge", by_name)


def one_observation() -> Patches:
    """A Pod that a watch does not show is gone: neither a grace nor a live read."""

    def trusting(pod_uid: str, pod: PodFact | None, node: NodeFact | None) -> Release:
        return Release(Reason.POD_GONE)

    def at_once(self: reclaimer.Reclaimer, seen: Seen) -> None:
        self._suspects[seen.claim.uid] = self._clock()

    yield mock.patch.object(reclaimer, "judge", trusting)
    yield mock.patch.object(reclaimer.Reclaimer, "suspect", at_once)


def settle_before_confirm() -> Patches:
    """What is granted is settled by the next write, whether or not its Endpoint says so: the leader remembers it."""
    accept, init, confirmable = Ledger.accept, Ledger.__init__, Ledger.confirmable

    def start(self: Ledger, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        self.remembered = {}  # type: ignore[attr-defined]

    def settling(self: Ledger, image: Image) -> list[tuple[str, int]]:
        granted = accept(self, image)
        for claim, address in granted:
            self.settle(address, claim)
            self.remembered[claim] = address  # type: ignore[attr-defined]
        return granted

    def remembered(self: Ledger, claim: str) -> int | None:
        found: int | None = self.remembered.get(claim, confirmable(self, claim))  # type: ignore[attr-defined]
        return found

    yield mock.patch.object(Ledger, "__init__", start)
    yield mock.patch.object(Ledger, "accept", settling)
    yield mock.patch.object(Ledger, "confirmable", remembered)


def no_pending_list() -> Patches:
    """A leader that takes over looks at what is settled alone."""
    image = Book.image

    def settled_only(self: Book, family: Any) -> Any:
        read = image(self, family)
        return Image(read.sequence, {}, read.settled) if isinstance(read, Image) else read

    yield mock.patch.object(Book, "image", settled_only)


def any_container() -> Patches:
    """A DEL frees the Endpoint of its Pod's interface, whichever container holds it now."""

    def of(self: Claims, attachment: Attachment) -> list[Held]:
        pod = self._pods.get(attachment.container)  # type: ignore[attr-defined]
        return [held for held in self._held.values() if held.pod_uid == pod]

    note, init = Claims.note, Claims.__init__

    def remember(self: Claims, held: Held) -> None:
        self._pods[held.attachment.container] = held.pod_uid  # type: ignore[attr-defined]
        note(self, held)

    def start(self: Claims) -> None:
        init(self)
        self._pods = {}  # type: ignore[attr-defined]

    yield mock.patch.object(Claims, "__init__", start)
    yield mock.patch.object(Claims, "note", remember)
    yield mock.patch.object(Claims, "of", of)
    yield mock.patch.object(berth_cni.releasing, "may_release", lambda held, uid, attachment: held.uid == uid)


def confirm_unwritten() -> Patches:
    """A grant is confirmed before the ledger write that holds it was accepted."""
    yield mock.patch.object(Ledger, "confirmable", Ledger.granted_to)


def ignore_sequence() -> Patches:
    """After a conflict the write is sent again with the new resourceVersion: somebody has changed the spec, surely."""
    lost = Shelf.lost

    async def careless(self: Shelf, book: Book) -> None:
        item = await self._reread(book)
        if item is None or book.ledger is None:
            return await lost(self, book)
        book.ledger.retry()
        book.ledger.sequence = ((item.get("status") or {}).get("ledger") or {}).get("sequence", 0)
        self._respec(book, item)
        return None

    yield mock.patch.object(Shelf, "lost", careless)


def resurrect() -> Patches:
    """A listing is believed whole, also of claims that were deleted after it, and older versions replace newer ones."""

    def replaced(self: ClaimView, listing: Listing) -> None:
        self._deleted.clear()
        for uid, seen in listing.items:
            self._seen.pop(uid, None)
            if seen is not None:
                self._keep(seen)

    yield mock.patch.object(ClaimView, "replaced", replaced)


def no_second_reading() -> Patches:
    """A pool serves as soon as it says so: rivals are not looked for."""

    async def promote(self: Promotion) -> None:
        books = [book for book in self._books.values() if self._standing(book) == promotion.SERVING]
        for book in books:
            book.serving = True
            book.state(promotion.SERVING)
        self._tell()

    yield mock.patch.object(Promotion, "_promote", promote)
    yield mock.patch.object(promotion, "conflicts", return_value={})


def unknown_is_done() -> Patches:
    """A ledger write without an answer counts as done."""
    init = Book.__init__

    class Hopeful:
        def __init__(self, api: Any) -> None:
            self._api = api

        async def replace(self, path: str, body: Object) -> Object:
            try:
                written: Object = await self._api.replace(path, body)
            except (Conflict, NotFound):
                raise
            except KubeError:
                there: Object = await self._api.get(path.removesuffix("/status"))
                return {**there, "status": {**(there.get("status") or {}), "conditions": body["status"]["conditions"]}}
            return written

    def start(self: Book, api: Any, item: Object, **more: Any) -> None:
        init(self, Hopeful(api), item, **more)  # type: ignore[arg-type]

    yield mock.patch.object(Book, "__init__", start)


def free_with_pod() -> Patches:
    """An address is freed when its Pod begins to leave: nobody will miss it."""
    parted = Allocator.parted

    def hasty(self: Allocator, pod_uid: str) -> None:
        parted(self, pod_uid)
        for seen in self.claims.of_pod(pod_uid):
            for holding in seen.claim.holdings:
                self.holders.let_go((holding.pool, holding.address), seen.claim.uid)
                self.release((holding.pool, holding.address))

    yield mock.patch.object(Allocator, "parted", hasty)


def half_a_pair() -> Patches:
    """A claim of two families is confirmed with the first address that is written."""

    def eager(self: Grants, uid: str) -> bool:
        return any(self.written(uid, name) for name in self.of(uid) or ())

    statement = Allocator.statement

    def said(self: Allocator, uid: str) -> Any:
        grants = self.grants
        pending = grants._pending.get(uid)
        if pending is not None:
            grants._pending[uid] = {name: each for name, each in pending.items() if grants.written(uid, name)}
        try:
            return statement(self, uid)
        finally:
            if pending is not None and uid in grants._pending:
                grants._pending[uid] = pending

    yield mock.patch.object(Grants, "confirmable", eager)
    yield mock.patch.object(Allocator, "statement", said)


def no_suspicion() -> Patches:
    """Pods that are gone without a DEL are not looked for."""

    def ignore(self: reclaimer.Reclaimer, seen: Seen) -> None:
        return None

    yield mock.patch.object(reclaimer.Reclaimer, "suspect", ignore)


def no_doubt() -> Patches:
    """Settled addresses that no Endpoint speaks of are left as they are."""

    def ignore(self: reclaimer.Reclaimer, pool: str, addresses: set[int]) -> None:
        return None

    yield mock.patch.object(reclaimer.Reclaimer, "doubt", ignore)


def forget_reservations() -> Patches:
    """A change of a pool's spec forgets what is reserved."""
    yield mock.patch.object(Shelf, "_withheld", return_value={family: Ranges() for family in Family})


def forget_slices() -> Patches:
    """Who reads a ledger does not read which slices are cut."""
    yield mock.patch.object(LedgerEntry, "_slices", return_value={})


def cut_slices_twice() -> Patches:
    """What is held by nobody is cut, though another application's slice has it."""

    def unheld(self: Ledger) -> Ranges:
        return self.allowed.minus(self.held_in(self.allowed))

    yield mock.patch.object(Ledger, "uncut", unheld)


def no_finalizer() -> Patches:
    """A pool serves without the finalizer that keeps it while it is in use."""
    yield mock.patch.object(Guard, "_settled", return_value=True)


def lift_at_once() -> Patches:
    """A pool that is being deleted loses its finalizer whatever its ledger holds."""

    async def lift(self: Guard, book: Book) -> bool:
        try:
            item = await self._api.get(POOLS.path(book.name))
            await self._write(item, [])
        except KubeError:
            return False
        return True

    for module in (guard, promotion):
        yield mock.patch.object(module, "empty", lambda book: book.terminating)
    yield mock.patch.object(Guard, "_take_off", lift)


def trust_the_silent() -> Patches:
    """A Pod that is gone has no container any more, whether or not its node answers."""

    def trusting(pod_uid: str, pod: PodFact | None, node: NodeFact | None) -> Kept | Release:
        return judge(pod_uid, pod, NodeFact(True, False))

    yield mock.patch.object(reclaimer, "judge", trusting)


ALL = (
    no_precondition,
    take_back,
    claims_before_ledger,
    release_by_name,
    one_observation,
    settle_before_confirm,
    no_pending_list,
    any_container,
    confirm_unwritten,
    ignore_sequence,
    resurrect,
    no_second_reading,
    unknown_is_done,
    free_with_pod,
    half_a_pair,
    no_suspicion,
    no_doubt,
    forget_reservations,
    forget_slices,
    cut_slices_twice,
    no_finalizer,
    lift_at_once,
    trust_the_silent,
)
