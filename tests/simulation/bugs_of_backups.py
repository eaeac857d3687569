"""Bugs on purpose in what follows a restore of etcd: see bugs.py, which lists them."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import berth_cni.claims
from berth.controller.term import Term
from berth_cni.asserting import Asserter
from berth_cni.endpoints import Held
from tests.simulation.operators import Operator

Patches = Iterator[Any]


def no_assertion() -> Patches:
    """Agents keep to themselves what the API has forgotten."""

    def silent(self: Asserter, held: Held, relisted: bool) -> None:
        return None

    yield mock.patch.object(Asserter, "_vanished", silent)


def grant_at_once() -> Patches:
    """After a restore agents are given no time to assert what their nodes hold."""

    async def grant_on(self: Term) -> None:
        self.allocator.grant_on()
        self._restored.over()

    yield mock.patch.object(Term, "_grant_on", grant_on)


def no_mark() -> Patches:
    """Who leads after one that noticed a restore does not know of it."""
    yield mock.patch.object(Operator, "read_mark", return_value=None)


def trust_unconfirmed() -> Patches:
    """A claim that was confirmed, and after a restore is there unconfirmed, is left to be confirmed anew."""

    def says_less(listed: Held, known: Held) -> bool:
        return listed.attachment != known.attachment

    yield mock.patch.object(berth_cni.claims, "_says_less", says_less)


ALL = (no_assertion, grant_at_once, no_mark, trust_unconfirmed)
