"""What the leader remembers and the API has not, or the other way round: each is mended by what there is for it."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from berth.controller import comparer
from berth.controller.claims import read
from berth.controller.comparer import Comparer
from berth.controller.herald import Herald
from berth.controller.reclaimer import Reclaimer
from berth.controller.settings import Settings
from berth.controller.shelf import Shelf
from berth.core.reasons import Reason
from berth.kube.client import Listing
from berth.kube.resources import ENDPOINTS, PODS, Resource
from tests.controller.stage import CLAIM, FIRST, Cluster, allocator, endpoint, ignore, listing, opened, pool, settled

POD = {"metadata": {"namespace": "default", "name": "web-0", "uid": "pod-uid", "resourceVersion": "3"}}


class Leader:
    """One claim that holds 10.0.0.1, all of it as the API has it."""

    def __init__(self) -> None:
        held = endpoint(held={"blue": "10.0.0.1"})
        self.cluster = Cluster(pool(ledger=settled(1)))
        self.cluster.endpoints, self.cluster.pods = [held], [POD]
        self.desk = allocator()
        self.desk.claims.replaced(listing(read(held)))
        self.book = opened(self.desk, pool(ledger=settled(1)))
        self.anew: list[Resource] = []
        api: SimpleNamespace = self.cluster  # type: ignore[assignment]  # what is read
        self.reclaimer = Reclaimer(api, lambda: 0.0, Settings(), ignore)
        shelf = Shelf(api, self.desk, ignore)  # type: ignore[arg-type]
        self.comparer = Comparer(api, self.desk, shelf, self.reclaimer, Herald(api), self.anew.append)


def nothing(leader: Leader) -> None:
    pass


def a_rival_wrote_the_ledger(leader: Leader) -> None:
    leader.cluster.pools["blue"] = pool(ledger={**settled(1), "sequence": 2})


def nobody_holds_it(leader: Leader) -> None:
    leader.desk.holders.let_go(("blue", FIRST), CLAIM)
    leader.desk.claims.replaced(Listing([], "8"))
    leader.cluster.endpoints = []
    assert leader.book.ledger is not None
    leader.book.ledger.settle(FIRST, CLAIM)
    leader.book.ledger.accept(leader.book.ledger.draft())
    leader.cluster.pools["blue"]["status"]["ledger"] |= {"sequence": leader.book.ledger.sequence}


def the_watch_missed_an_endpoint(leader: Leader) -> None:
    leader.cluster.endpoints.append(endpoint("another"))


def the_watch_missed_a_pod(leader: Leader) -> None:
    leader.cluster.pods.append({"metadata": {**POD["metadata"], "uid": "another"}})


def its_pod_is_gone_and_nobody_looks(leader: Leader) -> None:
    leader.desk.world.pods.pods.clear()
    leader.cluster.pods = []


def an_address_is_kept_for_a_pod_that_is_gone(leader: Leader) -> None:
    leader.desk.keep(("gone", "net", "eth0"), [("blue", FIRST + 5)])


@pytest.mark.parametrize(
    ("drift", "kinds", "mended"),
    [
        (nothing, set(), lambda leader: leader.book.ledger is not None and leader.anew == []),
        (a_rival_wrote_the_ledger, {Reason.LEDGER_DIFFERS}, lambda leader: leader.book.ledger is None),
        (nobody_holds_it, {Reason.ADDRESS_UNHELD}, lambda leader: leader.book.ledger is None),
        (the_watch_missed_an_endpoint, {Reason.CLAIM_DIFFERS}, lambda leader: leader.anew == [ENDPOINTS]),
        (the_watch_missed_a_pod, {Reason.POD_DIFFERS}, lambda leader: leader.anew == [PODS]),
        (
            its_pod_is_gone_and_nobody_looks,
            {Reason.POD_MISSING},
            lambda leader: leader.reclaimer.suspects(CLAIM),
        ),
        (
            an_address_is_kept_for_a_pod_that_is_gone,
            {Reason.KEPT_FOR_NOBODY},
            lambda leader: not leader.desk.kept.berths(),
        ),
    ],
)
async def test_each_drift_is_reported_and_mended(
    monkeypatch: pytest.MonkeyPatch,
    drift: Callable[[Leader], None],
    kinds: set[Reason],
    mended: Callable[[Leader], bool],
) -> None:
    monkeypatch.setattr(comparer, "SECOND_LOOK_SECONDS", 0.0)
    leader = Leader()
    drift(leader)
    found = await leader.comparer.compare()
    assert {each.kind for each in found} == kinds
    assert mended(leader)
