"""The node agent: answers the CNI calls of one node. Here each call meets what serves it.

A successful call is a line at debug, a failed one a line at warning; both are counted.
"""

import asyncio
import logging
import time

from berth_cni.adding import ADD_SECONDS, Adder, Stake
from berth_cni.calls import (
    MISMATCH,
    NOT_AVAILABLE,
    TRY_LATER,
    Add,
    Call,
    Check,
    CniError,
    Del,
    Gc,
    Version,
)
from berth_cni.claims import Claims
from berth_cni.configuration import parse
from berth_cni.frames import Request
from berth_cni.metrics import Metrics
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser, fields
from berth_cni.result import failure, success, versions
from berth_cni.underway import Caller, Lanes, Underway

log = logging.getLogger(__name__)

# A failed STATUS makes the whole node NotReady: a request lost now and then must not.
STATUS_PATIENCE_SECONDS = 10.0


class Agent:
    def __init__(
        self, adder: Adder, releaser: Releaser, claims: Claims, reach: Reach, lanes: Lanes, metrics: Metrics
    ) -> None:
        self._adder = adder
        self._releaser = releaser
        self._claims = claims
        self._reach = reach
        self._lanes = lanes
        self._metrics = metrics

    async def answer(self, request: Request, caller: Caller, underway: Underway) -> None:
        began = time.monotonic()
        call = parse(request.environment, request.stdin)
        try:
            error = await self._serve(call, caller, underway)
        except Exception:
            # A bug of ours: the runtime gets an answer all the same, and the operator's log its trace.
            log.exception("a call could not be answered")
            error = CniError(TRY_LATER, "the berth agent failed: see its log", version=call.version)
            await caller.deliver(1, failure(error), acknowledged=False)
        command = request.environment.get("CNI_COMMAND", "")
        seconds = time.monotonic() - began
        self._metrics.observe(command, error.code if error is not None else 0, seconds)
        if error is not None:
            log.warning("a call failed", extra={"command": command, **_about(call), **_why(error, seconds)})
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("a call succeeded", extra={"command": command, **_about(call), "seconds": f"{seconds:.3f}"})

    async def _serve(self, call: Call | CniError, caller: Caller, underway: Underway) -> CniError | None:
        if isinstance(call, Add):
            error = await self._add(call, caller, underway)
        else:
            answered = call if isinstance(call, CniError) else await self._other(call, underway)
            if not isinstance(answered, CniError):
                await caller.deliver(0, answered, acknowledged=False)
                return None
            error = answered
        if error is not None:
            error = CniError(error.code, error.message, error.details, call.version)
            await caller.deliver(1, failure(error), acknowledged=False)
        return error

    async def _other(self, call: Call, underway: Underway) -> bytes | CniError:
        if isinstance(call, Del):
            return await self._del(call, underway)
        if isinstance(call, Check):
            return self._check(call)
        if isinstance(call, Gc):
            return await self._gc(call)
        if isinstance(call, Version):
            return versions(call.version)
        return self._status()

    async def _add(self, call: Add, caller: Caller, underway: Underway) -> CniError | None:
        deadline = asyncio.get_running_loop().time() + ADD_SECONDS
        async with self._lanes.alone(call.attachment, underway):
            await self._releaser.take_spool()
            if self._releaser.tombstones.overtaken(call.attachment, caller.pid):
                return CniError(TRY_LATER, "this ADD comes after the DEL of its container: the sandbox is gone")
            stake = Stake()
            granted = await self._adder.add(call, underway, deadline, stake)
            if isinstance(granted, CniError):
                return granted
            result = success(call.version, granted.addresses, granted.routes, call.dns)
            if await caller.deliver(0, result, acknowledged=True):
                return None
            await self._adder.undo(call, stake)
            return CniError(TRY_LATER, "the caller went away before it had the answer")

    async def _del(self, call: Del, underway: Underway) -> bytes | CniError:
        self._releaser.tombstones.raise_for(call.attachment)
        async with self._lanes.alone(call.attachment, underway, overtake="its DEL came"):
            trouble = await self._releaser.promise(call.attachment)
        return b"" if trouble is None else CniError(TRY_LATER, f"the address could not be released: {trouble}")

    def _check(self, call: Check) -> bytes | CniError:
        if not self._claims.synced.is_set():
            return CniError(TRY_LATER, "the Endpoints of this node are not known yet: does the API server answer?")
        held = self._claims.of(call.attachment)
        if not held or not held[0].confirmed:
            return CniError(MISMATCH, "no address is held for this container and interface: run ADD again")
        lost = sorted({each.address for each in held[0].addresses} - call.addresses)
        if lost:
            return CniError(
                MISMATCH,
                f"Endpoint {held[0].namespace}/{held[0].name} holds {', '.join(lost)}, "
                f"prevResult says {', '.join(sorted(call.addresses)) or 'none'}",
            )
        return b""

    async def _gc(self, call: Gc) -> bytes | CniError:
        if call.valid is None:
            return b""  # the runtime did not say what lives: then nothing is dead
        if not self._claims.synced.is_set():
            return CniError(TRY_LATER, "the Endpoints of this node are not known yet: does the API server answer?")
        troubles: list[str] = []
        for held in self._claims.in_network(call.network):
            key = (held.attachment.container, held.attachment.interface)
            if key in call.valid or held.attachment in self._lanes:
                continue
            async with self._lanes.alone(held.attachment, Underway()):
                if (trouble := await self._releaser.release(held.attachment)) is not None:
                    troubles.append(f"{held.namespace}/{held.name}: {trouble}")
        if troubles:
            return CniError(TRY_LATER, f"{len(troubles)} Endpoints could not be deleted: {troubles[0]}")
        return b""

    def _status(self) -> bytes | CniError:
        if not self._claims.synced.is_set() or self._reach.away_for > STATUS_PATIENCE_SECONDS:
            return CniError(
                NOT_AVAILABLE, "the berth agent cannot reach the Kubernetes API: look at it", self._reach.trouble
            )
        return b""


def _about(call: Call | CniError) -> dict[str, str]:
    if isinstance(call, Add):
        return {**fields(call.attachment), "pod": f"{call.pod.namespace}/{call.pod.name}"}
    return fields(call.attachment) if isinstance(call, Del | Check) else {}


def _why(error: CniError, seconds: float) -> dict[str, object]:
    return {"code": error.code, "error": error.message, "details": error.details, "seconds": f"{seconds:.3f}"}
