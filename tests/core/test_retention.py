"""Whether the address that was kept is what the Pod, come again, is to have: decided for it as for any other."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from berth.core.claim import Claim, Holding, Owner, Surroundings
from berth.core.pool import Audience
from berth.core.ranges import Malformed, parse_address
from berth.core.request import decide
from berth.core.retention import misfit
from berth.core.selection import Choice, Offer
from tests.core.stories import pool_of

SET = Owner("StatefulSet", "db", "set-1")
CLAIM = Claim("c2", "shop", "db-1-eth0", "db-1", "pod-2", "node-2", "lan", "eth0", "c2")
POOLS = (
    pool_of("four", "10.0.0.0/24", default=True),
    pool_of("six", "fd00::/64"),
    pool_of("narrow", "10.1.0.0/24", Audience(nodes=frozenset({"node-1"}))),
)


def kept(*texts: str) -> tuple[Holding, ...]:
    """`four 10.0.0.1`."""
    found = []
    for text in texts:
        pool, _, address = text.partition(" ")
        parsed = parse_address(address)
        assert not isinstance(parsed, Malformed)
        found.append(Holding(pool, *parsed))
    return tuple(found)


def judged(
    had: tuple[Holding, ...], annotations: Mapping[str, str], *, claim: Claim = CLAIM, disabled: str = ""
) -> str | None:
    offers = {pool.name: Offer(replace(pool, disabled=pool.name == disabled), True) for pool in POOLS}
    said = {f"ipam.berth.dev/{key}": text for key, text in annotations.items()}
    asked, choice = decide(claim, Surroundings(pod_annotations=said, owner=SET), offers)
    assert isinstance(choice, Choice), choice
    return misfit(asked, choice, had, lambda name, address: address in offers[name].pool.offered)


@pytest.mark.parametrize(
    ("had", "annotations"),
    [
        (kept("four 10.0.0.7"), {}),
        (kept("four 10.0.0.7"), {"pools": "six,four", "families": "IPv4"}),
        (kept("four 10.0.0.7", "six fd00::7"), {"pools": "four,six"}),
        (kept("four 10.0.0.7"), {"addresses": "10.0.0.6-10.0.0.7"}),
        (kept("four 10.0.0.7"), {"pools": "four", "addresses": "10.0.0.1,10.0.0.7"}),
    ],
)
def test_what_would_be_chosen_now_is_kept(had: tuple[Holding, ...], annotations: dict[str, str]) -> None:
    assert judged(had, annotations) is None


@pytest.mark.parametrize(
    ("had", "annotations", "why"),
    [
        (kept("four 10.0.0.7"), {"pools": "four,six"}, "it had IPv4, and is to have IPv4 and IPv6"),
        (kept("four 10.0.0.7", "six fd00::7"), {}, "it had IPv4 and IPv6, and is to have IPv4"),
        (kept("narrow 10.1.0.7"), {}, "pool narrow is none of those chosen for it now"),
        (kept("narrow 10.1.0.7"), {"pools": "narrow,four"}, "pool narrow is none of those chosen for it now"),
        (kept("four 10.0.0.7"), {"addresses": "10.0.0.8-10.0.0.9"}, "it had 10.0.0.7, and asks for another address"),
        (kept("four 10.0.0.0"), {}, "pool four does not hand out 10.0.0.0 any more"),
    ],
)
def test_what_does_not_fit_any_more_is_said_why(
    had: tuple[Holding, ...], annotations: dict[str, str], why: str
) -> None:
    assert judged(had, annotations) == why


def test_a_pool_that_is_disabled_gives_nothing_again() -> None:
    assert judged(kept("four 10.0.0.7"), {"pools": "four,narrow"}, claim=replace(CLAIM, node="node-1"), disabled="four")
