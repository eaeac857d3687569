"""One live line: which contender, which phase, how far, how long. Without a terminal, a line every few seconds."""

import asyncio
import time
from collections.abc import Callable

from rich.console import Console
from rich.status import Status

SELDOM_SECONDS = 5.0


class Progress:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._since = self._said = time.monotonic()
        self._head = "starting"
        self._count: Callable[[], int] | None = None
        self._of = 0

    def phase(self, who: str, what: str, count: Callable[[], int] | None = None, of: int = 0) -> None:
        self._since, self._head, self._count, self._of = time.monotonic(), f"{who}: {what}", count, of
        self._said = 0.0

    async def show(self) -> None:
        """Until cancelled."""
        if not self._console.is_terminal:
            while True:
                await asyncio.sleep(0.2)
                if time.monotonic() - self._said > SELDOM_SECONDS:
                    self._said = time.monotonic()
                    self._console.print(self._line(), highlight=False)
        with Status(self._line(), console=self._console) as status:
            while True:
                status.update(self._line())
                await asyncio.sleep(0.1)

    def _line(self) -> str:
        far = f"  {self._count()}/{self._of}" if self._count is not None else ""
        return f"{self._head}{far}  {time.monotonic() - self._since:.0f} s"
