"""Who acts in a simulated cluster: operators and agents (the real ones), kubelets and runtimes (models).

An operator is the real `Term` against the model of the API, fed pools and reservations as kopf feeds them; an agent is
the real `Agent` with its journal and spool on disk, in a folder of this history. Only what touches the machine is
stood in for: the socket, process start times, the clock on the wall.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson

from berth.controller.term import Term
from berth.kube.client import Change, Listing, Object
from berth.kube.errors import Expired, KubeError
from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS, POOLS, RESERVED, Resource
from berth_cni import spool
from berth_cni.adding import Adder
from berth_cni.agent import Agent
from berth_cni.claims import Claims
from berth_cni.frames import Request, encode_request
from berth_cni.journal import Journal
from berth_cni.metrics import Metrics
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser
from berth_cni.underway import Lanes, Underway
from tests.simulation.apiserver import ApiServer, Client
from tests.simulation.checker import Checker, Violation
from tests.simulation.loop import Process, SimulatedLoop

NETWORK = "net"
SHIM_SECONDS = 65.0
AWAY = (11, b"")
Outcome = tuple[int, bytes]


@dataclass(slots=True)
class World:
    """What all actors share."""

    loop: SimulatedLoop
    random: Random
    api: ApiServer
    checker: Checker
    folder: Path
    failures: list[BaseException] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    tasks: set["asyncio.Task[Any]"] = field(default_factory=set)
    calm: bool = False
    sandbox_seconds: float = 40.0  # how long a sandbox lives, if nothing else ends it
    note: Callable[[str], None] = lambda text: None
    started: dict[int, float] = field(default_factory=dict)  # process number -> when it was started

    def process(self, name: str) -> Process:
        process = Process(self.loop, name)
        self.processes.append(process)
        return process

    def go(self, coroutine: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def rarely(self, probability: float) -> bool:
        """A fault: none once the history is calm."""
        return not self.calm and self.random.random() < probability


# --- operators -----------------------------------------------------------------------------------------------------


class Feed:
    """Pools or reservations as kopf tells of them: what a listing shows has no kind, and what vanished while no watch
    was open is never told."""

    def __init__(self, told: Callable[[str | None, Object], None]) -> None:
        self._told = told

    def replaced(self, listing: Listing) -> None:
        for item in listing.items:
            self._told(None, item)

    def changed(self, change: Change) -> None:
        self._told(change.kind, change.object)


class Operator:
    """One replica. Who leads is for the history to say: often nobody, sometimes both."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self._term: Term | None = None
        self._leading: asyncio.Task[None] | None = None
        self.process = self._start()

    @property
    def leads(self) -> bool:
        return self._leading is not None

    def _start(self) -> Process:
        process = self._world.process(self.name)
        self._client = Client(self._world.api, self.name)
        process.spawn(self._watch(POOLS, self._pool_event))
        process.spawn(self._watch(RESERVED, self._reserved_event))
        return process

    def _pool_event(self, kind: str | None, item: Object) -> None:
        if self._term is not None:
            self._term.pool_event(kind, item)

    def _reserved_event(self, kind: str | None, item: Object) -> None:
        if self._term is not None:
            self._term.reserved_event(kind, item)

    async def _watch(self, resource: Resource, told: Callable[[str | None, Object], None]) -> None:
        await follow(self._client, resource.path(), Feed(told))

    def lead(self) -> None:
        if self._leading is None and not self.process.dead:
            self._world.note(f"* {self.name} leads")
            self._leading = self.process.spawn(self._lead())
            self._leading.add_done_callback(self._led)

    async def _lead(self) -> None:
        self._term = term = Term(self._client)
        try:
            await term.run()
        finally:
            if self._term is term:
                self._term = None

    def step_down(self) -> None:
        if self._leading is not None:
            self._world.note(f"* {self.name} leads no longer")
            self._leading.cancel()
            self._leading = None

    def _led(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if task is not self._leading:
            return
        if error is not None and not _ordinary(error):
            self._world.failures.append(error)
        # An error within a term ends the process, which is started again.
        self.crash()
        self._world.loop.call_later(1.0, self.restart, True)

    def crash(self) -> None:
        self._world.note(f"* {self.name} is killed")
        self.process.kill()
        self._leading = self._term = None

    def restart(self, leads: bool) -> None:
        self.process = self._start()
        if leads:
            self.lead()


def _ordinary(error: BaseException) -> bool:
    """The API could not be read when the term began."""
    if isinstance(error, BaseExceptionGroup):
        return all(_ordinary(each) for each in error.exceptions)
    return isinstance(error, KubeError) and not isinstance(error, Expired)


# --- agents --------------------------------------------------------------------------------------------------------


class Shim:
    """The caller of one CNI call: gets the answer, or learns that the agent is gone."""

    def __init__(self, world: World, pid: int) -> None:
        self._world, self.pid = world, pid
        self.outcome: asyncio.Future[Outcome] = world.loop.create_future()
        self.dead = False

    async def deliver(self, exit_code: int, stdout: bytes, *, acknowledged: bool) -> bool:
        if self.outcome.done():
            return False
        if self._world.rarely(0.02):
            # It is killed before it has told its caller anything.
            self.outcome.set_result(AWAY)
            return False
        self.outcome.set_result((exit_code, stdout))
        return True


class NodeAgent:
    """The agent of one node, over all its restarts."""

    def __init__(self, world: World, node: str) -> None:
        self._world, self.node = world, node
        self._socket = world.folder / node / "berth.sock"
        (world.folder / node).mkdir()
        self._calls: dict[Shim, Underway] = {}
        self._spooled = 0
        self._agent: Agent | None = None
        self.client = Client(world.api, f"agent/{node}")
        self.process = world.process(node)
        self.start()

    def start(self) -> None:
        if self._agent is not None:
            return
        self.process = self._world.process(self.node)
        severed = self.client.severed
        self.client = Client(self._world.api, f"agent/{self.node}")
        self.client.severed = severed
        journal = Journal(self._world.folder / self.node / "journal")
        journal.load()
        reach, claims, lanes = Reach(self.client), Claims(), Lanes()
        releaser = Releaser(reach, claims, journal, lanes, self._socket)
        adder = Adder(self.node, reach, claims, releaser)
        self._agent = Agent(adder, releaser, claims, reach, lanes, Metrics())
        params = {"fieldSelector": f"spec.node={self.node}"}
        follower = follow(reach, ENDPOINTS.path(), claims, params=params)
        for each in (follower, reach.probe(self.node), releaser.replay(), releaser.watch_spool()):
            task: asyncio.Task[None] = self.process.spawn(each)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._world.failures.append(task.exception() or AssertionError("an agent's task has ended by itself"))

    def crash(self) -> None:
        self._world.note(f"* the agent of {self.node} is killed")
        self.process.kill()
        self._agent = None
        calls, self._calls = self._calls, {}
        for shim in calls:
            if not shim.outcome.done():
                shim.outcome.set_result(AWAY)

    async def call(self, pid: int, command: str, container: str, args: str, config: Mapping[str, Any]) -> Outcome:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
            "CNI_PATH": "/opt/cni/bin",
        }
        request = Request(environment, orjson.dumps(config))
        if self._agent is None:
            return self._alone(request)
        shim, underway = Shim(self._world, pid), Underway()
        self._calls[shim] = underway
        self.process.spawn(self._agent.answer(request, shim, underway))
        try:
            async with asyncio.timeout(SHIM_SECONDS):
                outcome = await shim.outcome
        except TimeoutError:
            underway.abandon("its caller went away")
            outcome = AWAY
        self._calls.pop(shim, None)
        if b"the berth agent failed" in outcome[1]:
            raise Violation(f"the agent of {self.node} has a bug: {outcome[1].decode()}")
        return self._alone(request) if command == "DEL" and outcome == AWAY else outcome

    def _alone(self, request: Request) -> Outcome:
        """The shim without an agent: a DEL is kept in the spool."""
        if request.environment["CNI_COMMAND"] != "DEL":
            return AWAY
        frame = encode_request(request)
        assert isinstance(frame, bytes)
        folder = spool.folder(self._socket)
        folder.mkdir(exist_ok=True)
        self._spooled += 1
        path = folder / request.environment["CNI_CONTAINERID"]
        path.write_bytes(frame)
        # Ages and the order of files must not come from the clock on the wall.
        came = int(self._world.loop.time() * 1e9) + self._spooled
        for each in (path, folder):
            os.utime(each, ns=(came, came))
        return 0, b""


