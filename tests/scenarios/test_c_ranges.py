"""Scenario C, ranges: what a pool hands out, what it never does, and what becomes of a pool that cannot be."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2e.cluster.shell import wait_for
from tests.scenarios.stage import API, Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
EXHAUSTED = 100


def test_what_is_reserved_excluded_or_the_gateway_is_never_handed_out(stage: Open) -> None:
    story = stage("c-withheld")
    story.reserve("10.102.0.2")
    story.pools(four={"subnet": "10.102.0.0/29", "gateway": "10.102.0.1", "excludeIPs": ["10.102.0.3-10.102.0.4"]})
    answers = [story.add(f"pod-{number}", pools=story.pool("four")) for number in range(3)]
    assert [each.addresses for each in answers] == [("10.102.0.5",), ("10.102.0.6",), ()]
    assert answers[2].code == EXHAUSTED


def test_a_new_gateway_and_new_routes_reach_new_pods_only(stage: Open) -> None:
    story = stage("c-routes")
    story.pools(four="10.102.1.0/24")
    first = story.add("one", pools=story.pool("four"))
    assert "gateway" not in first.result["ips"][0]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.102.1.253"}]
    story.pools(four={"subnet": "10.102.1.0/24", "gateway": "10.102.1.254", "routes": routes})
    second = story.add("two", pools=story.pool("four"))
    assert second.result["ips"][0]["gateway"] == "10.102.1.254"
    assert {each["dst"] for each in second.result["routes"]} == {"0.0.0.0/0", "192.168.0.0/16"}
    [endpoint] = [
        each for each in story.place.get("endpoints.ipam.berth.dev", "c-routes") if each["spec"]["pod"]["name"] == "one"
    ]
    assert "gateway" not in endpoint["status"]["addresses"][0]


@pytest.mark.parametrize(
    ("subnet", "first", "total"),
    [
        ("fd11::/48", "fd11::1", str(2**80 - 1)),
        ("fd12::/120", "fd12::1", 255),
        ("fd13::/127", "fd13::", 2),
        ("fd14::/128", "fd14::", 1),
        ("10.102.2.0/31", "10.102.2.0", 2),
        ("10.102.2.2/32", "10.102.2.2", 1),
    ],
)
def test_pools_of_any_size_count_right_and_serve(
    stage: Open, request: pytest.FixtureRequest, subnet: str, first: str, total: int | str
) -> None:
    story = stage(f"c-size-{request.node.callspec.indices['subnet']}")
    story.pools(any=subnet)
    assert story.add("one", pools=story.pool("any")).addresses == (first,)
    [pool] = [each for each in story.place.get("ippools") if each["metadata"]["name"] == story.pool("any")]
    assert pool["status"]["total"] == total


def test_of_a_hundred_equal_pools_made_at_once_exactly_one_serves_and_the_others_say_why(stage: Open) -> None:
    """No webhook is here to help: this is what the operator alone holds."""
    story = stage("c-hundred")
    names = [f"c-hundred-{number}" for number in range(100)]
    story._pools += names

    def make(some: list[str]) -> None:
        spec = {"subnet": "10.102.3.0/24"}
        items = [{"apiVersion": API, "kind": "IPPool", "metadata": {"name": name}, "spec": spec} for name in some]
        story.place.plane.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, [names[start::4] for start in range(4)]))
    wait_for("all to be judged", lambda: all(_ready(each) is not None for each in _of(story, names)), 60)
    judged = [_ready(each) for each in _of(story, names)]
    ready = [each for each in judged if each is not None and each["status"] == "True"]
    assert len(ready) == 1
    losers = [each for each in judged if each is not None and each["status"] == "False"]
    assert len(losers) == 99
    assert {each["reason"] for each in losers} == {"Overlap"}
    assert all("10.102.3." in each["message"] or "serves some of the same" in each["message"] for each in losers)
    assert story.add("one", pools="c-hundred-*").addresses == ("10.102.3.1",)


def _of(story: Stage, names: list[str]) -> list[Object]:
    return [each for each in story.place.get("ippools") if each["metadata"]["name"] in names]


def _ready(pool: Object) -> Object | None:
    conditions: list[Object] = (pool.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == "Ready"), None)


def test_pools_are_made_and_deleted_in_numbers(stage: Open) -> None:
    story = stage("c-batch")
    many: dict[str, Any] = {f"p{number}": f"10.102.{100 + number}.0/24" for number in range(30)}
    story.pools(**many)
    assert story.add("one", pools=story.pool("p29")).addresses == ("10.102.129.1",)
