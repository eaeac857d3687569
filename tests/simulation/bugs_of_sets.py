"""Bugs on purpose in what is kept for StatefulSets: see bugs.py, which lists them."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

from berth.controller import parking, succession
from berth.controller.allocator import Allocator
from berth.controller.parking import Parking
from berth.controller.succession import Succession
from berth.core.claim import Claim
from berth.core.reasons import Reason
from berth.core.reclaim import Release, StatefulSetFact

Patches = Iterator[Any]


def free_while_wanted() -> Patches:
    """What is parked is freed although the set makes its Pod again."""

    def useless(claim: Claim, owner: StatefulSetFact | None, retained: bool) -> Release:
        return Release(Reason.STATEFUL_SET_GONE)

    yield mock.patch.object(parking, "judge_parked", useless)
    yield mock.patch.object(succession, "judge_parked", useless)


def overtake_predecessor() -> Patches:
    """A Pod made again does not wait until the claim before it makes way."""
    yield mock.patch.object(Succession, "predecessor", return_value=None)


def any_heir() -> Patches:
    """What a Pod's predecessor had is for whoever asks first."""
    yield mock.patch.object(Succession, "heir", return_value=None)


def keep_for_nobody() -> Patches:
    """What is parked stays, whatever becomes of its set."""

    async def look(self: Parking, allocator: Allocator, now: float) -> None:
        return None

    yield mock.patch.object(Parking, "look", look)


ALL = (free_while_wanted, overtake_predecessor, any_heir, keep_for_nobody)
