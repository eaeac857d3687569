"""Writes what the allocator says to the status of Endpoints: confirmations, and refusals with their reason; and deletes
those that have a successor.

A confirmation says what the API's own ledger says, so it may be written again at any time (design, section 2, rule 3).
Each write carries the uid and the resourceVersion that was read: one that comes late, or for another object of the same
name, does nothing.
"""

import asyncio
import logging
from collections import deque

from berth.api.conditions import condition
from berth.controller.allocator import Allocator, Deletion, Statement
from berth.controller.claims import Seen
from berth.controller.clock import timestamp
from berth.core.reasons import Reason
from berth.kube.client import Api, Object
from berth.kube.errors import Answer, Conflict, NotFound, Unknown
from berth.kube.resources import API_VERSION, ENDPOINTS

log = logging.getLogger(__name__)

WRITERS = 24
PAUSE_AFTER_FAILURE = 0.5


class Scribe:
    """A queue of claims, and a few writers. A claim stands in the queue once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        self._some = asyncio.Semaphore(0)

    def write(self, uid: str) -> None:
        """What is to be written is asked when its turn comes: later facts count."""
        if uid not in self._queued:
            self._queued.add(uid)
            self._queue.append(uid)
            self._some.release()

    async def run(self, allocator: Allocator) -> None:
        async with asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(self._write_on(allocator))

    async def _write_on(self, allocator: Allocator) -> None:
        while True:
            await self._some.acquire()
            uid = self._queue.popleft()
            self._queued.discard(uid)
            seen, statement = allocator.claims.get(uid), allocator.statement(uid)
            if seen is not None and statement is not None and not _says(seen, statement):
                await self._do(allocator, seen, statement)

    async def _do(self, allocator: Allocator, seen: Seen, statement: Statement | Deletion) -> None:
        claim = seen.claim
        path = ENDPOINTS.path(claim.name, namespace=claim.namespace)
        try:
            if isinstance(statement, Deletion):
                await self._api.delete(path, uid=claim.uid, version=str(seen.version))
            else:
                allocator.claims.update(await self._api.replace(f"{path}/status", _body(seen, statement)))
        except NotFound:
            return  # its deletion is on its way to us
        except (Conflict, Unknown):
            await self._reread(allocator, seen)
        except Answer as error:
            log.error("write refused by the API", extra={"endpoint": claim.name, "error": str(error)})
            await asyncio.sleep(PAUSE_AFTER_FAILURE)
            self.write(claim.uid)

    async def _reread(self, allocator: Allocator, seen: Seen) -> None:
        """Something else changed the object, or nobody knows: see what it says now, then decide again."""
        claim = seen.claim
        try:
            item = await self._api.get(ENDPOINTS.path(claim.name, namespace=claim.namespace))
        except NotFound:
            return
        except (Answer, Unknown):
            await asyncio.sleep(PAUSE_AFTER_FAILURE)
        else:
            if item["metadata"]["uid"] != claim.uid:
                return
            allocator.claims.update(item)
        self.write(claim.uid)


def _says(seen: Seen, statement: Statement | Deletion) -> bool:
    """The Endpoint was refused before with the same words."""
    refused = None if isinstance(statement, Deletion) else statement[1]
    return refused is not None and seen.ready is not None and seen.ready.message == refused.message


def _body(seen: Seen, statement: Statement) -> Object:
    claim, (status, refused) = seen.claim, statement
    ready = condition(
        "Ready",
        refused is None,
        Reason.CONFIRMED if refused is None else refused.reason,
        "" if refused is None else refused.message,
        seen.generation,
        timestamp(),
        () if seen.ready is None else (seen.ready,),
    )
    return {
        "apiVersion": API_VERSION,
        "kind": ENDPOINTS.kind,
        "metadata": {
            "name": claim.name,
            "namespace": claim.namespace,
            "uid": claim.uid,
            "resourceVersion": str(seen.version),
        },
        "status": {**status, "conditions": [ready.model_dump(by_alias=True, exclude_none=True)]},
    }
