"""A view of one resource that follows the API: list, then watch on from there, again and again.

The follower is told everything in order: `replaced` with all objects at one moment, then `changed` with each event
after it. A watch that ends is taken up where it stopped; one that is too old, or broken in a way that could have lost
something, begins with a list again.

etcd may have been restored from a backup meanwhile, and resourceVersions gone back. The API server does not refuse a
watch from a version that is yet to come: it is silent until that comes. So before one is taken up the API is asked for
the version it has now.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
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
    rewound: Callable[[], None] = lambda: None,
) -> None:
    """Follow `path` until cancelled. With `listing`, the first list was done by the caller and `replaced` told; with
    `reading`, listings hold what it makes of each object. `rewound` is called when resourceVersions went back, before
    `replaced` is told of the list that follows."""
    version = listing.version if listing is not None else None
    newest, interrupted = int(version or 0), False
    pause = 0.05
    while True:
        try:
            if interrupted and version is not None and await _present(api, path, params) < newest:
                version = None
            if version is None:
                fresh = await api.list(path, params, metadata=metadata, reading=reading)
                if int(fresh.version) < newest:
                    log.warning("resourceVersions went back", extra={"path": path, "from": newest, "to": fresh.version})
                    rewound()
                follower.replaced(fresh)
                version, newest = fresh.version, int(fresh.version)
            interrupted = True
            async for change in api.watch(path, version, params, metadata=metadata):
                version = change.object["metadata"]["resourceVersion"]
                newest = max(newest, int(version))
                if change.kind != "BOOKMARK":
                    follower.changed(change)
                pause = 0.05
        except Expired:
            version = None
        except KubeError as error:
            log.warning("watch interrupted, going on in %.2f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


async def _present(api: Api, path: str, params: Mapping[str, str] | None) -> int:
    """The resourceVersion the API has now: a consistent read, of one object at most, and of none but those followed:
    more may not be allowed."""
    page = await api.get(path, {**(params or {}), "limit": "1"})
    return int(page["metadata"]["resourceVersion"])
