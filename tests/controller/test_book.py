"""A book's own task."""

import asyncio

import pytest

from berth.controller.book import Book
from tests.controller.stage import pool


async def _never(_: Book) -> None:
    raise AssertionError("no write is lost here")


@pytest.mark.parametrize("ticks", range(4))
async def test_a_cancellation_that_comes_with_a_grant_is_not_lost(ticks: int) -> None:
    """Else a term that has lost its Lease never ends, and its process never leads again."""
    book = Book(None, pool(), accepted=lambda *_: None, lost=_never)  # type: ignore[arg-type]  # it writes nothing here
    waiting = asyncio.create_task(book._company())
    await asyncio.sleep(0.01)
    book._urgent.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
