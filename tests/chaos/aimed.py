"""Faults that are aimed: each makes, over and over, the rare moment in which one rule matters.

What happens at random comes to such a moment in hours. A run with a rule broken (`--bug`) has the faults that `AIMED`
names for it, and no others, if it names any; so has its counterpart with nothing broken (`--against`). All other runs
have them among the rest.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import Any

from tests.chaos.proxy import Point, Weather, Withheld
from tests.chaos.world import Member, World

Fault = Coroutine[Any, Any, None]
LEDGER = Point("a ledger's write", "PUT", "/ippools/")
CONFIRMATION = Point("an Endpoint's confirmation", "PUT", "/endpoints/")
LIST = Point("a list of Endpoints", "GET", "/endpoints")
CATCH_SECONDS = 15.0
# From a write that is withheld to the end of who sent it: what it has done meanwhile is written by then.
GOES_ON_SECONDS = (0.8, 2.0)
# Until it is done after all: another leads by then, and what that doubts is decided.
WITHHELD_SECONDS = (8.0, 26.0)
# A node that is cut off is silent for longer than the operator's grace.
SILENT_SECONDS = (18.0, 30.0)


class Aimed:
    def __init__(self, world: World, random: Random, count: Callable[..., None]) -> None:
        self._world, self._random, self._count = world, random, count
        self._silent: set[str] = set()
        self.kinds: Mapping[str, Callable[[], Fault]] = {
            "ledger writes in doubt": self.ledger_writes_in_doubt,
            "confirmation withheld": self.confirmation_withheld,
            "old lists": self.old_lists,
            "two leaders, one deaf": self.two_leaders_one_deaf,
            "silent node": self.silent_node,
            "agents' watches cut": self.agents_watches_cut,
        }

    async def ledger_writes_in_doubt(self) -> None:
        """Done or not, their sender is not told."""
        await self._weather({LEDGER: Weather(lost=0.3, unanswered=0.3, late=0.1)}, "ledger writes in doubt")

    async def old_lists(self) -> None:
        """Ledgers are read again and again, and lists of Endpoints come when the watch knows better."""
        await self._weather({LEDGER: Weather(unanswered=0.4), LIST: Weather(stale=1.0)}, "old lists")

    async def _weather(self, at: dict[Point, Weather], what: str) -> None:
        self._count(what)
        for member in self._operators():
            member.proxy.weather_at = at  # type: ignore[union-attr]
        await asyncio.sleep(self._random.uniform(5.0, 15.0))
        for member in self._operators():
            member.proxy.weather_at = {}  # type: ignore[union-attr]

    async def confirmation_withheld(self) -> None:
        """A leader is killed with a confirmation under way, which arrives long after another leads."""
        operators = self._operators()
        if any(each.proxy is None or each.proxy.withheld is not None for each in operators):
            return
        withheld = Withheld(CONFIRMATION)
        for each in operators:
            each.proxy.withheld = withheld  # type: ignore[union-attr]
        try:
            async with asyncio.timeout(CATCH_SECONDS):
                await withheld.caught.wait()
            await asyncio.sleep(self._random.uniform(*GOES_ON_SECONDS))
            sender = self._world.members[withheld.sender]
            self._count("confirmation withheld", sender)
            sender.kill()
            await asyncio.sleep(self._random.uniform(*WITHHELD_SECONDS))
            withheld.let_go.set()
            async with asyncio.timeout(CATCH_SECONDS):
                await withheld.done.wait()
            sender.start()
        except TimeoutError:
            pass
        finally:
            for each in operators:
                each.proxy.withheld = None  # type: ignore[union-attr]
            for each in operators:
                each.start()

    async def two_leaders_one_deaf(self) -> None:
        """Both believe that they lead, and one learns of no claim by its watch."""
        operators = self._operators()
        if any(each.proxy is None or each.proxy.leads for each in operators):
            return
        deaf = self._random.choice(operators)
        self._count("two leaders, one deaf", deaf)
        for each in operators:
            each.proxy.lead()  # type: ignore[union-attr]
        deaf.proxy.stands_still = "/endpoints"  # type: ignore[union-attr]
        await asyncio.sleep(self._random.uniform(8.0, 20.0))
        deaf.proxy.stands_still = ""  # type: ignore[union-attr]
        for each in operators:
            each.proxy.lead_no_more()  # type: ignore[union-attr]

    async def silent_node(self) -> None:
        """Cut off, and called not Ready; its Pods are force-deleted, and their containers run on."""
        kubelet = self._random.choice(self._world.kubelets)
        if self._silent:
            return
        self._silent.add(kubelet.name)
        self._count("silent node")
        try:
            kubelet.pause()
            await asyncio.to_thread(self._world.call_not_ready, kubelet.name)
            await asyncio.sleep(self._random.uniform(0.5, 2.0))
            await asyncio.to_thread(self._world.force_delete, kubelet.name)
            await asyncio.sleep(self._random.uniform(*SILENT_SECONDS))
        finally:
            kubelet.resume()
            self._silent.discard(kubelet.name)

    async def agents_watches_cut(self) -> None:
        """What does no harm to who leads: what is promised of that leader alone can be held against it."""
        self._count("agents' watches cut")
        for member in self._world.of_kind("agent"):
            member.proxy.cut_watches()  # type: ignore[union-attr]

    def _operators(self) -> list[Member]:
        return self._world.of_kind("operator")


AIMED: Mapping[str, tuple[str, ...]] = {
    "unknown-is-done": ("ledger writes in doubt",),
    "settle-before-confirm": ("confirmation withheld",),
    "no-pending-list": ("confirmation withheld",),
    "claims-before-ledger": ("two leaders, one deaf",),
    "resurrect": ("old lists",),
    "trust-the-silent": ("silent node",),
    "free-while-wanted": ("agents' watches cut",),
    "overtake-predecessor": ("agents' watches cut",),
    "any-heir": ("agents' watches cut",),
    "keep-for-nobody": ("agents' watches cut",),
    "no-second-reading": ("agents' watches cut",),
    "forget-reservations": ("agents' watches cut",),
    "cut-slices-twice": ("agents' watches cut",),
    "forget-slices": ("confirmation withheld",),
    "no-finalizer": ("agents' watches cut",),
    "lift-at-once": ("agents' watches cut",),
}
