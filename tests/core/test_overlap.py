"""Of pools that hand out the same addresses, one serves, and everyone who decides decides for the same one."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.core.overlap import Conflict, Contender, conflicts, shared
from berth.core.ranges import Family, Ranges

V4, V6 = Family.IPV4, Family.IPV6
RUNS = st.tuples(st.integers(0, 20), st.integers(0, 6)).map(lambda run: Ranges(((run[0], run[0] + run[1]),)))
CREATED = st.sampled_from(["2026-11-23T10:00:00Z", "2026-11-23T10:00:01Z", "2026-11-24T09:00:00Z"])
LATER = "2026-12-01T00:00:00Z"


@st.composite
def contenders(draw: st.DrawFn) -> list[Contender]:
    number = draw(st.integers(0, 7))
    uids = draw(st.permutations([f"uid-{each}" for each in range(number)]))
    return [
        Contender(
            f"pool-{each}",
            uids[each],
            draw(st.sampled_from(Family)),
            draw(RUNS),
            draw(CREATED),
            incumbent=draw(st.booleans()),
            in_use=draw(st.booleans()),
        )
        for each in range(number)
    ]


def serving(pools: list[Contender]) -> set[str]:
    return {pool.name for pool in pools} - conflicts(pools).keys()


@given(contenders())
def test_those_that_serve_share_no_address(pools: list[Contender]) -> None:
    winners = [pool for pool in pools if pool.name in serving(pools)]
    assert not any(shared(one, other) for one, other in combinations(winners, 2))


@given(contenders())
def test_who_loses_loses_to_one_that_serves_and_is_told_which_addresses(pools: list[Contender]) -> None:
    by_name = {pool.name: pool for pool in pools}
    for name, conflict in conflicts(pools).items():
        assert conflict.loser == name
        assert conflict.winner in serving(pools)
        assert conflict.common == shared(by_name[conflict.winner], by_name[name])
        assert conflict.common
        assert conflicts([by_name[name]]) == {}, "alone it would serve"


@given(st.data())
def test_the_order_in_which_pools_are_seen_does_not_matter(data: st.DataObject) -> None:
    pools = data.draw(contenders())
    assert conflicts(data.draw(st.permutations(pools))) == conflicts(pools)


@given(contenders(), RUNS, st.sampled_from(Family))
def test_a_younger_pool_unseats_nobody(pools: list[Contender], offered: Ranges, family: Family) -> None:
    younger = Contender("younger", "uid-0-younger", family, offered, LATER, incumbent=False)
    assert serving([*pools, younger]) >= serving(pools)
    assert {name: lost for name, lost in conflicts([*pools, younger]).items() if name != "younger"} == conflicts(pools)


@given(contenders())
def test_what_was_decided_stays_decided(pools: list[Contender]) -> None:
    """Once the winners are Ready and the losers not, an older pool that is seen late changes nothing."""
    winners = serving(pools)
    settled = [replace(pool, incumbent=pool.name in winners) for pool in pools]
    assert serving(settled) == winners
    late = Contender("late", "uid-0-late", V4, Ranges(((0, 40),)), "1999-01-01T00:00:00Z", incumbent=False)
    assert winners <= serving([*settled, late])


@given(st.integers(2, 6), st.data())
def test_of_equal_pools_exactly_one_serves(number: int, data: st.DataObject) -> None:
    pools = data.draw(contenders().filter(bool))
    same = [
        replace(pools[0], name=f"same-{each}", uid=f"uid-{each}", created=data.draw(CREATED)) for each in range(number)
    ]
    assert len(serving(same)) == 1


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ({"incumbent": True, "created": LATER}, {"in_use": True}),
        ({"in_use": True, "created": LATER}, {}),
        ({"created": "2026-11-22T23:59:59Z", "uid": "z"}, {}),
        ({"uid": "a"}, {"uid": "b"}),
        ({"incumbent": True, "created": "2026-11-22T00:00:00Z"}, {"incumbent": True}),
    ],
)
def test_ready_comes_before_in_use_before_older_before_the_smaller_uid(
    winner: dict[str, str], loser: dict[str, str]
) -> None:
    base = Contender("", "m", V4, Ranges(((10, 20),)), "2026-11-23T00:00:00Z", incumbent=False)
    one = replace(base, name="winner", **winner)  # type: ignore[arg-type]
    other = replace(base, name="loser", offered=Ranges(((15, 30),)), **loser)  # type: ignore[arg-type]
    expected = {"loser": Conflict("winner", "loser", Ranges(((15, 20),)))}
    assert conflicts([one, other]) == conflicts([other, one]) == expected


def test_a_loser_stands_in_nobodys_way() -> None:
    base = Contender("", "", V4, Ranges(), "2026-11-23T00:00:00Z", incumbent=False)
    first = replace(base, name="first", uid="1", offered=Ranges(((0, 10),)))
    second = replace(base, name="second", uid="2", offered=Ranges(((10, 20),)))
    third = replace(base, name="third", uid="3", offered=Ranges(((20, 30),)))
    assert serving([first, second, third]) == {"first", "third"}


def test_numbers_of_the_two_families_are_not_the_same_addresses() -> None:
    four = Contender("four", "1", V4, Ranges(((0, 10),)), LATER, incumbent=False)
    assert conflicts([four, replace(four, name="six", uid="2", family=V6)]) == {}
