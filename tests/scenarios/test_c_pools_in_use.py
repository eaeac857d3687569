"""Scenario C, pools in use: what becomes of them, and of what Pods hold, with no webhook to refuse anything."""

import json
from collections.abc import Callable

import pytest

from e2e.cluster.shell import wait_for
from tests.scenarios.stage import Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
EXHAUSTED, NO_POOL = 100, 103
FINALIZER = "ipam.berth.dev/in-use"


def pool(story: Stage, key: str) -> Object | None:
    printed = story.place.plane.kubectl("get", "ippool", story.pool(key), "--ignore-not-found", "-o", "json")
    return json.loads(printed) if printed.strip() else None


def test_a_pool_that_is_deleted_in_use_stays_until_it_is_empty(stage: Open) -> None:
    story = stage("c-deleted")
    story.pools(four="10.102.200.0/24")
    assert story.add("one", pools=story.pool("four")).addresses == ("10.102.200.1",)
    assert FINALIZER in (pool(story, "four") or {})["metadata"]["finalizers"]
    story.place.plane.kubectl("delete", "ippool", story.pool("four"), "--wait=false")
    refused = story.add("two", pools=story.pool("four"))
    assert refused.code == NO_POOL
    kept = pool(story, "four")
    assert kept is not None
    assert kept["status"]["allocated"] == 1
    ready = next(each for each in kept["status"]["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Terminating")
    story.check()
    story.end("one")
    wait_for("the pool to go", lambda: pool(story, "four") is None, 30)


def test_an_empty_pool_goes_at_once_and_one_of_the_same_name_serves_after_it(stage: Open) -> None:
    story = stage("c-again")
    for _ in range(2):
        story.pools(four="10.102.201.0/24")
        story.place.plane.kubectl("delete", "ippool", story.pool("four"), timeout=20)
    story.pools(four="10.102.201.0/24")
    assert story.add("one", pools=story.pool("four")).addresses == ("10.102.201.1",)


def test_a_pool_that_is_emptied_while_nobody_leads_goes_when_somebody_does(stage: Open) -> None:
    story = stage("c-unled")
    story.pools(four="10.102.202.0/24")
    assert story.add("one", pools=story.pool("four")).addresses
    story.place.operator.kill()
    try:
        story.place.plane.kubectl("delete", "ippool", story.pool("four"), "--wait=false")
        story.end("one")
        assert pool(story, "four") is not None
    finally:
        story.place.operator.start()
    wait_for("the pool to go", lambda: pool(story, "four") is None, 60)


def test_a_pool_in_use_grows_and_serves_from_what_was_added(stage: Open) -> None:
    story = stage("c-grows")
    story.pools(four={"subnet": "10.102.203.0/24", "ips": ["10.102.203.7"]})
    assert story.add("one", pools=story.pool("four")).addresses == ("10.102.203.7",)
    assert story.add("two", pools=story.pool("four")).code == EXHAUSTED
    story.pools(four={"subnet": "10.102.203.0/24", "ips": ["10.102.203.7", "10.102.203.3"]})
    assert story.add("two").addresses == ("10.102.203.3",)


def test_a_reservation_of_an_address_in_use_names_it_and_holds_once_its_pod_is_gone(stage: Open) -> None:
    story = stage("c-reserved")
    story.pools(four={"subnet": "10.102.204.0/24", "ips": ["10.102.204.1-10.102.204.2"], "reuseDelay": "0s"})
    assert story.add("one", pools=story.pool("four")).addresses == ("10.102.204.1",)
    story.reserve("10.102.204.1", "10.102.204.2")
    [reserved] = [each for each in story.place.get("reservedips") if each["metadata"]["name"] == "c-reserved"]
    assert [each["address"] for each in reserved["status"]["inUse"]] == ["10.102.204.1"]
    story.check()
    story.end("one")
    wait_for("the address back", lambda: (pool(story, "four") or {})["status"]["allocated"] == 0, 15)
    assert story.add("two", pools=story.pool("four")).code == EXHAUSTED
