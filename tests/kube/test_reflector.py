"""A watch that breaks is taken up where it stopped, unless the API is of another history by then."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from berth.kube.client import Change, Listing, Object
from berth.kube.errors import Denied, Unknown
from berth.kube.reflector import follow

OF_THIS_NODE = {"fieldSelector": "spec.node=node-1"}


class Broken:
    """A watch that breaks after one event. The reader may see its own node's objects alone; `present`: the version that
    the API has then."""

    def __init__(self, present: int) -> None:
        self.present = present
        self.watched_from: list[str] = []
        self.second = asyncio.Event()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        if (params or {}).get("fieldSelector") != OF_THIS_NODE["fieldSelector"]:
            raise Denied(403, "Forbidden", path)
        return {"metadata": {"resourceVersion": str(self.present)}}

    async def list(self, path: str, params: Mapping[str, str] | None = None, **_: Any) -> Listing:
        return Listing([], "10" if not self.watched_from else str(self.present))

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, **_: Any
    ) -> AsyncIterator[Change]:
        self.watched_from.append(version)
        if len(self.watched_from) > 1:
            self.second.set()
            await asyncio.Event().wait()
        yield Change("MODIFIED", {"metadata": {"resourceVersion": "12"}})
        raise Unknown("cut")


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def replaced(self, listing: Listing) -> None:
        self.lines.append(f"replaced at {listing.version}")

    def changed(self, change: Change) -> None:
        self.lines.append(f"changed at {change.object['metadata']['resourceVersion']}")


@pytest.mark.parametrize(
    ("story", "present", "lines"),
    [
        ("cut", 12, ["replaced at 10", "changed at 12"]),
        ("etcd was restored meanwhile", 4, ["replaced at 10", "changed at 12", "rewound", "replaced at 4"]),
    ],
)
async def test_one_that_may_see_its_own_nodes_objects_alone_is_not_deaf_after_its_watch_broke(
    story: str, present: int, lines: list[str]
) -> None:
    api, told = Broken(present), Told()
    following = asyncio.create_task(
        follow(api, "/endpoints", told, params=OF_THIS_NODE, rewound=lambda: told.lines.append("rewound"))  # type: ignore[arg-type]
    )
    try:
        async with asyncio.timeout(2):
            await api.second.wait()
    finally:
        following.cancel()
    assert told.lines == lines, story
    assert api.watched_from == ["10", str(present)]
