"""One contender, from a fresh control plane to an empty one: three phases, each measured and then checked at rest."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench import history
from bench.api import BenchClient
from bench.budget import FRESH_SECONDS, over_budget
from bench.contenders import Contender
from bench.fleet import Fleet
from bench.measure import Gauge
from bench.profiling import api_profile
from bench.progress import Progress
from bench.settings import API_SERVER_FLAGS, CONTROLLER_QPS, Settings
from bench.workload import NAMESPACE, PodWatch, PoolWatch, Span, Workload, prepare
from berth.kube.config import load
from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS, PODS, POOLS
from e2e import invariants
from e2e.cluster import ControlPlane, Options

PHASES = ("create", "restart", "empty")
# Settling and releasing ride with a later ledger write, half a second at most; then a phase is at rest.
REST_SECONDS, REST_MOST_SECONDS = 1.0, 10.0
_CONTROL_PLANE = {"kube-controller-manager": "controllers", "kube-scheduler": "scheduler"}
NODE_PART, PLUGIN_PART = "simulated nodes", "CNI plugins"


@dataclass(slots=True)
class Calls:
    """ADDs or DELs of a phase. Seconds, and milliseconds of CPU for one."""

    count: int
    failed: int
    p50: float
    p90: float
    p99: float
    most: float
    cpu_each: float


@dataclass(slots=True)
class Phase:
    """What one phase came to. `api`: requests of Berth's group by verb and resource."""

    seconds: float | None
    curve: list[tuple[float, int]]
    adds: Calls
    dels: Calls
    api: dict[str, int]
    conflicts: int
    pod_reads: int
    all_requests: int
    etcd_bytes: int
    cpu: dict[str, float]
    machine_cpu: float
    violations: list[str]
    over_budget: list[str]


@dataclass(slots=True)
class Trial:
    contender: str
    title: str
    phases: dict[str, Phase] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def failed_adds(self) -> int:
        return sum(phase.adds.failed for phase in self.phases.values())

    @property
    def faults(self) -> list[str]:
        """What makes a run fail: times never do."""
        late = [f"{name}: did not end in time" for name, phase in self.phases.items() if phase.seconds is None]
        wrong = [line for phase in self.phases.values() for line in (*phase.violations, *phase.over_budget)]
        failed = [f"{self.failed_adds} ADDs failed"] if self.failed_adds else []
        return [*late, *wrong, *failed, *self.duplicates, *self.leaks]


async def run(contender: Contender, settings: Settings, directory: Path, progress: Progress) -> Trial:
    profiled = settings.profile == "api-server"
    flags = (*API_SERVER_FLAGS, *(("--profiling=true",) if profiled else ()))
    options = Options(api_server_flags=flags, controller_qps=CONTROLLER_QPS)
    plane = ControlPlane(directory, options=options)
    try:
        progress.phase(contender.title, "control plane")
        await asyncio.to_thread(plane.start)
        access = load(str(plane.kubeconfig))
        async with BenchClient(access, rate=1000, burst=2000, name="bench") as api:
            fleet = Fleet(plane, api, contender, settings)
            progress.phase(contender.title, "nodes")
            await prepare(api)
            try:
                await fleet.start()
                return await _Run(contender, settings, plane, api, fleet, progress).all()
            finally:
                if settings.profile:
                    await asyncio.shield(asyncio.to_thread(fleet.stop))
    finally:
        await asyncio.shield(asyncio.to_thread(plane.stop))


