"""The tables of core.reclaim, row by row."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.core.claim import Claim, Owner
from berth.core.reasons import Reason
from berth.core.reclaim import Held, NodeFact, PodFact, Release, StatefulSetFact, judge, judge_parked

MINE, ALIVE = "uid-1", "its Pod is alive"
READY, NOT_READY, OUT = NodeFact(True, False), NodeFact(False, False), NodeFact(False, True)
CONTAINER = Held("its node is not Ready: the container may still run", recheck=True)


@pytest.mark.parametrize(
    ("story", "pod", "node", "verdict"),
    [
        ("the view was late", PodFact(MINE, False), READY, Held(ALIVE)),
        ("alive, whatever its node is", PodFact(MINE, False), None, Held(ALIVE)),
        ("alive on a node out of service", PodFact(MINE, False), OUT, Held(ALIVE)),
        ("a mirror Pod has a UID of its own", PodFact("mirror", False, MINE), READY, Held(ALIVE)),
        ("finished", PodFact(MINE, True), READY, Release(Reason.POD_FINISHED)),
        ("finished on a node that is away", PodFact(MINE, True), NOT_READY, Release(Reason.POD_FINISHED)),
        ("gone", None, READY, Release(Reason.POD_GONE)),
        ("made anew under its name", PodFact("uid-2", False), READY, Release(Reason.POD_GONE)),
        ("gone with its node", None, None, Release(Reason.NODE_GONE)),
        ("gone, node out of service", None, OUT, Release(Reason.NODE_OUT_OF_SERVICE)),
        ("gone, and its container may still run", None, NOT_READY, CONTAINER),
        ("another Pod, and its container may still run", PodFact("uid-2", False), NOT_READY, CONTAINER),
    ],
)
def test_each_row_of_the_table(story: str, pod: PodFact | None, node: NodeFact | None, verdict: Release | Held) -> None:
    assert judge(MINE, pod, node) == verdict, story


SET = Owner("StatefulSet", "db", "set-1")
CLAIM = Claim("c", "default", "db-3-eth0", "db-3", "pod-1", "node-1", "lan", "eth0", "", held_for=SET)


@pytest.mark.parametrize(
    ("owner", "retained", "verdict"),
    [
        (None, False, Reason.STATEFUL_SET_GONE),
        (None, True, Reason.STATEFUL_SET_GONE),
        (StatefulSetFact("set-2", 0, 9), True, Reason.STATEFUL_SET_GONE),
        (StatefulSetFact("set-1", 0, 4), False, None),
        (StatefulSetFact("set-1", 0, 3), False, Reason.SCALED_DOWN),
        (StatefulSetFact("set-1", 0, 3), True, None),
        (StatefulSetFact("set-1", 3, 1), False, None),
        (StatefulSetFact("set-1", 4, 9), False, Reason.SCALED_DOWN),
        (StatefulSetFact("set-1", 0, 0), True, None),
    ],
)
def test_a_parked_claim_stays_as_long_as_its_set_has_that_pod(
    owner: StatefulSetFact | None, retained: bool, verdict: Reason | None
) -> None:
    judged = judge_parked(CLAIM, owner, retained)
    assert (judged.reason if isinstance(judged, Release) else None) is verdict


def test_a_parked_claim_that_is_held_for_nobody_is_freed() -> None:
    orphan = replace(CLAIM, held_for=None)
    assert judge_parked(orphan, StatefulSetFact("set-1", 0, 9), True) == Release(Reason.STATEFUL_SET_GONE)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_a_set_keeps_exactly_as_many_ordinals_as_it_has_replicas(first: int, replicas: int, more: int) -> None:
    owner = StatefulSetFact("set-1", first, replicas)
    kept = [
        ordinal
        for ordinal in range(first + replicas + more)
        if isinstance(judge_parked(replace(CLAIM, pod=f"db-{ordinal}"), owner, False), Held)
    ]
    assert kept == list(range(first, first + replicas))
