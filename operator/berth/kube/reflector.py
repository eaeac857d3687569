"""A view of one resource that follows the API: list, then watch on from there, again and again.

The follower is told everything in order: `replaced` with all objects at one moment, then `changed` with each event
after it. A watch that ends is taken up where it stopped; one that is too old, or broken in a way that could have lost
something, begins with a list again.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from berth.kube.client import Api, Change, Listing, Reading
from berth.kube.errors import Expired, KubeError

log = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0


class Follower(Protocol):
    """Who is told. Both are called on the event loop and return at once."""

    def replaced(self, listing: Listing) -> None: ...
    def changed(self, change: Change) -> None: ...


async def follow(
    api: Api,
    path: str,
    follower: Follower,
    *,
    params: Mapping[str, str] | None = None,
    metadata: bool = False,
    reading: Reading | None = None,
    listing: Listing | None = None,
) -> None:
    """Follow `path` until cancelled. With `listing`, the first list was done by the caller and `replaced` told; with
    `reading`, listings hold what it makes of each object."""
    version = listing.version if listing is not None else None
    pause = 0.05
    while True:
        try:
            if version is None:
                fresh = await api.list(path, params, metadata=metadata, reading=reading)
                follower.replaced(fresh)
                version = fresh.version
            async for change in api.watch(path, version, params, metadata=metadata):
                version = change.object["metadata"]["resourceVersion"]
                if change.kind != "BOOKMARK":
                    follower.changed(change)
                pause = 0.05
        except Expired:
            version = None
        except KubeError as error:
            log.warning("watch interrupted, going on in %.2f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
