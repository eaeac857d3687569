"""A StatefulSet's Endpoint, as the agent frees it: it is parked, and nothing that comes late does more to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berth.kube.client import Object
from tests.cni.stage import ModelApi, Stage, Status, confirmed, eventually, refused


def kept(body: Object) -> Status:
    return {**confirmed("10.0.0.9/24"), "heldFor": {"kind": "StatefulSet", "name": "web", "uid": "set"}}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    api = ModelApi()
    api.decide = kept
    async with Stage(tmp_path, api) as stage:
        yield stage


async def test_a_del_takes_the_container_off_and_leaves_the_address(stage: Stage) -> None:
    assert (await stage.add("c1"))[0] == 0
    stage.api.requests.clear()
    assert await stage.delete("c1") == (0, {})
    assert stage.api.requests == ["GET", "PUT"]
    assert stage.api.containers() == [""]
    assert stage.api.only()["status"]["addresses"]


async def test_dels_that_come_again_do_nothing(stage: Stage) -> None:
    await stage.add("c1")
    for _ in range(3):
        assert await stage.delete("c1") == (0, {})
    assert stage.api.containers() == [""]


async def test_the_next_sandbox_of_the_pod_has_it_at_once_and_the_old_del_leaves_it_alone(stage: Stage) -> None:
    await stage.add("c1")
    await stage.delete("c1")
    stage.api.decide = lambda _: None  # the operator has no say in it
    code, result = await stage.add("c2")
    assert code == 0
    assert [each["address"] for each in result["ips"]] == ["10.0.0.9/24"]
    assert await stage.delete("c1") == (0, {})
    assert stage.api.containers() == ["c2"]


async def test_a_garbage_collection_parks_what_is_dead_and_passes_over_what_is_parked(stage: Stage) -> None:
    await stage.add("c1")
    for _ in range(2):
        assert (await stage.call("GC", valid=[]))[0] == 0
        assert stage.api.containers() == [""]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_request_that_is_lost_is_made_up_for_by_the_journal(stage: Stage, method: str, when: str) -> None:
    await stage.add("c1")
    stage.api.lose(method, when)
    assert await stage.delete("c1") == (0, {})
    await eventually(lambda: stage.api.containers() == [""] and not len(stage.journal))


async def test_a_claim_that_is_parked_under_an_add_is_not_told_to_anybody(stage: Stage) -> None:
    """Its Pod was gone, and the operator has taken the container off."""
    stage.api.decide = lambda _: None
    shim, task = stage.start("ADD", "c1")
    await eventually(lambda: bool(stage.api.kept))
    [path] = stage.api.kept

    def confirm_parked(body: Object) -> None:
        body["spec"]["containerID"] = ""
        body["status"] = kept(body)

    stage.api.put(path, confirm_parked)
    await task
    code, error = shim.answered.result()
    assert (code, error["code"]) == (1, 11)
    assert "was taken off this Pod" in error["msg"]


async def test_what_was_refused_is_deleted_as_ever(stage: Stage) -> None:
    stage.api.decide = lambda _: refused("PoolExhausted", "none is free")
    assert (await stage.add("c1"))[0] == 1
    assert not stage.api.kept
