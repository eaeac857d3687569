"""Asserts again what this node holds, when its Endpoint vanishes though no DEL came: after a restore of etcd, or when
somebody deleted it.

An Endpoint that a new listing no longer shows is made again at once, asking for the addresses it had: the API may have
forgotten its Pod too, and still the container runs. One whose end a watch tells is made again only if its Pod is read
live and is there: as a rule the operator took it off a Pod that is gone. Once for each vanishing; wrong costs nothing,
since the operator takes off again what belongs to no Pod.

A call for the same attachment waits, or has this abandoned, by its lane.
"""

import asyncio
import logging
from typing import Any

from berth.api.names import REASSERTED, STATIC_HASH
from berth.kube.client import Object
from berth.kube.errors import AlreadyExists, Answer, Busy, Conflict, Denied, KubeError, NotFound
from berth.kube.resources import API_VERSION, ENDPOINTS, PODS
from berth_cni.claims import Claims
from berth_cni.endpoints import Held, read
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser, fields
from berth_cni.underway import Lanes, Underway

log = logging.getLogger(__name__)

_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
# An API server that has just started may not know yet what we may do.
_DENIED_SECONDS = 60.0


class Asserter:
    """`count`: Endpoints made again."""

    def __init__(self, api: Reach, claims: Claims, releaser: Releaser, lanes: Lanes) -> None:
        self.count = 0
        self._api = api
        self._claims = claims
        self._releaser = releaser
        self._lanes = lanes
        self._tasks: set[asyncio.Task[None]] = set()
        claims.vanished = self._vanished

    def _vanished(self, held: Held, relisted: bool) -> None:
        # One without a container is kept by the operator for a Pod to come: not ours.
        if held.confirmed and held.attachment.container:
            task = asyncio.create_task(self._assert(held, relisted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _assert(self, held: Held, relisted: bool) -> None:
        underway = Underway()
        async with self._lanes.alone(held.attachment, underway):
            await self._releaser.take_spool()
            pause, denied_until = _SHORTEST_PAUSE, asyncio.get_running_loop().time() + _DENIED_SECONDS
            while not underway.abandoned and self._stands(held):
                try:
                    await self._make(held, relisted)
                    return
                except (Conflict, NotFound):
                    pass  # somebody was there meanwhile: what there is now decides
                except Answer as error:
                    waits = isinstance(error, Denied) and asyncio.get_running_loop().time() < denied_until
                    if not waits and not isinstance(error, Busy):
                        log.error("could not be asserted again", extra={**_about(held), "error": str(error)})
                        return
                except KubeError as error:
                    log.info("not asserted yet, trying again", extra={**_about(held), "error": str(error)})
                await underway.pause(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _stands(self, held: Held) -> bool:
        """No DEL came for it, and nothing holds its place but its own claim, as it was before it was confirmed."""
        there = self._claims.of(held.attachment)
        return not self._releaser.released(held) and all(each.uid == held.uid and not each.confirmed for each in there)

    async def _make(self, held: Held, relisted: bool) -> None:
        if not relisted and not await self._pod_lives(held):
            return
        try:
            made = await self._create(held)
        except AlreadyExists:
            # An ADD's, or ours, sent before; or the very same, as an old backup has it.
            if not await self._clear(held):
                return
            made = await self._create(held)
        self.count += 1
        log.warning("an Endpoint vanished and is asserted again", extra=_about(held))
        self._claims.note(made)

    async def _pod_lives(self, held: Held) -> bool:
        try:
            item = await self._api.get(PODS.path(held.pod, namespace=held.namespace))
        except NotFound:
            return False
        meta = item["metadata"]
        same = held.pod_uid in (meta["uid"], (meta.get("annotations") or {}).get(STATIC_HASH))
        return same and (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed")

    async def _create(self, held: Held) -> Held:
        return read(await self._api.create(ENDPOINTS.path(namespace=held.namespace), _again(held)))

    async def _clear(self, held: Held) -> bool:
        """The same Endpoint is there. With the container before, it gets the one there is now; not confirmed, it could
        be given other addresses than the container has, so it makes way (True)."""
        there = await self._api.get(held.path)
        if there["metadata"]["uid"] != held.uid:
            return False
        if not read(there).confirmed:
            await self._api.delete(held.path, uid=held.uid, version=there["metadata"]["resourceVersion"])
            self._claims.forget(held.uid)
            return True
        if there["spec"]["containerID"] != held.attachment.container:
            there["spec"]["containerID"] = held.attachment.container
            self._claims.note(read(await self._api.replace(held.path, there)))
        return False


def _again(held: Held) -> Object:
    """The claim anew: its addresses, from the pools that they were of."""
    asked: dict[str, Any] = {"addresses": [each.bare for each in held.addresses]}
    for each in held.addresses:
        asked.setdefault(f"{each.family.lower()}Pools", []).append(each.pool)
    return {
        "apiVersion": API_VERSION,
        "kind": ENDPOINTS.kind,
        "metadata": {"name": held.name, "namespace": held.namespace, "annotations": {REASSERTED: held.uid}},
        "spec": {
            "pod": {"name": held.pod, "uid": held.pod_uid},
            "node": held.node,
            "network": held.attachment.network,
            "interface": held.attachment.interface,
            "containerID": held.attachment.container,
            **asked,
        },
    }


def _about(held: Held) -> dict[str, str]:
    return {"endpoint": f"{held.namespace}/{held.name}", **fields(held.attachment)}
