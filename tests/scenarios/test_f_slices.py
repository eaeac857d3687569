"""Slices: an application has a part of a pool to itself, and nobody has to write a pool for it."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import pytest

from e2e.cluster import Process
from e2e.cluster.shell import wait_for
from tests.scenarios.stage import BERTH, Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
EXHAUSTED, NO_POOL = 100, 103


class Deployment:
    """A Deployment and the ReplicaSets of its roll-outs, as objects; its Pods draw from the story's pools."""

    def __init__(self, story: Stage, name: str, **annotations: str) -> None:
        self.story, self.name = story, name
        self.annotations: dict[str, Any] = dict(annotations)
        self._reference = self._make("Deployment", name, None)
        self._replicaset: Object = {}
        self.roll_out()

    @property
    def application(self) -> str:
        return f"{self.story.namespace}/Deployment.apps/{self.name}"

    def roll_out(self, **annotations: str) -> None:
        self.annotations |= annotations
        number = int(self._replicaset.get("name", f"{self.name}-0").rpartition("-")[2]) + 1
        self._replicaset = self._make("ReplicaSet", f"{self.name}-{number}", self._reference)

    def add(self, pod: str) -> tuple[str, ...]:
        answer = self.story.add(f"{self.name}-{pod}", owner=self._replicaset, **self.annotations)
        return answer.addresses or (str(answer.code), answer.message)

    def delete(self) -> None:
        kubectl = self.story.place.plane.kubectl
        kubectl("delete", "deployment,replicaset", "-l", f"app={self.name}", "-n", self.story.namespace)

    def _make(self, kind: str, name: str, owner: Object | None) -> Object:
        labels = {"app": self.name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "none"}]}}
        owners = [] if owner is None else [owner]
        metadata = {"name": name, "namespace": self.story.namespace, "labels": labels, "ownerReferences": owners}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}
        printed = self.story.place.plane.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(body))
        uid = json.loads(printed)["metadata"]["uid"]
        return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def slices(story: Stage, key: str) -> dict[str, list[str]]:
    """What the API says who has which slice."""
    [pool] = [each for each in story.place.get("ippools") if each["metadata"]["name"] == story.pool(key)]
    found: dict[str, list[str]] = pool["status"]["ledger"].get("slices", {})
    return found


def test_each_application_has_a_slice_of_each_family_and_keeps_to_it(stage: Open) -> None:
    story = stage("f-apart", pools="f-apart-*")
    story.pools(
        four={"subnet": "10.110.0.0/24", "gateway": "10.110.0.1", "excludeIPs": ["10.110.0.4"], "slices": {"size": 4}},
        six={"subnet": "fd00:110::/64", "slices": {"size": 4}},
    )
    web, db = Deployment(story, "web"), Deployment(story, "db")
    assert web.add("a") == ("10.110.0.5", "fd00:110::1"), "not 2 and 3: a slice is in one piece where it can be"
    assert db.add("a") == ("10.110.0.9", "fd00:110::5")
    web.roll_out()
    assert web.add("b") == ("10.110.0.6", "fd00:110::2")
    assert slices(story, "four") == {
        web.application: ["10.110.0.5-10.110.0.8"],
        db.application: ["10.110.0.9-10.110.0.12"],
    }
    assert slices(story, "six") == {
        web.application: ["fd00:110::1-fd00:110::4"],
        db.application: ["fd00:110::5-fd00:110::8"],
    }
    refused = story.add("bare")
    assert refused.code == NO_POOL
    assert "is cut into slices for applications, and Pod bare has no controller" in refused.message


