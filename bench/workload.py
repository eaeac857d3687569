"""What is done to the cluster: a hundred Deployments at once, a restart of everything, and the end of everything.

The Pods are watched, not asked for; the time of a phase is that of the event that completes it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.api import BenchClient
from bench.settings import CREATORS, GRACE_SECONDS, Settings
from berth.kube.client import Change, Listing, Object
from berth.kube.resources import PODS, Resource

NAMESPACE = "bench"
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", namespaced=True)


@dataclass(slots=True)
class Span:
    """A phase as it went: when it began and ended (None: not within the time allowed), and its curve."""

    begin: float
    end: float | None = None
    curve: list[tuple[float, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        return None if self.end is None else self.end - self.begin


class PodWatch:
    """A follower of all Pods, and of the pools' counts."""

    def __init__(self) -> None:
        self.pods: dict[str, Object] = {}
        self._running: set[str] = set()
        self._changed = asyncio.Event()

    @property
    def running(self) -> set[str]:
        """UIDs of those that run and are not to go."""
        return self._running

    def replaced(self, listing: Listing) -> None:
        self.pods, self._running = {}, set()
        for item in listing.items:
            self._see(item)

    def changed(self, change: Change) -> None:
        if change.kind == "DELETED":
            self.pods.pop(change.object["metadata"]["uid"], None)
            self._running.discard(change.object["metadata"]["uid"])
        else:
            self._see(change.object)
        self._changed.set()

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        self.pods[uid] = pod
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
            self._running.add(uid)
        else:
            self._running.discard(uid)

    def wake(self) -> None:
        self._changed.set()

    async def until(self, span: Span, count: Callable[[], int], wanted: int, allowed: float) -> None:
        """Follows `count` until it is what is wanted; its course is the span's curve."""
        try:
            async with asyncio.timeout(allowed):
                while True:
                    now, counted = time.monotonic(), count()
                    if not span.curve or span.curve[-1][1] != counted:
                        span.curve.append((now - span.begin, counted))
                    if counted == wanted:
                        span.end = now
                        return
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return


class PoolWatch:
    """A follower of the pools: how many addresses are held."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._held: dict[str, int] = {}

    @property
    def held(self) -> int:
        return sum(self._held.values())

    def replaced(self, listing: Listing) -> None:
        self._held = {item["metadata"]["name"]: _allocated(item) for item in listing.items}
        self._told()

    def changed(self, change: Change) -> None:
        self._held[change.object["metadata"]["name"]] = _allocated(change.object)
        self._told()


class Workload:
    """The three phases. The watches are fed by the caller."""

    def __init__(self, api: BenchClient, settings: Settings, pods: PodWatch, pools: PoolWatch) -> None:
        self._api = api
        self._settings = settings
        self._pods = pods
        self._pools = pools
        self.count: Callable[[], int] = lambda: 0

    async def create(self) -> Span:
        span, numbers = self._begin(lambda: len(self._pods.running)), iter(range(self._settings.deployments))

        async def some() -> None:
            for number in numbers:
                replicas = self._settings.replicas(number)
                await self._api.create(DEPLOYMENTS.path(namespace=NAMESPACE), _deployment(number, replicas))

        await asyncio.gather(*(some() for _ in range(CREATORS)))
        await self._pods.until(span, self.count, self._settings.pods, self._settings.phase_seconds)
        return span

    async def restart(self) -> Span:
        """All Pods deleted by one call; the Deployments make others at once."""
        before = set(self._pods.pods)
        span = self._begin(lambda: len(self._pods.running - before))
        await self._delete_pods(span, self._settings.pods)
        return span

    async def empty(self) -> Span:
        """Deployments and Pods deleted; it ends when no Pod is left and no address is held. The Pods wait for the
        ReplicaSets to be gone, or some would be replaced once more."""
        span = self._begin(lambda: len(self._pods.pods) + self._pools.held)
        await self._delete_all(DEPLOYMENTS, propagationPolicy="Background")
        replica_sets = REPLICA_SETS.path(namespace=NAMESPACE)
        while (await self._api.list(replica_sets, metadata=True)).items:  # noqa: ASYNC110 - the collector deletes them
            await asyncio.sleep(0.05)
        await self._delete_pods(span, 0)
        return span

    async def _delete_pods(self, span: Span, wanted: int) -> None:
        async with asyncio.TaskGroup() as calls:
            calls.create_task(self._delete_all(PODS, gracePeriodSeconds=GRACE_SECONDS))
            await self._pods.until(span, self.count, wanted, self._settings.phase_seconds)

    def _begin(self, count: Callable[[], int]) -> Span:
        self.count = count
        return Span(time.monotonic())

    async def _delete_all(self, resource: Resource, **options: Any) -> None:
        await self._api.remove_all(resource.path(namespace=NAMESPACE), options)


async def prepare(api: BenchClient) -> None:
    """The namespace, and the service account that Pods need in it."""
    await api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    while not (await api.list(accounts)).items:  # noqa: ASYNC110 - a controller makes it
        await asyncio.sleep(0.1)


def _deployment(number: int, replicas: int) -> Object:
    labels = {"app": f"bench-{number}"}
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": [{"name": "pause", "image": "berth.test/pause:1"}],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"bench-{number}", "namespace": NAMESPACE},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def _allocated(pool: Object) -> int:
    return int((pool.get("status") or {}).get("allocated") or 0)
