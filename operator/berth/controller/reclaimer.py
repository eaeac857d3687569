"""Takes addresses back from Pods that are gone and whose DEL never came.

First observation: the view of Pods no longer shows the Pod. Then a grace, so that a DEL under way can do it better.
Second observation: the Pod and its node are read live, and `core.reclaim` judges. The Endpoint is deleted with its UID
and version as preconditions; its address comes back as with any other deletion, and an Event says so. One that a
StatefulSet's Pod is to have again is parked instead (`parking.py`).

Addresses in doubt (settled, and no Endpoint says who holds them: after a take-over, Endpoints that were deleted while
nobody led) are freed when no Pod reports them, twice, a grace apart; one that a Pod does report is kept for that Pod.
"""

import asyncio
import logging
from collections.abc import Callable
from ipaddress import ip_address

import orjson

from berth.api.names import STATIC_HASH
from berth.controller.allocator import Allocator
from berth.controller.claims import Berth, Seen
from berth.controller.metrics import METRICS
from berth.controller.parking import Parking
from berth.controller.settings import Settings
from berth.controller.surroundings import Life
from berth.core.claim import Claim
from berth.core.pool import Pool
from berth.core.ranges import format_address
from berth.core.reasons import Reason
from berth.core.reclaim import Held, NodeFact, PodFact, judge
from berth.kube.client import Api, Object
from berth.kube.errors import Conflict, KubeError, NotFound
from berth.kube.resources import ENDPOINTS, NODES, PODS

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# The grace of a Pod whose kubelet has only just learnt that it is gone: its node did not answer before, or the API has
# forgotten it (its claim was asserted again). Longer than a Pod's usual 30 s to end.
KUBELET_GRACE_SECONDS = 60.0

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
POD_INTERFACE = "eth0"  # the one that status.podIPs speaks of


class Reclaimer:
    """Suspects and doubts of one term."""

    def __init__(
        self, api: Api, clock: Callable[[], float], settings: Settings, told: Callable[[Claim, Reason, bool], None]
    ) -> None:
        self._api = api
        self._clock = clock
        self._settings = settings
        self._told = told  # the herald: this claim was taken off, its Pod is there or not
        self._parking = Parking(api, settings, told)
        self._suspects: dict[str, float] = {}  # claim -> when to look
        self._silent: set[str] = set()  # those of them whose node did not answer when it was looked at
        self._doubts: dict[Berth, float] = {}

    def suspect(self, seen: Seen) -> None:
        """Its Pod was just seen to be gone, or not seen at all: the grace begins anew."""
        grace = KUBELET_GRACE_SECONDS if seen.claim.reasserted else self._settings.grace
        self._suspects[seen.claim.uid] = self._clock() + grace

    def suspects(self, uid: str) -> bool:
        return uid in self._suspects

    def doubts(self, berth: Berth) -> bool:
        return berth in self._doubts

    def doubt(self, pool: str, addresses: set[int]) -> None:
        log.warning("settled addresses without an Endpoint", extra={"pool": pool, "count": len(addresses)})
        for address in addresses:
            self._doubts.setdefault((pool, address), self._clock() + self._settings.grace)

    def doubted(self, pool: str) -> int:
        """How many of its addresses will be free or kept in a moment."""
        return sum(name == pool for name, _ in self._doubts)

    async def run(self, allocator: Allocator) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look(allocator)
            except KubeError as error:
                log.warning("reclaim could not read, trying again", extra={"error": str(error)})

    async def _look(self, allocator: Allocator) -> None:
        now = self._clock()
        for uid, due in [(uid, due) for uid, due in self._suspects.items() if due <= now]:
            seen = allocator.claims.get(uid)
            done = (
                seen is None or seen.claim.pod_uid in allocator.world.pods.pods or await self._examine(allocator, seen)
            )
            if self._suspects.get(uid) != due:
                continue  # seen to be gone while it was looked at: its grace has begun anew
            if done:
                del self._suspects[uid]
                self._silent.discard(uid)
            else:
                self._suspects[uid] = now + self._settings.recheck
        await self._parking.look(allocator, now)
        if self._doubts:
            await self._resolve(allocator, now)

    # --- suspects ----------------------------------------------------------------------------------------------------

    async def _examine(self, allocator: Allocator, seen: Seen) -> bool:
        """True when there is nothing more to look for."""
        claim = seen.claim
        if claim.parked:
            return True
        pod = await self._read(PODS.path(claim.pod, namespace=claim.namespace))
        node = await self._read(NODES.path(claim.node))
        verdict = judge(claim.pod_uid, _pod_fact(pod), _node_fact(node))
        if isinstance(verdict, Held):
            if verdict.recheck:
                self._silent.add(claim.uid)
            return not verdict.recheck
        if verdict.reason is Reason.POD_GONE and claim.uid in self._silent:
            self._silent.discard(claim.uid)
            self._suspects[claim.uid] = self._clock() + KUBELET_GRACE_SECONDS
            return False  # its node answers again: its kubelet hears of the Pod's end only now
        # If it is another by now, or its end is on its way to us, it is looked at again.
        parks = await self._parking.stays(allocator, claim)
        if not await (self._parking.park(allocator, seen) if parks else self._delete(seen)):
            return False
        METRICS.reclaims.labels(verdict.reason.value).inc()
        if not parks:
            self._told(claim, verdict.reason, pod is not None and pod["metadata"]["uid"] == claim.pod_uid)
        log.info(
            "claim parked: its Pod is gone, and comes again" if parks else "claim taken off a Pod that is gone",
            extra={"endpoint": f"{claim.namespace}/{claim.name}", "reason": verdict.reason.value},
        )
        return True

    async def _delete(self, seen: Seen) -> bool:
        path = ENDPOINTS.path(seen.claim.name, namespace=seen.claim.namespace)
        try:
            await self._api.delete(path, uid=seen.claim.uid, version=str(seen.version))
        except (NotFound, Conflict):
            return False
        return True

    async def _read(self, path: str) -> Object | None:
        try:
            return await self._api.get(path)
        except NotFound:
            return None

    # --- doubts ------------------------------------------------------------------------------------------------------

    async def _resolve(self, allocator: Allocator, now: float) -> None:
        """Each look is an observation: an address that a Pod reports in any of them is kept."""
        reported = await self._reported()
        for berth, due in list(self._doubts.items()):
            text = _text(allocator, berth)
            if text is None or allocator.occupied(berth):
                del self._doubts[berth]
            elif (reporter := reported.get(text)) is not None and not _served(allocator, *reporter):
                pod_uid, interface = reporter
                if allocator.world.pods.life(pod_uid) is Life.UNKNOWN:
                    continue  # it was listed, and may have left by now: nobody would tell us again
                del self._doubts[berth]
                log.warning("an address without an Endpoint is kept", extra={"address": text, "pod_uid": pod_uid})
                allocator.keep((pod_uid, "", interface), [berth])
            elif due <= now:
                del self._doubts[berth]
                allocator.release(berth)

    async def _reported(self) -> dict[str, tuple[str, str]]:
        """Every address that a Pod which has not finished says it has, the Pod's UID and the interface."""
        found: dict[str, tuple[str, str]] = {}
        for reports in (await self._api.list(PODS.path(), reading=_reports)).items:
            found |= reports
        return found


