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
from tests.controller.stage import FIRST, Cluster, allocator, endpoint, ignore, listing, opened, pool, settled


class Gone:
    """No Pod; one node. `during`: what happens while it is read."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.refusals = 0
        self.ready = True
        self.during: Any = lambda: None

    async def get(self, path: str, params: object = None) -> Object:
        self.during()
        if "nodes" not in path:
            raise NotFound(404, "NotFound", path)
        return {
            "metadata": {"name": "node-1"},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": str(self.ready)}]},
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
    cluster, desk = Gone(), allocator()
    cluster.refusals = refusals
    desk.world.pods.replaced(Listing([], "8"))
    desk.claims.replaced(Listing([read(endpoint())], "9"))
    (seen,) = desk.claims
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
        await made._look(desk)
        assert cluster.deleted == [], story
        now = look
        await made._look(desk)
        cluster.during = lambda: None
    assert len(cluster.deleted) == 1, story
    assert told == [(Reason.POD_GONE, False)]


async def test_a_node_that_answers_again_gets_the_time_its_kubelet_needs_to_end_the_pod() -> None:
    now = 0.0
    cluster, desk = Gone(), allocator()
    cluster.ready = False
    desk.world.pods.replaced(Listing([], "8"))
    desk.claims.replaced(listing(read(endpoint())))
    (seen,) = desk.claims
    made = Reclaimer(cluster, lambda: now, Settings(), ignore)  # type: ignore[arg-type]
    made.suspect(seen)
    now = 10.0
    await made._look(desk)
    cluster.ready = True
    now = again = now + Settings().recheck
    await made._look(desk)
    now = again + reclaimer.KUBELET_GRACE_SECONDS - 0.1
    await made._look(desk)
    assert cluster.deleted == []
    now = again + reclaimer.KUBELET_GRACE_SECONDS
    await made._look(desk)
    assert len(cluster.deleted) == 1


@pytest.mark.parametrize(
    ("story", "held", "kept"),
    [
        ("its claim is not decided: it may be its own", {}, {("blue", FIRST)}),
        ("its claim has another address: its status speaks of the past", {"blue": "10.0.0.2"}, set()),
    ],
)
async def test_an_address_in_doubt_is_kept_for_a_pod_that_reports_it_and_has_no_other(
    story: str, held: dict[str, str], kept: set[tuple[str, int]]
) -> None:
    now = 0.0
    cluster, desk = Cluster(), allocator()
    meta = {"namespace": "default", "name": "web-0", "uid": "pod-uid"}
    cluster.pods = [{"metadata": meta, "spec": {}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}]
    desk.claims.replaced(listing(read(endpoint(held=held))))
    book = opened(desk, pool(ledger=settled(1)))
    made = Reclaimer(cluster, lambda: now, Settings(), ignore)  # type: ignore[arg-type]
    made.doubt("blue", {FIRST})
    now = 1.0
    await made._look(desk)
    now = Settings().grace
    await made._look(desk)
    assert desk.kept.berths() == kept, story
    assert book.ledger is not None
    assert book.ledger.holds(FIRST) is bool(kept)
    assert not made.doubts(("blue", FIRST))


async def test_an_address_in_doubt_is_not_kept_for_a_pod_that_left_while_all_were_listed() -> None:
    now = 0.0
    cluster, desk = Cluster(), allocator()
    meta = {"namespace": "default", "name": "web-0", "uid": "pod-uid"}
    cluster.pods = [{"metadata": meta, "spec": {}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}]
    book = opened(desk, pool(ledger=settled(1)))
    made = Reclaimer(cluster, lambda: now, Settings(), ignore)  # type: ignore[arg-type]
    made.doubt("blue", {FIRST})
    desk.world.pods.replaced(Listing([], "8"))
    now = Settings().grace
    await made._look(desk)
    assert book.ledger is not None
    assert desk.kept.berths() == set()
    assert book.ledger.holds(FIRST), "it may not be in view yet"
    cluster.pods = []
    await made._look(desk)
    assert not book.ledger.holds(FIRST)


async def test_an_address_in_doubt_that_is_kept_already_is_not_freed() -> None:
    """Its Pod's Endpoint was deleted, and no Pod reports the address yet."""
    now = 0.0
    desk = allocator()
    book = opened(desk, pool(ledger=settled(1)))
    made = Reclaimer(Cluster(), lambda: now, Settings(), ignore)  # type: ignore[arg-type]
    made.doubt("blue", {FIRST})
    desk.keep(("pod-uid", "net", "eth0"), [("blue", FIRST)])
    now = Settings().grace
    await made._look(desk)
    assert book.ledger is not None
    assert book.ledger.holds(FIRST)


def test_the_grace_of_what_was_asserted_again_is_longer() -> None:
    assert Settings().grace < reclaimer.KUBELET_GRACE_SECONDS
