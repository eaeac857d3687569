"""What goes wrong from outside: each fault is one coroutine that does it, waits, and makes it good again.

SIGKILL and SIGSTOP of every part, also at points that matter (between a write and its answer); bad weather, cut
networks and watches; a full disk while the API is away; wall clocks an hour off; two operators that both hold the
Lease. Which, of whom, when and for how long follows from the seed.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from tests.chaos.aimed import AIMED, Aimed
from tests.chaos.proxy import Point, Weather
from tests.chaos.world import BALLAST, Member, World, fill

Fault = Coroutine[Any, Any, None]
HOUR = 3600.0
# A storm is nearly always one or two at a time, now and then more; in a lull what was broken recovers, and is broken
# anew as the next storm meets it half-way.
PAUSE_SECONDS = 2.0
STORM_SECONDS, LULL_SECONDS = (8.0, 25.0), (3.0, 15.0)
MOST_AT_ONCE = 4
LEASE_SECONDS = 6.0
POINTS = {
    "operator": (
        Point("a ledger's write", "PUT", "/ippools/"),
        Point("an Endpoint's confirmation", "PUT", "/endpoints/"),
        Point("an Endpoint's deletion", "DELETE", "/endpoints/"),
    ),
    "agent": (
        Point("a claim", "POST", "/endpoints"),
        Point("an Endpoint's deletion", "DELETE", "/endpoints/"),
        Point("a claim's new container", "PUT", "/endpoints/"),
    ),
}
POINT_SECONDS = 15.0
ONE_IS_WELL = 0.8  # how often the other operator is left alone while one has a fault
# How long each may be away or stopped: the API server and etcd short of what makes controllers give nodes up.
AWAY = {"operator": 6.0, "agent": 8.0, "webhook": 10.0, "kube-apiserver": 3.0, "etcd": 2.0}
STOPPED = {"operator": LEASE_SECONDS + 6, "agent": 12.0, "webhook": 8.0, "kube-apiserver": 7.0, "etcd": 5.0}


class Faults:
    """`bug`: only what is aimed at it happens, if anything is."""

    def __init__(self, world: World, random: Random, note: Callable[..., None], bug: str | None = None) -> None:
        self._world, self._random, self._note, self._bug = world, random, note, bug
        self._busy: set[str] = set()  # members that a fault has
        self._tasks: set[asyncio.Task[None]] = set()
        self._aimed = Aimed(world, random, self._count).kinds

    async def run(self) -> None:
        """Until cancelled; what is under way then is left to `World.end_faults`."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                over = loop.time() + self._random.uniform(*STORM_SECONDS)
                while loop.time() < over:
                    await asyncio.sleep(self._random.expovariate(1 / PAUSE_SECONDS))
                    if len(self._tasks) < MOST_AT_ONCE:
                        self._strike()
                await asyncio.sleep(self._random.uniform(*LULL_SECONDS))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _strike(self) -> None:
        kinds = self._kinds()
        (kind,) = self._random.choices([each for each, _ in kinds], [weight for _, weight in kinds])
        task = asyncio.ensure_future(kind())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()

    def _kinds(self) -> list[tuple[Callable[[], Fault], float]]:
        if self._bug is not None and self._bug in AIMED:
            return [(self._aimed[name], 1.0) for name in AIMED[self._bug]]
        return [
            *((each, 0.6) for each in self._aimed.values()),
            (lambda: self._kill("operator"), 2.0),
            (lambda: self._kill("agent"), 2.0),
            (lambda: self._kill("webhook"), 0.5),
            (lambda: self._kill("kube-apiserver"), 0.4),
            (lambda: self._kill("etcd"), 0.4),
            (lambda: self._pause("operator"), 1.5),
            (lambda: self._pause("agent"), 1.5),
            (lambda: self._pause("webhook"), 0.4),
            (lambda: self._pause("kube-apiserver"), 0.4),
            (lambda: self._pause("etcd"), 0.4),
            (lambda: self._kill_at_point("operator"), 2.0),
            (lambda: self._kill_at_point("agent"), 2.0),
            (self._hand_over, 0.7),
            (lambda: self._weather("operator"), 3.0),
            (lambda: self._weather("agent"), 3.0),
            (lambda: self._cut_off("operator"), 1.0),
            (lambda: self._cut_off("agent"), 1.0),
            (self._cut_watches, 1.0),
            (self._fill_disk, 1.0),
            (lambda: self._shift_clock("operator"), 0.8),
            (lambda: self._shift_clock("agent"), 0.8),
            (self._two_leaders, 1.0),
        ]

    # --- processes ---------------------------------------------------------------------------------------------------

    async def _kill(self, kind: str) -> None:
        if (member := self._take(kind)) is None:
            return
        self._count(f"SIGKILL {kind}", member)
        member.kill()
        await asyncio.sleep(self._random.uniform(0.1, AWAY[kind]))
        member.start()
        self._give_back(member)

    async def _pause(self, kind: str) -> None:
        """An operator for longer than its Lease: it goes on as a leader that is none."""
        if (member := self._take(kind)) is None:
            return
        self._count(f"SIGSTOP {kind}", member)
        member.stop()
        least = LEASE_SECONDS + 2 if kind == "operator" else 1.0
        await asyncio.sleep(self._random.uniform(least, STOPPED[kind]))
        member.go_on()
        self._give_back(member)

    async def _kill_at_point(self, kind: str) -> None:
        """Between a request and what follows it: before it is done, or when it is done and not yet answered."""
        if (member := self._take(kind)) is None or member.proxy is None:
            return
        point, done = self._random.choice(POINTS[kind]), self._random.random() < 0.5
        if await member.proxy.reached(point, done, member.kill, POINT_SECONDS):
            self._count(f"SIGKILL {kind} {'after' if done else 'before'} {point.name}", member)
            await asyncio.sleep(self._random.uniform(0.1, AWAY[kind]))
            member.start()
        self._give_back(member)

    async def _hand_over(self) -> None:
        if (member := self._take("operator")) is None:
            return
        self._count("SIGTERM operator", member)
        member.down = True
        member.process.signal(signal.SIGTERM)
        await asyncio.sleep(self._random.uniform(2.0, 5.0))
        member.kill()
        member.start()
        self._give_back(member)

    # --- the network -------------------------------------------------------------------------------------------------

    async def _weather(self, kind: str) -> None:
        if (member := self._take(kind, alone=False)) is None or member.proxy is None:
            return
        weather = Weather.drawn(self._random, self._random.choice((0.05, 0.2, 0.4)))
        self._count("bad weather", member)
        member.proxy.weather = weather
        await asyncio.sleep(self._random.uniform(3.0, 15.0))
        member.proxy.weather = Weather()

    async def _cut_off(self, kind: str) -> None:
        if (member := self._take(kind)) is None or member.proxy is None:
            return
        self._count(f"{kind} cut off from the API", member)
        member.proxy.cut_off = True
        member.proxy.cut_watches()
        await asyncio.sleep(self._random.uniform(1.0, 15.0))
        member.proxy.cut_off = False
        self._give_back(member)

    async def _cut_watches(self) -> None:
        self._count("all watches cut")
        for member in self._world.members.values():
            if member.proxy is not None:
                member.proxy.cut_watches()

    # --- the machine -------------------------------------------------------------------------------------------------

    async def _fill_disk(self) -> None:
        """And no API: a DEL can be neither done nor kept."""
        if (member := self._take("agent")) is None or member.disk is None or member.proxy is None:
            return
        self._count("disk full", member)
        fill(member.disk)
        if self._random.random() < 0.7:
            member.proxy.cut_off = True
        if self._random.random() < 0.3:
            member.kill()
        await asyncio.sleep(self._random.uniform(2.0, 10.0))
        (member.disk / BALLAST).unlink(missing_ok=True)
        member.proxy.cut_off = False
        member.start()
        self._give_back(member)

    async def _shift_clock(self, kind: str) -> None:
        if (member := self._take(kind, alone=False)) is None or member.clock is None:
            return
        shift = self._random.choice((HOUR, -HOUR))
        self._count(f"clock of {kind} {shift / HOUR:+.0f} h", member)
        member.clock.write_text(str(shift))
        await asyncio.sleep(self._random.uniform(2.0, 20.0))
        member.clock.write_text("0")

    async def _two_leaders(self) -> None:
        """Both see a Lease that is theirs, whatever they write to it."""
        operators = self._world.of_kind("operator")
        if any(each.proxy is None or each.proxy.leads for each in operators):
            return
        self._count("two leaders")
        for each in operators:
            each.proxy.lead()  # type: ignore[union-attr]
        await asyncio.sleep(self._random.uniform(8.0, 20.0))
        for each in operators:
            each.proxy.lead_no_more()  # type: ignore[union-attr]

    # --- whom --------------------------------------------------------------------------------------------------------

    def _take(self, kind: str, alone: bool = True) -> Member | None:
        """One that no other fault has; `alone`: which must not share it."""
        members = self._world.of_kind(kind)
        free = [each for each in members if not alone or each.name not in self._busy]
        both = kind == "operator" and len(free) < len(members)
        if not free or (both and self._random.random() < ONE_IS_WELL):
            return None
        member = self._random.choice(free)
        if alone:
            self._busy.add(member.name)
        return member

    def _give_back(self, member: Member) -> None:
        self._busy.discard(member.name)

    def _count(self, what: str, member: Member | None = None) -> None:
        self._world.counted[what] += 1
        self._note(f"fault: {what}", of=member.name if member is not None else None)
