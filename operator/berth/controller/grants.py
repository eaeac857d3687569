"""What is granted and not yet seen to be confirmed: of each claim the addresses, as the ledgers' pending has them.

A grant is complete when the claim has an address of every family that it is to have. Only then, and when all of them
stand in the API's own ledgers, may the claim be confirmed.
"""

from collections.abc import Iterator, Mapping

from berth.controller.book import Book
from berth.core.routing import Routing


class Grants:
    """Kept by the allocator, whose books it reads."""

    def __init__(self, books: Mapping[str, Book]) -> None:
        self._books = books
        self._pending: dict[str, dict[str, int]] = {}  # claim -> pool -> address
        self._complete: dict[str, Routing] = {}  # the routes that come with the addresses

    def __contains__(self, claim: object) -> bool:
        return claim in self._pending

    def of(self, claim: str) -> Mapping[str, int] | None:
        """Pool and address."""
        return self._pending.get(claim)

    def is_complete(self, claim: str) -> bool:
        return claim in self._complete

    def routing(self, claim: str) -> Routing:
        return self._complete[claim]

    def find(self, claim: str, pool: str, address: int) -> None:
        """In a ledger just read: it may be half of what the claim is to have."""
        self._pending.setdefault(claim, {})[pool] = address

    def make(self, claim: str, addresses: dict[str, int], routing: Routing) -> None:
        """All that it is to have."""
        self._pending[claim] = addresses
        self._complete[claim] = routing

    def end(self, claim: str) -> Iterator[str]:
        """It is confirmed, or gone. The pools that had granted to it."""
        self._complete.pop(claim, None)
        return iter(self._pending.pop(claim, {}))

    def lose(self, claim: str, pool: str) -> None:
        """What this pool had granted to it is another's: something is decided anew."""
        self._complete.pop(claim, None)
        pools = self._pending.get(claim, {})
        pools.pop(pool, None)
        if not pools:
            self._pending.pop(claim, None)

    def detach(self, pool: str) -> list[str]:
        """The pool's ledger is no longer known. The claims that it had granted to."""
        claims = [claim for claim, pools in self._pending.items() if pool in pools]
        for claim in claims:
            self.lose(claim, pool)
        return claims

    def confirmable(self, claim: str) -> bool:
        """Every address granted to it stands in the API's own ledger."""
        return claim in self._complete and all(self.written(claim, pool) for pool in self._pending[claim])

    def written(self, claim: str, pool: str) -> bool:
        book = self._books.get(pool)
        return book is not None and book.ledger is not None and book.ledger.confirmable(claim) is not None
