"""Which pools, and which addresses, a claim may draw from now: what it had goes before what anybody may have.

In this order: what is kept for its attachment, what it asserts that it has, what is granted to it already; else what
`core.request` chooses for a claim like this.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from berth.controller.book import Book
from berth.controller.holders import Attachment, Kept
from berth.core.claim import Claim, Surroundings
from berth.core.pool import Pool
from berth.core.ranges import Family
from berth.core.request import decide
from berth.core.selection import Choice, Offer, Refused


class Choosing:
    """Asked by the allocator, whose books and offers it reads. `give_up`: an attachment claims anew, and what was kept
    for it is free for a moment."""

    def __init__(
        self,
        books: Mapping[str, Book],
        offers: Mapping[str, Offer],
        kept: Kept,
        give_up: Callable[[Attachment], None],
    ) -> None:
        self._books, self._offers, self._kept, self._give_up = books, offers, kept, give_up

    def choose(
        self, claim: Claim, around: Surroundings, pending: Mapping[str, int] | None, *, complete: bool
    ) -> tuple[Claim, Choice] | Refused:
        """`pending`: pool and address of what is granted to it; `complete`: that is all it is to have."""
        for attachment in attachments(claim):
            if attachment in self._kept:
                return self._regain(claim, around, attachment)
        if claim.reasserted and (known := self._asserted(claim)) is not None:
            return claim, known
        claim, choice = decide(claim, around, self._offers)
        if pending is not None:
            # What is granted stays, whatever the pools have become since.
            candidates = {} if isinstance(choice, Refused) else dict(choice.candidates)
            for offer in (self._offers[name] for name in pending if name in self._offers):
                candidates[offer.pool.family] = (offer.pool,)
            if isinstance(choice, Refused) and not candidates.keys() >= self._families_of(claim, pending, complete):
                return choice  # half of it is no answer: it waits with what it has
            return claim, Choice(candidates)
        return choice if isinstance(choice, Refused) else (claim, choice)

    def is_open(self, pool: Pool, uid: str) -> bool:
        """A pool that is read, and serves or has granted to this claim already: no address is ever taken back."""
        book = self._books.get(pool.name)
        return (
            book is not None and book.ledger is not None and (book.serving or book.ledger.granted_to(uid) is not None)
        )

    def _asserted(self, claim: Claim) -> Choice | None:
        """The pools that it had its addresses from, whoever may use them now: its container runs."""
        candidates = {
            family: (_uncut(offer.pool),)
            for family, names in claim.pools.items()
            for name in names
            if family in claim.wanted and (offer := self._offers.get(name)) is not None and offer.pool.family is family
        }
        return Choice(candidates) if claim.wanted and candidates.keys() == claim.wanted.keys() else None

    def _regain(self, claim: Claim, around: Surroundings, attachment: Attachment) -> tuple[Claim, Choice] | Refused:
        """The same attachment claims anew (its sandbox was made again): what it had is granted to it again, where its
        pools still hand it out. Families of which nothing was kept are chosen as for any claim."""
        kept = {
            self._offers[name].pool.family: (name, address)
            for name, address in self._kept.of(attachment)
            if name in self._offers and self._books[name].hands_out(address)
        }
        claim, choice = decide(claim, around, self._offers)
        if isinstance(choice, Refused) and (not kept or not kept.keys() >= _families(claim)):
            return choice
        candidates = {} if isinstance(choice, Refused) else dict(choice.candidates)
        candidates |= {family: (_uncut(self._offers[name].pool),) for family, (name, _) in kept.items()}
        if any(not self.is_open(pool, claim.uid) for pools in candidates.values() for pool in pools):
            return claim, Choice(candidates)  # it waits until they are, and what is kept stays so
        self._give_up(attachment)
        wanted = {family: address for family, (_, address) in kept.items()}
        return replace(claim, wanted={**claim.wanted, **wanted}), Choice(candidates)

    def _families_of(self, claim: Claim, pending: Mapping[str, int], complete: bool) -> frozenset[Family]:
        """Those that it asks for or was granted; of one that says nothing, those of the default pools."""
        if complete and all(name in self._offers for name in pending):
            return frozenset(self._offers[name].pool.family for name in pending)
        default = frozenset(offer.pool.family for offer in self._offers.values() if offer.pool.default)
        return _families(claim) or default


def _uncut(pool: Pool) -> Pool:
    """For one that has had its address already: whatever has become of slices since, and of its Pod's owner."""
    return pool if pool.slice_size is None else replace(pool, slice_size=None)


def _families(claim: Claim) -> frozenset[Family]:
    """Those it asks for, as far as it says."""
    return claim.families or frozenset(family for family, names in claim.pools.items() if names)


def attachments(claim: Claim) -> tuple[Attachment, Attachment]:
    """Under which something may be kept for it: what its Pod's status reports names the interface alone."""
    return claim.attachment, (claim.pod_uid, "", claim.interface)
