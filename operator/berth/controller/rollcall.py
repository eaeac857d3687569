"""Tells a Pod, by an Event, that its annotations speak of an interface that has not come.

Such an annotation is a typing error more often than not, and nothing would ever fail for it: no CNI call asks. That an
interface will not come any more is known by one fact: the Pod reports addresses, or that its containers may start, and
both only once every CNI call of its sandbox is done. So no time has to be waited out. Only Pods whose annotations
speak of an interface without an Endpoint are read, live, each time that something about them changes.
"""

import asyncio
import logging
from collections import deque

from berth.controller.allocator import Allocator
from berth.controller.herald import Herald, Regarding, Word
from berth.controller.surroundings import PodSeen
from berth.core.annotations import named_interfaces
from berth.core.reasons import Reason
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError, NotFound
from berth.kube.resources import PODS

log = logging.getLogger(__name__)

READERS = 2
UP = "PodReadyToStartContainers"


class RollCall:
    """A queue of Pods, each in it once, and a few readers."""

    def __init__(self, api: Api, allocator: Allocator, herald: Herald) -> None:
        self._api, self._allocator, self._herald = api, allocator, herald
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        self._some = asyncio.Semaphore(0)
        allocator.world.pods.noticed = self.notice

    def notice(self, pod: PodSeen) -> None:
        if pod.uid not in self._queued and not pod.leaving and self._absent(pod):
            self._queued.add(pod.uid)
            self._queue.append(pod.uid)
            self._some.release()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(self._read_on())

    async def _read_on(self) -> None:
        while True:
            await self._some.acquire()
            uid = self._queue.popleft()
            self._queued.discard(uid)
            pod = self._allocator.world.pods.pods.get(uid)
            if pod is None:
                continue
            try:
                item = await self._api.get(PODS.path(pod.name, namespace=pod.namespace))
            except NotFound:
                continue
            except KubeError as error:
                # Nothing but an Event is lost by it.
                log.info("pod not readable", extra={"pod": f"{pod.namespace}/{pod.name}", "error": str(error)})
                continue
            if item["metadata"]["uid"] == uid and _is_up(item):
                for interface in self._absent(pod):
                    self._herald.say(_word(pod, interface))

    def _absent(self, pod: PodSeen) -> list[str]:
        named = named_interfaces(pod.described.annotations)
        if not named:
            return []
        present = {seen.claim.interface for seen in self._allocator.claims.of_pod(pod.uid)}
        return [interface for interface in named if interface not in present]


def _is_up(pod: Object) -> bool:
    """Every CNI call of its sandbox is done."""
    status = pod.get("status") or {}
    return bool(status.get("podIPs")) or any(
        each["type"] == UP and each["status"] == "True" for each in status.get("conditions") or ()
    )


def _word(pod: PodSeen, interface: str) -> Word:
    note = (
        f"{interface}: annotations ipam.berth.dev/... of this Pod speak of this interface, and nobody has asked Berth"
        " for an address of it: correct its name there, or attach it by a network whose ipam is berth"
    )
    regarding = Regarding("v1", "Pod", pod.name, pod.uid, pod.namespace)
    return Word(regarding, "GrantAddress", Reason.INTERFACE_ABSENT, note)
