"""Claims that wait for an address: first come, first served, one queue for each set of pools they could draw from, and
for each application where it is its slices that have none."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from berth.core.granting import Waiting
from berth.core.selection import Refused

# Pools; the application whose slices they are; the claim itself where it wants one certain address.
Line = tuple[tuple[str, ...], str, str]


@dataclass(slots=True)
class Waiter:
    since: float
    refusal: Refused
    told: bool = False  # its Endpoint says so


class WaitingLines:
    """Who waits, for what, since when."""

    def __init__(self) -> None:
        self._lines: dict[Line, OrderedDict[str, Waiter]] = {}
        self._where: dict[str, Line] = {}
        self._draining = False

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, claim: str) -> bool:
        return claim in self._where

    def join(self, claim: str, waiting: Waiting, now: float, *, alone: bool) -> None:
        """Keep the place of one who waits already in the same line."""
        line = (waiting.pools, waiting.application, claim if alone else "")
        before = self._where.get(claim)
        if before == line:
            self._lines[line][claim].refusal = waiting.refusal
            return
        self.leave(claim)
        self._where[claim] = line
        self._lines.setdefault(line, OrderedDict())[claim] = Waiter(now, waiting.refusal)

    def leave(self, claim: str) -> None:
        line = self._where.pop(claim, None)
        if line is None:
            return
        del self._lines[line][claim]
        if not self._lines[line]:
            del self._lines[line]

    def lines(self) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
        """Each line's pools, the application whose slices of them it waits for, and its claims in order."""
        for (pools, application, _), line in list(self._lines.items()):
            yield pools, application, list(line)

    def drain(self, consider: Callable[[str], None]) -> None:
        """Serve those who wait, in order, once this turn of the loop is over: until the head of a line goes on waiting.
        `consider`: decides for one, who then leaves or stays."""
        if self._where and not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain, consider)

    def _drain(self, consider: Callable[[str], None]) -> None:
        self._draining = False
        for line in list(self._lines):
            while (head := self._head(line)) is not None:
                consider(head)
                if self._head(line) == head:
                    break

    def _head(self, line: Line) -> str | None:
        return next(iter(self._lines.get(line, ())), None)

    def waiter(self, claim: str) -> Waiter:
        return self._lines[self._where[claim]][claim]
