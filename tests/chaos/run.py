"""One run: the world comes up, trouble, calm, quiet; and what it came to.

Trouble: faults and churn. Calm: faults end, nothing is deployed any more, and every Pod must run with its addresses,
Endpoints, ledgers and links telling one story. Quiet: everything is deleted, and every address must come back. The
checker looks all the time, and the run ends at the first thing that must not be.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.api import BenchClient
from berth.kube.config import load
from berth.kube.errors import KubeError
from berth.kube.resources import ENDPOINTS, POOLS
from e2e import invariants
from tests.chaos.faults import Faults
from tests.chaos.load import LASTING, NAMESPACE, SETS, Load
from tests.chaos.record import EtcdLog, Journals, Record
from tests.chaos.world import Member, World
from tests.simulation.checker import Violation

CALM_SECONDS = 150.0
QUIET_SECONDS = 150.0
WARM_SECONDS = 120.0
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    seed: int
    minutes: float = 3.0
    nodes: int = 3
    bug: str | None = None
    against: str | None = None
    grace: float = CALM_SECONDS


@dataclass(slots=True)
class Report:
    """What a run came to. Seconds."""

    seed: int
    minutes: float
    began: str
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    deeds: int = 0
    adds: int = 0
    failed_adds: int = 0
    longest_add: float = 0.0
    dels: int = 0
    failed_dels: int = 0
    api_writes: int = 0
    calm_after: float | None = None
    quiet_after: float | None = None
    violations: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    exits: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, int] = field(default_factory=dict)
    found_after: float | None = None

    @property
    def good(self) -> bool:
        return not self.violations and not self.leaks and self.quiet_after is not None


class _Found(Exception):
    """The checker has found something: the run is over."""


class Run:
    def __init__(self, settings: Settings, folder: Path, say: Callable[[str], None]) -> None:
        self.settings, self.folder, self._say = settings, folder, say
        random = Random(settings.seed)
        self._random = random
        self.world = World(folder, Random(random.random()), settings.nodes, settings.bug)
        self.report = Report(settings.seed, settings.minutes, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self.record: Record | None = None
        self._phase, self._since, self._of = "starting", time.monotonic(), 0.0
        self._troubled = 0.0  # since when

    def line(self) -> str:
        """Where it is."""
        tally = self.record.tally if self.record is not None else None
        far = f"{time.monotonic() - self._since:.0f}{f'/{self._of:.0f}' if self._of else ''} s"
        counts = f"  ADDs {tally.adds}  DELs {tally.dels}  running {len(tally.alive)}" if tally else ""
        faults = sum(self.world.counted.values())
        wrong = len(self.record.violations) if self.record is not None else 0
        return f"{self._phase} {far}  faults {faults}{counts}  violations {wrong}"

    async def all(self) -> Report:
        began = time.monotonic()
        try:
            await self.world.start()
            log = EtcdLog(self.world.etcd_url)
            self.record = record = Record(log, Journals(self.world.journals), self.folder / "history.jsonl")
            following = asyncio.ensure_future(log.run())
            access = load(str(self.world.plane.kubeconfig))
            try:
                async with BenchClient(access, rate=500, burst=1000, name="chaos") as api:
                    await self._phases(api, record, following)
            except _Found:
                self.report.found_after = time.monotonic() - self._troubled
            finally:
                following.cancel()
                record.close()
        finally:
            await asyncio.shield(self.world.stop())
        self.report.seconds = time.monotonic() - began
        return self.report

    async def _phases(self, api: BenchClient, record: Record, following: "asyncio.Future[None]") -> None:
        load_ = Load(api, Random(self._random.random()), record.note)
        faults = Faults(
            self.world, Random(self._random.random()), record.note, self.settings.bug or self.settings.against
        )
        try:
            self._troubled = time.monotonic()
            self._enter("warming up", WARM_SECONDS)
            await load_.begin()
            await self._until(WARM_SECONDS, lambda: self._unsettled(api, load_))
            self._enter("trouble", self.settings.minutes * 60)
            self._troubled = time.monotonic()
            await self._trouble(load_, faults, following)
            self._enter("calm", self.settings.grace)
            self.world.end_faults()
            await load_.settle()
            self.report.calm_after = await self._until(self.settings.grace, lambda: self._unsettled(api, load_))
            self._enter("quiet", self.settings.grace)
            await load_.end()
            self.report.quiet_after = await self._until(self.settings.grace, lambda: self._left(api, load_))
        finally:
            load_.abandon()
            self._count(record, load_)

    async def _trouble(self, load_: Load, faults: Faults, following: "asyncio.Future[None]") -> None:
        end = time.monotonic() + self.settings.minutes * 60
        acting = [asyncio.ensure_future(each) for each in (load_.churn(), faults.run())]
        try:
            while time.monotonic() < end:
                self._look()
                for task in (*acting, following):
                    if task.done():
                        task.result()  # none of them ends by itself
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in acting:
                task.cancel()
            await asyncio.gather(*acting, return_exceptions=True)

    async def _until(self, seconds: float, missing: Callable[[], Awaitable[str]]) -> float:
        """How long it took until nothing was missing; what still is after `seconds` is a violation."""
        assert self.record is not None
        began = time.monotonic()
        while True:
            self._look()
            try:
                what = await missing()
            except (KubeError, OSError) as error:
                what = f"{type(error).__name__}: {error}"
            spent = time.monotonic() - began
            if not what:
                return spent
            if spent > seconds:
                self.record.wrong(f"{self._phase}: after {seconds:.0f} s: {what}")
                raise _Found
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        assert self.record is not None
        self.world.keep_up(self._ended)
        self.record.judge()
        if self.record.violations:
            raise _Found

    def _ended(self, member: Member) -> None:
        """By itself. An operator may, when the API is away as its term begins; an agent never."""
        assert self.record is not None
        self.report.exits[member.kind] = self.report.exits.get(member.kind, 0) + 1
        self.record.note("ended by itself", of=member.name)
        if member.kind == "agent":
            self.record.wrong(f"{member.name} has ended by itself: see {member.process.log}")

    async def _unsettled(self, api: BenchClient, load_: Load) -> str:
        """What is not yet as it must be, with all that lasts running and nothing else there."""
        pods = await load_.pods()
        interfaces, tenants = await self.world.look()
        running = [each for each in pods if each["status"].get("phase") == "Running"]
        if not len(running) == len(pods) == tenants == LASTING:
            waiting = sorted(each["metadata"]["name"] for each in pods if each not in running)
            return f"{len(running)} of {len(pods)} Pods run, {LASTING} are to; not: {waiting}; on nodes: {tenants}"
        endpoints, ledgers = (await api.list(ENDPOINTS.path())).items, (await api.list(POOLS.path())).items
        sets = (await api.list(SETS.path(namespace=NAMESPACE))).items
        return "; ".join(invariants.violations(pods, endpoints, ledgers, interfaces, sets))

    async def _left(self, api: BenchClient, load_: Load) -> str:
        assert self.record is not None
        pods = await load_.pods()
        _, tenants = await self.world.look()
        if pods or tenants:
            return f"{len(pods)} Pods are left, {tenants} on nodes"
        endpoints, ledgers = (await api.list(ENDPOINTS.path())).items, (await api.list(POOLS.path())).items
        self.report.leaks = invariants.leaks(endpoints, ledgers)
        try:
            self.record.checker.losers()
        except Violation as violation:
            return str(violation)
        return "; ".join(self.report.leaks) or self.record.checker.unclean()

    def _enter(self, phase: str, seconds: float) -> None:
        assert self.record is not None
        self._phase, self._since, self._of = phase, time.monotonic(), seconds
        self.record.note(f"phase: {phase}")
        self._say(self.line())

    def _count(self, record: Record, load_: Load) -> None:
        report, tally = self.report, record.tally
        report.faults = dict(sorted(self.world.counted.items()))
        report.deeds, report.violations, report.api_writes = load_.deeds, record.violations, record.writes
        report.adds, report.failed_adds, report.longest_add = tally.adds, tally.failed_adds, tally.longest_add
        report.dels, report.failed_dels = tally.dels, tally.failed_dels
        report.errors = dict(tally.errors.most_common(12))
        report.troubles = dict(tally.troubles.most_common(5))
