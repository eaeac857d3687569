"""Calls being answered, and those that came too late.

Only one call at a time works on an attachment. A DEL does not wait for the ADD before it: it has it abandoned, and
waits until what it did is undone. A tombstone remembers such a DEL: an ADD whose process was started before it and
shows up after it (its caller was killed, and it lived on) must get no address, for nobody would ever free it.
"""

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from berth_cni.calls import Attachment

Outcome = TypeVar("Outcome")

_TICKS = os.sysconf("SC_CLK_TCK")
_MOST_TOMBSTONES = 1024
# A runtime gives a sandbox four minutes; nothing that was started for it is alive after that.
_TOMBSTONE_SECONDS = 600


class Caller(Protocol):
    """The shim at the other end."""

    @property
    def pid(self) -> int:
        """0 when it cannot be known: another PID namespace."""
        ...

    async def deliver(self, exit_code: int, stdout: bytes, *, acknowledged: bool) -> bool:
        """Sends the answer, the first one; with `acknowledged`, whether the caller has told that it got it."""
        ...


class Underway:
    """One call. It is never cancelled, which could leave a write half done: it is abandoned, and undoes its work."""

    def __init__(self, caller: Caller | None = None) -> None:
        self.caller = caller
        self.abandoned = ""  # why
        self.finished = asyncio.Event()
        self._waiter: asyncio.Future[Any] | None = None

    def abandon(self, why: str) -> None:
        self.abandoned = self.abandoned or why
        if self._waiter is not None and not self._waiter.done():
            self._waiter.cancel()

    async def until(self, waiter: "asyncio.Future[Outcome]") -> Outcome | None:
        """The outcome; None when the call is abandoned first."""
        if self.abandoned:
            waiter.cancel()
            return None
        self._waiter = waiter
        try:
            return await waiter
        except asyncio.CancelledError:
            if not self.abandoned:
                raise  # a deadline, or the end of the agent
            return None
        finally:
            self._waiter = None

    async def pause(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(seconds, _wake, waiter)
        await self.until(waiter)
        timer.cancel()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class Lanes:
    """One lane for each attachment."""

    def __init__(self) -> None:
        self._underway: dict[Attachment, Underway] = {}

    def __contains__(self, attachment: Attachment) -> bool:
        return attachment in self._underway

    @contextlib.asynccontextmanager
    async def alone(self, attachment: Attachment, underway: Underway, overtake: str = "") -> AsyncIterator[None]:
        """Waits for its turn; with `overtake` (why), has the one before it abandoned."""
        while (other := self._underway.get(attachment)) is not None:
            if overtake:
                other.abandon(overtake)
            await other.finished.wait()
        self._underway[attachment] = underway
        try:
            yield
        finally:
            del self._underway[attachment]
            underway.finished.set()


class Tombstones:
    """When a DEL came for an attachment, in clock ticks since boot: the measure of a process's start."""

    def __init__(self) -> None:
        self._raised: OrderedDict[Attachment, int] = OrderedDict()

    def __contains__(self, attachment: Attachment) -> bool:
        return attachment in self._raised

    def raise_for(self, attachment: Attachment, sent: int | None = None) -> None:
        """`sent`: when the DEL came, in milliseconds since boot; None: now, or not known, and then now is safe."""
        now = _now()
        # Rounded down, as starts are: an ADD of the same tick is the newer one. Later than now: before a reboot.
        self._raised[attachment] = now if sent is None else min(now, sent * _TICKS // 1000)
        self._raised.move_to_end(attachment)
        # What is raised may be too old itself: a DEL that lay in the spool for long.
        while self._raised and (
            len(self._raised) > _MOST_TOMBSTONES
            or next(iter(self._raised.values())) < now - _TOMBSTONE_SECONDS * _TICKS
        ):
            self._raised.popitem(last=False)

    def overtaken(self, attachment: Attachment, pid: int) -> bool:
        """Whether the ADD of this process is older than the DEL. One that is newer ends the tombstone."""
        if (raised := self._raised.get(attachment)) is None:
            return False
        started = _start_of(pid)
        if started is None or started < raised:
            return True
        del self._raised[attachment]
        return False


def _now() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def _start_of(pid: int) -> int | None:
    """Of a process that cannot be seen nothing is known; a container ID is used once, so it is then held too late."""
    if pid <= 0:
        return None
    try:
        # The name, in parentheses, may hold anything; the start time is the 20th field after it (proc(5)).
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
