"""What a leader knows of claims, whatever order listings, events and answers come in."""

from collections.abc import Callable

import pytest

from berth.controller.claims import ClaimView, Seen, read
from berth.controller.holders import Holders
from berth.kube.client import Change, Listing, Object
from berth.kube.errors import Rewound

Step = Callable[[ClaimView], None]


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def seen(self, seen: Seen) -> None:
        self.lines.append(f"{seen.claim.uid} seen at {seen.version}")

    def gone(self, seen: Seen) -> None:
        self.lines.append(f"{seen.claim.uid} gone")


def endpoint(uid: str, version: int) -> Object:
    meta = {"namespace": "default", "name": uid, "uid": uid, "resourceVersion": str(version), "generation": 1}
    pod = {"name": "web-0", "uid": "pod-uid"}
    spec = {"pod": pod, "node": "node-1", "network": "net", "interface": "eth0", "containerID": "c1"}
    return {"metadata": meta, "spec": spec}


def listed(as_of: int, **versions: int) -> Step:
    items = [read(endpoint(uid, version)) for uid, version in versions.items()]
    return lambda view: view.replaced(Listing(items, str(as_of)))


def told(kind: str, uid: str, version: int) -> Step:
    return lambda view: view.changed(Change(kind, endpoint(uid, version)))


def answered(uid: str, version: int) -> Step:
    return lambda view: view.update(endpoint(uid, version))


@pytest.mark.parametrize(
    ("story", "steps", "said"),
    [
        ("late news of one deleted before the last list", [listed(20), told("ADDED", "a", 10)], []),
        ("an older answer says nothing", [listed(20, a=15), answered("a", 12)], ["a seen at 15"]),
        (
            "an answer after the end does not bring it back",
            [listed(20, a=15), told("DELETED", "a", 21), answered("a", 16)],
            ["a seen at 15", "a seen at 21", "a gone"],
        ),
        (
            "a list begun before the end does not bring it back",
            [listed(20, a=15), told("DELETED", "a", 25), listed(22, a=15)],
            ["a seen at 15", "a seen at 25", "a gone"],
        ),
        ("made after the list, it stays", [answered("a", 25), listed(20)], ["a seen at 25"]),
    ],
)
def test_stories(story: str, steps: list[Step], said: list[str]) -> None:
    heard = Told()
    view = ClaimView(heard)
    for step in steps:
        step(view)
    assert heard.lines == said, story


@pytest.mark.parametrize(
    ("story", "steps"),
    [
        ("one whose end was told is there again", [listed(20, a=15), told("DELETED", "a", 21), listed(30, a=15)]),
        ("one that a list no longer had is there again", [listed(20, a=15), listed(25), listed(30, a=15)]),
        ("one is listed as it was before it changed", [listed(20, a=15), told("MODIFIED", "a", 21), listed(30, a=15)]),
    ],
)
def test_a_list_that_contradicts_what_was_seen_is_of_another_history(story: str, steps: list[Step]) -> None:
    view = ClaimView(Told())
    for step in steps[:-1]:
        step(view)
    with pytest.raises(Rewound):
        steps[-1](view)


def test_a_confirmation_seen_before_the_end_of_the_holder_before_is_not_forgotten() -> None:
    holders, berth = Holders(), ("office", 1)
    assert holders.hold(berth, "old") == "old"
    assert holders.hold(berth, "new") == "old"
    assert not holders.let_go(berth, "old")
    assert holders.of(berth) == "new"
    assert holders.let_go(berth, "new")
