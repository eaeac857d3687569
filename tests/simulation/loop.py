"""An event loop whose time is simulated: when nothing is ready it jumps to the next timer.

Thousands of simulated seconds pass in a real one, and all that happens follows from a seed. asyncio promises that
callbacks which are ready run in the order they became so, and that a timer is never early: both are kept. Timers are
late by a little that the seed decides, so those of one moment fire in any order.

Each process of the simulated world (an operator, an agent) is a `Process`: what its tasks do carries it in their
context, so that it can be paused (SIGSTOP: its callbacks wait) or killed (they never run; no `finally` of it does).
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

LATEST_TIMER = 0.001
# Turns of the loop at one moment: more than this is a loop that spins.
TURNS_AT_ONCE = 50_000
DISK_SECONDS = 0.002

Result = TypeVar("Result")


class Process:
    """Tasks that live, stop and die together."""

    def __init__(self, loop: "SimulatedLoop", name: str) -> None:
        self.name = name
        self.dead = False
        self._loop = loop
        self._parked: deque[Any] | None = None

    @property
    def stopped(self) -> bool:
        return self._parked is not None

    def spawn(self, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        return self._loop.create_task(coroutine, context=context)

    def pause(self) -> None:
        if self._parked is None:
            self._parked = deque()

    def resume(self) -> None:
        """Goes on where it stopped; a process that was killed never does."""
        if self._parked is not None and not self.dead:
            self._loop.put_back(self._parked)
            self._parked = None

    def kill(self) -> None:
        self.pause()
        self.dead = True

    def bury(self) -> None:
        """The history is over: its tasks may end now."""
        self.dead = False
        self.resume()

    def park(self, handle: Any) -> bool:
        if self._parked is None:
            return False
        self._parked.append(handle)
        return True


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class SimulatedTask(asyncio.Task[Any]):
    """A task whose place in a set follows from the order of creation, not from where it lies in memory."""

    def __init__(self, *args: Any, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(*args, **more)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs on its own time. Has no I/O at all."""

    _ready: deque[Any]
    _scheduled: list[Any]

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._now = 0.0
        self._turns = 0
        self._tasks = self._timers = 0
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._now

    def call_at(  # type: ignore[override]  # looser than typeshed's
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """In the heap as (when, number, timer): tuples compare faster than timers."""
        when = max(when, self._now) + self._random.random() * LATEST_TIMER
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def put_back(self, handles: deque[Any]) -> None:
        self._ready.extend(handles)

    def run_in_executor(  # type: ignore[override]  # looser than typeshed's
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """A thread's work is done in one piece, a little later."""
        future: asyncio.Future[Any] = self.create_future()
        self.call_later(self._random.random() * DISK_SECONDS, _work, future, func, args)
        return future

    def _new_task(self, loop: Any, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        self._tasks += 1
        return SimulatedTask(coroutine, loop=loop, number=self._tasks, **more)

    def _run_once(self) -> None:
        ready = self._ready
        if not ready and not self._stopping:  # type: ignore[attr-defined]  # of BaseEventLoop
            self._jump()
        self._turns += 1
        if self._turns > TURNS_AT_ONCE:
            raise RuntimeError(f"the loop spins at {self._now:.3f}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is None or not process.park(handle):
                handle._run()

    def _jump(self) -> None:
        """To the next timer that is not cancelled; every timer due then is ready."""
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0][2]._cancelled:
            heapq.heappop(scheduled)
        if not scheduled:
            raise RuntimeError("nothing will ever happen again")
        self._now, self._turns = scheduled[0][0], 0
        while scheduled and scheduled[0][0] <= self._now:
            ready.append(heapq.heappop(scheduled)[2])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes."""

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""


def _work(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = func(*args)
    except Exception as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)
