"""Scenario A, assign: who gets an address, from which pool, and what is left when none can be had."""

from collections.abc import Callable

import pytest

from tests.scenarios.stage import Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
EXHAUSTED, TAKEN, OUTSIDE, NO_POOL = 100, 101, 102, 103


def test_one_family_the_other_and_both(stage: Open) -> None:
    story = stage("a-families")
    story.pools(four={"subnet": "10.100.0.0/29", "default": True}, six={"subnet": "fd10::/125", "default": True})
    assert story.add("both").addresses == ("10.100.0.1", "fd10::1")
    assert story.add("four", families="IPv4").addresses == ("10.100.0.2",)
    assert story.add("six", families="IPv6").addresses == ("fd10::2",)
    assert story.add("named", pools=story.pool("six")).addresses == ("fd10::3",)


def test_the_kind_of_the_owner_makes_no_difference(stage: Open) -> None:
    story = stage("a-kinds")
    story.pools(four="10.100.1.0/24")
    for number, owner in enumerate(("", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"), 1):
        answer = story.add(f"pod-{number}", owner=owner, pools=story.pool("four"))
        assert answer.addresses == (f"10.100.1.{number}",)


def test_a_very_long_name_gets_an_address(stage: Open) -> None:
    story = stage("a-long")
    story.pools(four="10.100.2.0/24")
    name = ".".join(["p" * 62] * 4)
    assert len(name) == 251
    assert story.add(name, pools=story.pool("four")).addresses == ("10.100.2.1",)


def test_a_pool_that_is_used_up_fails_clearly_and_leaves_nothing_behind(stage: Open) -> None:
    story = stage("a-full")
    story.pools(four={"subnet": "10.100.3.0/24", "ips": ["10.100.3.1-10.100.3.2"]})
    pool = story.pool("four")
    for name in ("one", "two"):
        assert story.add(name, pools=pool).addresses
    refused = story.add("three", pools=pool)
    assert refused.code == EXHAUSTED
    assert f"pool {pool} has no free IPv4 address (2 in all)" in refused.message
    assert len(story.place.get("endpoints.ipam.berth.dev", "a-full")) == 2
    story.end("one")
    assert story.add("four", pools=pool).addresses == ("10.100.3.1",)


def test_the_second_pool_serves_when_the_first_is_used_up(stage: Open) -> None:
    story = stage("a-fallback")
    story.pools(first={"subnet": "10.100.4.0/24", "ips": ["10.100.4.1"]}, second="10.100.5.0/24")
    pools = f"{story.pool('first')},{story.pool('second')}"
    assert story.add("one", pools=pools).addresses == ("10.100.4.1",)
    assert story.add("two", pools=pools).addresses == ("10.100.5.1",)


def test_a_wildcard_stands_for_the_pools_it_matches(stage: Open) -> None:
    story = stage("a-wildcard")
    story.pools(x1={"subnet": "10.100.6.0/24", "ips": ["10.100.6.1"]}, x2="10.100.7.0/24", y="10.100.8.0/24")
    assert story.add("one", pools="a-wildcard-x*").addresses == ("10.100.6.1",)
    assert story.add("two", pools="a-wildcard-x?").addresses == ("10.100.7.1",)
    assert story.add("three", pools="a-wildcard-[y]").addresses == ("10.100.8.1",)
    assert "matches" not in story.add("four", pools="a-wildcard-*").message


def test_pod_goes_before_namespace_before_configuration_before_default(stage: Open) -> None:
    story = stage("a-order")
    story.more_namespace("a-order-said", pools="a-order-namespace")
    story.pools(
        default={"subnet": "10.100.9.0/24", "default": True, "namespaces": ["a-order", "a-order-said"]},
        configuration="10.100.10.0/24",
        namespace="10.100.11.0/24",
        pod="10.100.12.0/24",
    )
    ipam = {"ipv4Pools": [story.pool("configuration")]}
    assert story.add("one").addresses == ("10.100.9.1",)
    assert story.add("two", ipam=ipam).addresses == ("10.100.10.1",)
    assert story.add("three", ipam=ipam, namespace="a-order-said").addresses == ("10.100.11.1",)
    answer = story.add("four", ipam=ipam, namespace="a-order-said", pools=story.pool("pod"))
    assert answer.addresses == ("10.100.12.1",)


def test_an_address_asked_for_is_that_one_or_none(stage: Open) -> None:
    story = stage("a-address")
    story.pools(four={"subnet": "10.100.13.0/24", "gateway": "10.100.13.1", "excludeIPs": ["10.100.13.9"]})
    story.reserve("10.100.13.8")
    pool = story.pool("four")
    assert story.add("one", pools=pool, addresses="10.100.13.77").addresses == ("10.100.13.77",)
    assert story.add("two", pools=pool, addresses="10.100.13.77").code == TAKEN
    for number, withheld in enumerate(("10.100.13.1", "10.100.13.8", "10.100.13.9", "10.100.14.1")):
        assert story.add(f"withheld-{number}", pools=pool, addresses=withheld).code == OUTSIDE
    # The CNI call speaks for its interface, and goes before the annotation.
    answer = story.add("three", pools=pool, addresses="10.100.13.77", ips=("10.100.13.78/24",))
    assert answer.addresses == ("10.100.13.78",)
    for owner in ("ReplicaSet", "ReplicaSet"):
        name = f"ranged-{len(story.place.get('pods', 'a-address'))}"
        assert story.add(name, owner=owner, pools=pool, addresses="10.100.13.90-10.100.13.91").addresses
    for ordinal in (1, 0):
        answer = story.add(f"db-{ordinal}", owner="StatefulSet", pools=pool, addresses="10.100.13.50-10.100.13.51")
        assert answer.addresses == (f"10.100.13.5{ordinal}",)


def test_the_audience_holds_for_who_asks_for_an_address(stage: Open) -> None:
    story = stage("a-audience")
    story.pools(other={"subnet": "10.100.15.0/24", "namespaces": ["elsewhere"]})
    refused = story.add("one", pools=story.pool("other"), addresses="10.100.15.5")
    assert refused.code == NO_POOL
    assert "does not list namespace a-audience" in refused.message
