"""Nodes: a kubelet and its runtime, as models, that call the node's agent as real ones do."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from berth.kube.client import Object
from tests.simulation.agents import NodeAgent
from tests.simulation.checker import Violation
from tests.simulation.world import World


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

        self._world.api.store.change("pods", pod.name, "default", ips, self.name)

    def _gone(self, pod: Pod) -> None:
        there = self._world.api.store.read("pods", pod.name, "default")
        if there is not None and there["metadata"]["uid"] == pod.uid:
            self._world.api.store.remove("pods", pod.name, "default", by=self.name)
