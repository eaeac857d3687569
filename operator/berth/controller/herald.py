"""Tells a Pod, by an Event, that its annotations ask for what cannot be.

Never one for an allocation, and one sentence to one Pod once: kubelet tries again every few seconds, each time with a
new claim. An Event that cannot be written is dropped; the claim's condition says the same.
"""

import asyncio
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from secrets import token_hex

from berth.core.claim import Claim
from berth.core.selection import Refused
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError
from berth.kube.resources import EVENTS

log = logging.getLogger(__name__)

REMEMBERED = 10_000
WAITING_MOST = 500
LONGEST_NOTE = 1024  # events.k8s.io/v1 allows no more
REPORTER = "ipam.berth.dev/operator"


class Herald:
    """Complaints on their way, and those told."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Claim, Refused]] = asyncio.Queue(WAITING_MOST)

    def complain(self, claim: Claim, refused: Refused) -> None:
        key = (claim.pod_uid, refused.message)
        if key in self._told or self._queue.full():
            return
        self._told[key] = None
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self._queue.put_nowait((claim, refused))

    async def run(self) -> None:
        while True:
            claim, refused = await self._queue.get()
            try:
                await self._api.create(EVENTS.path(namespace=claim.namespace), event(claim, refused, datetime.now(UTC)))
            except KubeError as error:
                log.info("event not written", extra={"pod": f"{claim.namespace}/{claim.pod}", "error": str(error)})


def event(claim: Claim, refused: Refused, now: datetime) -> Object:
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{claim.pod[:200]}.{token_hex(8)}", "namespace": claim.namespace},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": REPORTER,
        "reportingInstance": REPORTER,
        "type": "Warning",
        "action": "GrantAddress",
        "reason": refused.reason.value,
        "note": f"{claim.interface}: {refused.message}"[:LONGEST_NOTE],
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": claim.namespace,
            "name": claim.pod,
            "uid": claim.pod_uid,
        },
    }
