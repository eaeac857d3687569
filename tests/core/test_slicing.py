"""Slices: which application a Pod is of, what is cut for it, and what it may draw from."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from berth.core.claim import Claim, Owner
from berth.core.granting import Granted, Waiting, grant
from berth.core.ledger import Image, Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family, Malformed, Ranges, parse_ranges
from berth.core.reasons import Reason
from berth.core.request import request_of
from berth.core.selection import Choice, Offer, Refused, choose
from berth.core.slicing import SLICES_MOST, Application, application_of, cut, trimmed
from tests.core.stories import AROUND, CLAIM, pool_of

V4, V6 = Family.IPV4, Family.IPV6
WEB, DB = "shop/Deployment.apps/web", "shop/StatefulSet.apps/db"
OUT_OF = replace(pool_of("out-of", "10.0.0.0/28"), slice_size=4)  # 14 addresses: three slices, and two left
OUT_OF_SIX = replace(pool_of("out-of-six", "fd00::/64"), slice_size=4)


def ranges(text: str, family: Family = V4) -> Ranges:
    parsed = parse_ranges(text.split(), family)
    assert not isinstance(parsed, Malformed)
    return parsed


def ledger_of(pool: Pool, **slices: str) -> Ledger:
    """`web=` and `db=` have these slices already."""
    names = {"web": WEB, "db": DB}
    cut_before = {names[key]: ranges(text, pool.family) for key, text in slices.items()}
    return Ledger(Image(slices=cut_before), pool.offered)


def of(application: str, number: int = 0, size: int | None = None) -> Claim:
    return replace(CLAIM, uid=f"{application}-{number}", application=application, slice_size=size)


def drawn(ledger: Ledger, claims: Iterable[Claim], pool: Pool = OUT_OF) -> list[str]:
    """What each of the claims gets, one after the other."""
    answers = [grant(claim, Choice({pool.family: (pool,)}), {pool.name: ledger}, 0.0) for claim in claims]
    return [
        Ranges.of(((each.addresses[0][1],) * 2,)).format(pool.family)
        if isinstance(each, Granted)
        else each.refusal.message
        if isinstance(each, Waiting)
        else each.message
        for each in answers
    ]


# --- whose Pod it is --------------------------------------------------------------------------------------------------

REPLICASET = Owner("ReplicaSet", "web-5d4f", "rs")
JOB = Owner("Job", "tidy-2891", "job", "batch")


@pytest.mark.parametrize(
    ("owner", "parents", "application"),
    [
        (None, {}, ""),
        (Owner("Node", "node-1", "n", ""), {}, ""),  # the mirror of a static Pod
        (Owner("StatefulSet", "db", "s"), {}, "shop/StatefulSet.apps/db"),
        (Owner("ReplicationController", "old", "r", ""), {}, "shop/ReplicationController/old"),
        (Owner("CloneSet", "web", "c", "apps.kruise.io"), {}, "shop/CloneSet.apps.kruise.io/web"),
        (REPLICASET, {}, None),
        (REPLICASET, {"rs": Owner("Deployment", "web", "d")}, "shop/Deployment.apps/web"),
        (REPLICASET, {"rs": Owner("Rollout", "web", "o", "argoproj.io")}, "shop/Rollout.argoproj.io/web"),
        (REPLICASET, {"rs": None}, "shop/ReplicaSet.apps/web-5d4f"),
        (JOB, {"job": Owner("CronJob", "tidy", "c", "batch")}, "shop/CronJob.batch/tidy"),
        (JOB, {"job": None}, "shop/Job.batch/tidy-2891"),
    ],
)
def test_the_application_is_what_people_would_call_one(
    owner: Owner | None, parents: dict[str, Owner | None], application: str | None
) -> None:
    assert application_of("shop", owner, parents) == application
    if application:
        read = Application.read(application)
        assert read is not None
        assert str(read) == application


# --- what is cut ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uncut", "lacking", "has", "made"),
    [
        ("10.0.0.1-10.0.0.14", 4, "", "10.0.0.1-10.0.0.4"),
        ("10.0.0.1-10.0.0.3 10.0.0.8-10.0.0.14", 4, "", "10.0.0.8-10.0.0.11"),  # in one piece, if there is one
        ("10.0.0.1-10.0.0.3 10.0.0.8-10.0.0.9", 4, "", "10.0.0.1-10.0.0.3 10.0.0.8"),
        ("10.0.0.1-10.0.0.3 10.0.0.8-10.0.0.9", 4, "10.0.0.6-10.0.0.7", "10.0.0.1-10.0.0.2 10.0.0.6-10.0.0.9"),
        ("10.0.0.1-10.0.0.2", 4, "10.0.0.6-10.0.0.7", "10.0.0.1-10.0.0.2 10.0.0.6-10.0.0.7"),  # as far as there is room
        ("", 1, "10.0.0.6", "10.0.0.6"),
    ],
)
def test_a_slice_is_the_lowest_place_with_room_and_grows_where_it_is(
    uncut: str, lacking: int, has: str, made: str
) -> None:
    assert cut(ranges(uncut), lacking, ranges(has)) == ranges(made)


@pytest.mark.parametrize(
    ("has", "surplus", "held", "kept"),
    [
        ("10.0.0.1-10.0.0.8", 4, "", "10.0.0.1-10.0.0.4"),
        ("10.0.0.1-10.0.0.8", 4, "10.0.0.7", "10.0.0.1-10.0.0.3 10.0.0.7"),
        ("10.0.0.1-10.0.0.4", 3, "10.0.0.1-10.0.0.3", "10.0.0.1-10.0.0.3"),
        ("10.0.0.1-10.0.0.2 10.0.0.9", 2, "", "10.0.0.1"),
    ],
)
def test_a_slice_shrinks_from_its_end_and_never_below_what_is_held(
    has: str, surplus: int, held: str, kept: str
) -> None:
    assert trimmed(ranges(has), surplus, ranges(held)) == ranges(kept)


SETS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), max_size=6).map(
    lambda runs: Ranges.of((first, first + length) for first, length in runs)
)


@for_all(SETS, st.integers(1, 40), SETS)
def test_what_is_cut_is_free_and_as_much_as_is_asked_for_or_there_is(every: Ranges, lacking: int, has: Ranges) -> None:
    uncut = every.minus(has)
    made = cut(uncut, lacking, has)
    assert not has.minus(made), "nothing is lost"
    assert not made.minus(has).minus(uncut), "nothing is taken from others"
    assert made.size == has.size + min(lacking, uncut.size)
    if not has and any(last - first + 1 >= lacking for first, last in uncut.runs):
        assert len(made.runs) == 1


@for_all(SETS, st.integers(1, 40), SETS)
def test_what_is_trimmed_is_held_by_nobody(has: Ranges, surplus: int, others: Ranges) -> None:
    held = has.intersect(others)
    kept = trimmed(has, surplus, held)
    assert not kept.minus(has)
    assert not held.minus(kept)
    assert kept.size == max(has.size - surplus, held.size)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_each_application_draws_from_a_slice_of_its_own() -> None:
    ledger = ledger_of(OUT_OF)
    assert drawn(ledger, [of(WEB, 0), of(DB, 0), of(WEB, 1), of(DB, 1)]) == [
        "10.0.0.1",
        "10.0.0.5",
        "10.0.0.2",
        "10.0.0.6",
    ]
    assert ledger.slices == {WEB: ranges("10.0.0.1-10.0.0.4"), DB: ranges("10.0.0.5-10.0.0.8")}
    assert ledger.draft().slices == ledger.slices, "it is written with the grant that needed it"


def test_a_full_slice_is_full_though_the_pool_is_not() -> None:
    ledger = ledger_of(OUT_OF)
    *_, last = drawn(ledger, [of(WEB, number) for number in range(5)])
    assert last == (
        f"every address of the slice of {WEB} in pool out-of is held (10.0.0.1-10.0.0.4): "
        "ask for more than 4 with annotation ipam.berth.dev/slice, or delete Pods"
    )
    assert drawn(ledger, [of(DB)]) == ["10.0.0.5"]


def test_who_asks_for_more_has_more_with_the_next_grant() -> None:
    ledger = ledger_of(OUT_OF)
    assert drawn(ledger, [*(of(WEB, number) for number in range(4)), of(DB), of(WEB, 4, size=6)])[-1] == "10.0.0.9"
    assert ledger.slices[WEB] == ranges("10.0.0.1-10.0.0.4 10.0.0.9-10.0.0.10")


@pytest.mark.parametrize(
    ("slices", "asking", "told"),
    [
        (
            {"web": "10.0.0.1-10.0.0.12"},
            of(DB),
            f"pool out-of has no room for a slice of 4 IPv4 addresses for {DB} (2 uncut): add ips, ask for fewer with "
            "annotation ipam.berth.dev/slice, or delete applications",
        ),
        ({"web": "10.0.0.1-10.0.0.12"}, of(DB, size=2), "10.0.0.13"),
    ],
)
def test_a_pool_without_room_says_so_and_serves_who_asks_for_less(
    slices: dict[str, str], asking: Claim, told: str
) -> None:
    assert drawn(ledger_of(OUT_OF, **slices), [asking]) == [told]


def test_a_slice_that_cannot_grow_any_more_says_so() -> None:
    ledger = ledger_of(OUT_OF, web="10.0.0.1", db="10.0.0.2-10.0.0.14")
    assert drawn(ledger, [of(WEB, 0), of(WEB, 1)]) == [
        "10.0.0.1",
        f"every address of the slice of {WEB} in pool out-of is held (10.0.0.1); 4 are asked for, and the pool has no "
        "more to cut: add ips to it, or delete Pods",
    ]


def test_a_pool_has_no_more_slices_than_its_object_can_carry() -> None:
    ledger = Ledger(Image(slices={f"n/K/{n}": Ranges(((n, n),)) for n in range(SLICES_MOST)}), OUT_OF.offered)
    assert drawn(ledger, [of(WEB)]) == ["pool out-of has 1000 slices, and cannot have more: make another pool"]


def test_a_full_slice_leads_to_the_next_pool_and_both_families_come_together_or_not_at_all() -> None:
    other = replace(pool_of("other", "10.0.1.0/28"), slice_size=4)
    ledgers = {
        "out-of": ledger_of(OUT_OF),
        "other": ledger_of(other),
        "out-of-six": ledger_of(OUT_OF_SIX, db="fd00::/64"),
    }
    ordered = Choice({V4: (OUT_OF, other)})
    got = [grant(of(WEB, number), ordered, ledgers, 0.0) for number in range(5)]
    assert [each.addresses[0][0].name for each in got if isinstance(each, Granted)] == ["out-of"] * 4 + ["other"]
    both = grant(of("shop/DaemonSet.apps/log"), Choice({V4: (OUT_OF,), V6: (OUT_OF_SIX,)}), ledgers, 0.0)
    assert isinstance(both, Waiting)
    assert both.pools == ("out-of-six",)
    assert both.application == "shop/DaemonSet.apps/log"
    assert "shop/DaemonSet.apps/log" not in ledgers["out-of"].slices, "half of it is not cut"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [("10.0.0.2", None), ("10.0.0.1", Reason.ADDRESS_TAKEN), ("10.0.0.9", Reason.ADDRESS_OUTSIDE)],
)
def test_an_address_asked_for_is_one_of_the_slice(wanted: str, reason: Reason | None) -> None:
    ledger = ledger_of(OUT_OF)
    drawn(ledger, [of(WEB)])
    asking = replace(of(WEB, 1), wanted={V4: ranges(wanted).runs[0][0]})
    match grant(asking, Choice({V4: (OUT_OF,)}), {"out-of": ledger}, 0.0):
        case Granted():
            assert reason is None
        case Waiting(_, refusal) | (Refused() as refusal):
            assert refusal.reason is reason


def test_what_is_held_outside_of_slices_is_cut_for_nobody() -> None:
    """As after a ledger was lost, and made anew of the Endpoints."""
    ledger = ledger_of(OUT_OF)
    ledger.settle(ranges("10.0.0.2").runs[0][0], "some-claim")
    assert drawn(ledger, [of(WEB)]) == ["10.0.0.3"]
    assert ledger.slices[WEB] == ranges("10.0.0.3-10.0.0.6")


def test_reserved_addresses_do_not_count_as_part_of_a_slice() -> None:
    ledger = ledger_of(OUT_OF, web="10.0.0.1-10.0.0.4")
    ledger.reshape(OUT_OF.offered.minus(ranges("10.0.0.1-10.0.0.3")))
    assert drawn(ledger, [of(WEB, 0), of(WEB, 1)]) == ["10.0.0.4", "10.0.0.5"]
    assert ledger.free_for(WEB) == 2


STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "end", "drop"]), st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=60
)


@for_all(STEPS)
def test_whatever_happens_slices_are_apart_and_every_grant_is_of_its_own_application(
    steps: list[tuple[str, int, int]],
) -> None:
    ledger, held = ledger_of(OUT_OF), dict[str, tuple[str, int]]()
    for number, (step, which, size) in enumerate(steps):
        application = f"shop/Deployment.apps/app-{which}"
        if step == "claim":
            claim = of(application, number, size)
            answer = grant(claim, Choice({V4: (OUT_OF,)}), {"out-of": ledger}, 0.0)
            if isinstance(answer, Granted):
                held[claim.uid] = (application, answer.addresses[0][1])
        elif step == "end" and held:
            uid = sorted(held)[which % len(held)]
            ledger.withdraw(uid, 0.0)
            del held[uid]
        elif step == "drop" and application in ledger.slices and not ledger.held_in(ledger.slices[application]):
            ledger.drop(application)
        parts = list(ledger.slices.values())
        together = Ranges.of(run for part in parts for run in part.runs)
        assert together.size == sum(part.size for part in parts)
        assert not together.minus(OUT_OF.offered)
        assert all(address in ledger.slices[application] for application, address in held.values())


LEADERS = st.lists(
    st.tuples(st.sampled_from(["claim", "write", "drop"]), st.integers(0, 1), st.integers(0, 4), st.integers(1, 5)),
    min_size=1,
    max_size=60,
)


@for_all(LEADERS)
def test_two_that_lead_at_once_never_write_an_address_into_two_slices(steps: list[tuple[str, int, int, int]]) -> None:
    """A write is conditional: whose memory is not younger than the API's is refused, and reads anew."""
    api = Image()
    leaders = [Ledger(api, OUT_OF.offered), Ledger(api, OUT_OF.offered)]
    claims: dict[str, str] = {}
    for number, (step, which, who, size) in enumerate(steps):
        ledger, application = leaders[which], f"shop/Deployment.apps/app-{who}"
        if step == "claim":
            claim = of(application, number, size)
            claims[claim.uid] = application
            grant(claim, Choice({V4: (OUT_OF,)}), {"out-of": ledger}, 0.0)
        elif step == "drop" and application in ledger.slices and not ledger.held_in(ledger.slices[application]):
            ledger.drop(application)
        elif step == "write":
            if ledger.sequence == api.sequence:
                api = ledger.draft()
                ledger.accept(api)
            else:
                leaders[which] = Ledger(api, OUT_OF.offered)
        together = Ranges.of(run for part in api.slices.values() for run in part.runs)
        assert together.size == sum(part.size for part in api.slices.values())
        assert all(address in api.slices[claims[uid]] for address, uid in api.pending.items())


