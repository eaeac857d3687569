"""Nodes: a kubelet and its runtime, as models, that call the node's agent as real ones do."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from berth.kube.client import Object
from tests.simulation.agents import NodeAgent
from tests.simulation.checker import Violation
from tests.simulation.world import World

END_SECONDS = 3.0  # a Pod ends within this, once its kubelet has heard


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
    of: str = ""  # UID of its StatefulSet
    leaving: bool = False
    finished: bool = False
    orphaned: bool = False  # its runtime has forgotten it: no DEL will come
    running: bool = False
    container: str = ""


class Node:
    """A kubelet and its runtime. `away`: nothing goes between it and the API server; `off`: it has no power either."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.pods: dict[str, Pod] = {}
        self.agent = NodeAgent(world, name)
        self.off = False
        self._near = asyncio.Event()
        self._near.set()
        self._unheard: list[Pod] = []  # their end was asked for, and not heard of here
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    @property
    def away(self) -> bool:
        return not self._near.is_set()

    def run(self, pod: Pod) -> None:
        self.pods[pod.uid] = pod
        self._go(self._run(pod))

    def end(self, pod: Pod) -> None:
        """The API server tells of the Pod's end; it follows a little later."""
        if self.away:
            self._unheard.append(pod)
        else:
            self._world.loop.call_later(self._world.random.random() ** 3 * END_SECONDS, pod.stop.set)

    # --- outages ----------------------------------------------------------------------------------------------------

    def cut_off(self) -> None:
        self._world.note(f"* {self.name} is cut off")
        self._near.clear()
        self.agent.client.severed = True

    def power_off(self) -> None:
        """Containers end with their node, and no DEL comes."""
        self._world.note(f"* {self.name} has no power")
        self._near.clear()
        self.off = self.agent.client.severed = True
        self.agent.crash()
        for task in list(self._tasks):
            task.cancel()
        for pod in self.pods.values():
            self._world.checker.ended(pod.container)
            pod.running = False

    def come_back(self) -> None:
        """Of its Pods those that are still there run again, after a power failure in sandboxes of their own."""
        self._world.note(f"* {self.name} is back")
        self.agent.client.severed = False
        self._near.set()
        if self.off:
            self.off = False
            self.agent.start()
            before, self.pods = self.pods, {}
            for pod in before.values():
                if self._world.chance(0.5) and pod.container:
                    self._go(self._delete_later(pod, pod.container))  # the runtime finds what is left of its sandbox
                if self.there(pod) is not None:
                    self.run(pod)
        unheard, self._unheard = self._unheard, []
        for pod in unheard:
            self.end(pod)

    def start_agent(self) -> None:
        if not self.off:
            self.agent.start()

    def _go(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._world.go(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def there(self, pod: Pod) -> Object | None:
        """As the API has it."""
        found = self._world.api.store.read("pods", pod.name, "default")
        return found if found is not None and found["metadata"]["uid"] == pod.uid else None

    # --- Pods -------------------------------------------------------------------------------------------------------

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
        await self._near.wait()
        if not pod.finished and self.there(pod) is not None:
            self._world.api.store.remove("pods", pod.name, "default", by=self.name)
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
            if pod.of and self.there(pod) is not None:
                world.checker.came(pod.of, pod.name, addresses)
            if not world.rarely(0.03):
                self._go(self._report(pod, addresses))
                return True
            # The main plugin fails after its IPAM plugin did not: a DEL follows.
            world.checker.ended(container)
        if not world.rarely(0.1):
            await self._tear_down(pod, container)
        return False

    async def _tear_down(self, pod: Pod, container: str) -> None:
        if self._world.rarely(0.1):
            # The runtime comes to it later; a newer sandbox may be there by then.
            self._go(self._delete_later(pod, container))
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

    async def _report(self, pod: Pod, addresses: list[str]) -> None:
        await self._near.wait()

        def ips(body: Object) -> None:
            if body["metadata"]["uid"] == pod.uid:
                body["status"] = {**body.get("status", {}), "podIPs": [{"ip": each} for each in addresses]}

        self._world.api.store.change("pods", pod.name, "default", ips, self.name)