def _reports(pod: Object) -> dict[str, tuple[str, str]]:
    """The addresses that a Pod which has not finished says it has: its UID and the interface of each."""
    fact = _pod_fact(pod)
    if fact is None or fact.finished or pod["spec"].get("hostNetwork"):
        return {}
    return {text: (fact.uid, interface) for text, interface in _addresses(pod)}


def _served(allocator: Allocator, pod_uid: str, interface: str) -> bool:
    """This interface of the Pod has an Endpoint that says what it holds: the Pod's status speaks of the past."""
    claims = [seen.claim for seen in allocator.claims.of_pod(pod_uid)]
    return any(claim.confirmed and claim.interface == interface for claim in claims)


def _text(allocator: Allocator, berth: Berth) -> str | None:
    book = allocator.books.get(berth[0])
    if book is None or not isinstance(book.pool, Pool):
        return None
    return format_address(book.pool.family, berth[1])


def _addresses(pod: Object) -> list[tuple[str, str]]:
    """As its status and its secondary networks (Multus) have them: canonical form, interface."""
    texts = [(each.get("ip", ""), POD_INTERFACE) for each in (pod.get("status") or {}).get("podIPs") or []]
    networks = (pod["metadata"].get("annotations") or {}).get(NETWORK_STATUS)
    if networks:
        try:
            for each in orjson.loads(networks):
                texts += [(ip, each.get("interface") or POD_INTERFACE) for ip in each.get("ips") or []]
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            log.warning("network-status not understood", extra={"pod": pod["metadata"]["name"]})
    found = []
    for text, interface in texts:
        try:
            found.append((str(ip_address(text)), interface))
        except ValueError:
            continue
    return found


def _pod_fact(item: Object | None) -> PodFact | None:
    if item is None:
        return None
    meta = item["metadata"]
    finished = (item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return PodFact(meta["uid"], finished, (meta.get("annotations") or {}).get(STATIC_HASH))


def _node_fact(item: Object | None) -> NodeFact | None:
    if item is None:
        return None
    conditions = (item.get("status") or {}).get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    taints = item["spec"].get("taints") or []
    return NodeFact(ready, any(each["key"] == OUT_OF_SERVICE for each in taints))
