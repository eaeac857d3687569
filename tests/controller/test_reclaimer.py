"""Suspects: what is looked at, and that none is lost."""

from typing import Any

import pytest

from berth.controller import reclaimer
from berth.controller.claims import read
from berth.controller.reclaimer import Reclaimer
from berth.controller.settings import Settings
from berth.core.reasons import Reason
from berth.kube.client import Listing, Object
from berth.kube.errors import Conflict, NotFound
from tests.controller.test_allocator import _allocator, _endpoint


class Cluster:
    """No Pod; one node that is Ready. `during`: what happens while it is read."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.refusals = 0
        self.during: Any = lambda: None

    async def get(self, path: str, params: object = None) -> Object:
        self.during()
        if "nodes" not in path:
            raise NotFound(404, "NotFound", path)
        return {
            "metadata": {"name": "node-1"},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Conflict(409, "Conflict", path)
        self.deleted.append(path)


@pytest.mark.parametrize(
    ("story", "refusals", "again", "looks"),
    [
        ("taken off at the first look", 0, False, [10.0]),
        ("a 409 is not its end: it is looked at again", 1, False, [10.0, 40.0]),
        ("seen to be gone anew while it is looked at: its grace begins anew", 1, True, [10.0, 20.0]),
    ],
)
async def test_no_suspect_is_lost(story: str, refusals: int, again: bool, looks: list[float]) -> None:
    now = 0.0
    told: list[tuple[Reason, bool]] = []
    cluster, allocator = Cluster(), _allocator()
    cluster.refusals = refusals
    allocator.world.pods.replaced(Listing([], "8"))
    allocator.claims.replaced(Listing([read(_endpoint())], "9"))
    (seen,) = allocator.claims
    made = Reclaimer(
        cluster,  # type: ignore[arg-type]  # what it reads and deletes
        lambda: now,
        Settings(),
        lambda claim, reason, there: told.append((reason, there)),
    )
    made.suspect(seen)
    if again:
        cluster.during = lambda: made.suspect(seen)
    for look in looks:
        assert cluster.deleted == [], story
        now = look - 0.1
        await made._look(allocator)
        assert cluster.deleted == [], story
        now = look
        await made._look(allocator)
        cluster.during = lambda: None
    assert len(cluster.deleted) == 1, story
    assert told == [(Reason.POD_GONE, False)]


def test_the_grace_of_what_was_asserted_again_is_longer() -> None:
    assert Settings().grace < reclaimer.KUBELET_GRACE_SECONDS
