"""Which pool serves, when what is held of one lies outside what it hands out now."""

import asyncio

import pytest

from berth.controller.promotion import Promotion, _contender, _rival
from berth.core.overlap import shared
from berth.core.reasons import Reason
from berth.kube.client import Object
from tests.controller.stage import allocator, opened, pool, settled

NEXT = pool("red", ips=["10.0.0.5"])


@pytest.mark.parametrize(
    ("story", "ledger", "reason"),
    [
        ("its ranges are changed, and one address is held still", settled(1, 5), Reason.OVERLAP),
        ("nothing is held beside them", settled(1), Reason.LOADING),
    ],
)
async def test_what_is_held_beside_a_changed_range_no_other_pool_hands_out(
    story: str, ledger: Object, reason: Reason
) -> None:
    desk = allocator()
    opened(desk, pool(ips=["10.0.0.1-10.0.0.2"], ledger=ledger, ready=True))
    red = opened(desk, NEXT, serving=False)
    Promotion(None, desk, asyncio.create_task).judge()  # type: ignore[arg-type]  # it asks nothing here
    assert red.standing.reason is reason, story


@pytest.mark.parametrize("held", [settled(5), {"pending": {"10.0.0.5": "claim"}}], ids=["settled", "pending"])
def test_nor_when_a_rival_leader_has_written_so(held: Object) -> None:
    desk = allocator()
    own = _contender(opened(desk, NEXT, serving=False))
    rival = _rival(pool(ips=["10.0.0.1-10.0.0.2"], ledger=held, ready=True))
    assert own is not None
    assert rival is not None
    assert shared(own, rival)
