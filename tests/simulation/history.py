"""One history: a cluster, what people and bad luck do to it, calm, and what must then be true.

All of it follows from the seed. It goes in three parts. Trouble: Pods come and go, pools change, processes die,
requests are lost. Calm: faults end, one operator leads, and every Pod that fits must get its addresses. Quiet: all Pods
go, and every address must come back.
"""

import asyncio
import gc
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import berth_cni.releasing
import berth_cni.underway
from berth.controller import book, scribe
from berth.kube.client import Object
from tests.simulation.actors import NETWORK, Node, Operator, Pod, World
from tests.simulation.apiserver import ApiServer, Faults, timestamp
from tests.simulation.checker import Checker, Violation
from tests.simulation.loop import SimulatedLoop

CALM_SECONDS = 240.0  # after calm every Pod that fits has its addresses within this
QUIET_SECONDS = 240.0  # and after quiet every address is back
STEP_SECONDS = 1.0
TICKS = 100

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
        with _stand_ins(history.world, told, trace):
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
        api.observers.append(self._observe)
        if trace:
            self.world.note = api.note = self._note
        self.nodes: list[Node] = []
        self.operators: list[Operator] = []
        self.pods: dict[str, Pod] = {}
        self._made = 0
        self._generation = 0
        self._shapes: list[tuple[dict[str, Any], int, tuple[str, ...]]] = []

    # --- the three parts --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        world = self.world
        try:
            self._build()
            await self._trouble()
            await self._calm()
            await self._quiet()
        except Violation as violation:
            self._fail(violation)
        except Exception as error:
            self._fail(error)
        self.told.adds, self.told.longest_wait = world.checker.adds, world.checker.longest_wait
        self.told.simulated, self.told.writes = world.loop.time(), world.api.version
        self.told.faults = dict(world.api.counted)
        await self._end()

    def _build(self) -> None:
        random = self.random
        for index in range(random.choice((1, 2, 2, 3))):
            name = f"node-{index}"
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            self.world.api.make("nodes", {"metadata": {"name": name}, "spec": {}, "status": ready})
            self.nodes.append(Node(self.world, name))
        self.world.api.make("namespaces", {"metadata": {"name": "default"}})
        self._make_pools()
        self.operators = [Operator(self.world, name) for name in ("operator-a", "operator-b")]
        self.operators[0].lead()

    def _make_pools(self) -> None:
        random = self.random
        delay = random.choice(("0s", "1s", "5s"))
        size = random.randint(1, 6)
        self._pool("four", f"10.0.0.2-10.0.0.{size + 1}", delay, default=True)
        four: tuple[dict[str, Any], int, tuple[str, ...]] = ({"ipv4Pools": ["four"]}, 1, ("four",))
        self._shapes = [four]
        if random.random() < 0.4:
            self._pool(
                "six", f"fd00::2-fd00::{size + random.randint(0, 3) + 1:x}", delay, default=random.random() < 0.5
            )
            both = {"ipv4Pools": ["four"], "ipv6Pools": ["six"]}
            self._shapes += [(both, 2, ("four", "six"))] * 2
        if random.random() < 0.3:
            self._pool("rival-1", "10.0.1.2-10.0.1.4", delay, subnet="10.0.1.0/24")
            self._pool("rival-2", "10.0.1.3-10.0.1.6", delay, subnet="10.0.1.0/24")
            self._shapes += [({"ipv4Pools": [name]}, 1, (name,)) for name in ("rival-1", "rival-2")]

    def _pool(self, name: str, ips: str, delay: str, *, default: bool = False, subnet: str = "") -> None:
        spec = {
            "subnet": subnet or ("fd00::/64" if ":" in ips else "10.0.0.0/24"),
            "ips": [ips],
            "reuseDelay": delay,
            "default": default,
        }
        self.world.api.make("ippools", {"metadata": {"name": name}, "spec": spec})

    async def _trouble(self) -> None:
        random = self.random
        events = self._events()
        for _ in range(random.randint(30, 70) if self.hard else random.randint(5, 30)):
            (event,) = random.choices([each for each, _ in events], [weight for _, weight in events])
            event()
            await asyncio.sleep(random.expovariate(1 / random.choice((0.02, 0.3, 2.0))))
            self._look()

    async def _calm(self) -> None:
        """Faults end; every Pod that fits gets its addresses."""
        world = self.world
        world.note("* calm")
        world.calm = True
        world.api.faults.calm()
        world.api.come_back()
        for node in self.nodes:
            node.agent.client.severed = False
            node.agent.process.resume()
            node.agent.start()
        leading = [operator for operator in self.operators if operator.leads]
        stays = self.random.choice(leading) if leading and self.random.random() < 0.5 else None
        for operator in self.operators:
            operator.process.resume()
            if operator is not stays:
                operator.step_down()
            if operator.process.dead:
                operator.restart(False)
        if stays is None:
            self.random.choice(self.operators).lead()
        for name in [each["metadata"]["name"] for each in world.api.all("ippools")]:
            world.api.change("ippools", name, "", _enable, "someone")
        await self._until(
            30.0, lambda: "calm begins" if world.loop.time() < began + 25 else "", began := world.loop.time()
        )
        self._fit()
        await self._until(CALM_SECONDS, self._waiting, world.loop.time())

    async def _quiet(self) -> None:
        self.world.note("* quiet")
        for pod in list(self.pods.values()):
            self._delete(pod, force=False)
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

    def _note(self, text: str) -> None:
        self.told.lines.append(f"{self.world.loop.time():9.3f} {text}")

    def _losers(self) -> set[str]:
        return self.world.checker.losers()

    def _fit(self) -> None:
        """Pods that ask for more than there is, or for a pool that does not serve, are deleted."""
        free = {
            each["metadata"]["name"]: self.world.checker.capacity(each["metadata"]["name"])
            for each in self.world.api.all("ippools")
        }
        losers = self._losers()
        for pod in list(self.pods.values()):
            fits = all(free[name] > 0 and name not in losers for name in pod.pools)
            if not fits or pod.leaving:
                self._delete(pod, force=False)
                continue
            for name in pod.pools:
                free[name] -= 1

    def _waiting(self) -> str:
        self._losers()
        missing = [pod.name for pod in self.pods.values() if not pod.running and not pod.finished]
        leaving = [pod.name for node in self.nodes for pod in node.pods.values() if pod.stop.is_set()]
        if leaving:
            return f"Pods do not end: {sorted(leaving)}"
        return f"Pods without an address: {sorted(missing)}" if missing else ""

    def _left(self) -> str:
        if any(node.pods for node in self.nodes):
            return "Pods do not end"
        return self.world.checker.unclean()

    # --- what happens -----------------------------------------------------------------------------------------------

    def _events(self) -> list[tuple[Callable[[], None], float]]:
        """What may happen in this history, and how often: each history leaves some of it out."""
        random = self.random
        rare = [
            self._finish_pod,
            self._force_delete_pod,
            self._forget_pod,
            self._crash_agent,
            self._pause_agent,
            self._crash_operator,
            self._pause_operator,
            self._both_lead,
            self._hand_over,
            self._api_away,
            self._cut_watches,
            self._compact,
            self._change_pool,
            self._reserve,
        ]
        chosen = [(each, random.uniform(0.2, 2.0)) for each in rare if random.random() < (0.6 if self.hard else 0.4)]
        return [(self._create_pod, 6.0), (self._delete_pod, 2.0), (self._replace_pod, 2.0), *chosen]

    def _create_pod(self, name: str = "") -> None:
        """Some have a name that was used before."""
        random = self.random
        if not name:
            name = f"pod-{random.randint(0, 9)}"
        if self.world.api.read("pods", name, "default") is not None:
            return
        node = random.choice(self.nodes)
        self._made += 1
        shape, families, pools = random.choice(self._shapes)
        body: Object = {
            "metadata": {"name": name, "namespace": "default", "uid": f"pod-{self._made}"},
            "spec": {"nodeName": node.name},
            "status": {"phase": "Running"},
        }
        uid = self.world.api.make("pods", body)["metadata"]["uid"]
        config = {"cniVersion": "1.0.0", "name": NETWORK, "type": "bridge", "ipam": {"type": "berth", **shape}}
        pod = Pod(name, uid, node, config, families, pools, asyncio.Event())
        self.pods[uid] = pod
        self.world.note(f"* Pod {name} ({uid}) on {node.name}, from {', '.join(pools)}")
        node.run(pod)

    def _some_pod(self) -> Pod | None:
        pods = [pod for pod in self.pods.values() if not pod.leaving]
        return self.random.choice(pods) if pods else None

    def _delete(self, pod: Pod, force: bool) -> None:
        if pod.leaving and not force:
            return
        self.world.note(f"* Pod {pod.name} ({pod.uid}) is {'force-' * force}deleted")
        self.pods.pop(pod.uid, None)
        pod.leaving = True
        there = self.world.api.read("pods", pod.name, "default")
        if there is not None and there["metadata"]["uid"] == pod.uid:
            if force or pod.finished:
                self.world.api.remove("pods", pod.name, "default")
            else:
                self.world.api.change("pods", pod.name, "default", self._leave, "someone")
        self._stop_later(pod, 3.0)

    def _leave(self, body: Object) -> None:
        body["metadata"]["deletionTimestamp"] = timestamp(self.world.loop.time())

    def _stop_later(self, pod: Pod, most: float) -> None:
        self.world.loop.call_later(self.random.random() ** 3 * most, pod.stop.set)

    def _delete_pod(self) -> None:
        if (pod := self._some_pod()) is not None:
            self._delete(pod, force=False)

    def _force_delete_pod(self) -> None:
        """The Pod is gone from the API at once; its container a little later."""
        if (pod := self._some_pod()) is not None:
            self._delete(pod, force=True)
            if self.random.random() < 0.5:
                self._create_pod(pod.name)

    def _replace_pod(self) -> None:
        """One goes and one comes at the same time, as when a Deployment rolls."""
        self._delete_pod()
        self._create_pod()

    def _forget_pod(self) -> None:
        """The runtime loses it: its sandbox is gone, no DEL comes, and its Pod goes."""
        if (pod := self._some_pod()) is not None:
            pod.orphaned = True
            self._delete(pod, force=False)

    def _finish_pod(self) -> None:
        if (pod := self._some_pod()) is None:
            return
        self.world.note(f"* Pod {pod.name} ({pod.uid}) has finished")
        pod.finished = True
        pod.orphaned = self.random.random() < 0.3

        def finish(body: Object) -> None:
            body["status"]["phase"] = "Succeeded"

        pod.stop.set()
        self.world.loop.call_later(
            self.random.random(), self.world.api.change, "pods", pod.name, "default", _only(pod.uid, finish), "kubelet"
        )

    def _crash_agent(self) -> None:
        agent = self.random.choice(self.nodes).agent
        agent.crash()
        self.world.loop.call_later(self.random.expovariate(1 / 3.0), agent.start)

    def _pause_agent(self) -> None:
        process = self.random.choice(self.nodes).agent.process
        self.world.note(f"* the agent of {process.name} is stopped")
        process.pause()
        self.world.loop.call_later(self.random.expovariate(1 / 5.0), process.resume)

    def _crash_operator(self) -> None:
        """Killed; it, the other, or after a while somebody, leads."""
        operator, other = self.random.sample(self.operators, 2)
        leads = operator.leads
        operator.crash()
        later = self.world.loop.call_later
        if leads:
            later(self.random.expovariate(1 / 3.0), self._succeed, other)
        later(self.random.expovariate(1 / 3.0), self._revive, operator)

    def _succeed(self, operator: Operator) -> None:
        if not self.world.calm and not any(each.leads for each in self.operators):
            operator.lead()

    def _revive(self, operator: Operator) -> None:
        if operator.process.dead:
            operator.restart(False)
        self._succeed(operator)

    def _pause_operator(self) -> None:
        """Stopped for longer than its lease: the other leads, and it believes for a while that it still does."""
        operator, other = self.random.sample(self.operators, 2)
        leads, process = operator.leads, operator.process
        self.world.note(f"* {operator.name} is stopped")
        process.pause()
        later = self.world.loop.call_later
        pause = self.random.expovariate(1 / 4.0)
        later(pause, self._go_on, process)
        if leads:
            other.lead()
            later(pause + self.random.expovariate(1 / 3.0), self._resign, operator)

    def _go_on(self, process: Any) -> None:
        if process.stopped and not process.dead:
            self.world.note(f"* {process.name} goes on")
            process.resume()

    def _resign(self, operator: Operator) -> None:
        if not self.world.calm and all(each.leads for each in self.operators):
            operator.step_down()

    def _both_lead(self) -> None:
        for operator in self.operators:
            operator.lead()
        self.world.loop.call_later(self.random.expovariate(1 / 10.0), self._resign, self.random.choice(self.operators))

    def _hand_over(self) -> None:
        operator, other = self.random.sample(self.operators, 2)
        operator.step_down()
        other.lead()

    def _api_away(self) -> None:
        self.world.note("* the API server is away")
        self.world.api.go_away()
        self.world.loop.call_later(self.random.expovariate(1 / 3.0), self.world.api.come_back)

    def _cut_watches(self) -> None:
        self.world.note("* all watches are cut")
        self.world.api.cut_watches()

    def _compact(self) -> None:
        self.world.note("* old versions are compacted, all watches cut")
        self.world.api.compact()
        self.world.api.cut_watches()

    def _change_pool(self) -> None:
        """Grown, shrunk, with an exclusion, disabled: admission is away and lets everything pass."""
        pools = self.world.api.all("ippools")
        pool = self.random.choice(pools)["metadata"]["name"]
        self.world.note(f"* pool {pool} is changed")
        self.world.api.change("ippools", pool, "", self._respec, "someone")

    def _respec(self, body: Object) -> None:
        random, spec = self.random, body["spec"]
        body["metadata"]["generation"] += 1
        first = spec["ips"][0].partition("-")[0]
        stem, separator, low = first.rpartition(":" if ":" in first else ".")
        change = random.choice(("resize", "resize", "exclude", "disable"))
        if change == "resize":
            spec["ips"] = [f"{first}-{stem}{separator}{int(low) + random.randint(0, 6):x}"]
        elif change == "exclude":
            spec["excludeIPs"] = [f"{stem}{separator}{int(low) + random.randint(0, 5):x}"] * (random.random() < 0.7)
        else:
            spec["disabled"] = not spec.get("disabled", False)

    def _reserve(self) -> None:
        name = f"reserved-{self.random.randint(0, 1)}"
        if self.world.api.read("reservedips", name) is not None:
            self.world.note(f"* {name} is gone")
            self.world.api.remove("reservedips", name)
            return
        ips = [self.random.choice((f"10.0.0.{self.random.randint(2, 6)}", "fd00::3"))]
        self.world.note(f"* {name} reserves {ips}")
        self.world.api.make("reservedips", {"metadata": {"name": name}, "spec": {"ips": ips}})


