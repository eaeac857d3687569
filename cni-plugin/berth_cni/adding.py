"""An ADD: the Endpoint is created, the operator's decision awaited, and all of it undone when nobody gets the address.

On the normal path that is one request and two events of the watch. An Endpoint that is there already is this Pod's
own: the ADD was sent before, or the sandbox was made again. It then keeps its address and gets the new container ID,
which takes it from the old container's DEL.
"""

import asyncio
from dataclasses import dataclass

from berth.core.reasons import Reason
from berth.kube.client import Object
from berth.kube.errors import AlreadyExists, Answer, BadRequest, Busy, Conflict, KubeError, NotFound
from berth.kube.resources import ENDPOINTS
from berth_cni.calls import (
    ADDRESS_OUTSIDE,
    ADDRESS_TAKEN,
    BAD_ANNOTATION,
    BAD_CONFIGURATION,
    NO_POOL,
    POOL_EXHAUSTED,
    TRY_LATER,
    Add,
    CniError,
)
from berth_cni.claims import Claims
from berth_cni.endpoints import Held, body_of, is_same_claim, may_release, read, serves
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser
from berth_cni.underway import Underway

# Below the shim's 65 s and far below the four minutes that a kubelet gives a sandbox.
ADD_SECONDS = 55.0

# A claim whose Pod is gone or has finished may be taken off 10 s after it was made: what took longer than this, with a
# watch that may be behind, is read again before anybody is told of the address.
_FRESH_SECONDS = 5.0

_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_CODES = {
    Reason.POOL_EXHAUSTED: POOL_EXHAUSTED,
    Reason.ADDRESS_TAKEN: ADDRESS_TAKEN,
    Reason.ADDRESS_OUTSIDE: ADDRESS_OUTSIDE,
    Reason.BAD_ANNOTATION: BAD_ANNOTATION,
}


@dataclass(slots=True)
class Stake:
    """What this ADD has done so far, and so would have to undo."""

    made: bool = False  # the Endpoint is this ADD's, or may be
    unsure: bool = False  # a creation has no answer: it may yet land
    waits_for: str = "the API server has not answered"