# --- who may draw -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "said", "pools", "told"),
    [
        (WEB, {}, (OUT_OF,), ""),
        ("", {}, (OUT_OF,), "out-of is cut into slices for applications, and Pod web-0 has no controller"),
        (WEB, {"slice": "8"}, (OUT_OF,), ""),
        (WEB, {"slice": "8"}, (pool_of("plain", "10.0.2.0/24"),), "plain is not cut into slices, and a slice is asked"),
        (WEB, {"slice": "many"}, (OUT_OF,), '/slice "many": is no number of addresses: write 1 or more'),
        (WEB, {"slice": "0"}, (OUT_OF,), '/slice "0": is no number of addresses: write 1 or more'),
        (WEB, {"slice": "-4"}, (OUT_OF,), '/slice "-4": is no number of addresses: write 1 or more'),
    ],
)
def test_slices_are_for_applications(
    application: str, said: dict[str, str], pools: tuple[Pool, ...], told: str
) -> None:
    annotations = {f"ipam.berth.dev/{key}": text for key, text in said.items()}
    around = replace(AROUND, application=application, pod_annotations=annotations)
    offers = {pool.name: Offer(replace(pool, default=True), True) for pool in pools}
    request = request_of(CLAIM, around, offers)
    answer = request if isinstance(request, Refused) else choose(request.claim, around, offers)
    if isinstance(answer, Refused):
        assert told
        assert told in answer.message
    else:
        assert not told
