"""Which pools may serve a claim, in which order, and what is said of the others."""

import pytest

from berth.core.claim import Claim
from berth.core.pool import Audience, Expression, Operator, Selector
from berth.core.reasons import Reason
from berth.core.selection import Choice, Offer, Refused, choose
from tests.core.stories import AROUND, CLAIM, naming, pool_of

ZONE_A = Selector({"zone": "a"})
ZONE_B = Selector({"zone": "b"})

OFFERS = {
    offer.pool.name: offer
    for offer in (
        Offer(pool_of("four", "10.0.0.0/24", default=True), True),
        Offer(pool_of("six", "fd00::/64", default=True), True),
        Offer(pool_of("four-b", "10.0.1.0/24"), True),
        Offer(pool_of("four-off", "10.0.2.0/24", disabled=True), True),
        Offer(pool_of("four-unready", "10.0.3.0/24"), False),
        Offer(pool_of("four-elsewhere", "10.0.4.0/24", Audience(nodes=frozenset({"node-2"}))), True),
    )
}


def chosen(answer: Choice | Refused) -> dict[str, list[str]]:
    assert isinstance(answer, Choice)
    return {family.value: [pool.name for pool in pools] for family, pools in answer.candidates.items()}


@pytest.mark.parametrize(
    ("operator", "values", "value", "matches"),
    [
        (Operator.IN, {"a", "b"}, "a", True),
        (Operator.IN, {"a", "b"}, "c", False),
        (Operator.IN, {"a", "b"}, None, False),
        (Operator.NOT_IN, {"a", "b"}, "a", False),
        (Operator.NOT_IN, {"a", "b"}, "c", True),
        (Operator.NOT_IN, {"a", "b"}, None, True),  # as in Kubernetes: who has no such label is not in it
        (Operator.EXISTS, set(), "", True),
        (Operator.EXISTS, set(), None, False),
        (Operator.DOES_NOT_EXIST, set(), "", False),
        (Operator.DOES_NOT_EXIST, set(), None, True),
    ],
)
def test_an_expression_matches_as_in_kubernetes(
    operator: Operator, values: set[str], value: str | None, matches: bool
) -> None:
    labels = {"other": "x"} if value is None else {"zone": value}
    assert Expression("zone", operator, frozenset(values)).matches(labels) is matches


def test_a_selector_means_all_it_says_and_an_empty_one_everything() -> None:
    both = Selector({"zone": "a"}, (Expression("gpu", Operator.EXISTS),))
    assert Selector().matches({})
    assert both.matches({"zone": "a", "gpu": "yes"})
    assert not both.matches({"zone": "a"})
    assert not both.matches({"gpu": "yes"})