def test_a_full_slice_refuses_with_the_remedy_and_grows_when_asked_to(stage: Open) -> None:
    story = stage("f-full")
    story.pools(
        four={"subnet": "10.110.1.0/28", "slices": {"size": 2}, "default": True, "namespaces": [story.namespace]}
    )
    web, db = Deployment(story, "web"), Deployment(story, "db", pools="f-full-four", slice="8")
    assert [web.add("a"), web.add("b")] == [("10.110.1.1",), ("10.110.1.2",)]
    assert db.add("a") == ("10.110.1.3",)
    code, message = web.add("c")
    assert code == str(EXHAUSTED)
    assert (
        f"every address of the slice of {web.application} in pool f-full-four is held (10.110.1.1-10.110.1.2)"
        in message
    )
    assert "ask for more than 2 with annotation ipam.berth.dev/slice" in message
    wait_for("the Event", lambda: bool(story.place.get("events.v1.events.k8s.io", "f-full")), 10)
    web.roll_out(slice="4")
    assert web.add("d") == ("10.110.1.11",)
    assert slices(story, "four")[web.application] == ["10.110.1.1-10.110.1.2", "10.110.1.11-10.110.1.12"]
    code, message = Deployment(story, "log", pools="f-full-four", slice="3").add("a")
    assert code == str(EXHAUSTED)
    assert (
        "pool f-full-four has no room for a slice of 3 IPv4 addresses for f-full/Deployment.apps/log (2 uncut)"
        in message
    )


def test_a_slice_comes_back_with_its_application_and_shrinks_to_what_is_asked_for(stage: Open) -> None:
    story = stage("f-back", pools="f-back-four")
    story.pools(four={"subnet": "10.110.2.0/24", "slices": {"size": 4}})
    web, db, big = Deployment(story, "web"), Deployment(story, "db"), Deployment(story, "big", slice="8")
    for each in (web, db, big):
        each.add("a")
        each.add("b")
    story.end("web-a")
    story.end("web-b")
    story.end("db-a")
    story.end("db-b")
    db.delete()
    story.end("big-a")
    big.roll_out(slice="2")
    big.add("c")
    assert slices(story, "four")[big.application] == ["10.110.2.9-10.110.2.16"], "an old Pod still asks for 8"
    story.end("big-b")
    wait_for("the slice to shrink", lambda: len(slices(story, "four")[big.application]) == 2, 10)
    assert slices(story, "four")[big.application] == ["10.110.2.9", "10.110.2.11"], "the lowest, and the one in use"
    wait_for("the slice back", lambda: db.application not in slices(story, "four"), 30)
    assert slices(story, "four")[web.application] == ["10.110.2.1-10.110.2.4"], "scaled to nothing, it keeps its slice"
    log = Deployment(story, "log")
    assert log.add("a") == ("10.110.2.7",), "5 and 6 rest"
    assert slices(story, "four")[log.application] == ["10.110.2.5-10.110.2.8"]


def test_two_that_lead_at_once_cut_no_slice_twice(stage: Open) -> None:
    """Another operator, with a Lease of its own: each believes that it leads."""
    story = stage("f-two-leaders")
    story.pools(four={"subnet": "10.110.3.0/24", "slices": {"size": 4}})
    plane = story.place.plane
    command = [str(BERTH), "operator", "--kubeconfig", str(plane.kubeconfig), "--namespace", story.namespace]
    rival = Process("rival", command, plane.directory)
    rival.start()
    try:
        lease = ["get", "lease", "-n", story.namespace, "-o", "name"]
        wait_for("the rival to lead", lambda: bool(plane.kubectl(*lease).strip()), 20)
        applications = [Deployment(story, f"app-{number}", pools="f-two-leaders-four") for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            got = list(pool.map(lambda each: [each.add(str(pod))[0] for pod in range(3)], applications))
    finally:
        rival.stop()
    cut = slices(story, "four")
    every = [address for ranges in cut.values() for address in _each(ranges)]
    assert len(every) == len(set(every)) == 24
    for application, addresses in zip(applications, got, strict=True):
        assert set(addresses) <= set(_each(cut[application.application])), addresses


def _each(ranges: list[str]) -> list[str]:
    found: list[str] = []
    for text in ranges:
        first, _, last = text.partition("-")
        found += [
            str(ip_address(number)) for number in range(int(ip_address(first)), int(ip_address(last or first)) + 1)
        ]
    return found
