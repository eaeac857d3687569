"""What people do meanwhile, on pools of exactly as many addresses as there are Pods: deploy, roll, scale, delete.

Deployments, StatefulSets (Pods come again under their name), Jobs (Pods finish), and bare Pods that are made again
under their name at once. Each deed follows from the seed; one that the API refuses or that fails is simply over.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

from bench.api import BenchClient
from berth.kube.client import Object
from berth.kube.errors import Conflict, KubeError, NotFound
from berth.kube.resources import PODS, POOLS, Resource
from tests.chaos.ground import CUT, POOL4, POOL6, SIDE, Ground, insist
from tests.chaos.kubelet import RUNS_FOR

NAMESPACE = "chaos"
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", namespaced=True)
JOBS = Resource("batch", "v1", "jobs", "Job", namespaced=True)
DEPLOYED, ORDERED, BARE, AT_WORK = {"web": 5, "api": 5}, {"db": 3, "queue": 3}, 4, 2
# Deployments that draw from pools of their own: how many Pods, from which pools.
BESIDE = {"side": (3, SIDE), "left": (2, CUT), "right": (2, CUT)}
EXACTLY = sum(DEPLOYED.values()) + sum(ORDERED.values()) + BARE + AT_WORK
LASTING = EXACTLY - AT_WORK + sum(replicas for replicas, _ in BESIDE.values())
ATTEMPT_SECONDS = 30.0


class Load:
    def __init__(self, api: BenchClient, random: Random, note: Callable[..., None]) -> None:
        self._api, self._random, self._note = api, random, note
        self._ground = Ground(api, note, self._clear_side)
        self._jobs = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.deeds = 0

    async def begin(self) -> None:
        """Pools, and all that lasts; Jobs come later."""
        await self._ground.lay(EXACTLY)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await self._api.create("/api/v1/namespaces", namespace)
        while not (await self._api.list(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts")).items:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 2}}
        for name, replicas in DEPLOYED.items():
            await self._create(DEPLOYMENTS, name, {**_replicated(name, replicas), "strategy": strategy})
        for name, (replicas, pools) in BESIDE.items():
            body = {**_replicated(name, replicas), "strategy": strategy}
            body["template"]["metadata"]["annotations"] = {"ipam.berth.dev/pools": ",".join(pools)}
            await self._create(DEPLOYMENTS, name, body)
        for name, replicas in ORDERED.items():
            policy = {"serviceName": name, "podManagementPolicy": "Parallel" if name == "db" else "OrderedReady"}
            await self._create(SETS, name, {**_replicated(name, replicas), **policy})
        for number in range(BARE):
            self._go(self._keep_bare(f"bare-{number}"))

    async def churn(self) -> None:
        """Until cancelled."""
        deeds = self._deeds()
        self._go(self._keep_jobs())
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._random.choice((0.2, 0.5, 1.5))))
            (deed,) = self._random.choices([each for each, _ in deeds], [weight for _, weight in deeds])
            self.deeds += 1
            with suppress(KubeError):
                await deed()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def abandon(self) -> None:
        self.cancel()
        self._ground.cancel()

    async def settle(self) -> None:
        """Nothing new, no Jobs, everything at its full size."""
        self.cancel()
        await self._ground.settle()
        for number in range(BARE):
            self._go(self._keep_bare(f"bare-{number}"))
        await insist(lambda: self._api.remove_all(JOBS.path(namespace=NAMESPACE), _background()))
        for name, replicas in ORDERED.items():
            await self._scale(name, replicas)

    async def end(self) -> None:
        self.cancel()
        for resource in (DEPLOYMENTS, SETS, JOBS, PODS):
            path = resource.path(namespace=NAMESPACE)
            await insist(lambda path=path: self._api.remove_all(path, _background()))  # type: ignore[misc]

    async def pods(self) -> list[Object]:
        return (await self._api.list(PODS.path(namespace=NAMESPACE))).items

    # --- deeds -------------------------------------------------------------------------------------------------------

    def _deeds(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        return [
            (self._delete_some, 6.0),
            (self._force_some, 4.0),
            (self._replace_bare, 4.0),
            (self._roll, 1.0),
            (self._rescale, 1.0),
            (self._restart_set, 2.0),
            (self._restart_all, 0.25),
            (self._edit_pool, 0.25),
            (self._ground.reserve, 0.25),
            (self._ground.renew, 0.4),
        ]

    async def _some_pods(self, most: int) -> list[Object]:
        pods = [each for each in await self.pods() if "deletionTimestamp" not in each["metadata"]]
        return self._random.sample(pods, min(len(pods), self._random.randint(1, most)))

    async def _delete_some(self) -> None:
        for pod in await self._some_pods(4):
            self._note("a Pod is deleted", pod=pod["metadata"]["name"], uid=pod["metadata"]["uid"])
            await self._remove(pod, gracePeriodSeconds=2)

    async def _force_some(self) -> None:
        for pod in await self._some_pods(3):
            self._note("a Pod is force-deleted", pod=pod["metadata"]["name"], uid=pod["metadata"]["uid"])
            await self._remove(pod, gracePeriodSeconds=0)

    async def _replace_bare(self) -> None:
        """Gone and made again under its name, by whoever keeps it, without a pause."""
        name = f"bare-{self._random.randrange(BARE)}"
        grace = self._random.choice((0, 0, 2))
        self._note("a bare Pod is replaced", pod=name, grace=grace)
        await self._api.remove(PODS.path(name, namespace=NAMESPACE), {"gracePeriodSeconds": grace})

    async def _roll(self) -> None:
        resource, name = self._random.choice(
            [*((DEPLOYMENTS, each) for each in (*DEPLOYED, *BESIDE)), *((SETS, n) for n in ORDERED)]
        )
        self._note("a rollout", of=f"{resource.plural}/{name}")
        stamp = {"chaos.berth.test/rolled": str(time.monotonic())}
        body = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
        await self._api.patch(resource.path(name, namespace=NAMESPACE), body)

    async def _restart_set(self) -> None:
        """All Pods of a StatefulSet at once: where they come again one after the other, the last is away for long."""
        name = self._random.choice(list(ORDERED))
        self._note("all Pods of a StatefulSet are deleted", of=name)
        for pod in await self.pods():
            if (pod["metadata"].get("labels") or {}).get("app") == name:
                await self._remove(pod, gracePeriodSeconds=1)

    async def _rescale(self) -> None:
        """Down, and up again some seconds later."""
        name = self._random.choice(list(ORDERED))
        self._note("a StatefulSet is scaled down and up", of=name)
        await self._scale(name, self._random.randint(0, ORDERED[name] - 1))
        self._go(self._scale_later(name))

    async def _scale_later(self, name: str) -> None:
        await asyncio.sleep(self._random.uniform(0.5, 8.0))
        self._note("a StatefulSet is scaled up again", of=name)
        await self._scale(name, ORDERED[name])

    async def _scale(self, name: str, replicas: int) -> None:
        path = SETS.path(name, namespace=NAMESPACE)
        await insist(lambda: self._api.patch(path, {"spec": {"replicas": replicas}}))

    async def _restart_all(self) -> None:
        self._note("all Pods are deleted at once")
        await self._api.remove_all(PODS.path(namespace=NAMESPACE), {"gracePeriodSeconds": 1})

    async def _edit_pool(self) -> None:
        """Through the webhook: the spec changes, what it hands out does not."""
        name, delay = self._random.choice((POOL4, POOL6)), self._random.choice(("0s", "1s", "2s"))
        self._note("a pool's spec is changed", pool=name, delay=delay)
        await self._api.patch(POOLS.path(name), {"spec": {"reuseDelay": delay}})

    async def _clear_side(self) -> None:
        for pod in await self.pods():
            if (pod["metadata"].get("labels") or {}).get("app") == "side":
                await self._remove(pod, gracePeriodSeconds=1)

    # --- what lasts --------------------------------------------------------------------------------------------------

    async def _keep_bare(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": _pod_spec()}
        while True:
            with suppress(KubeError):
                await self._api.create(PODS.path(namespace=NAMESPACE), body)
            await asyncio.sleep(0.2)

    async def _keep_jobs(self) -> None:
        """As many as there is room for, each of one Pod."""
        while True:
            await asyncio.sleep(0.5)
            with suppress(KubeError):
                listed = (await self._api.list(JOBS.path(namespace=NAMESPACE), metadata=True)).items
                if len(listed) < AT_WORK:
                    await self._create_job()

    async def _create_job(self) -> None:
        self._jobs += 1
        seconds = f"{self._random.uniform(1.0, 10.0):.1f}"
        template = {
            "metadata": {"labels": {RUNS_FOR: seconds}},
            "spec": {**_pod_spec(), "restartPolicy": "Never"},
        }
        spec = {"template": template, "ttlSecondsAfterFinished": self._random.choice((0, 1, 12)), "backoffLimit": 2}
        await self._create(JOBS, f"job-{self._jobs}", spec)

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _create(self, resource: Resource, name: str, spec: Object) -> None:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec}
        await self._api.create(resource.path(namespace=NAMESPACE), body)

    async def _remove(self, pod: Object, **options: Any) -> None:
        meta = pod["metadata"]
        with suppress(NotFound, Conflict):
            await self._api.remove(
                PODS.path(meta["name"], namespace=NAMESPACE), {"preconditions": {"uid": meta["uid"]}, **options}
            )

    def _go(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _replicated(name: str, replicas: int) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": _pod_spec()}
    return {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}


def _pod_spec() -> Object:
    container = {"name": "pause", "image": "berth.test/pause:1"}
    return {"containers": [container], "terminationGracePeriodSeconds": 2}


def _background() -> Object:
    return {"propagationPolicy": "Background", "gracePeriodSeconds": 1}