@pytest.mark.parametrize(
    ("audience", "why"),
    [
        (Audience(), None),
        (Audience(nodes=frozenset({"node-1", "node-2"})), None),
        (Audience(nodes=frozenset({"node-2"})), "does not list node node-1"),
        (Audience(node_selector=ZONE_A), None),
        (Audience(node_selector=ZONE_B), "does not select node node-1"),
        (Audience(namespaces=frozenset({"shop"})), None),
        (Audience(namespaces=frozenset({"bank"})), "does not list namespace shop"),
        (Audience(namespace_selector=Selector({"team": "blue"})), None),
        (Audience(namespace_selector=Selector({"team": "red"})), "does not select namespace shop"),
        (Audience(pod_selector=Selector({"app": "web"})), None),
        (Audience(pod_selector=Selector({"app": "db"})), "does not select Pod web-0"),
        (Audience(networks=frozenset({"lan"})), None),
        (Audience(networks=frozenset({"wan"})), "does not list network lan"),
        (Audience(nodes=frozenset({"node-1"}), networks=frozenset({"wan"})), "does not list network lan"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_pool_serves_those_it_is_for_named_or_default(audience: Audience, why: str | None, named: bool) -> None:
    offers = {"p": Offer(pool_of("p", "10.0.0.0/24", audience, default=True), True)}
    answer = choose(naming("p") if named else CLAIM, AROUND, offers)
    if why is None:
        assert chosen(answer) == {"IPv4": ["p"]}
    else:
        assert isinstance(answer, Refused)
        assert answer.reason is (Reason.POOL_UNSUITABLE if named else Reason.NO_MATCHING_POOL)
        assert f"p {why}" in answer.message


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (naming(), {"IPv4": ["four"], "IPv6": ["six"]}),
        (naming(families="IPv4"), {"IPv4": ["four"]}),
        (naming(families="IPv6"), {"IPv6": ["six"]}),
        (naming("four-b"), {"IPv4": ["four-b"]}),
        (naming("four-b four"), {"IPv4": ["four-b", "four"]}),
        (naming("four", "six"), {"IPv4": ["four"], "IPv6": ["six"]}),
        (naming("four-b", "six", "IPv4"), {"IPv4": ["four-b"]}),
        (naming("missing four-off four-unready four-elsewhere six four-b"), {"IPv4": ["four-b"]}),
        # A family asked for without naming its pools: the default pools decide, and nothing is dropped in silence.
        (naming("four-b", families="IPv4 IPv6"), {"IPv4": ["four-b"], "IPv6": ["six"]}),
        (naming("four-b", families="IPv6"), {"IPv6": ["six"]}),
        (naming("", "six", "IPv6 IPv4"), {"IPv4": ["four"], "IPv6": ["six"]}),
    ],
)
def test_a_claim_gets_the_pools_it_names_in_its_order_else_the_default_ones(
    claim: Claim, expected: dict[str, list[str]]
) -> None:
    assert list(chosen(choose(claim, AROUND, OFFERS)).items()) == list(expected.items()), "IPv4 first"


@pytest.mark.parametrize(
    ("claim", "reason", "said"),
    [
        (naming("missing gone"), Reason.POOL_NOT_FOUND, "no IPPool missing, gone exists: create it"),
        (naming("four", "missing"), Reason.POOL_NOT_FOUND, "or name another for IPv6"),
        (naming("four-off"), Reason.POOL_UNSUITABLE, "four-off is disabled"),
        (naming("four-unready"), Reason.POOL_UNSUITABLE, "four-unready is not Ready"),
        (naming("four-elsewhere"), Reason.POOL_UNSUITABLE, "four-elsewhere does not list node node-1"),
        (naming("six"), Reason.POOL_UNSUITABLE, "six is IPv6"),
        (naming("missing four-off"), Reason.POOL_UNSUITABLE, "missing does not exist; four-off is disabled"),
    ],
)
def test_a_claim_that_cannot_be_served_is_told_why(claim: Claim, reason: Reason, said: str) -> None:
    answer = choose(claim, AROUND, OFFERS)
    assert isinstance(answer, Refused)
    assert answer.reason is reason
    assert said in answer.message


def test_pools_passed_over_are_listed_even_when_another_serves() -> None:
    answer = choose(naming("missing four-off four-b"), AROUND, OFFERS)
    assert isinstance(answer, Choice)
    assert [(each.pool, each.why) for each in answer.passed] == [
        ("missing", "does not exist"),
        ("four-off", "is disabled"),
    ]


def test_of_default_pools_the_narrower_audience_comes_first_then_the_name() -> None:
    audiences = {
        "e-anyone": Audience(),
        "a-anyone": Audience(),
        "d-node-and-network": Audience(nodes=frozenset({"node-1"}), networks=frozenset({"lan"})),
        "c-namespace": Audience(namespaces=frozenset({"shop"})),
        "b-empty-selector": Audience(pod_selector=Selector()),
        "f-all": Audience(
            frozenset({"node-1"}), ZONE_A, frozenset({"shop"}), Selector(), Selector(), frozenset({"lan"})
        ),
    }
    offers = {
        name: Offer(pool_of(name, f"10.0.{number}.0/24", audience, default=True), True)
        for number, (name, audience) in enumerate(audiences.items())
    }
    assert chosen(choose(CLAIM, AROUND, offers)) == {
        "IPv4": ["f-all", "d-node-and-network", "b-empty-selector", "c-namespace", "a-anyone", "e-anyone"]
    }


def test_without_any_default_pool_a_claim_is_told_to_set_one() -> None:
    answer = choose(CLAIM, AROUND, {"four-b": OFFERS["four-b"]})
    assert answer == Refused(
        Reason.NO_MATCHING_POOL,
        "no default pool may serve this Pod: set spec.default on an IPPool, or name a pool",
    )


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        # A dual-stack cluster does not turn single-stack because a pool is disabled for a moment ...
        (Audience(), None),
        (Audience(nodes=frozenset({"node-1"})), None),
        # ... but a pool that was never for this Pod is no loss to it.
        (Audience(nodes=frozenset({"node-2"})), {"IPv4": ["four"]}),
    ],
)
def test_a_family_does_not_vanish_with_a_disabled_pool(
    audience: Audience, expected: dict[str, list[str]] | None
) -> None:
    offers = {
        "four": OFFERS["four"],
        "six": Offer(pool_of("six", "fd00::/64", audience, default=True, disabled=True), True),
    }
    answer = choose(CLAIM, AROUND, offers)
    if expected is None:
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.NO_MATCHING_POOL
        assert "no default IPv6 pool may serve this Pod: six is disabled" in answer.message
        assert chosen(choose(naming(families="IPv4"), AROUND, offers)) == {"IPv4": ["four"]}
    else:
        assert chosen(answer) == expected
