"""Who comes after whom: a StatefulSet makes a Pod again, under its old name, and the new claim meets the old one.

The old claim keeps its addresses until nobody can use them any more. When its container has ended it is parked; when
the new Pod's claim comes it is deleted, as it was read, and what it held is the new claim's to regain. No claim is
handed from one Pod to another, so nothing here has a say in safety: an address goes its usual way, by the ledger, from
an Endpoint that is gone to one that is there.
"""

import logging
from collections.abc import Callable, Mapping

from berth.controller.book import Book
from berth.controller.claims import ClaimView
from berth.controller.metrics import METRICS
from berth.controller.surroundings import World
from berth.core.claim import Claim, Owner
from berth.core.pool import Pool
from berth.core.reclaim import Held, Release, judge_parked
from berth.core.retention import misfit
from berth.core.selection import Choice, Refused

log = logging.getLogger(__name__)

Decided = tuple[Claim, Choice | Refused, Owner | None]  # as `core.request.decide` says, and the owner of its Pod


class Succession:
    """Asked by the allocator, whose views and books it reads. `decide`: None where something is not known yet."""

    def __init__(
        self, claims: ClaimView, world: World, books: Mapping[str, Book], decide: Callable[[Claim], Decided | None]
    ) -> None:
        self._claims, self._world, self._books = claims, world, books
        self._decide = decide

    # --- what stays --------------------------------------------------------------------------------------------------

    def judge(self, claim: Claim) -> Held | Release:
        """Whether its addresses stay when its container ends, as far as the views tell."""
        keeper = claim.held_for
        owner = None if keeper is None else self._world.stateful_sets.of(claim.namespace, keeper)
        return judge_parked(claim, owner, self.retained(claim))

    def retained(self, claim: Claim) -> bool:
        """Every pool it has an address of says Retain; one that cannot be read does not say otherwise."""
        books = [self._books.get(each.pool) for each in claim.holdings]
        return all(book is not None and (not isinstance(book.pool, Pool) or book.pool.retains) for book in books)

    # --- who makes way -----------------------------------------------------------------------------------------------

    def predecessor(self, claim: Claim) -> Claim | None:
        """The claim that has to end before this one is decided. One that is parked makes way; one with a container is
        waited for by a Pod of the same set, since what it has may be that Pod's own."""
        before = [each for each in self._claims.others_at(claim) if each.held_for is not None]
        if not before or (coming := self._coming(claim)) is None:
            return None
        parked = (each for each in before if each.parked)
        return next(parked, None) or next((each for each in before if _same_set(each, coming[2])), None)

    def superseded(self, claim: Claim) -> bool:
        """It is parked, and another Pod of its name has its addresses, or is to get some. A claim that is left of a Pod
        before it, of a set of this name that is gone, or of one that nobody knew any more, is none of these."""
        return claim.parked and any(
            claim.held_for == each.held_for is not None and not each.parked
            if each.confirmed
            else self._coming(each) is not None
            for each in self._claims.others_at(claim)
        )

    def heir(self, gone: Claim) -> Claim | None:
        """The claim that may have what one had that is gone: of the Pod that its set has made after it."""
        if gone.held_for is None:
            return None
        for claim in self._claims.others_at(gone):
            coming = None if claim.confirmed else self._coming(claim)
            if coming is not None and _same_set(gone, coming[2]):
                why_not = misfit(coming[0], coming[1], gone.holdings, self._hands_out)
                METRICS.returns.labels("same" if why_not is None else "other").inc()
                if why_not is None:
                    return claim
                log.info("a Pod comes again, to other addresses", extra={"endpoint": claim.name, "why": why_not})
        return None

    def _coming(self, claim: Claim) -> tuple[Claim, Choice, Owner] | None:
        """What it is to have, unless it is refused: then it takes nothing from anybody. Nor does a claim whose Pod
        nobody knows any more."""
        decided = self._decide(claim)
        if decided is None or isinstance(decided[1], Refused) or decided[2] is None:
            return None
        return decided[0], decided[1], decided[2]

    def _hands_out(self, pool: str, address: int) -> bool:
        book = self._books.get(pool)
        return book is not None and book.hands_out(address)


def _same_set(claim: Claim, owner: Owner) -> bool:
    return claim.held_for is not None and claim.held_for.uid == owner.uid
