"""Claims without a container, kept for a StatefulSet's Pod that comes again: how they come to be, and how they end.

The agent parks a claim at its DEL; here that is done for one whose Pod is gone and whose DEL never came. A parked claim
is of use as long as its set is to have that Pod. One that is not is seen to be so in the views (after a scale-down for
as long as the grace), then by a live read of the set, and deleted as it was when that was judged.
"""

import logging
from collections.abc import Callable

from berth.controller.allocator import Allocator
from berth.controller.claims import Seen
from berth.controller.metrics import METRICS
from berth.controller.settings import Settings
from berth.controller.surroundings import stateful_set_fact
from berth.core.claim import Claim
from berth.core.reasons import Reason
from berth.core.reclaim import Held, Release, judge_parked
from berth.kube.client import Api
from berth.kube.errors import Conflict, NotFound
from berth.kube.resources import ENDPOINTS, STATEFUL_SETS

log = logging.getLogger(__name__)


class Parking:
    """Parked claims of one term that are of no use, as far as the views tell."""

    def __init__(self, api: Api, settings: Settings, told: Callable[[Claim, Reason, bool], None]) -> None:
        self._api = api
        self._settings = settings
        self._told = told
        self._useless: dict[str, float] = {}  # claim -> when to look

    async def stays(self, allocator: Allocator, claim: Claim) -> bool:
        """Its StatefulSet makes its Pod again: read live."""
        return claim.held_for is not None and isinstance(await self._judge(allocator, claim), Held)

    async def park(self, allocator: Allocator, seen: Seen) -> bool:
        """As it was when it was judged; False when it is another by now."""
        path = ENDPOINTS.path(seen.claim.name, namespace=seen.claim.namespace)
        try:
            item = await self._api.get(path)
            if item["metadata"]["resourceVersion"] != str(seen.version):
                return False
            item["spec"]["containerID"] = ""
            allocator.claims.update(await self._api.replace(path, item))
        except (NotFound, Conflict):
            return False
        return True

    async def look(self, allocator: Allocator, now: float) -> None:
        parked = {seen.claim.uid: seen for seen in allocator.claims.parked()}
        METRICS.parked.set(len(parked))
        verdicts = {uid: allocator.succession.judge(seen.claim) for uid, seen in parked.items()}
        self._useless = {
            uid: self._useless.get(uid, now + self._grace(verdict))
            for uid, verdict in verdicts.items()
            if isinstance(verdict, Release)
        }
        for uid in [uid for uid, due in self._useless.items() if due <= now]:
            # If it is not deleted now, it is looked at again in its time.
            self._useless[uid] = now + self._settings.recheck
            await self._look_at(allocator, parked[uid])

    def _grace(self, verdict: Release) -> float:
        """A set that is scaled down may be scaled up again; one that is gone never comes back: a UID is used once."""
        return 0.0 if verdict.reason is Reason.STATEFUL_SET_GONE else self._settings.grace

    async def _look_at(self, allocator: Allocator, seen: Seen) -> None:
        claim = seen.claim
        verdict = await self._judge(allocator, claim)
        if isinstance(verdict, Held):
            return
        path = ENDPOINTS.path(claim.name, namespace=claim.namespace)
        try:
            await self._api.delete(path, uid=claim.uid, version=str(seen.version))
        except (NotFound, Conflict):
            return
        METRICS.reclaims.labels(verdict.reason.value).inc()
        self._told(claim, verdict.reason, False)
        log.info(
            "claim no longer kept for a StatefulSet",
            extra={"endpoint": f"{claim.namespace}/{claim.name}", "reason": verdict.reason.value},
        )

    async def _judge(self, allocator: Allocator, claim: Claim) -> Held | Release:
        fact = None
        if claim.held_for is not None:
            try:
                path = STATEFUL_SETS.path(claim.held_for.name, namespace=claim.namespace)
                fact = stateful_set_fact(await self._api.get(path))
            except NotFound:
                pass
        return judge_parked(claim, fact, allocator.succession.retained(claim))