# --- kubelets ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pod:
    """A Pod as its kubelet sees it."""

    name: str
    uid: str
    node: "Node"
    config: Mapping[str, Any]
    families: int
    pools: tuple[str, ...]
    stop: asyncio.Event
    leaving: bool = False
    finished: bool = False
    orphaned: bool = False  # its runtime has forgotten it: no DEL will come
    running: bool = False
    container: str = ""


class Node:
    """A kubelet and its runtime."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.pods: dict[str, Pod] = {}
        self.agent = NodeAgent(world, name)
        self._count = 0
        self.dead = False

    def run(self, pod: Pod) -> None:
        self.pods[pod.uid] = pod
        self._world.go(self._run(pod))

    async def _run(self, pod: Pod) -> None:
        while not pod.stop.is_set():
            self._count += 1
            pod.container = container = f"c-{self.name}-{self._count}"
            if not await self._set_up(pod, container):
                await asyncio.sleep(self._world.random.uniform(0.2, 3.0))
                continue
            pod.running = True
            await self._until_end(pod)
            pod.running = False
            self._world.note(f"  {pod.name} ({pod.uid}): sandbox {container} ends")
            self._world.checker.ended(container)
            if not pod.orphaned:
                await self._tear_down(pod, container)
        await asyncio.sleep(self._world.random.uniform(0.0, 0.2))
        if not pod.finished:
            self._gone(pod)
        del self.pods[pod.uid]

    async def _until_end(self, pod: Pod) -> None:
        """The Pod's end, or its sandbox's."""
        crash = self._world.random.expovariate(1 / self._world.sandbox_seconds)
        if self._world.calm or crash > 30.0:
            await pod.stop.wait()
            return
        try:
            async with asyncio.timeout(crash):
                await pod.stop.wait()
        except TimeoutError:
            return

    async def _set_up(self, pod: Pod, container: str) -> bool:
        world = self._world
        began = world.loop.time()
        code, stdout = await self.agent.call(self._pid(), "ADD", container, self._args(pod), pod.config)
        world.note(f"  {pod.name} ({pod.uid}): ADD {container} -> {code} {stdout.decode().strip()}")
        if code == 0:
            addresses = [each["address"].partition("/")[0] for each in orjson.loads(stdout)["ips"]]
            if len(addresses) != pod.families:
                raise Violation(f"{pod.name} wants {pod.families} addresses and got {addresses}")
            world.checker.added(container, pod.uid, addresses, world.loop.time() - began)
            if not world.rarely(0.03):
                self._report(pod, addresses)
                return True
            # The main plugin fails after its IPAM plugin did not: a DEL follows.
            world.checker.ended(container)
        if not world.rarely(0.1):
            await self._tear_down(pod, container)
        return False

    async def _tear_down(self, pod: Pod, container: str) -> None:
        if self._world.rarely(0.1):
            # The runtime comes to it later; a newer sandbox may be there by then.
            self._world.go(self._delete_later(pod, container))
        else:
            await self._delete(pod, container)

    async def _delete_later(self, pod: Pod, container: str) -> None:
        await asyncio.sleep(self._world.random.uniform(0.1, 20.0))
        await self._delete(pod, container)

    async def _delete(self, pod: Pod, container: str) -> None:
        for _ in range(2 if self._world.chance(0.1) else 1):
            for _ in range(20):
                code, stdout = await self.agent.call(self._pid(), "DEL", container, self._args(pod), pod.config)
                self._world.note(f"  {pod.name} ({pod.uid}): DEL {container} -> {code} {stdout.decode().strip()}")
                if code == 0:
                    break
                await asyncio.sleep(self._world.random.uniform(0.5, 2.0))
            else:
                raise Violation(f"DEL of {container} fails for ever")

    def _args(self, pod: Pod) -> str:
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid};"
            f"K8S_POD_INFRA_CONTAINER_ID={pod.container}"
        )

    def _pid(self) -> int:
        number = len(self._world.started) + 1
        self._world.started[number] = self._world.loop.time()
        return number

    def _report(self, pod: Pod, addresses: list[str]) -> None:
        def ips(body: Object) -> None:
            if body["metadata"]["uid"] == pod.uid:
                body["status"] = {**body.get("status", {}), "podIPs": [{"ip": each} for each in addresses]}

        self._world.api.change("pods", pod.name, "default", ips, self.name)

    def _gone(self, pod: Pod) -> None:
        there = self._world.api.read("pods", pod.name, "default")
        if there is not None and there["metadata"]["uid"] == pod.uid:
            self._world.api.remove("pods", pod.name, "default", by=self.name)
