"""What a node holds is asserted again when its Endpoint vanishes, and only then."""

import asyncio
import copy
from pathlib import Path

import pytest

from berth.api.names import REASSERTED, STATIC_HASH
from berth.kube.client import Object
from berth.kube.resources import PODS
from tests.cni.stage import Shim, Stage, eventually

POD = PODS.path("web-0", namespace="default")


def pod(uid: str = "pod-uid", phase: str = "Running", **annotations: str) -> Object:
    return {"metadata": {"name": "web-0", "uid": uid, "annotations": annotations}, "status": {"phase": phase}}


async def quiet(stage: Stage) -> None:
    """A request takes a millisecond here."""
    await asyncio.sleep(0.05)
    await eventually(lambda: not stage.asserter._tasks)


async def somebody_deletes(stage: Stage) -> Object:
    path, gone = next(iter(stage.api.kept.items()))
    await stage.api.delete(path)
    await quiet(stage)
    return gone


@pytest.mark.parametrize(
    ("story", "there", "again"),
    [
        ("its Pod runs", pod(), True),
        ("a static Pod: its mirror runs", pod("mirror", **{STATIC_HASH: "pod-uid"}), True),
        ("its Pod is gone", None, False),
        ("another Pod of its name runs", pod("other"), False),
        ("its Pod has finished", pod(phase="Succeeded"), False),
    ],
)
async def test_an_endpoint_that_somebody_deletes_is_made_again_while_its_pod_runs(
    tmp_path: Path, story: str, there: Object | None, again: bool
) -> None:
    async with Stage(tmp_path) as stage:
        await stage.add("c1")
        if there is not None:
            stage.api.pods[POD] = there
        gone = await somebody_deletes(stage)
        assert bool(stage.api.kept) is again, story
        if again:
            made = stage.api.only()
            held = gone["status"]["addresses"][0]
            assert made["metadata"]["annotations"] == {REASSERTED: gone["metadata"]["uid"]}
            assert made["spec"]["addresses"] == [held["address"].partition("/")[0]]
            assert made["spec"]["ipv4Pools"] == [held["pool"]]
            assert made["spec"]["containerID"] == "c1"
            assert made["spec"]["pod"] == gone["spec"]["pod"]


async def test_what_a_new_list_no_longer_shows_is_made_again_even_if_its_pod_is_forgotten(tmp_path: Path) -> None:
    async with Stage(tmp_path) as stage:
        await stage.add("c1")
        stage.api.compact(without=next(iter(stage.api.kept)))
        await eventually(lambda: bool(stage.api.kept))
        assert REASSERTED in stage.api.only()["metadata"]["annotations"]


async def test_what_was_released_is_not_asserted(tmp_path: Path) -> None:
    async with Stage(tmp_path) as stage:
        stage.api.pods[POD] = pod()
        await stage.add("c1")
        await stage.delete("c1")
        await quiet(stage)
        assert (stage.api.kept, stage.asserter.count) == ({}, 0)


async def test_a_del_of_what_is_asserted_again_frees_it(tmp_path: Path) -> None:
    async with Stage(tmp_path) as stage:
        stage.api.pods[POD] = pod()
        await stage.add("c1")
        await stage.api.delete(next(iter(stage.api.kept)))
        assert (await stage.delete("c1"))[0] == 0
        await quiet(stage)
        assert stage.api.kept == {}


async def test_a_creation_without_an_answer_is_tried_again(tmp_path: Path) -> None:
    async with Stage(tmp_path) as stage:
        await stage.add("c1")
        stage.api.lose("POST", "before", 2)
        stage.api.compact(without=next(iter(stage.api.kept)))
        await eventually(lambda: bool(stage.api.kept))


async def test_after_a_restore_all_that_runs_is_asserted_and_what_ended_is_released(tmp_path: Path) -> None:
    """One ended since the backup, one began since, one has a new sandbox since, one is as it was."""
    async with Stage(tmp_path) as stage:
        for name in ("ends", "renews", "stays"):
            await stage.add(f"{name}-1", pod=name, uid=name)
        backup, version = copy.deepcopy(stage.api.kept), 40
        await stage.delete("ends-1")
        await stage.add("renews-2", pod="renews", uid="renews")
        await stage.delete("renews-1")
        await stage.add("begins-1", pod="begins", uid="begins")
        begun = next(each for each in stage.api.kept.values() if each["spec"]["containerID"] == "begins-1")
        for _ in range(100):
            stage.api.put(next(iter(stage.api.kept)), lambda body: None)
        stage.api.restore(backup, version)
        await eventually(lambda: stage.api.containers() == ["begins-1", "renews-2", "stays-1"])
        await quiet(stage)
        made = next(each for each in stage.api.kept.values() if each["spec"]["containerID"] == "begins-1")
        assert made["spec"]["addresses"] == [begun["status"]["addresses"][0]["address"].partition("/")[0]]
        assert stage.api.containers() == ["begins-1", "renews-2", "stays-1"]


async def test_a_claim_that_the_backup_has_unconfirmed_is_asserted_with_the_addresses_it_had(tmp_path: Path) -> None:
    """Else it would be confirmed anew, with an address that its container does not have."""
    async with Stage(tmp_path) as stage:
        await stage.add("c1")
        (path, confirmed), version = next(iter(stage.api.kept.items())), 1
        unconfirmed = {**copy.deepcopy(confirmed), "status": {}}
        unconfirmed["metadata"]["resourceVersion"] = str(version)
        stage.api.restore({path: unconfirmed}, version)
        await eventually(
            lambda: bool(stage.api.kept) and stage.api.only()["metadata"]["uid"] != confirmed["metadata"]["uid"]
        )
        made = stage.api.only()
        assert made["metadata"]["annotations"] == {REASSERTED: confirmed["metadata"]["uid"]}
        assert made["spec"]["addresses"] == [confirmed["status"]["addresses"][0]["address"].partition("/")[0]]
        assert made["spec"]["containerID"] == "c1"


async def test_an_add_under_way_when_etcd_is_restored_succeeds_when_asked_again(tmp_path: Path) -> None:
    async with Stage(tmp_path) as stage:
        await stage.add("c1")
        stage.api.decide = lambda body: None
        shim, task = stage.start("ADD", "c2", Shim(), pod="other", uid="other")
        await eventually(lambda: len(stage.api.kept) == 2)
        backup = {path: each for path, each in stage.api.kept.items() if each["spec"]["containerID"] == "c1"}
        stage.api.decide = stage.api._next
        stage.api.restore(backup, 1)
        await task
        assert shim.answered.result()[0] == 1
        assert (await stage.add("c2", pod="other", uid="other"))[0] == 0
