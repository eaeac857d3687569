"""A node on which things go wrong by themselves: the benchmark's simulated kubelet, with a runtime that has bad days.

Sandboxes end and are made again under the same Pod, their DEL coming late or never; Pods of Jobs finish; containers run
on for a moment after they were told to stop. Whatever the faults around it, this node itself is sane: it ends a
container before it asks for its DEL, it says so in its journal (`END`) before anybody can act on it, and it learns of a
force-deletion well within the operator's grace (docs/reliability.md: of one that does not, nothing is promised).
"""

import asyncio
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TextIO

import orjson
import uvloop

from bench import kernel
from bench.api import BenchClient
from bench.node import Node, Place, Tenant, _now, _pod_path
from bench.runtime import Runtime, Sandbox
from berth.kube.config import load
from berth.kube.errors import KubeError
from berth.kube.resources import NODES, PODS

RUNS_FOR = "chaos.berth.test/runs-for"  # label: a Pod that finishes after so many seconds
HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.5
LONGEST_STOP = 1.5
SURE_SECONDS = LOOK_SECONDS + 1.5  # a Pod that was gone is known to be by then


@dataclass(slots=True)
class Habits:
    """How often this node's runtime does what. Mean seconds of a sandbox's life; the rest are probabilities."""

    seed: int
    sandbox_seconds: float = 45.0
    late: float = 0.2
    forgotten: float = 0.03


class Kubelet(Node):
    back_off_seconds = 1.5

    def __init__(self, place: Place, api: BenchClient, runtime: Runtime, journal: TextIO, habits: Habits) -> None:
        super().__init__(place, api, runtime, journal)
        self._habits = habits
        self._random = Random(habits.seed)
        self._calm = Path(place.folder) / "calm"  # while this file is there nothing goes wrong by itself

    async def run(self) -> None:
        await asyncio.gather(super().run(), self._stay_ready(), self._look_again())

    async def _live(self, tenant: Tenant) -> None:
        self._note(event="POD", at=time.monotonic(), uid=tenant.uid, application=_application(tenant.pod["metadata"]))
        while addresses := await self._start(tenant):
            tenant.running = True
            # Beside it, as a kubelet does: an API server that does not answer must not keep a Pod from ending.
            reporting = self._go(self._report(tenant, addresses))
            self._go(self._say_who_came(tenant, addresses))
            how = await self._until_end(tenant)
            reporting.cancel()
            tenant.running = False
            await self._stop(tenant)
            if how == "finished":
                await self._insist(lambda: self._api.patch(_pod_path(tenant, "status"), _succeeded(tenant)))
                await tenant.leaving.wait()
            if how != "lost":
                break
        await self._delete(tenant)
        del self._tenants[tenant.uid]

    async def _until_end(self, tenant: Tenant) -> str:
        """Why its sandbox ends: told to leave, finished, or lost for no reason."""
        if tenant.leaving.is_set():
            return "told"  # before its sandbox was made: no container is started in that
        labels = tenant.pod["metadata"].get("labels") or {}
        span, how = self._random.expovariate(1 / self._habits.sandbox_seconds), "lost"
        if RUNS_FOR in labels:
            span, how = float(labels[RUNS_FOR]), "finished"
        try:
            async with asyncio.timeout(span):
                await tenant.leaving.wait()
        except TimeoutError:
            if how == "finished" or not self._calm.exists():
                return how
            await tenant.leaving.wait()
        await asyncio.sleep(self._random.random() * LONGEST_STOP)
        return "told"

    async def _stop(self, tenant: Tenant) -> None:
        """The container ends; then its DEL: at once, later, or never."""
        sandbox = tenant.sandbox
        assert sandbox is not None
        self._note(event="END", container=sandbox.container, at=time.monotonic())
        luck = self._random.random()
        if self._calm.exists() or luck > self._habits.late + self._habits.forgotten:
            await super()._stop(tenant)
        elif luck < self._habits.forgotten:
            await self._runtime.remove(sandbox)
        else:
            self._go(self._stop_later(sandbox, tenant.pod))

    async def _say_who_came(self, tenant: Tenant, addresses: tuple[str, ...]) -> None:
        """Of a StatefulSet, when it is sure that the Pod was there as its ADD was answered."""
        sandbox, meta = tenant.sandbox, tenant.pod["metadata"]
        owners = [each for each in meta.get("ownerReferences") or () if each["kind"] == "StatefulSet"]
        await asyncio.sleep(SURE_SECONDS)
        if owners and tenant.sandbox is sandbox and not tenant.leaving.is_set():
            now = time.monotonic()
            self._note(event="CAME", at=now, of=owners[0]["uid"], pod=meta["name"], addresses=addresses)

    def _go(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _stop_later(self, sandbox: Sandbox, pod: dict[str, object]) -> None:
        await asyncio.sleep(self._random.uniform(0.1, 6.0))
        await super()._stop(Tenant(pod, sandbox=sandbox))

    async def _look_again(self) -> None:
        """A watch that hangs, as on an API server that is coming up, must not hide for long that a Pod is gone."""
        own = {"fieldSelector": f"spec.nodeName={self._place.name}"}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            known = set(self._tenants)
            with suppress(KubeError, TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    there = {pod["metadata"]["uid"] for pod in (await self._api.list(PODS.path(), own)).items}
                for uid in known - there:
                    if (tenant := self._tenants.get(uid)) is not None:
                        tenant.leaving.set()

    async def _stay_ready(self) -> None:
        """As a kubelet does: a node that was called not Ready for a while is Ready again."""
        path = NODES.path(self._place.name, sub="status")
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            now = _now()
            ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated"}
            status = {"conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}]}
            await self._insist(lambda status=status: self._api.patch(path, {"status": status}))  # type: ignore[misc]


def _application(meta: dict[str, Any]) -> list[str]:
    """Kind and name of what a person made, as the chaos makes them."""
    for owner in meta.get("ownerReferences") or ():
        if owner["kind"] == "ReplicaSet":
            return ["Deployment", owner["name"].rpartition("-")[0]]
        return [owner["kind"], owner["name"]]
    return []


def _succeeded(tenant: Tenant) -> dict[str, object]:
    return {"metadata": {"uid": tenant.uid}, "status": {"phase": "Succeeded"}}


async def _serve(place: Place, habits: Habits) -> None:
    folder = Path(place.folder)
    runtime = Runtime(Path(place.configuration), place.plugins, folder / "networks")
    with (folder / "journal.jsonl").open("a") as journal:
        async with BenchClient(load(place.kubeconfig), rate=200, burst=400, name=f"kubelet/{place.name}") as api:
            await Kubelet(place, api, runtime, journal, habits).run()


def main() -> None:
    told = orjson.loads(Path(sys.argv[1]).read_bytes())
    habits = Habits(**told.pop("habits"))
    kernel.own_mounts()
    uvloop.run(_serve(Place(**told), habits))


if __name__ == "__main__":
    main()
