"""Reads live what a claim is decided by and the watches do not show: its Pod, namespace, node and StatefulSet.

A Pod's claim can reach us before the Pod does: two watches are never in step. Decided without its labels and its
annotations it would get an address from another pool than it asks for, for good. So what is in no view is read, once.
What is not there then (a static Pod, an attachment made by hand) says nothing, and the claim is decided all the same.
Where pools are cut into slices, so is what made the Pod's ReplicaSet or Job: that is the application.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from berth.api.names import STATIC_HASH
from berth.controller.allocator import Allocator
from berth.controller.owners import parent_of
from berth.controller.surroundings import Described, Live, StatefulSetView, describe, stateful_set_fact
from berth.core.claim import Claim, Owner
from berth.core.reclaim import StatefulSetFact
from berth.core.slicing import application_of
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError, NotFound
from berth.kube.resources import NAMESPACES, NODES, PODS, STATEFUL_SETS, Resource

log = logging.getLogger(__name__)

READERS = 8
PAUSE_AFTER_FAILURE = 0.5


class Looker:
    """A queue of claims, each in it once, and a few readers."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: deque[Claim] = deque()
        self._queued: set[str] = set()
        self._some = asyncio.Semaphore(0)

    def look(self, claim: Claim) -> None:
        if claim.uid not in self._queued:
            self._queued.add(claim.uid)
            self._queue.append(claim)
            self._some.release()

    async def run(self, allocator: Allocator) -> None:
        async with asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(self._read_on(allocator))

    async def _read_on(self, allocator: Allocator) -> None:
        while True:
            await self._some.acquire()
            claim = self._queue.popleft()
            live = await self._live(allocator, claim)
            self._queued.discard(claim.uid)
            if live is not None and allocator.claims.get(claim.uid) is not None:
                allocator.looked(claim.uid, live)

    async def _live(self, allocator: Allocator, claim: Claim) -> Live | None:
        """None when the claim is gone meanwhile."""
        world = allocator.world
        while allocator.claims.get(claim.uid) is not None:
            try:
                seen = world.pods.pods.get(claim.pod_uid)
                pod = await self._pod(claim) if seen is None else seen.described
                if allocator.sliced and application_of(claim.namespace, pod.owner, world.parents) is None:
                    assert pod.owner is not None
                    world.parents[pod.owner.uid] = await parent_of(self._api, claim.namespace, pod.owner)
                namespace = await self._described(NAMESPACES, claim.namespace, world.namespaces.described)
                node = await self._described(NODES, claim.node, world.nodes.described)
                return Live(pod, namespace, node, await self._stateful_set(claim, pod.owner, world.stateful_sets))
            except KubeError as error:
                log.warning("not readable, trying again", extra={"endpoint": claim.name, "error": str(error)})
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
        return None

    async def _pod(self, claim: Claim) -> Described:
        item = await self._get(PODS.path(claim.pod, namespace=claim.namespace))
        if item is None:
            return Described()
        meta = item["metadata"]
        same = claim.pod_uid in (meta["uid"], (meta.get("annotations") or {}).get(STATIC_HASH))
        return describe(item) if same else Described()

    async def _described(self, resource: Resource, name: str, known: Mapping[str, Described]) -> Described:
        item = None if name in known else await self._get(resource.path(name))
        return Described() if item is None else describe(item)

    async def _stateful_set(self, claim: Claim, owner: Owner | None, known: StatefulSetView) -> StatefulSetFact | None:
        if owner is None or not owner.is_stateful_set or known.of(claim.namespace, owner) is not None:
            return None
        item = await self._get(STATEFUL_SETS.path(owner.name, namespace=claim.namespace))
        return None if item is None or item["metadata"]["uid"] != owner.uid else stateful_set_fact(item)

    async def _get(self, path: str) -> Object | None:
        try:
            return await self._api.get(path)
        except NotFound:
            return None
