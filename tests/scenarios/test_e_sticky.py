"""Scenario E, sticky: a StatefulSet's Pod has the address it had, as long as its set is to have that Pod."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from e2e.cluster.shell import wait_for
from tests.scenarios.stage import Answer, Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
TAINT = "node.kubernetes.io/out-of-service"


def endpoints(story: Stage) -> dict[str, Object]:
    """By Pod."""
    found = story.place.get("endpoints.ipam.berth.dev", story.namespace)
    return {each["spec"]["pod"]["name"]: each for each in found}


def held(story: Stage) -> set[str]:
    return set(endpoints(story))


def allocated(story: Stage, key: str) -> int:
    [pool] = [each for each in story.place.get("ippools") if each["metadata"]["name"] == story.pool(key)]
    return int(pool["status"]["allocated"])


def test_a_restart_keeps_the_address_on_the_same_node_and_on_another(stage: Open) -> None:
    story = stage("e-restart")
    story.pools(four={"subnet": "10.104.0.0/24", "reuseDelay": "0s"}, six={"subnet": "fd14::/120", "reuseDelay": "0s"})
    named: Object = {"owner": "StatefulSet", "pools": f"{story.pool('four')},{story.pool('six')}"}
    story.stateful_set("db", 2)
    assert story.add("db-0", **named).addresses == ("10.104.0.1", "fd14::1")
    assert story.add("db-1", **named).addresses == ("10.104.0.2", "fd14::2")
    for node in ("node-a", "node-b"):
        story.end("db-0")
        story.check()
        parked = endpoints(story)["db-0"]
        assert parked["spec"]["containerID"] == ""
        assert parked["status"]["heldFor"]["name"] == "db"
        # Nobody else gets it meanwhile.
        assert story.add(f"web-{node}", pools=story.pool("four")).addresses != ("10.104.0.1",)
        story.end(f"web-{node}")
        assert story.add("db-0", node=node, **named).addresses == ("10.104.0.1", "fd14::1")
        assert endpoints(story)["db-0"]["spec"]["node"] == node
        story.check()


def test_a_sandbox_made_again_after_its_del_has_the_same_address(stage: Open) -> None:
    story = stage("e-sandbox")
    story.pools(four={"subnet": "10.104.1.0/24", "reuseDelay": "0s"})
    first = story.add("db-0", owner="StatefulSet", pools=story.pool("four")).addresses
    before = endpoints(story)["db-0"]["metadata"]["uid"]
    story.release(story.take_calls("db-0"))
    assert endpoints(story)["db-0"]["spec"]["containerID"] == ""
    assert story.add("db-0").addresses == first
    assert endpoints(story)["db-0"]["metadata"]["uid"] == before


def test_a_pod_that_asks_for_something_else_gets_it_and_what_it_had_is_free(stage: Open) -> None:
    story = stage("e-changed")
    story.pools(
        one={"subnet": "10.104.2.0/24", "ips": ["10.104.2.1"]},
        two="10.104.3.0/24",
        wide={"subnet": "10.104.4.0/24", "reuseDelay": "0s"},
    )
    assert story.add("db-0", owner="StatefulSet", pools=story.pool("one")).addresses == ("10.104.2.1",)
    story.end("db-0")
    assert story.add("db-0", owner="StatefulSet", pools=story.pool("two")).addresses == ("10.104.3.1",)
    assert story.add("other", pools=story.pool("one")).addresses == ("10.104.2.1",)
    # The pool has changed: it does not hand the address out any more.
    assert story.add("db-1", owner="StatefulSet", pools=story.pool("wide")).addresses == ("10.104.4.1",)
    story.end("db-1")
    story.pools(wide={"subnet": "10.104.4.0/24", "reuseDelay": "0s", "excludeIPs": ["10.104.4.1"]})
    assert story.add("db-1", owner="StatefulSet", pools=story.pool("wide")).addresses == ("10.104.4.2",)
    # A Pod that is refused takes nothing away: its successor may be right again.
    story.end("db-1")
    assert story.add("db-1", owner="StatefulSet", pools="Blue").code
    story.end("db-1")
    assert story.add("db-1", owner="StatefulSet", pools=story.pool("wide")).addresses == ("10.104.4.2",)


def test_scaled_down_frees_unless_the_pool_retains_and_a_set_that_is_gone_frees_all(stage: Open) -> None:
    story = stage("e-scaled")
    story.pools(
        frees={"subnet": "10.104.5.0/24", "reuseDelay": "0s"},
        keeps={"subnet": "10.104.6.0/24", "reuseDelay": "0s", "retention": {"whenScaled": "Retain"}},
    )
    named: dict[str, Object] = {
        name: {"owner": "StatefulSet", "pools": story.pool(name)} for name in ("frees", "keeps")
    }
    for name in named:
        story.stateful_set(name, 3)
        for ordinal in range(3):
            assert story.add(f"{name}-{ordinal}", **named[name]).addresses
    for name in named:
        story.stateful_set(name, 1)
        for ordinal in (2, 1):
            story.end(f"{name}-{ordinal}")
    wait_for("what was scaled away", lambda: held(story) == {"frees-0", "keeps-0", "keeps-1", "keeps-2"}, 20)
    story.check()
    for name in named:
        story.stateful_set(name, 3)
    # Both were freed in one look, and are had by whoever comes.
    taken = {story.add("other", pools=story.pool("frees")).addresses, story.add("frees-2", **named["frees"]).addresses}
    assert taken == {("10.104.5.2",), ("10.104.5.3",)}
    assert story.add("keeps-2", **named["keeps"]).addresses == ("10.104.6.3",)
    # With the set, all goes: also what its pool retains.
    story.place.plane.kubectl("delete", "statefulset", "keeps", "-n", "e-scaled")
    story.end("keeps-2")
    wait_for("what nobody holds", lambda: "keeps-1" not in held(story) and "keeps-2" not in held(story), 10)
    assert held(story) >= {"keeps-0"}


def test_ordinals_count_from_where_the_set_begins(stage: Open) -> None:
    story = stage("e-ordinals")
    story.pools(four={"subnet": "10.104.7.0/24", "reuseDelay": "0s"})
    listed: Object = {"owner": "StatefulSet", "pools": story.pool("four"), "addresses": "10.104.7.50-10.104.7.51"}
    story.stateful_set("db", 2, start=5)
    assert story.add("db-5", **listed).addresses == ("10.104.7.50",)
    assert story.add("db-6", **listed).addresses == ("10.104.7.51",)
    refused = story.add("db-7", **listed)
    assert "takes the IPv4 address number 2, counted from 0" in refused.message
    story.end("db-6")
    story.end("db-5")
    story.stateful_set("db", 2, start=6)
    wait_for("the first one's address", lambda: held(story) == {"db-6"}, 20)
    assert story.add("db-6", **listed).addresses == ("10.104.7.50",)
    assert story.add("db-7", **listed).addresses == ("10.104.7.51",)


def test_two_sets_churn_on_one_pool_of_exactly_their_size(stage: Open) -> None:
    story = stage("e-churn")
    story.pools(four={"subnet": "10.104.8.0/24", "ips": ["10.104.8.1-10.104.8.6"]})
    named: Object = {"owner": "StatefulSet", "pools": story.pool("four")}
    pods = [f"{name}-{ordinal}" for name in ("a", "b") for ordinal in range(3)]
    story.stateful_set("a", 3)
    story.stateful_set("b", 3)
    with ThreadPoolExecutor(6) as threads:
        first = dict(zip(pods, threads.map(lambda pod: story.add(pod, **named).addresses, pods), strict=True))
        assert len(set(first.values())) == 6

        def restart(pod: str) -> tuple[str, ...]:
            for node in ("node-b", "node-a"):
                story.end(pod)
                answer = story.add(pod, node=node, **named)
                assert answer.addresses == first[pod], answer
            return answer.addresses

        assert len(set(threads.map(restart, pods))) == 6
    story.check()
    # One grows by what the other gives up: its ADD waits until that is free.
    story.stateful_set("a", 2)
    story.stateful_set("b", 4)
    story.end("a-2")
    assert story.add("b-3", **named).addresses == first["a-2"]


def test_nobody_has_it_while_the_old_container_may_run(stage: Open) -> None:
    """The nodes of this place have said nothing: they are not Ready."""
    story = stage("e-away")
    story.pools(four={"subnet": "10.104.9.0/24", "reuseDelay": "0s"})
    named: Object = {"owner": "StatefulSet", "pools": story.pool("four")}
    first = story.add("db-0", **named).addresses
    calls = story.forget("db-0")
    with ThreadPoolExecutor(1) as threads:
        coming: Future[Answer] = threads.submit(story.add, "db-0", node="node-b", **named)
        with pytest.raises(TimeoutError):
            coming.result(3)
        assert allocated(story, "four") == 1
        # The node is back, and its runtime cleans up.
        story.release(calls)
        assert coming.result(30).addresses == first


def test_a_pod_that_vanished_without_a_del_has_its_address_again(stage: Open) -> None:
    story = stage("e-vanished")
    story.pools(four={"subnet": "10.104.10.0/24", "reuseDelay": "0s"})
    named: Object = {"owner": "StatefulSet", "pools": story.pool("four")}
    taint = {"key": TAINT, "effect": "NoExecute", "value": "down"}
    first = story.add("db-0", **named).addresses
    story.place.plane.kubectl("patch", "node", "node-a", "-p", json.dumps({"spec": {"taints": [taint]}}))
    try:
        story.forget("db-0")
        wait_for("a parked Endpoint", lambda: endpoints(story)["db-0"]["spec"]["containerID"] == "", 20)
    finally:
        story.place.plane.kubectl("patch", "node", "node-a", "-p", json.dumps({"spec": {"taints": None}}))
    story.check()
    assert story.add("db-0", node="node-b", **named).addresses == first
