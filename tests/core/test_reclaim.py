"""The table of core.reclaim, row by row."""

import pytest

from berth.core.reasons import Reason
from berth.core.reclaim import Held, NodeFact, PodFact, Release, judge

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
