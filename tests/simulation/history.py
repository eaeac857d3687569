"""One history: a cluster, what people and bad luck do to it, calm, and what must then be true.

All of it follows from the seed. It goes in three parts. Trouble: Pods come and go, pools change, processes die,
requests are lost. Calm: faults end, one operator leads, and every Pod that fits must get its addresses. Quiet: all Pods
go, and every address must come back.
"""

import asyncio
import gc
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from berth.kube.client import Object
from tests.simulation.apiserver import ApiServer
from tests.simulation.backups import Backups
from tests.simulation.checker import Checker, Violation
from tests.simulation.cluster import Cluster
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulatedLoop
from tests.simulation.standins import stand_ins
from tests.simulation.trouble import Trouble
from tests.simulation.world import World

CALM_SECONDS = 240.0  # after calm every Pod that fits has its addresses within this
QUIET_SECONDS = 240.0  # and after quiet every address is back
STEP_SECONDS = 1.0
OUTAGE_SECONDS = 24.0  # nodes that are away at calm are back within this
SHARED_MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Told:
    """How a history went."""

    seed: int
    violation: str = ""
    adds: int = 0
    longest_wait: float = 0.0
    simulated: float = 0.0
    writes: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def run(seed: int, *, trace: bool = False) -> Told:
    """One history from its seed."""
    random = Random(seed)
    loop = SimulatedLoop(Random(seed + 1))
    told = Told(seed)
    folder = Path(tempfile.mkdtemp(prefix="berth-sim-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
    history = History(loop, random, folder, told, trace)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with stand_ins(history.world, history.note if trace else None):
            loop.run_until_complete(history.run())
    finally:
        loop.close()
        asyncio.set_event_loop(None)
        shutil.rmtree(folder, ignore_errors=True)
        if collecting:
            gc.enable()
    return told


class History:
    def __init__(self, loop: SimulatedLoop, random: Random, folder: Path, told: Told, trace: bool) -> None:
        self.random, self.told = random, told
        # Every fourth history is hard: more of everything.
        self.hard = random.random() < 0.25
        faults = Faults.drawn(random, 0.25 if self.hard else random.choice((0.0, 0.02, 0.1, 0.25)))
        api = ApiServer(loop, Random(random.random()), faults)
        checker = Checker(loop.time)
        self.world = World(loop, Random(random.random()), api, checker, folder)
        self.world.sandbox_seconds = 8.0 if self.hard else 40.0
        api.store.observers.append(self._observe)
        if trace:
            self.world.note = api.note = self.note
        self.cluster = Cluster(self.world, random)
        # Drawn from nothing that the rest draws from: a history without backups is what it was before there were any.
        self.backups = Backups(self.cluster, Random("backups" + str(random.getstate())))
        self.trouble = Trouble(self.cluster, random, self.hard)

    # --- the three parts --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        world = self.world
        try:
            self.cluster.build()
            await self._trouble()
            await self._calm()
            await self._quiet()
        except Violation as violation:
            self._fail(violation)
        except Exception as error:
            self._fail(error)
        self.told.adds, self.told.longest_wait = world.checker.adds, world.checker.longest_wait
        self.told.simulated, self.told.writes = world.loop.time(), world.api.store.writes
        self.told.faults = dict(world.api.counted)
        await self._end()

    async def _trouble(self) -> None:
        random = self.random
        events = self.trouble.events() + self.backups.events()
        for _ in range(random.randint(30, 70) if self.hard else random.randint(5, 30)):
            (event,) = random.choices([each for each, _ in events], [weight for _, weight in events])
            event()
            await asyncio.sleep(random.expovariate(1 / random.choice((0.02, 0.3, 2.0))))
            self._look()
        self.backups.restore()

    async def _calm(self) -> None:
        """Faults end; every Pod that fits gets its addresses."""
        world = self.world
        world.note("* calm")
        world.calm = True
        world.api.faults.calm()
        world.api.come_back()
        for node in self.cluster.nodes:
            world.loop.call_later(self.random.uniform(0.0, OUTAGE_SECONDS), self.trouble.outages.end, node)
            node.agent.process.resume()
            node.start_agent()
        leading = [operator for operator in self.cluster.operators if operator.leads]
        stays = self.random.choice(leading) if leading and self.random.random() < 0.5 else None
        for operator in self.cluster.operators:
            operator.process.resume()
            if operator is not stays:
                operator.step_down()
            if operator.process.dead:
                operator.restart(False)
        if stays is None:
            self.random.choice(self.cluster.operators).lead()
        for name in [each["metadata"]["name"] for each in world.api.store.all("ippools")]:
            world.api.store.change("ippools", name, "", _enable, "someone")
        await self._until(
            30.0, lambda: "calm begins" if world.loop.time() < began + 25 else "", began := world.loop.time()
        )
        self._fit()
        await self._until(CALM_SECONDS, self._waiting, world.loop.time())

    async def _quiet(self) -> None:
        self.world.note("* quiet")
        self.cluster.sets.remove_all()
        for pod in list(self.cluster.pods.values()):
            self.cluster.delete(pod, force=False)
        await self._until(QUIET_SECONDS, self._left, self.world.loop.time())

    async def _until(self, seconds: float, missing: Callable[[], str], began: float) -> None:
        """Returns when nothing is missing any more; what still is after `seconds` is a violation."""
        while (what := missing()) or self.world.failures:
            self._look()
            if self.world.loop.time() > began + seconds:
                raise Violation(f"after {seconds:.0f} s: {what}")
            await asyncio.sleep(STEP_SECONDS)

    async def _end(self) -> None:
        """All tasks end; a history leaves nothing behind."""
        world = self.world
        self.told.lines.append("") if not self.told.lines else None
        world.api.close()
        for process in world.processes:
            process.bury()
        mine = asyncio.current_task()
        for _ in range(20):
            left = [task for task in asyncio.all_tasks() if task is not mine]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self.world.failures:
            raise self.world.failures[0]

    def _fail(self, error: BaseException) -> None:
        self.told.violation = f"{self.world.loop.time():.3f}: {error}"
        if not isinstance(error, Violation):
            self.told.violation = f"{self.world.loop.time():.3f}: {_flat(error)}"

    def _observe(self, landing: Any) -> None:
        try:
            self.world.checker.observe(landing)
        except Violation as violation:
            self.world.failures.append(violation)

    def note(self, text: str) -> None:
        self.told.lines.append(f"{self.world.loop.time():9.3f} {text}")

    def _losers(self) -> set[str]:
        return self.world.checker.losers()

    def _fit(self) -> None:
        """Pods that ask for more than there is, or for a pool that does not serve, are deleted."""
        free = {
            each["metadata"]["name"]: self.world.checker.capacity(each["metadata"]["name"])
            for each in self.world.api.store.all("ippools")
        }
        free["sliced"] = 0  # whether a Pod fits there depends on which slices there are
        losers = self._losers()
        for name, replicas, pools in list(self.cluster.sets.asked()):
            if any(free.get(pool, 0) < max(1, replicas) or pool in losers for pool in pools):
                self.cluster.sets.remove(name)
                continue
            for pool in pools:
                free[pool] -= replicas
        for pod in list(self.cluster.pods.values()):
            if pod.of:
                continue
            fits = all(free.get(name, 0) > 0 and name not in losers for name in pod.pools)
            if not fits or pod.leaving:
                self.cluster.delete(pod, force=False)
                continue
            for name in pod.pools:
                free[name] -= 1

    def _waiting(self) -> str:
        self._losers()
        missing = [pod.name for pod in self.cluster.pods.values() if not pod.running and not pod.finished]
        leaving = [pod.name for node in self.cluster.nodes for pod in node.pods.values() if pod.stop.is_set()]
        if leaving:
            return f"Pods do not end: {sorted(leaving)}"
        return f"Pods without an address: {sorted(missing)}" if missing else ""

    def _left(self) -> str:
        if any(node.pods for node in self.cluster.nodes):
            return "Pods do not end"
        return self.world.checker.unclean()


def _enable(body: Object) -> None:
    if body["spec"].pop("disabled", False):
        body["metadata"]["generation"] += 1


def _flat(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_flat(each) for each in error.exceptions)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}: {error}{where}"
