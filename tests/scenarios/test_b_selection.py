"""Scenario B, selection: which pool may serve whom, and what is said when none may."""

import contextlib
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from berth.cli.main import main
from e2e.cluster.shell import wait_for
from tests.scenarios.stage import Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
NO_POOL, BAD_ANNOTATION = 103, 105


@pytest.mark.parametrize(
    ("audience", "fits", "why"),
    [
        ({"nodeNames": ["node-a"]}, {}, ""),
        ({"nodeNames": ["node-b"]}, {}, "does not list node node-a"),
        ({"nodeSelector": {"matchLabels": {"zone": "a"}}}, {}, ""),
        ({"nodeSelector": {"matchLabels": {"zone": "b"}}}, {}, "does not select node node-a"),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, {"labels": {"app": "web"}}, ""),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, {"labels": {"app": "db"}}, "does not select Pod one"),
        ({"networks": ["lan"]}, {}, ""),
        ({"networks": ["wan"]}, {}, "does not list network lan"),
        ({"namespaces": ["elsewhere"]}, {}, "does not list namespace"),
        ({"namespaceSelector": {"matchLabels": {"team": "none"}}}, {}, "does not select namespace"),
    ],
    ids=lambda value: next(iter(value), "none") if isinstance(value, dict) else None,
)
def test_a_pool_serves_those_it_is_for(
    stage: Open, request: pytest.FixtureRequest, audience: Object, fits: Object, why: str
) -> None:
    number = request.node.callspec.indices["audience"]
    story = stage(f"b-audience-{number}")
    story.pools(four={"subnet": f"10.101.{number}.0/24", **audience})
    answer = story.add("one", pools=story.pool("four"), **fits)
    if why:
        assert answer.code == NO_POOL
        assert f"{story.pool('four')} {why}" in answer.message
    else:
        assert answer.addresses == (f"10.101.{number}.1",)


def test_of_two_default_pools_the_narrower_one_serves_first(stage: Open) -> None:
    story = stage("b-narrow")
    own = {"default": True, "namespaces": ["b-narrow"]}
    story.pools(
        a_wide={"subnet": "10.101.20.0/24", **own},
        z_narrow={"subnet": "10.101.21.0/24", "nodeNames": ["node-a"], **own},
    )
    assert story.add("one").addresses == ("10.101.21.1",)
    assert story.add("two", node="node-b").addresses == ("10.101.20.1",)


def test_one_pool_serves_many_namespaces_and_one_namespace_has_many_pools(stage: Open) -> None:
    story = stage("b-many", pools="b-many-*")
    story.more_namespace("b-many-two")
    story.pools(
        one={"subnet": "10.101.22.0/24", "ips": ["10.101.22.1-10.101.22.2"], "namespaces": ["b-many", "b-many-two"]},
        two={"subnet": "10.101.23.0/24", "namespaces": ["b-many"], "nodeNames": ["node-b"]},
    )
    assert story.add("one").addresses == ("10.101.22.1",)
    assert story.add("two", namespace="b-many-two", pools="b-many-one").addresses == ("10.101.22.2",)
    assert story.add("three", node="node-b").addresses == ("10.101.23.1",)


def test_a_disabled_pool_grants_nothing_and_takes_back_what_it_gave(stage: Open) -> None:
    story = stage("b-disabled")
    story.pools(four="10.101.24.0/24")
    assert story.add("one", pools=story.pool("four")).addresses
    story.pools(ready=False, four={"subnet": "10.101.24.0/24", "disabled": True})
    refused = story.add("two", pools=story.pool("four"))
    assert refused.code == NO_POOL
    assert "is disabled" in refused.message or "is not Ready" in refused.message
    story.end("one")
    wait_for("the address back", lambda: _allocated(story, "four") == 0, 15)


def _allocated(story: Stage, key: str) -> int:
    [pool] = [each for each in story.place.get("ippools") if each["metadata"]["name"] == story.pool(key)]
    return int(pool["status"]["allocated"])


def test_a_bad_annotation_is_refused_with_the_reason_and_told_to_the_pod_once(stage: Open) -> None:
    story = stage("b-bad")
    story.pools(four="10.101.25.0/24")
    for _ in range(3):
        refused = story.add("one", pools="Blue")
        assert refused.code == BAD_ANNOTATION
        assert 'Pod annotation ipam.berth.dev/pools "Blue": "Blue" is no name of an IPPool' in refused.message
    wait_for("the Event", lambda: bool(story.place.get("events.v1.events.k8s.io", "b-bad")), 10)
    assert story.add("two", pools=story.pool("four")).addresses
    [event] = story.place.get("events.v1.events.k8s.io", "b-bad")
    assert event["regarding"]["name"] == "one"
    assert event["reason"] == "BadAnnotation"
    assert event["type"] == "Warning"
    assert "is no name of an IPPool" in event["note"]


def test_a_changed_annotation_takes_effect_for_the_next_pod_of_a_workload(stage: Open) -> None:
    story = stage("b-changed")
    story.pools(one="10.101.26.0/24", two="10.101.27.0/24")
    assert story.add("web-0", owner="StatefulSet", pools=story.pool("one")).addresses == ("10.101.26.1",)
    story.end("web-0")
    assert story.add("web-0", owner="StatefulSet", pools=story.pool("two")).addresses == ("10.101.27.1",)


def test_a_pods_own_metadata_counts_however_early_its_claim_comes(stage: Open) -> None:
    """Namespace, Pod and claim are made within milliseconds of each other, many at a time: none may be decided before
    the operator knows the Pod and the namespace."""
    story = stage("b-early")
    story.pools(
        default={"subnet": "10.101.28.0/24", "default": True, "namespaces": [f"b-early-{n}" for n in range(8)]},
        pod={"subnet": "10.101.29.0/24", "podSelector": {"matchLabels": {"app": "web"}}},
        namespace="10.101.30.0/24",
    )

    def one(number: int) -> list[str]:
        namespace = f"b-early-{number}"
        story.more_namespace(namespace, pools=story.pool("namespace"))
        by_pod = story.add("by-pod", namespace=namespace, labels={"app": "web"}, pools=story.pool("pod"))
        by_namespace = story.add("by-namespace", namespace=namespace)
        return [each.addresses[0].rsplit(".", 1)[0] for each in (by_pod, by_namespace)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(8))) == [["10.101.29", "10.101.30"]] * 8


def test_explain_says_what_the_pod_was_told(stage: Open) -> None:
    story = stage("b-explain")
    story.pools(four={"subnet": "10.101.31.0/24", "nodeNames": ["node-b"]}, other="10.101.32.0/24")
    pools = f"{story.pool('four')},{story.pool('other')}"
    assert story.add("one", pools=pools).addresses == ("10.101.32.1",)
    told = _printed(["explain", "one", "-n", "b-explain", "-o", "json"], story)
    [attachment] = told["attachments"]
    assert attachment["holds"]
    assert [(each["pool"], each["verdict"]) for each in attachment["pools"]] == [
        (story.pool("other"), "taken"),
        (story.pool("four"), "passed over"),
    ]
    told = _printed(["who", "10.101.32.1", "-o", "json"], story)
    assert [each["pod"] for each in told["holders"]] == ["one"]


def _printed(command: list[str], story: Stage) -> Object:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*command, "--kubeconfig", str(story.place.plane.kubeconfig)]) == 0
    told: Object = json.loads(out.getvalue())
    return told