class Adder:
    def __init__(self, node: str, api: Reach, claims: Claims, releaser: Releaser) -> None:
        self._node = node
        self._api = api
        self._claims = claims
        self._releaser = releaser

    async def add(self, call: Add, underway: Underway, deadline: float, stake: Stake) -> Held | CniError:
        try:
            async with asyncio.timeout_at(deadline):
                outcome = await self._claim(call, underway, stake)
        except TimeoutError:
            outcome = CniError(TRY_LATER, f"no address within {ADD_SECONDS:.0f} s: {stake.waits_for}")
        if isinstance(outcome, CniError):
            await self.undo(call, stake)
        return outcome

    async def undo(self, call: Add, stake: Stake) -> None:
        if not stake.made:
            return
        if stake.unsure:
            self._releaser.tombstones.raise_for(call.attachment)
        await self._releaser.promise(call.attachment)

    async def _claim(self, call: Add, underway: Underway, stake: Stake) -> Held | CniError:
        began = asyncio.get_running_loop().time()
        if not self._claims.synced.is_set():
            stake.waits_for = "the Endpoints of this node could not be read: does the API server answer?"
            await underway.until(asyncio.ensure_future(self._claims.synced.wait()))
        if not underway.abandoned and (trouble := await self._releaser.settle(call.attachment)) is not None:
            return CniError(TRY_LATER, f"an earlier DEL of this container could not be done: {trouble}")
        staked = await self._stake(call, underway, stake)
        if isinstance(staked, CniError):
            return staked
        stake.waits_for = (
            f"the operator has not answered Endpoint {staked.namespace}/{staked.name}: is berth-operator running? "
            "For a StatefulSet's Pod it also waits while the container of an older one of its name may run"
        )
        decided = await underway.until(self._claims.decision(staked.uid))
        if underway.abandoned:
            return _abandoned(underway)
        if decided is None:
            return CniError(TRY_LATER, f"Endpoint {staked.namespace}/{staked.name} was deleted by somebody meanwhile")
        if not decided.confirmed:
            stake.made = True  # whoever made it: a claim that was refused is of no use
            return _refused(decided)
        slow = asyncio.get_running_loop().time() - began > _FRESH_SECONDS
        if decided.attachment != call.attachment or (slow and not await self._stands(decided, underway)):
            return CniError(TRY_LATER, f"Endpoint {staked.namespace}/{staked.name} was taken off this Pod meanwhile")
        return decided

    async def _stands(self, held: Held, underway: Underway) -> bool:
        """Whether it is there and this container's with these addresses, read live: after a restore of etcd it may be
        as it was before it was confirmed, or confirmed anew with others."""
        pause = _SHORTEST_PAUSE
        while not underway.abandoned:
            try:
                there = read(await self._api.get(held.path))
                return may_release(there, held.uid, held.attachment) and there.addresses == held.addresses
            except NotFound:
                return False
            except KubeError:
                await underway.pause(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
        return False

    async def _stake(self, call: Add, underway: Underway, stake: Stake) -> Held | CniError:
        """Creates the Endpoint, or takes over the one that this Pod has."""
        collection, body = ENDPOINTS.path(namespace=call.pod.namespace), body_of(call, self._node)
        pause = _SHORTEST_PAUSE
        while not underway.abandoned:
            try:
                stake.made, before, stake.unsure = True, stake.unsure, True
                try:
                    held = read(await self._api.create(collection, body))
                except Answer:
                    # What was sent is settled; what an earlier attempt sent is not.
                    stake.made = stake.unsure = before
                    raise
                stake.unsure = False
                self._claims.note(held)
                return held
            except AlreadyExists:
                try:
                    taken = await self._take_over(call, body, stake)
                except KubeError as error:
                    stake.waits_for = f"the API server does not answer: {error}"
                    taken = None
                if taken is not None:
                    return taken
            except Answer as error:
                if not isinstance(error, Busy):
                    return _unwanted(call, error)
                stake.waits_for = f"the API server is busy: {error.message}"
            except KubeError as error:
                stake.waits_for = f"the API server does not answer: {error}"
            await underway.pause(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)
        return _abandoned(underway)

    async def _take_over(self, call: Add, body: Object, stake: Stake) -> Held | CniError | None:
        """The Endpoint that is there, as ours; None when it is not there any more: create again."""
        path = ENDPOINTS.path(body["metadata"]["name"], namespace=call.pod.namespace)
        try:
            there = await self._api.get(path)
            held = read(there)
            if held.pod_uid != call.pod.uid or held.node != self._node:
                stake.made = False
                return CniError(
                    TRY_LATER,
                    f"Endpoint {held.namespace}/{held.name} belongs to Pod {held.pod_uid} on node {held.node}: "
                    "delete it if that Pod is gone",
                )
            if held.deleting:
                return None
            if is_same_claim(held, call) or (serves(held, call) and held.attachment == call.attachment):
                # An earlier attempt of this very ADD has landed, or the runtime asks twice.
                stake.unsure = False
                self._claims.note(held)
                return held
            stake.made = stake.unsure = False
            if not serves(held, call):
                # Never confirmed, or confirmed with another address than is asked for now: claimed anew.
                self._releaser.free(held)
                await self._api.delete(held.path, uid=held.uid, version=str(held.version))
                self._claims.forget(held.uid)
                return None
            there["spec"]["containerID"] = call.attachment.container
            replaced = read(await self._api.replace(path, there))
        except (NotFound, Conflict):
            return None
        self._claims.note(replaced)
        return replaced


def _refused(held: Held) -> CniError:
    known = {reason.value: code for reason, code in _CODES.items()}
    return CniError(known.get(held.reason, NO_POOL), held.message or held.reason, held.reason)


def _abandoned(underway: Underway) -> CniError:
    return CniError(TRY_LATER, f"this ADD was given up: {underway.abandoned}")


def _unwanted(call: Add, error: Answer) -> CniError:
    if isinstance(error, NotFound):
        return CniError(
            TRY_LATER,
            f"namespace {call.pod.namespace} is gone, or Berth is not installed (kubectl apply -f crds/)",
            str(error),
        )
    if isinstance(error, BadRequest):
        return CniError(BAD_CONFIGURATION, f"the API server refuses this claim: {error.message}", str(error))
    return CniError(TRY_LATER, f"the API server refuses this claim: {error.message}", str(error))