class _Run:
    def __init__(
        self,
        contender: Contender,
        settings: Settings,
        plane: ControlPlane,
        api: BenchClient,
        fleet: Fleet,
        progress: Progress,
    ) -> None:
        self._contender = contender
        self._settings = settings
        self._plane = plane
        self._api = api
        self._fleet = fleet
        self._progress = progress
        self._pods = PodWatch()
        self._pools = PoolWatch(self._pods.wake)
        self._trial = Trial(contender.name, contender.title)
        self._gauge = self._make_gauge()

    async def all(self) -> Trial:
        work = Workload(self._api, self._settings, self._pods, self._pools)
        async with self._watching():
            for name, do in zip(PHASES, (work.create, work.restart, work.empty), strict=True):
                self._progress.phase(self._contender.title, name, lambda: work.count(), self._settings.pods)
                await self._phase(name, do)
                if self._trial.phases[name].seconds is None:
                    break
        self._trial.memory = self._gauge.peak_memory()
        await self._judge()
        return self._trial

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        path = PODS.path(namespace=NAMESPACE)
        followed = [follow(self._api, path, self._pods)]
        if self._contender.berth:
            followed.append(follow(self._api, POOLS.path(), self._pools))
        tasks = [asyncio.ensure_future(each) for each in (*followed, self._watch_processes())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _watch_processes(self) -> None:
        """A process that dies must not be waited for: it ends the trial."""
        while True:
            await asyncio.sleep(1)
            self._fleet.alive()

    async def _phase(self, name: str, do: Callable[[], Awaitable[Span]]) -> None:
        before = await asyncio.to_thread(self._gauge.read)
        if self._settings.profile == "api-server":
            output = self._plane.directory / "logs" / f"api-server-{name}.pprof"
            api_profile(self._plane.url, self._gauge.tls, output)
        span = await do()
        await self._rest()
        counted = (await asyncio.to_thread(self._gauge.read)).since(before)
        told = self._history()
        adds, dels = (told.during(event, span.begin, time.monotonic()) for event in ("ADD", "DEL"))
        slow = sum(call.seconds > FRESH_SECONDS for call in adds)
        counted.cpu[PLUGIN_PART] = round(1000 * sum(call.cpu for call in (*adds, *dels)))
        self._trial.phases[name] = Phase(
            seconds=span.seconds,
            curve=span.curve,
            adds=_calls(adds),
            dels=_calls(dels),
            api=dict(counted.requests),
            conflicts=counted.conflicts,
            pod_reads=counted.pod_reads,
            all_requests=counted.all_requests,
            etcd_bytes=counted.etcd_bytes,
            cpu={part: value / 1000 for part, value in counted.cpu.items()},
            machine_cpu=counted.machine_cpu / 1000,
            violations=[f"{name}: {line}" for line in await self._violations(name)],
            over_budget=over_budget(name, counted, len(adds), len(dels), slow, pools=1 + self._contender.dual)
            if self._contender.berth
            else [],
        )

    async def _rest(self) -> None:
        """Until the nodes have done what is left to do (Pods of the phase before that still go, ledgers)."""
        end = time.monotonic() + REST_MOST_SECONDS
        await asyncio.sleep(REST_SECONDS)
        while time.monotonic() < end and await self._fleet.tenants() != len(self._pods.pods):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        await asyncio.sleep(REST_SECONDS)

    async def _violations(self, phase: str) -> list[str]:
        pods = list(self._pods.pods.values())
        interfaces = await self._fleet.interfaces()
        wanted = 0 if phase == "empty" else self._settings.pods
        found = [f"{len(pods)} Pods instead of {wanted}"] if len(pods) != wanted else []
        if not self._contender.berth:
            return found + invariants.kernel_against_pods(pods, interfaces)
        endpoints, pools = (await self._api.list(ENDPOINTS.path())).items, (await self._api.list(POOLS.path())).items
        if len(endpoints) != wanted:
            found.append(f"{len(endpoints)} Endpoints instead of {wanted}")
        return found + invariants.violations(pods, endpoints, pools, interfaces)

    async def _judge(self) -> None:
        told, trial = self._history(), self._trial
        trial.duplicates, trial.troubles = told.duplicates(), list(told.troubles)
        for call in told.calls:
            if call.error:
                trial.errors[f"{call.event} {call.error[:160]}"] = (
                    trial.errors.get(f"{call.event} {call.error[:160]}", 0) + 1
                )
        if self._contender.berth:
            endpoints, pools = await self._api.list(ENDPOINTS.path()), await self._api.list(POOLS.path())
            trial.leaks = invariants.leaks(endpoints.items, pools.items)
        elif left := self._fleet.kept_by_host_local():
            trial.leaks = [f"host-local still holds {left} addresses"]

    def _history(self) -> history.History:
        return history.read(sorted(self._plane.directory.glob("n*/journal.jsonl")))

    def _make_gauge(self) -> Gauge:
        processes = self._plane.processes
        parts = {_CONTROL_PLANE.get(name, name): [process.pid] for name, process in processes.items()}
        for part, fleet in (
            ("operator", self._fleet.operators),
            ("agents", self._fleet.agents),
            (NODE_PART, self._fleet.nodes),
        ):
            if fleet:
                parts[part] = [process.pid for process in fleet]
        etcd = next(flag for flag in processes["etcd"].argv if flag.startswith("--listen-client-urls="))
        access = load(str(self._plane.kubeconfig))
        return Gauge(self._plane.url, access.tls, etcd.partition("=")[2], parts)


def _calls(calls: list[history.Call]) -> Calls:
    times = [call.seconds for call in calls]
    p50, p90, p99, most = (history.percentile(times, share) for share in (0.5, 0.9, 0.99, 1.0))
    cpu = 1000 * sum(call.cpu for call in calls) / len(calls) if calls else 0.0
    return Calls(len(calls), sum(bool(call.error) for call in calls), p50, p90, p99, most, cpu)
