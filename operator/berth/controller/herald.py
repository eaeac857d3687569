"""Tells people, by Events: a Pod that its annotations ask for what cannot be, what was reclaimed, what has drifted.

Never one for an allocation, and one sentence about one object once: kubelet tries again every few seconds, each time
with a new claim. An Event that cannot be written is dropped; conditions, metrics and the log say the same.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex

from berth.core.claim import Claim
from berth.core.reasons import Reason
from berth.core.selection import Refused
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError
from berth.kube.resources import API_VERSION, ENDPOINTS, EVENTS, POOLS

log = logging.getLogger(__name__)

REMEMBERED = 10_000
WAITING_MOST = 500
LONGEST_NOTE = 1024  # events.k8s.io/v1 allows no more
REPORTER = "ipam.berth.dev/operator"
CLUSTER = "default"  # where Events of what has no namespace are


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an Event is of. Nobody checks that it is there."""

    version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """An Event to be."""

    regarding: Regarding
    action: str
    reason: Reason
    note: str
    warning: bool = True


def of_pod(claim: Claim) -> Regarding:
    return Regarding("v1", "Pod", claim.pod, claim.pod_uid, claim.namespace)


def of_endpoint(claim: Claim) -> Regarding:
    return Regarding(API_VERSION, ENDPOINTS.kind, claim.name, claim.uid, claim.namespace)


def of_pool(name: str, uid: str) -> Regarding:
    return Regarding(API_VERSION, POOLS.kind, name, uid)


class Herald:
    """Words on their way, and those told."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._queue: asyncio.Queue[Word] = asyncio.Queue(WAITING_MOST)

    def complain(self, claim: Claim, refused: Refused) -> None:
        """What a claim asks for cannot be."""
        regarding = of_endpoint(claim) if claim.reasserted else of_pod(claim)
        self.say(Word(regarding, "GrantAddress", refused.reason, f"{claim.interface}: {refused.message}"))

    def reclaimed(self, claim: Claim, reason: Reason, pod_there: bool) -> None:
        """To the Pod while there is one, else beside the Endpoint that was deleted."""
        note = f"the address of {claim.interface} was taken back, for its DEL never came (Endpoint {claim.name})"
        regarding = of_pod(claim) if pod_there else of_endpoint(claim)
        self.say(Word(regarding, "ReclaimAddress", reason, note, warning=False))

    def say(self, word: Word) -> None:
        key = (word.regarding.uid, word.note)
        if key in self._told or self._queue.full():
            return
        self._told[key] = None
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._queue.put_nowait(word)

    async def run(self) -> None:
        while True:
            word = await self._queue.get()
            body = event(word, datetime.now(UTC))
            try:
                await self._api.create(EVENTS.path(namespace=body["metadata"]["namespace"]), body)
            except KubeError as error:
                regarding = f"{word.regarding.kind} {word.regarding.namespace}/{word.regarding.name}"
                log.info("event not written", extra={"regarding": regarding, "error": str(error)})


def event(word: Word, now: datetime) -> Object:
    regarding = word.regarding
    namespace = regarding.namespace or CLUSTER
    about = {"apiVersion": regarding.version, "kind": regarding.kind, "name": regarding.name, "uid": regarding.uid}
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{regarding.name[:200].rstrip('.-')}.{token_hex(8)}", "namespace": namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": REPORTER,
        "reportingInstance": REPORTER,
        "type": "Warning" if word.warning else "Normal",
        "action": word.action,
        "reason": word.reason.value,
        "note": word.note[:LONGEST_NOTE],
        "regarding": about | ({"namespace": regarding.namespace} if regarding.namespace else {}),
    }
