"""What a claim asks for, all things considered: annotations of Pod and namespace, the CNI call, the defaults."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from berth.core.claim import Claim, Owner, Surroundings
from berth.core.granting import Granted, Waiting, grant
from berth.core.ledger import Image, Ledger
from berth.core.pool import Audience
from berth.core.ranges import Family, Malformed, Ranges, format_address, parse_address
from berth.core.reasons import Reason
from berth.core.request import decide, request_of
from berth.core.selection import Choice, Offer, Refused
from tests.core.stories import CLAIM, naming, pool_of

V4, V6 = Family.IPV4, Family.IPV6
OFFERS = {
    pool.name: Offer(pool, True)
    for pool in (
        pool_of("four", "10.0.0.0/24", default=True),
        pool_of("six", "fd00::/64", default=True),
        pool_of("blue-a", "10.1.0.0/24"),
        pool_of("blue-b", "10.1.1.0/24", Audience(namespaces=frozenset({"shop"}))),
        pool_of("blue-six", "fd01::/64"),
        pool_of("red", "10.2.0.0/24", Audience(namespaces=frozenset({"bank"}))),
    )
}


def around(
    pod: Mapping[str, str] | None = None, namespace: Mapping[str, str] | None = None, owner: str = "", first: int = 0
) -> Surroundings:
    """Annotations without their prefix."""
    return Surroundings(
        pod_annotations={f"ipam.berth.dev/{key}": text for key, text in (pod or {}).items()},
        namespace_annotations={f"ipam.berth.dev/{key}": text for key, text in (namespace or {}).items()},
        owner=Owner(owner) if owner else None,
        first_ordinal=first,
    )


def pools(claim: Claim, surroundings: Surroundings) -> str:
    """The pools to try, by family: `four, blue-a | six`."""
    _, choice = decide(claim, surroundings, OFFERS)
    assert isinstance(choice, Choice), choice
    return " | ".join(", ".join(pool.name for pool in each) for each in choice.candidates.values())


def refusal(surroundings: Surroundings, claim: Claim = CLAIM) -> Refused:
    _, answer = decide(claim, surroundings, OFFERS)
    assert isinstance(answer, Refused), answer
    return answer


def at(text: str) -> int:
    parsed = parse_address(text)
    assert not isinstance(parsed, Malformed)
    return parsed[1]


# --- which pool -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pod", "namespace", "configuration", "chosen"),
    [
        ("", "", "", "four | six"),
        ("", "", "four blue-six", "four | blue-six"),
        ("", "blue-b", "four", "blue-b"),
        ("blue-a", "blue-b", "four", "blue-a"),
        ("blue-a", "", "", "blue-a"),
        ("blue-a,blue-six", "", "", "blue-a | blue-six"),
        # By family: who names IPv4 pools leaves IPv6 to the next in order.
        ("blue-a", "blue-six", "four", "blue-a | blue-six"),
        ("blue-six", "blue-b", "four six", "blue-b | blue-six"),
        ("blue-a", "", "four six", "blue-a | six"),
    ],
)
def test_pod_goes_before_namespace_before_cni_configuration_before_the_default(
    pod: str, namespace: str, configuration: str, chosen: str
) -> None:
    by_family = {
        family: " ".join(name for name in configuration.split() if OFFERS[name].pool.family is family)
        for family in Family
    }
    claim = naming(by_family[V4], by_family[V6])
    said = around({"pools": pod} if pod else {}, {"pools": namespace} if namespace else {})
    assert pools(claim, said) == chosen


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("blue-a", "blue-a"),
        ("blue-a, four", "blue-a, four"),
        ("four,blue-a,four", "four, blue-a"),
        ("blue-?", "blue-b, blue-a"),  # the narrower audience first
        ("blue-*", "blue-b, blue-a | blue-six"),
        ("blue-[a]", "blue-a"),
        ("blue-[!a]", "blue-b"),
        ("blue-a,blue-*", "blue-a, blue-b | blue-six"),
        ("gone,blue-a", "blue-a"),
        ("blue-z*,blue-a", "blue-a"),
        ("red,blue-a", "blue-a"),
    ],
)
def test_a_list_is_tried_in_order_and_a_wildcard_stands_for_the_pools_it_matches(text: str, chosen: str) -> None:
    assert pools(CLAIM, around({"pools": text})) == chosen


def test_the_key_of_an_interface_goes_before_the_general_one() -> None:
    said = around({"pools": "four", "pools.net1": "blue-a", "pools.net2": "blue-b"})
    assert pools(CLAIM, said) == "four"
    assert pools(replace(CLAIM, interface="net1"), said) == "blue-a"
    assert pools(replace(CLAIM, interface="net2"), around({}, {"pools.net2": "blue-b", "pools": "four"})) == "blue-b"


def test_what_was_passed_over_is_told_with_what_was_chosen() -> None:
    _, choice = decide(CLAIM, around({"pools": "gone,none-*,red,blue-a"}), OFFERS)
    assert isinstance(choice, Choice)
    assert [f"{each.pool} {each.why}" for each in choice.passed] == [
        "gone does not exist",
        "none-* matches no IPPool",
        "red does not list namespace shop",
    ]


def test_who_named_the_pools_is_known_for_each_family() -> None:
    request = request_of(naming("four", "six"), around({"pools": "blue-a"}), OFFERS)
    assert not isinstance(request, Refused)
    assert request.sources == {V4: "Pod annotation ipam.berth.dev/pools", V6: "CNI configuration"}


@pytest.mark.parametrize(
    ("families", "chosen"),
    [("IPv4", "four"), ("IPv6", "six"), ("IPv4,IPv6", "four | six"), ("IPv6, IPv4", "four | six")],
)
def test_a_pod_may_ask_for_one_family_in_a_dual_stack_cluster(families: str, chosen: str) -> None:
    assert pools(CLAIM, around({"families": families})) == chosen
    assert pools(naming(families="IPv4 IPv6"), around({"families": families})) == chosen


def test_the_audience_of_a_pool_holds_for_those_who_name_it() -> None:
    answer = refusal(around({"pools": "red"}))
    assert answer.reason is Reason.POOL_UNSUITABLE
    assert "red does not list namespace shop" in answer.message


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pod", "namespace", "parts"),
    [
        ({"pools": ""}, {}, ["Pod annotation ipam.berth.dev/pools", '""', "empty entry"]),
        ({"pools": "four,,six"}, {}, ['"four,,six"', "empty entry", "take it away"]),
        ({"pools": "Blue"}, {}, ['"Blue" is no name of an IPPool', "wildcards"]),
        ({"pools": "blue-[a"}, {}, ['"blue-[a" is no name of an IPPool']),
        ({"pools.eth0": "a/b"}, {}, ["ipam.berth.dev/pools.eth0", '"a/b"']),
        ({}, {"pools": "a b"}, ["Namespace annotation ipam.berth.dev/pools", '"a b"']),
        ({"families": "ipv4"}, {}, ["ipam.berth.dev/families", '"ipv4" is no family', "write IPv4, IPv6"]),
        ({"pool": "four"}, {}, ["ipam.berth.dev/pool", "no such annotation", "ipam.berth.dev/pools.INTERFACE"]),
        ({"families.eth0": "IPv4"}, {}, ["no such annotation"]),
        ({}, {"addresses": "10.0.0.5"}, ["on a Namespace Berth knows ipam.berth.dev/pools"]),
        ({"addresses": "10.0.0.300"}, {}, ["ipam.berth.dev/addresses", '"10.0.0.300"', "first-last"]),
        ({"addresses": "10.0.0.9-10.0.0.5"}, {}, ["runs backwards"]),
        ({"addresses": "10.0.0.5/24"}, {}, ["host bits", "10.0.0.0/24"]),
        ({"addresses": "fd00::5", "families": "IPv4"}, {}, ["IPv6 addresses", "IPv4 only"]),
    ],
)
def test_an_annotation_that_cannot_be_names_key_text_and_remedy(
    pod: dict[str, str], namespace: dict[str, str], parts: list[str]
) -> None:
    answer = refusal(around(pod, namespace))
    assert answer.reason is Reason.BAD_ANNOTATION
    for part in parts:
        assert part in answer.message


def test_an_annotation_that_names_no_pool_there_is_does_not_end_in_another_pool() -> None:
    answer = refusal(around({"pools": "gone"}, {"pools": "blue-a"}))
    assert answer.reason is Reason.POOL_NOT_FOUND
    for part in ("Pod annotation ipam.berth.dev/pools", '"gone"', "create it", "blue-a"):
        assert part in answer.message


# --- which address ----------------------------------------------------------------------------------------------------


def asked(claim: Claim, surroundings: Surroundings) -> dict[str, str]:
    request = request_of(claim, surroundings, OFFERS)
    assert not isinstance(request, Refused), request
    single = {family.value: format_address(family, each) for family, each in request.claim.wanted.items()}
    return single | {family.value: each.format(family) for family, each in request.claim.among.items()}


@pytest.mark.parametrize(
    ("owner", "pod", "text", "answer"),
    [
        ("", "web", "10.0.0.5", {"IPv4": "10.0.0.5"}),
        ("", "web", "10.0.0.5,fd00::5", {"IPv4": "10.0.0.5", "IPv6": "fd00::5"}),
        ("ReplicaSet", "web-x7", "10.0.0.5-10.0.0.7", {"IPv4": "10.0.0.5-10.0.0.7"}),
        ("ReplicaSet", "web-0", "10.0.0.9,10.0.0.5", {"IPv4": "10.0.0.5, 10.0.0.9"}),
        ("StatefulSet", "web-0", "10.0.0.9,10.0.0.5", {"IPv4": "10.0.0.9"}),
        ("StatefulSet", "web-1", "10.0.0.9,10.0.0.5", {"IPv4": "10.0.0.5"}),
        ("StatefulSet", "web-3", "10.0.0.9, 10.0.0.20-10.0.0.30", {"IPv4": "10.0.0.22"}),
        ("StatefulSet", "web-1", "10.0.0.8/29,fd00::8-fd00::9", {"IPv4": "10.0.0.10", "IPv6": "fd00::9"}),
    ],
)
def test_a_statefulset_takes_the_address_of_its_ordinal_and_others_any_that_is_free(
    owner: str, pod: str, text: str, answer: dict[str, str]
) -> None:
    assert asked(replace(CLAIM, pod=pod), around({"addresses": text}, owner=owner)) == answer


@pytest.mark.parametrize(("pod", "number"), [("web-5", 0), ("web-6", 1)])
def test_ordinals_count_from_where_the_set_begins(pod: str, number: int) -> None:
    said = around({"addresses": "10.0.0.9,10.0.0.5"}, owner="StatefulSet", first=5)
    assert asked(replace(CLAIM, pod=pod), said) == {"IPv4": ("10.0.0.9", "10.0.0.5")[number]}


def test_an_ordinal_from_before_the_set_begins_takes_no_other_pods_address() -> None:
    said = around({"addresses": "10.0.0.9,10.0.0.5"}, owner="StatefulSet", first=5)
    assert (
        "web-4, of a StatefulSet, takes the IPv4 address number -1"
        in refusal(said, replace(CLAIM, pod="web-4")).message
    )


def test_an_ordinal_beyond_the_list_is_refused_with_the_count() -> None:
    answer = refusal(around({"addresses": "10.0.0.5,10.0.0.6"}, owner="StatefulSet"), replace(CLAIM, pod="web-2"))
    assert answer.reason is Reason.BAD_ANNOTATION
    for part in ("web-2", "number 2", "2 are listed", "spec.replicas"):
        assert part in answer.message


def test_the_addresses_of_the_cni_call_go_before_the_annotation() -> None:
    claim = replace(CLAIM, wanted={V4: at("10.0.0.77")})
    assert asked(claim, around({"addresses": "10.0.0.5,fd00::5"})) == {"IPv4": "10.0.0.77", "IPv6": "fd00::5"}
    assert asked(CLAIM, around({"addresses": "10.0.0.5", "addresses.eth0": "10.0.0.6"})) == {"IPv4": "10.0.0.6"}


def granted(surroundings: Surroundings, ledgers: Mapping[str, Ledger], uid: str = "uid-1") -> object:
    claim, choice = decide(replace(CLAIM, uid=uid), surroundings, OFFERS)
    assert isinstance(choice, Choice), choice
    answer = grant(claim, choice, ledgers, 0.0)
    if isinstance(answer, Granted):
        return [format_address(pool.family, address) for pool, address in answer.addresses]
    return answer.refusal.reason if isinstance(answer, Waiting) else answer.reason


def test_a_fixed_range_is_handed_out_to_its_last_address_and_not_beyond() -> None:
    ledgers = {name: Ledger(Image(), offer.pool.offered) for name, offer in OFFERS.items()}
    said = around({"addresses": "10.0.0.5-10.0.0.6", "families": "IPv4"}, owner="ReplicaSet")
    answers = [granted(said, ledgers, f"uid-{number}") for number in range(3)]
    assert answers == [["10.0.0.5"], ["10.0.0.6"], Reason.ADDRESS_TAKEN]


@pytest.mark.parametrize("text", ["10.9.9.9", "10.0.0.0", "10.0.0.1", "10.9.0.0/24", "10.0.0.0-10.0.0.1"])
def test_an_address_that_no_pool_hands_out_is_refused_also_when_asked_for_by_name(text: str) -> None:
    """Out of every pool; the network address; one that is excluded, reserved, or the gateway."""
    ledgers = {name: Ledger(Image(), offer.pool.offered.minus(_single("10.0.0.1"))) for name, offer in OFFERS.items()}
    assert granted(around({"addresses": text, "families": "IPv4"}), ledgers) is Reason.ADDRESS_OUTSIDE


def _single(text: str) -> Ranges:
    return Ranges(((at(text), at(text)),))


def test_a_wanted_family_that_no_pool_serves_is_no_silent_loss() -> None:
    ledgers = {name: Ledger(Image(), offer.pool.offered) for name, offer in OFFERS.items()}
    assert granted(around({"addresses": "fd00::5", "pools": "blue-a"}), ledgers) is Reason.ADDRESS_OUTSIDE


def test_a_pod_without_annotations_is_its_claim_unchanged() -> None:
    request = request_of(CLAIM, Surroundings(), OFFERS)
    assert not isinstance(request, Refused)
    assert request.claim is CLAIM
