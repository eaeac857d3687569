"""The leader's desk: every fact arrives here, is held against the ledgers, and becomes a decision.

No I/O: what is to be written is said to the books (ledgers) and to the scribe (Endpoint status), which do it. All of it
runs on one event loop without an await, so each fact is dealt with whole before the next.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from berth.api.endpoint import write_addresses, write_held_for
from berth.controller.book import Book
from berth.controller.choosing import Choosing, attachments
from berth.controller.claims import Berth, ClaimView, Seen
from berth.controller.grants import Grants
from berth.controller.holders import Attachment, Holders, Kept
from berth.controller.metrics import METRICS
from berth.controller.prospects import Prospects
from berth.controller.succession import Succession
from berth.controller.surroundings import Life, Live, World
from berth.controller.waiting import WaitingLines
from berth.core.claim import Claim, Owner
from berth.core.granting import Granted, Waiting, grant
from berth.core.ledger import Contested, Ledger
from berth.core.pool import Pool
from berth.core.request import decide
from berth.core.routing import Routing
from berth.core.selection import Choice, Offer, Refused
from berth.core.settled import Settled

log = logging.getLogger(__name__)

Statement = tuple[dict[str, object], Refused | None]


@dataclass(frozen=True, slots=True)
class Deletion:
    """This claim is to go, as it stands now: its successor waits for it."""


class Allocator:
    """All state of a leader. Made anew for each term: nothing is carried over."""

    def __init__(
        self,
        clock: Callable[[], float],
        write: Callable[[str], None],
        suspect: Callable[[Seen], None],
        look: Callable[[Claim], None],
        complain: Callable[[Claim, Refused], None],
        *,
        holding_back: bool = False,
    ) -> None:
        self._clock = clock
        self._write = write  # the scribe: write this claim's status
        self._suspect = suspect  # the reclaimer: this claim's Pod is not in sight
        self._look = look  # the looker: read what is around this claim
        self._complain = complain  # the herald: annotations ask for what cannot be
        self.dispute: Callable[[], None] = lambda: None  # the comparer: look whether one address is held twice
        self.holding_back = holding_back  # nothing new is granted: agents may have something to assert first
        self.world = World(self.parted)
        self.claims = ClaimView(self)
        self.books: dict[str, Book] = {}
        self.offers: dict[str, Offer] = {}
        self.sliced = False  # some pool is cut into slices: of which application a Pod is has to be known
        self.waiting = WaitingLines()
        self.refusals: dict[str, Refused] = {}
        self._postponed: set[str] = set()  # until a pool that might serve them is loaded and judged
        self.grants = Grants(self.books)
        self.holders = Holders()
        self.kept = Kept()
        self.choosing = Choosing(self.books, self.offers, self.kept, self._give_up)
        self.succession = Succession(self.claims, self.world, self.books, self._decide)
        self.prospects = Prospects(self.claims, self.world, self.books, self.succession)

    # --- facts: Endpoints --------------------------------------------------------------------------------------------

    def seen(self, seen: Seen) -> None:
        claim = seen.claim
        if self.world.pods.life(claim.pod_uid) is Life.UNKNOWN:
            # Not seen yet, as a rule. One that is gone already would never be told of again.
            self._suspect(seen)
        if not claim.confirmed:
            self.consider(claim.uid)
            return
        self.waiting.leave(claim.uid)
        self.refusals.pop(claim.uid, None)
        self.grants.end(claim.uid)
        self.world.live.pop(claim.uid, None)
        for holding in claim.holdings:
            self._hold(claim, (holding.pool, holding.address))
        for attachment in attachments(claim):
            if attachment in self.kept:
                # Kept after it had been granted something: its Pod has that now, and not what was kept.
                self._give_up(attachment)
        if claim.held_for is not None:
            self._meet(claim)

    def _meet(self, claim: Claim) -> None:
        """What becomes of it may be what a successor waits for, or what makes a parked one useless."""
        for other in self.claims.others_at(claim):
            if not other.confirmed:
                self.consider(other.uid)
            else:
                self._write(other.uid if other.parked else claim.uid)

    def _hold(self, claim: Claim, berth: Berth) -> None:
        holder = self.holders.hold(berth, claim.uid)
        if holder != claim.uid:
            # As a rule the end of the holder is on its way to us.
            log.warning("an address is confirmed to two claims", extra={"berth": berth, "claims": (holder, claim.uid)})
            self.dispute()
            return
        book = self.books.get(berth[0])
        if book is not None and book.ledger is not None:
            contested = book.ledger.settle(berth[1], claim.uid)
            book.touch()
            if contested is not None:
                self._contest(book, contested)

    def _contest(self, book: Book, contested: Contested) -> None:
        """The ledger had promised the address to another claim (a restored backup can do that): it gets a new one."""
        log.error(
            "an address was granted that an Endpoint holds",
            extra={"pool": book.name, "address": contested.address, "claim": contested.claim},
        )
        self.grants.lose(contested.claim, book.name)
        self._postponed.add(contested.claim)
        asyncio.get_running_loop().call_soon(self.consider, contested.claim)

    def gone(self, seen: Seen) -> None:
        claim = seen.claim
        self.waiting.leave(claim.uid)
        self.refusals.pop(claim.uid, None)
        self._postponed.discard(claim.uid)
        self.world.live.pop(claim.uid, None)
        for name in self.grants.end(claim.uid):
            book = self.books.get(name)
            if book is not None and book.ledger is not None:
                book.ledger.withdraw(claim.uid, self._clock())
                self._touched(book)
        life = self.world.pods.life(claim.pod_uid)
        berths = [(each.pool, each.address) for each in claim.holdings]
        free = [berth for berth in berths if self.holders.let_go(berth, claim.uid)]
        heir = None if life is Life.ALIVE and not claim.parked else self.succession.heir(claim)
        if heir is not None and len(free) == len(berths):
            self.keep(heir.attachment, free)
        elif life is Life.ALIVE:
            # Its sandbox is being made again, or someone deleted the Endpoint: the Pod may still use it.
            self.keep(claim.attachment, free)
        else:
            self._release_all(free)
        if claim.held_for is not None:
            self._meet(claim)

    def keep(self, attachment: Attachment, berths: Iterable[Berth]) -> None:
        """Hold addresses without an Endpoint for a Pod; its next claim gets them back."""
        for berth in berths:
            self.kept.keep(attachment, berth)
        for seen in self.claims.of_pod(attachment[0]):
            self.consider(seen.claim.uid)

    def occupied(self, berth: Berth) -> bool:
        """An Endpoint holds it, or it is kept for a Pod, or it is free already."""
        book = self.books.get(berth[0])
        free = book is not None and book.ledger is not None and berth[1] not in book.ledger.settled
        return free or berth in self.holders or berth in self.kept.berths()

    def _release_all(self, berths: Iterable[Berth]) -> None:
        for berth in berths:
            self.release(berth)

    def _give_up(self, attachment: Attachment) -> None:
        self._release_all(self.kept.give_up(attachment))

    def release(self, berth: Berth) -> None:
        book = self.books.get(berth[0])
        if book is None or book.ledger is None or berth in self.holders or berth[1] in book.ledger.pending:
            return
        book.ledger.release(berth[1], self._clock())
        METRICS.releases.inc()
        self._touched(book)

    def resliced(self, book: Book) -> None:
        """Something of a slice of this pool was given back."""
        self._touched(book)

    # --- facts: Pods -------------------------------------------------------------------------------------------------

    def parted(self, pod_uid: str) -> None:
        """A Pod begins to leave, or is gone."""
        if self.world.pods.life(pod_uid) is not Life.UNKNOWN:
            return
        self._release_all(self.kept.parted(pod_uid))
        for seen in self.claims.of_pod(pod_uid):
            self._suspect(seen)

    # --- facts: ledgers ----------------------------------------------------------------------------------------------

    def attach(self, book: Book, ledger: Ledger) -> set[int]:
        """Hold a ledger just read against claims read after it. Returns the addresses in doubt: settled, and no
        Endpoint says who holds them."""
        for claim, address in [(claim, address) for address, claim in ledger.pending.items()]:
            seen = self.claims.get(claim)
            if seen is None or (seen.claim.confirmed and self.holders.of((book.name, address)) != claim):
                ledger.withdraw(claim, self._clock())
            elif not seen.claim.confirmed:
                self.grants.find(claim, book.name, address)
        book.ledger = ledger
        for address, claim in self.holders.in_pool(book.name):
            if (contested := ledger.settle(address, claim)) is not None:
                self._contest(book, contested)
        kept = self.kept.berths()
        return {
            address
            for address in ledger.settled
            if (book.name, address) not in self.holders and (book.name, address) not in kept
        }

    def detach(self, book: Book) -> None:
        """Its ledger is no longer known: what it had granted is decided again when it is."""
        self._postponed.update(self.grants.detach(book.name))

    def accepted(self, book: Book, granted: list[tuple[str, int]]) -> None:
        """A ledger write is done: what it granted may be confirmed."""
        METRICS.ledger_writes.inc()
        METRICS.batch.observe(len(granted))
        for claim, _ in granted:
            if self.grants.confirmable(claim):
                self._write(claim)
        self.drain()

    def judged(self, serving: Mapping[str, bool]) -> None:
        """Which pools serve has changed. Pools not in `serving` are not decided yet: claims for them wait."""
        self.offers.clear()  # the same mapping: others look into it
        self.offers.update(
            (name, Offer(book.pool, serving.get(name, True)))
            for name, book in self.books.items()
            if isinstance(book.pool, Pool)
        )
        self.sliced = any(offer.pool.slice_size is not None for offer in self.offers.values())
        postponed, self._postponed = self._postponed, set()
        waiting = [claim for *_, line in self.waiting.lines() for claim in line]
        for claim in sorted([*postponed, *waiting, *self.refusals], key=self._turn):
            self.consider(claim)

    def _turn(self, uid: str) -> bool:
        """What runs already comes before what wants to run."""
        seen = self.claims.get(uid)
        return seen is None or not seen.claim.reasserted

    def grant_on(self) -> None:
        """Agents had their time: what was held back is decided."""
        self.holding_back = False
        postponed, self._postponed = self._postponed, set()
        for claim in postponed:
            self.consider(claim)

    # --- deciding ----------------------------------------------------------------------------------------------------

    def consider(self, uid: str) -> None:
        """Decide for one claim, or decide again: nothing changes for one that has its addresses."""
        seen = self.claims.get(uid)
        if seen is None or seen.claim.confirmed:
            return
        if self.holding_back and not seen.claim.reasserted and uid not in self.grants:
            self._postponed.add(uid)
            return
        claim, around = seen.claim, self.world.around(seen.claim)
        if around is None or (around.application is None and self.sliced):
            self._look(claim)
            return
        if uid not in self.grants and claim.attachment not in self.kept:
            before = self.succession.predecessor(claim)
            if before is not None:
                self._await(uid, before)
                return
        chosen = self.choosing.choose(claim, around, self.grants.of(uid), complete=self.grants.is_complete(uid))
        if isinstance(chosen, Refused):
            self.waiting.leave(uid)
            self._refuse(uid, chosen)
            return
        claim, choice = chosen
        pools = [pool for pools in choice.candidates.values() for pool in pools]
        if any(not self.choosing.is_open(pool, uid) for pool in pools):
            self.refusals.pop(uid, None)
            self._postponed.add(uid)
            return
        if claim.reasserted and self.holding_back:
            self._yield(claim, pools)
        ledgers = {pool.name: ledger for pool in pools if (ledger := self.books[pool.name].ledger) is not None}
        match grant(claim, choice, ledgers, self._clock()):
            case Granted(addresses):
                self._grant(uid, addresses, claim.routing)
            case Waiting() as waiting:
                if self.refusals.get(uid) != waiting.refusal:
                    self.refusals.pop(uid, None)  # of a moment when the pools were not known yet: it must not be told
                self.waiting.join(uid, waiting, self._clock(), alone=bool(claim.wanted or claim.among))
            case Refused() as refused:
                self.waiting.leave(uid)
                self._refuse(uid, refused)

    def _yield(self, claim: Claim, pools: list[Pool]) -> None:
        """After a restore an address that no Endpoint holds, be it in doubt or kept for a Pod, belongs to who asserts
        that it is in use: nobody else is known to use it."""
        for pool in pools:
            berth = (pool.name, claim.wanted.get(pool.family, -1))
            if berth not in self.holders and berth[1] in self._settled(pool.name):
                self.kept.drop(berth)
                self.release(berth)

    def _settled(self, pool: str) -> Settled:
        ledger = self.books[pool].ledger
        return Settled() if ledger is None else ledger.settled

    def _await(self, uid: str, before: Claim) -> None:
        """It is considered again when that one is parked, or gone."""
        self.waiting.leave(uid)
        self.refusals.pop(uid, None)
        if before.parked:
            self._write(before.uid)

    def _decide(self, claim: Claim) -> tuple[Claim, Choice | Refused, Owner | None] | None:
        around = self.world.around(claim)
        return None if around is None else (*decide(claim, around, self.offers), around.owner)

    def looked(self, uid: str, live: Live) -> None:
        """What is around a claim (one that there is) was read: it can be decided."""
        self.world.live[uid] = live
        self.consider(uid)
        self.drain()

    def _grant(self, uid: str, addresses: tuple[tuple[Pool, int], ...], routing: Routing) -> None:
        self.waiting.leave(uid)
        self.refusals.pop(uid, None)
        self.grants.make(uid, {pool.name: address for pool, address in addresses}, routing)
        METRICS.grants.inc()
        for pool, _ in addresses:
            self.books[pool.name].touch()
        if self.grants.confirmable(uid):
            self._write(uid)

    def _refuse(self, uid: str, refused: Refused, *, tell: bool = False) -> None:
        """`tell`: its Pod too, though no annotation of that has a say."""
        if self.refusals.get(uid) != refused:
            self.refusals[uid] = refused
            METRICS.refusals.labels(refused.reason.value).inc()
            self._write(uid)
            seen = self.claims.get(uid)
            if seen is not None and seen.claim.reasserted:
                log.critical(
                    "a claim asserted again is refused", extra={"endpoint": seen.claim.name, "why": refused.message}
                )
                METRICS.reassertions_refused.inc()
            if seen is not None and (tell or seen.claim.reasserted or self.world.annotated(seen.claim)):
                self._complain(seen.claim, refused)

    def statement(self, uid: str) -> Statement | Deletion | None:
        """What this claim's status is to say now; None when there is nothing to say."""
        seen = self.claims.get(uid)
        if seen is None:
            return None
        if seen.claim.confirmed:
            return Deletion() if self.succession.superseded(seen.claim) else None
        if self.grants.confirmable(uid):
            granted = [
                (pool, address)
                for name, address in (self.grants.of(uid) or {}).items()
                if isinstance(pool := self.books[name].pool, Pool)
            ]
            around = self.world.around(seen.claim)
            return {
                **write_addresses(granted, self.grants.routing(uid)),
                **write_held_for(around.owner if around else None),
            }, None
        refused = self.refusals.get(uid)
        return ({}, refused) if refused is not None else None

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _touched(self, book: Book) -> None:
        book.touch()
        self.drain()

    def drain(self) -> None:
        """An address may have come back: who waits is considered again."""
        self.waiting.drain(self.consider)

    def lose_patience(self) -> None:
        for claim, waiter, application in self.prospects.in_vain(self.waiting, self._clock()):
            self._refuse(claim, waiter.refusal, tell=bool(application))
