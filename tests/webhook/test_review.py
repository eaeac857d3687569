"""Whatever JSON comes in, an answer comes out; and the rules agree with what the operator makes of a spec."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.ippool import IPPoolSpec
from berth.core.admission import Around as Nothing
from berth.core.admission import Before, Held, judge_pool
from berth.core.pool import BadField
from berth.core.ranges import Ranges
from berth_webhook.facts import draft_of
from berth_webhook.review import Known, Need, Review, Unusable, answer, blind, decide, exempt, needs, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.sampled_from(
    ["10.0.0.0/24", "10.0.0.5", "10.0.0.9-10.0.0.3", "10.0.0.3-10.0.0.9", "10.0.1.1", "fd00::/64", "fd00::1", "x", ""]
) | st.text(max_size=20)
LISTS = st.lists(TEXTS, max_size=4)


def sometimes(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What belongs there, and now and then anything at all."""
    return st.integers(0, 9).flatmap(lambda dice: JSON if dice == 0 else likely)


SPEC = st.fixed_dictionaries(
    {"subnet": sometimes(st.sampled_from(["10.0.0.0/24", "fd00::/64", "10.0.0.1/24", "10.0.0.0/31"]))},
    optional={
        "ips": sometimes(LISTS),
        "excludeIPs": sometimes(LISTS),
        "gateway": sometimes(TEXTS),
        "routes": sometimes(st.lists(st.fixed_dictionaries({"dst": TEXTS}, optional={"gw": TEXTS}), max_size=3)),
        "default": sometimes(st.booleans()),
        "podSelector": JSON,
        "reuseDelay": sometimes(st.sampled_from(["30s", "x"])),
    },
)
LEDGER = st.fixed_dictionaries(
    {"sequence": sometimes(st.integers(0, 9))},
    optional={
        "pending": sometimes(st.dictionaries(TEXTS, st.text(max_size=3), max_size=3)),
        "blocks": sometimes(st.dictionaries(st.sampled_from(["10.0.0.0", "fd00::", "x"]), st.text(max_size=8))),
    },
)
OBJECT = sometimes(
    st.fixed_dictionaries(
        {"metadata": sometimes(st.fixed_dictionaries({"name": st.sampled_from(["a", "b"])})), "spec": sometimes(SPEC)},
        optional={"status": sometimes(st.fixed_dictionaries({}, optional={"ledger": sometimes(LEDGER)}))},
    )
)
REQUEST = st.fixed_dictionaries(
    {
        "uid": sometimes(st.just("42")),
        "operation": sometimes(st.sampled_from(["CREATE", "UPDATE", "DELETE", "CONNECT"])),
        "resource": sometimes(
            st.fixed_dictionaries(
                {
                    "group": st.just("ipam.berth.dev"),
                    "version": st.just("v1alpha1"),
                    "resource": st.sampled_from(["ippools", "reservedips", "endpoints"]),
                }
            )
        ),
    },
    optional={"object": OBJECT, "oldObject": OBJECT, "subResource": sometimes(st.just("status")), "name": JSON},
)
REVIEW = sometimes(
    st.fixed_dictionaries(
        {
            "apiVersion": sometimes(st.just("admission.k8s.io/v1")),
            "kind": sometimes(st.just("AdmissionReview")),
            "request": sometimes(REQUEST),
        }
    )
)
KNOWN = st.builds(
    Known,
    st.lists(OBJECT, max_size=3),
    st.lists(OBJECT, max_size=2),
    st.lists(OBJECT, max_size=2),
    st.sampled_from([(), ((Need.POOLS, "away"),), ((Need.RESERVED, "away"), (Need.ENDPOINTS, "away"))]),
)


@given(st.binary(max_size=200) | JSON.map(orjson.dumps))
def test_what_is_no_review_is_unusable_and_says_why(body: bytes) -> None:
    review = read(body)
    assert isinstance(review, Unusable)
    assert review.why


@given(REVIEW, KNOWN)
def test_any_review_is_answered(content: object, known: Known) -> None:
    review = read(orjson.dumps(content))
    if isinstance(review, Unusable):
        assert review.why
        return
    assert needs(review) <= set(Need)
    verdict = decide(review, known)
    said = orjson.loads(orjson.dumps(answer(review, verdict, unavailable=blind(review, known))))["response"]
    assert said["uid"] == review.uid
    assert said["allowed"] or (said["status"]["message"] and 400 <= said["status"]["code"] < 600)


@given(SPEC)
def test_a_spec_has_faults_whenever_the_operator_stops_at_one(spec: dict[str, Any]) -> None:
    draft = draft_of("a", {"spec": spec})
    try:
        pool = IPPoolSpec.model_validate(spec).to_core("a")
    except ValueError:
        assert draft.faults
        return
    assert (draft.pool is None) == isinstance(pool, BadField)
    if isinstance(pool, BadField):
        assert pool in draft.faults or draft.faults[0].field.startswith("spec.")
    elif draft.faults:
        assert all("has a route already" in fault.why for fault in draft.faults)


@given(SPEC)
def test_what_stays_as_it_is_always_passes(spec: dict[str, Any]) -> None:
    """However broken: an object judged against itself is not made worse."""
    draft = draft_of("a", {"spec": spec})
    assert judge_pool(draft, Before(draft, Held(Ranges.of([(0, 2**32)]))), Nothing()).allowed


def review(operation: str, old: dict[str, Any], new: dict[str, Any], sub: str = "") -> Review:
    return Review("1", operation, "ippools", sub, "a", new, old)


def test_status_and_what_is_not_ours_are_let_pass_unread() -> None:
    assert exempt(review("UPDATE", {}, {"spec": {"subnet": "x"}}, sub="status"))
    assert exempt(Review("1", "CREATE", "pods.", "", "a", {}, {}))
    assert exempt(Review("1", "DELETE", "reservedips", "", "a", {}, {}))
    assert needs(review("UPDATE", {"spec": {"subnet": "x"}}, {"spec": {"subnet": "x"}})) == frozenset()


def test_endpoints_are_read_only_when_the_ledger_cant_be() -> None:
    good = {"spec": {"subnet": "10.0.0.0/24"}, "status": {"ledger": {"sequence": 1, "pending": {"10.0.0.1": "u"}}}}
    bad = {"spec": {"subnet": "10.0.0.0/24"}, "status": {"ledger": {"sequence": 1, "pending": {"10.0.0.1": ""}}}}
    assert needs(review("DELETE", good, {})) == frozenset()
    assert needs(review("DELETE", bad, {})) == {Need.ENDPOINTS}


@pytest.mark.parametrize("need", [Need.POOLS, Need.ENDPOINTS])
def test_what_cant_be_judged_is_refused_as_unavailable(need: Need) -> None:
    asked, known = review("CREATE", {}, {"spec": {"subnet": "10.0.0.0/24"}}), Known(gaps=((need, "no answer"),))
    status = answer(asked, decide(asked, known), unavailable=blind(asked, known))["response"]["status"]
    assert status["code"] == 503
    assert "could not be read" in status["message"]
    assert "no answer" in status["message"]


def test_a_missing_warning_is_no_reason_to_refuse() -> None:
    asked = review("CREATE", {}, {"spec": {"subnet": "10.0.0.0/24"}})
    verdict = decide(asked, Known(gaps=((Need.RESERVED, "no answer"),)))
    assert verdict.allowed
    assert "ReservedIPs could not be read" in verdict.warnings[0]
