"""Whether the API answers, told from the requests that are made anyway; STATUS costs none of its own.

After a failure, and only then, a small read is tried again and again until one succeeds: that wakes those who wait
with work to make up for.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TypeVar

from berth.kube.client import Api, Change, Listing, Object, Reading
from berth.kube.errors import Answer, Denied, KubeError, Unknown
from berth.kube.resources import ENDPOINTS

Told = TypeVar("Told")

_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0


class Reach:
    """An `Api` that passes everything on and remembers how it went."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._away_since: float | None = None
        self._failed = asyncio.Event()
        self.answers = asyncio.Event()
        self.trouble = ""

    @property
    def away_for(self) -> float:
        """Seconds since the first of the failures that no success has followed; 0 when there is none."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        return await self._told(self._api.get(path, params))

    async def create(self, path: str, body: Object) -> Object:
        return await self._told(self._api.create(path, body))

    async def replace(self, path: str, body: Object) -> Object:
        return await self._told(self._api.replace(path, body))

    async def patch(self, path: str, body: Object) -> Object:
        return await self._told(self._api.patch(path, body))

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        await self._told(self._api.delete(path, uid=uid, version=version))

    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing:
        return await self._told(self._api.list(path, params, metadata=metadata, reading=reading))

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]:
        try:
            async for change in self._api.watch(path, version, params, metadata=metadata):
                self._succeeded()
                yield change
        except (Unknown, Denied) as error:
            self._fail(error)
            raise

    async def probe(self, node: str) -> None:
        """Runs for ever: tries again whenever something failed."""
        pause = _SHORTEST_PAUSE
        while True:
            await self._failed.wait()
            with contextlib.suppress(KubeError):
                await self.get(ENDPOINTS.path(), {"fieldSelector": f"spec.node={node}", "limit": "1"})
                pause = _SHORTEST_PAUSE
                continue
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _told(self, request: Awaitable[Told]) -> Told:
        try:
            answer = await request
        except (Unknown, Denied) as error:
            self._fail(error)
            raise
        except Answer:
            self._succeeded()
            raise
        self._succeeded()
        return answer

    def _succeeded(self) -> None:
        if self._away_since is not None or not self.answers.is_set():
            self._away_since, self.trouble = None, ""
            self._failed.clear()
            self.answers.set()

    def _fail(self, error: KubeError) -> None:
        self.trouble = str(error)
        if self._away_since is None:
            self._away_since = time.monotonic()
        self._failed.set()
        self.answers.clear()