def _only(uid: str, change: Callable[[Object], None]) -> Callable[[Object], None]:
    def changed(body: Object) -> None:
        if body["metadata"]["uid"] == uid:
            change(body)

    return changed


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


class _Lines(logging.Handler):
    """What the program logs is part of the history."""

    def __init__(self, told: Told, world: World) -> None:
        super().__init__()
        self._told, self._world = told, world

    def emit(self, record: logging.LogRecord) -> None:
        usual = logging.makeLogRecord({}).__dict__
        extra = {key: value for key, value in record.__dict__.items() if key not in usual and key != "message"}
        self._told.lines.append(f"{self._world.loop.time():9.3f} # {record.getMessage()} {extra or ''}")


@contextmanager
def _stand_ins(world: World, told: Told, trace: bool) -> Iterator[None]:
    """What would ask the machine asks the simulation."""

    def now() -> str:
        return timestamp(world.loop.time())

    def ticks() -> int:
        return int(world.loop.time() * TICKS)

    def start_of(pid: int) -> int | None:
        began = world.started.get(pid)
        return None if began is None else int(began * TICKS)

    wall = SimpleNamespace(time=world.loop.time, time_ns=lambda: int(world.loop.time() * 1e9))
    with (
        mock.patch.object(book, "timestamp", now),
        mock.patch.object(berth_cni.releasing, "time", wall),
        mock.patch.object(scribe, "timestamp", now),
        mock.patch.object(berth_cni.underway, "_now", ticks),
        mock.patch.object(berth_cni.underway, "_start_of", start_of),
        _logging(told, world, trace),
    ):
        yield


@contextmanager
def _logging(told: Told, world: World, trace: bool) -> Iterator[None]:
    if not trace:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
        return
    handler = _Lines(told, world)
    loggers = [logging.getLogger("berth"), logging.getLogger("berth_cni")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
