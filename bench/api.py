"""Berth's API client, and the two deletions that Berth itself never does."""

import aiohttp
import orjson

from berth.kube.client import Client, Object
from berth.kube.errors import Unknown, answer

# One deletecollection of a thousand Pods takes longer than any request of Berth's may.
COLLECTION_SECONDS = 600.0


class BenchClient(Client):
    """50 requests a second, burst 100, unless told otherwise: as kubelet's."""

    async def remove(self, path: str, options: Object) -> None:
        await self._request("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    async def remove_all(self, path: str, options: Object) -> None:
        """One deletecollection call."""
        body = orjson.dumps({"apiVersion": "v1", "kind": "DeleteOptions", **options})
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._authorization()}
        timeout = aiohttp.ClientTimeout(total=COLLECTION_SECONDS)
        try:
            async with self._running.delete(path, data=body, headers=headers, timeout=timeout) as response:
                status, content = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unknown(f"DELETE {path}: {error or type(error).__name__}") from error
        if status >= 300:
            raise answer(status, "", content[:300].decode("utf-8", "replace"))
