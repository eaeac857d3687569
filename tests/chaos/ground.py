"""The pools under the load, and what people do to them: reserve in them, cut them, let them overlap, take them away.

Most Pods draw from two pools of exactly the right size. Beside them: pools of which half is reserved, pools cut into
slices, and twins that overlap, which the webhook would refuse: they are made in a moment without it. A pool in use is
deleted in such a moment too, must stay until its Pods are gone, and is made again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from bench.api import BenchClient
from berth.kube.client import Object
from berth.kube.errors import AlreadyExists, KubeError, NotFound
from berth.kube.resources import API_VERSION, POOLS, RESERVED

POOL4, POOL6 = "chaos-v4", "chaos-v6"
SIDE, CUT, TWINS = ("side-v4", "side-v6"), ("cut-v4", "cut-v6"), ("twin-a", "twin-b")
SLICE = 3
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
AGAIN_SECONDS = 0.5


def pools(exactly: int) -> list[Object]:
    """All but the twins. The first two have `exactly` so many addresses."""
    cut = {"slices": {"size": SLICE}}
    return [
        _pool(POOL4, "10.99.0.0/16", f"10.99.0.10-10.99.0.{9 + exactly}"),
        _pool(POOL6, "fd99::/64", f"fd99::10-fd99::{0x10 + exactly - 1:x}"),
        _pool(SIDE[0], "10.98.0.0/16", "10.98.0.10-10.98.0.21"),
        _pool(SIDE[1], "fd98::/64", "fd98::10-fd98::1b"),
        _pool(CUT[0], "10.97.0.0/16", "10.97.0.10-10.97.0.19", **cut),
        _pool(CUT[1], "fd97::/64", "fd97::10-fd97::19", **cut),
    ]


def _pool(name: str, subnet: str, ips: str, **more: Any) -> Object:
    spec = {"subnet": subnet, "ips": [ips], "reuseDelay": "1s", **more}
    return {"apiVersion": API_VERSION, "kind": POOLS.kind, "metadata": {"name": name}, "spec": spec}


def _reservation(name: str, *ips: str) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": RESERVED.kind,
        "metadata": {"name": name},
        "spec": {"ips": list(ips)},
    }


class Ground:
    """`clear`: deletes the Pods that draw from the side pools."""

    def __init__(self, api: BenchClient, note: Callable[..., None], clear: Callable[[], Awaitable[None]]) -> None:
        self._api, self._note, self._clear = api, note, clear
        self._renewing: asyncio.Task[None] | None = None

    async def lay(self, exactly: int) -> None:
        # Every other address: what is drawn without them in mind meets one soon.
        reserved = [
            *(f"10.98.0.{last}" for last in range(10, 22, 2)),
            *(f"fd98::{last:x}" for last in range(16, 28, 2)),
        ]
        await self._api.create(RESERVED.path(), _reservation("inside", *reserved))
        for pool in pools(exactly):
            await self._api.create(POOLS.path(), pool)
        await self._without_webhook(self._make_twins)

    async def _make_twins(self) -> None:
        for name, ips in zip(TWINS, ("10.96.0.10-10.96.0.14", "10.96.0.12-10.96.0.16"), strict=True):
            with suppress(AlreadyExists):
                await self._api.create(POOLS.path(), _pool(name, "10.96.0.0/16", ips))

    async def reserve(self) -> None:
        """Outside of what the pools hand out; it comes and goes."""
        try:
            await self._api.remove(RESERVED.path("aside"), {})
        except NotFound:
            await self._api.create(RESERVED.path(), _reservation("aside", "10.99.9.0/28"))

    async def renew(self) -> None:
        """A pool in use is deleted, and made again when it is gone."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.ensure_future(self._renew())

    async def settle(self) -> None:
        """All pools are there, and none on its way out."""
        if self._renewing is not None:
            await self._renewing

    def cancel(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()

    async def _renew(self) -> None:
        (body,) = [each for each in pools(0) if each["metadata"]["name"] == SIDE[0]]
        self._note("a pool in use is deleted", pool=SIDE[0])
        await self._without_webhook(self._remove)
        while True:
            with suppress(KubeError):
                try:
                    await self._api.get(POOLS.path(SIDE[0]))
                except NotFound:
                    break
                await self._clear()
            await asyncio.sleep(1.0)
        self._note("it is made again", pool=SIDE[0])
        await insist(lambda: self._api.create(POOLS.path(), body))

    async def _remove(self) -> None:
        with suppress(NotFound):
            await self._api.remove(POOLS.path(SIDE[0]), {})

    async def _without_webhook(self, deed: Callable[[], Awaitable[None]]) -> None:
        """It is away, and nobody waits for it: until the API server knows it may refuse."""
        there: list[Object] = []

        async def read() -> None:
            there[:] = [await self._api.get(f"{WEBHOOK}/berth")]

        await insist(read)
        meta = {"name": "berth", "labels": there[0]["metadata"].get("labels") or {}}
        await insist(lambda: self._api.remove(f"{WEBHOOK}/berth", {}))
        await insist(deed)
        await insist(lambda: self._api.create(WEBHOOK, {**there[0], "metadata": meta}))


async def insist(request: Callable[[], Awaitable[object]]) -> None:
    """Until it is done, or there is nothing to do."""
    while True:
        try:
            await request()
        except (NotFound, AlreadyExists):
            return
        except KubeError:
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return
