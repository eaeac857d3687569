"""One pool as the leader keeps it: its object, its ledger, what is said of it, and the loop that commits.

Everything that changes a pool's status goes through the one loop of its book, in conditional writes, one at a time.
What arrives while a write is under way is the next batch, so batches form by themselves and an idle pool is written at
once. What nobody waits for (settling, releasing, counts) waits a moment for company.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from berth.api.conditions import Condition, condition
from berth.api.endpoint import ObjectMeta
from berth.api.ippool import IPPoolSpec, IPPoolStatus, write_counts, write_ledger
from berth.controller.clock import timestamp
from berth.core.ledger import Image, Ledger
from berth.core.pool import BadField, Pool
from berth.core.ranges import Family, Ranges
from berth.core.reasons import Reason
from berth.kube.client import Api, Object
from berth.kube.errors import Conflict, KubeError, NotFound, Unknown
from berth.kube.resources import API_VERSION, POOLS

log = logging.getLogger(__name__)

# How long settling and releasing wait for a grant to ride with. Seconds.
COMPANY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """What the condition Ready says of a pool."""

    ready: bool
    reason: Reason
    message: str


UNDECIDED = Standing(False, Reason.LOADING, "being read")


class Book:
    """`ledger` is None while it is being loaded, and when it cannot be read: nothing is granted or released then."""

    def __init__(
        self,
        api: Api,
        item: Object,
        *,
        accepted: "Callable[[Book, list[tuple[str, int]]], None]",
        lost: "Callable[[Book], Awaitable[None]]",
    ) -> None:
        self._api = api
        self._accepted = accepted
        self._lost = lost
        self.ledger: Ledger | None = None
        self.serving = False
        self.standing = UNDECIDED
        self._stated: Standing | None  # as the API has it, of the present spec
        self._wake, self._urgent, self._written = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recheck = False
        self._writing = False
        self._shown = 0
        self._epoch = 0  # raised whenever memory is thrown away: an answer of an earlier epoch says nothing
        self.absorb(item)

    # --- what the object says ----------------------------------------------------------------------------------------

    def absorb(self, item: Object) -> None:
        """Take over an object as just read: spec, conditions and resourceVersion. The ledger is not taken from it."""
        self.meta = ObjectMeta.model_validate(item["metadata"])
        self.status = IPPoolStatus.model_validate(item.get("status") or {})
        self.raw_status: Object = item.get("status") or {}
        self.pool: Pool | BadField = IPPoolSpec.model_validate(item["spec"]).to_core(self.meta.name)
        self.version = self.meta.resource_version
        self._stated = self._said()

    def _said(self) -> Standing | None:
        """The condition Ready as the API has it, if it speaks of the present spec."""
        ready = next((each for each in self.status.conditions if each.type == "Ready"), None)
        if ready is None or ready.observed_generation != self.meta.generation or ready.reason not in set(Reason):
            return None
        return Standing(ready.status == "True", Reason(ready.reason), ready.message)

    @property
    def name(self) -> str:
        return self.meta.name

    @property
    def terminating(self) -> bool:
        return self.meta.deletion_timestamp is not None

    def settled_image(self) -> Image | None:
        """Memory as it stands in the API too; None while it is being read, or a write is to come or under way."""
        if self.ledger is None or self.ledger.dirty or self._writing or self._recheck:
            return None
        return self.ledger.image()

    def ready_in_api(self) -> bool:
        """Ready is True, for the spec as it is now."""
        return self._stated is not None and self._stated.ready

    @property
    def counts_in_api(self) -> dict[str, int | str | None]:
        return {"total": self.status.total, "allocated": self.status.allocated, "available": self.status.available}

    def image(self, family: Family) -> Image | BadField:
        return self.status.ledger.to_core(family)

    def allowed(self, reserved: dict[Family, Ranges]) -> Ranges:
        assert isinstance(self.pool, Pool)
        return self.pool.offered.minus(reserved.get(self.pool.family, Ranges()))

    def hands_out(self, address: int) -> bool:
        """Or cannot tell: its ledger is being read."""
        return self.ledger is None or address in self.ledger.allowed

    # --- the loop ----------------------------------------------------------------------------------------------------

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._task = spawn(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def touch(self) -> None:
        """The ledger or the standing may have changed: write it, at once if someone waits for it."""
        self._wake.set()
        if (self.ledger is not None and self.ledger.urgent) or self.standing != self._stated:
            self._urgent.set()

    def shown(self, version: int) -> None:
        """A watch shows this version. One that is neither what was read nor what we wrote is somebody else's: a
        person's spec, a rival's ledger, or a write of a leader before us that came late."""
        self._shown = max(self._shown, version)
        self.look_again()

    def look_again(self) -> None:
        """Unless a write is under way, which tells; or the ledger is about to be read."""
        if self._shown > int(self.version) and not self._writing and self._readable:
            self.recheck()

    @property
    def _readable(self) -> bool:
        """Its ledger is read, or cannot be."""
        return self.ledger is not None or self.standing is not UNDECIDED

    def recheck(self) -> None:
        """Someone has changed the object: read it between two writes, when nothing of ours is under way."""
        self._recheck = True
        self._wake.set()
        self._urgent.set()

    def state(self, standing: Standing) -> None:
        """What the condition Ready is to say."""
        if standing != self.standing or self._stated != standing:
            self.standing = standing
            self.touch()

    async def stated(self, standing: Standing) -> None:
        """Returns when the API says so, or when it is no longer meant to."""
        self.state(standing)
        while self._stated != standing and self.standing == standing:
            self._written.clear()
            await self._written.wait()

    def undecide(self) -> None:
        """Whether it serves is to be decided anew."""
        self.serving = False
        self.standing = UNDECIDED
        self._written.set()

    def unload(self) -> None:
        """Drop what memory says: it is no longer known to be what the API has."""
        self.ledger = None
        self._epoch += 1
        self.undecide()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._recheck or self._to_write():
                if not self._urgent.is_set():
                    await self._company()
                self._urgent.clear()
                if self._recheck:
                    self._recheck = False
                    await self._lost(self)
                else:
                    await self._write()
                self.look_again()

    def _to_write(self) -> bool:
        if self.standing is UNDECIDED:
            return False
        return self.standing != self._stated or (self.ledger is not None and self.ledger.dirty)

    async def _company(self) -> None:
        # Not `asyncio.wait_for`: in Python 3.11 that loses a cancellation that comes with what is waited for, and a
        # term that has lost its Lease would never end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMPANY_SECONDS):
                await self._urgent.wait()

    async def _write(self) -> None:
        ledger, standing, epoch = self.ledger, self.standing, self._epoch
        if standing is UNDECIDED:
            return
        image = ledger.draft() if ledger is not None else None
        path = POOLS.path(self.name, sub="status")
        self._writing = True
        try:
            written = await self._api.replace(path, self._body(image, standing))
        except (Conflict, Unknown, NotFound) as error:
            log.debug("pool write not done", extra={"pool": self.name, "error": str(error)})
            if epoch == self._epoch:
                await self._lost(self)
            return
        except KubeError:
            log.exception("pool write refused", extra={"pool": self.name})
            await asyncio.sleep(1.0)
            if epoch == self._epoch:
                await self._lost(self)
            return
        finally:
            self._writing = False
        if epoch != self._epoch:
            return
        self.version = written["metadata"]["resourceVersion"]
        conditions = tuple(Condition.model_validate(each) for each in written["status"]["conditions"])
        self.status = self.status.model_copy(update={"conditions": conditions})
        self._stated = standing
        self._written.set()
        if ledger is not None and image is not None:
            self._accepted(self, ledger.accept(image))

    def _body(self, image: Image | None, standing: Standing) -> dict[str, Any]:
        status: dict[str, Any] = {"conditions": self._conditions(standing)}
        if image is not None and self.ledger is not None and isinstance(self.pool, Pool):
            status |= {"ledger": write_ledger(self.pool.family, image), **write_counts(self.ledger.counts)}
        else:
            # What cannot be read is kept as it is, for a person to mend.
            kept = ("ledger", "total", "allocated", "available")
            status |= {key: self.raw_status[key] for key in kept if key in self.raw_status}
        return {
            "apiVersion": API_VERSION,
            "kind": POOLS.kind,
            "metadata": {"name": self.name, "uid": self.meta.uid, "resourceVersion": self.version},
            "status": status,
        }

    def _conditions(self, standing: Standing) -> list[dict[str, Any]]:
        now = timestamp()
        found = [self._condition("Ready", standing.ready, standing.reason, standing.message, now)]
        if self.ledger is not None:
            held = self.ledger.counts.available == 0
            found.append(
                self._condition("Exhausted", True, Reason.ALL_ADDRESSES_HELD, "every address is held", now)
                if held
                else self._condition("Exhausted", False, Reason.ADDRESSES_AVAILABLE, "", now)
            )
        return [each.model_dump(by_alias=True, exclude_none=True) for each in found]

    def _condition(self, kind: str, status: bool, reason: Reason, message: str, now: str) -> Condition:
        return condition(kind, status, reason, message, self.meta.generation, now, self.status.conditions)
