"""The agent's answers, as stories: each begins with an API that is well and tells what happens. Numbers are those of
the checklist (research/cni.md, section 1.5)."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import berth_cni.adding
import berth_cni.agent
import berth_cni.releasing
from berth_cni import spool
from berth_cni.frames import SENT, Request, encode_request
from tests.cni.stage import ModelApi, Shim, Stage, confirmed, eventually, refused, request


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path) as stage:
        yield stage


def addresses(answer: tuple[int, Any]) -> list[str]:
    code, result = answer
    assert code == 0, result
    return [each["address"] for each in result["ips"]]


# --- ADD


# 18, 23
async def test_an_add_is_one_request_and_the_result_is_all_it_prints(stage: Stage) -> None:
    stage.api.requests.clear()
    shim = Shim()
    assert len(addresses(await stage.call("ADD", "c1", shim, version="0.4.0"))) == 1
    assert stage.api.requests == ["POST"]
    assert json.loads(shim.stdout)["ips"][0]["version"] == "4"
    assert stage.api.only()["spec"] == {
        "pod": {"name": "web-0", "uid": "pod-uid"},
        "node": "node-1",
        "network": "net",
        "interface": "eth0",
        "containerID": "c1",
    }


# 25, 26
async def test_two_families_routes_and_dns_are_in_one_result(stage: Stage) -> None:
    stage.api.decide = lambda _: confirmed("10.0.0.9/24", "fd00::9/64")
    code, result = await stage.add("c1", dns={"nameservers": ["10.0.0.2"]})
    assert addresses((code, result)) == ["10.0.0.9/24", "fd00::9/64"]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]
    assert result["dns"] == {"nameservers": ["10.0.0.2"]}


# 27
async def test_each_interface_and_each_network_of_a_pod_has_an_address_of_its_own(stage: Stage) -> None:
    answers = [
        await stage.add("c1"),
        await stage.add("c1", interface="net1"),
        await stage.add("c1", network="other"),
    ]
    assert len({addresses(each)[0] for each in answers}) == 3


# 28
async def test_an_add_asked_twice_has_one_address(stage: Stage) -> None:
    assert addresses(await stage.add("c1")) == addresses(await stage.add("c1"))
    assert len(stage.api.kept) == 1


# 29, 52
async def test_a_sandbox_made_again_keeps_the_address_and_the_old_ones_del_does_not_free_it(stage: Stage) -> None:
    first = addresses(await stage.add("c1"))
    assert addresses(await stage.add("c2")) == first
    assert await stage.delete("c1") == (0, {})
    assert stage.api.containers() == ["c2"]
    assert await stage.delete("c2") == (0, {})
    assert not stage.api.kept


# 30
async def test_a_pod_of_the_same_name_is_another_pod(stage: Stage) -> None:
    assert addresses(await stage.add("c1", uid="u1")) != addresses(await stage.add("c2", uid="u2"))


async def test_another_address_asked_for_by_the_same_pod_is_claimed_anew(stage: Stage) -> None:
    await stage.add("c1")
    stage.api.decide = lambda body: confirmed(f"{body['spec']['addresses'][0]}/24")
    assert addresses(await stage.add("c2", runtimeConfig={"ips": ["10.0.0.200"]})) == ["10.0.0.200/24"]
    assert stage.api.containers() == ["c2"]


# 32
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("PoolExhausted", 100),
        ("AddressTaken", 101),
        ("AddressOutside", 102),
        ("NoMatchingPool", 103),
        ("PoolNotFound", 103),
        ("PoolUnsuitable", 103),
        ("BadAnnotation", 105),
    ],
)
async def test_a_refusal_says_why_and_leaves_nothing(stage: Stage, reason: str, code: int) -> None:
    stage.api.decide = lambda _: refused(reason, "pool blue has no free IPv4 address: add ips")
    exit_code, error = await stage.add("c1", version="1.0.0")
    assert exit_code == 1
    assert error == {
        "cniVersion": "1.0.0",
        "code": code,
        "msg": "pool blue has no free IPv4 address: add ips",
        "details": reason,
    }
    assert not stage.api.kept


async def test_a_claim_refused_long_ago_is_not_held_against_a_new_add(stage: Stage) -> None:
    stage.api.decide = lambda _: refused("PoolExhausted", "none is free")
    stage.api.lose("DELETE", "before", 1)
    await stage.add("c1")
    stage.api.decide = lambda _: confirmed("10.0.0.9/24")
    assert addresses(await stage.add("c2")) == ["10.0.0.9/24"]


# 37
async def test_an_operator_that_is_away_is_named_at_the_deadline(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(berth_cni.adding, "ADD_SECONDS", 0.2)
    monkeypatch.setattr(berth_cni.agent, "ADD_SECONDS", 0.2)
    stage.api.decide = lambda _: None
    code, error = await stage.add("c1")
    assert (code, error["code"]) == (1, 11)
    assert "is berth-operator running?" in error["msg"]
    await eventually(lambda: not stage.api.kept)


@pytest.mark.parametrize(
    "story", ["it was taken off", "etcd was restored, and it is confirmed anew with another address"]
)
async def test_an_add_that_took_long_does_not_answer_with_what_is_not_so_any_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    """Its watch is behind: it shows the confirmation, and not what came after."""
    monkeypatch.setattr(berth_cni.adding, "_FRESH_SECONDS", 0.0)

    def after() -> None:
        if story == "it was taken off":
            stage.api.kept.clear()
        else:
            stage.api.only()["status"] = confirmed("10.0.0.8/24")

    def confirm(_: Any) -> Any:
        asyncio.get_running_loop().call_soon(after)
        return confirmed("10.0.0.9/24")

    stage.api.decide = confirm
    code, error = await stage.add("c1")
    assert (code, error["code"]) == (1, 11)
    assert "was taken off this Pod" in error["msg"]


async def test_an_api_that_is_away_is_waited_for_until_the_deadline(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(berth_cni.adding, "ADD_SECONDS", 0.3)
    monkeypatch.setattr(berth_cni.agent, "ADD_SECONDS", 0.3)
    stage.api.go_away()
    code, error = await stage.add("c1")
    assert (code, error["code"]) == (1, 11)
    assert "API server does not answer" in error["msg"]


async def test_an_api_that_comes_back_in_time_is_no_trouble(stage: Stage) -> None:
    stage.api.lose("POST", "before", 2)
    assert addresses(await stage.add("c1"))


async def test_a_creation_whose_answer_was_lost_is_found_and_not_made_twice(stage: Stage) -> None:
    stage.api.lose("POST", "after")
    assert addresses(await stage.add("c1"))
    assert len(stage.api.kept) == 1


async def test_a_creation_given_up_that_lands_late_is_taken_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(berth_cni.adding, "ADD_SECONDS", 0.05)
    monkeypatch.setattr(berth_cni.agent, "ADD_SECONDS", 0.05)
    landed: list[str] = []
    stage.api.decide = lambda body: landed.append(body["spec"]["containerID"])
    stage.api.lose("POST", "late")
    assert (await stage.add("c1"))[1]["code"] == 11
    await eventually(lambda: "DELETE" in stage.api.requests)
    await eventually(lambda: not stage.api.kept)


async def test_an_endpoint_of_that_name_that_is_another_pods_is_left_alone(stage: Stage) -> None:
    await stage.add("c1")
    (path,) = stage.api.kept
    stage.api.put(path, lambda body: body["spec"]["pod"].update(uid="other"))
    code, error = await stage.add("c2")
    assert (code, error["code"]) == (1, 11)
    assert "belongs to Pod other" in error["msg"]
    assert stage.api.containers() == ["c1"]


# --- callers that die, DELs that overtake


# 39, 40
async def test_a_caller_that_dies_while_it_waits_leaves_nothing(stage: Stage) -> None:
    stage.api.decide = lambda _: None
    shim, task = stage.start("ADD", "c1")
    await eventually(lambda: bool(stage.api.kept))
    shim.die()
    await task
    assert not stage.api.kept


async def test_a_caller_that_dies_before_it_has_the_answer_leaves_nothing(stage: Stage) -> None:
    await stage.call("ADD", "c1", Shim(acknowledges=False))
    assert not stage.api.kept


async def test_a_caller_that_dies_leaves_the_address_that_its_pod_had_before(stage: Stage) -> None:
    await stage.add("c1")
    await stage.call("ADD", "c2", Shim(acknowledges=False))
    assert stage.api.containers() == ["c2"]


async def test_a_dead_callers_address_is_taken_back_even_if_the_api_is_away_then(stage: Stage) -> None:
    shim = Shim(acknowledges=False)
    stage.api.lose("DELETE", "before", 3)
    await stage.call("ADD", "c1", shim)
    await eventually(lambda: not stage.api.kept)
    await eventually(lambda: not len(stage.journal))


# 41
async def test_a_del_overtakes_the_add_under_way(stage: Stage) -> None:
    stage.api.decide = lambda _: None
    shim, task = stage.start("ADD", "c1")
    await eventually(lambda: bool(stage.api.kept))
    assert await stage.delete("c1") == (0, {})
    assert not stage.api.kept
    await task
    code, error = shim.answered.result()
    assert (code, error["code"]) == (1, 11)
    assert "its DEL came" in error["msg"]


async def test_an_add_that_was_started_before_its_del_and_comes_after_gets_nothing(stage: Stage) -> None:
    assert await stage.delete("c1") == (0, {})
    code, error = await stage.call("ADD", "c1", Shim(pid=os.getpid()))
    assert (code, error["code"]) == (1, 11)
    assert "after the DEL" in error["msg"]
    assert not stage.api.kept


async def test_an_add_that_was_started_after_the_del_is_a_new_one(stage: Stage) -> None:
    await stage.add("c1")
    await stage.delete("c1")
    await asyncio.sleep(0.02)  # starts of processes are told in hundredths of a second
    younger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        assert addresses(await stage.call("ADD", "c1", Shim(pid=younger.pid)))
    finally:
        younger.kill()
        await younger.wait()


# --- DEL


# 44-46, 55
async def test_a_del_frees_its_own_interface_alone_and_may_come_again(stage: Stage) -> None:
    await stage.add("c1")
    await stage.add("c1", interface="net1")
    shim = Shim()
    assert await stage.call("DEL", "c1", shim) == (0, {})
    assert shim.stdout == b""
    assert [each["spec"]["interface"] for each in stage.api.kept.values()] == ["net1"]
    assert await stage.delete("c1") == (0, {})
    assert await stage.delete("never-added") == (0, {})


# 48-51
async def test_a_del_needs_neither_pod_nor_a_sound_configuration(stage: Stage) -> None:
    await stage.add("c1")
    assert await stage.delete("c1", cni_args="", ipam=5, prevResult=5) == (0, {})
    assert not stage.api.kept


async def test_a_del_meets_an_endpoint_that_somebody_wrote_to(stage: Stage) -> None:
    await stage.add("c1")
    (path,) = stage.api.kept
    shim, task = stage.start("DEL", "c1")
    stage.api.put(path, lambda body: body["metadata"].update(labels={"seen": "yes"}))
    await task
    assert shim.answered.result() == (0, {})
    assert not stage.api.kept


async def test_a_del_whose_answer_was_lost_is_done_all_the_same(stage: Stage) -> None:
    await stage.add("c1")
    stage.api.lose("DELETE", "after")
    assert await stage.delete("c1") == (0, {})
    await eventually(lambda: not stage.api.kept and not len(stage.journal))


# 53
async def test_a_del_while_the_api_is_away_succeeds_and_is_done_when_it_is_back(stage: Stage) -> None:
    await stage.add("c1")
    stage.api.go_away()
    assert await stage.delete("c1") == (0, {})
    assert len(stage.journal) == 1
    stage.api.away = False
    await eventually(lambda: not stage.api.kept and not len(stage.journal))


async def test_what_one_agent_has_promised_the_next_one_does(tmp_path: Path) -> None:
    api = ModelApi()
    async with Stage(tmp_path, api) as before:
        await before.add("c1")
        api.go_away()
        assert await before.delete("c1") == (0, {})
    api.away = False
    async with Stage(tmp_path, api) as after:
        await eventually(lambda: not api.kept and not len(after.journal))
    assert not list((tmp_path / "state" / "journal").iterdir())


async def test_an_add_comes_after_the_promised_del_of_the_same_attachment(tmp_path: Path) -> None:
    api = ModelApi()
    async with Stage(tmp_path, api) as stage:
        first = addresses(await stage.add("c1"))
        stage.journal.filled.clear()
        await stage.journal.add(await _attachment(stage))
        assert addresses(await stage.add("c1")) != first
        await asyncio.sleep(0.05)
        assert stage.api.containers() == ["c1"]
        assert not len(stage.journal)


async def _attachment(stage: Stage) -> Any:
    await eventually(lambda: len(stage.claims) == 1)
    (held,) = stage.claims.in_network("net")
    return held.attachment


async def test_a_full_journal_makes_a_del_fail_instead_of_losing_it(stage: Stage) -> None:
    stage.journal._most = 1
    stage.api.go_away()
    await eventually(lambda: not stage.reach.answers.is_set())
    assert (await stage.delete("c1"))[0] == 0
    code, error = await stage.delete("c2")
    assert (code, error["code"]) == (1, 11)
    assert "full" in error["msg"]


async def test_dels_that_the_shim_kept_are_done(tmp_path: Path) -> None:
    api = ModelApi()
    async with Stage(tmp_path, api) as stage:
        await stage.add("c1")
        await stage.add("c2", uid="u2")
    _spool(stage.socket, "c1")
    async with Stage(tmp_path, api) as stage:
        await eventually(lambda: api.containers() == ["c2"] and spool.pending(stage.socket) == [])


async def test_a_kept_del_is_done_before_an_add_of_the_same_attachment(stage: Stage) -> None:
    first = addresses(await stage.add("c1"))
    _spool(stage.socket, "c1")
    younger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        code, error = await stage.call("ADD", "c1", Shim(pid=younger.pid))
    finally:
        younger.kill()
        await younger.wait()
    assert addresses((code, error)) != first
    await asyncio.sleep(0.05)
    assert stage.api.containers() == ["c1"]


def _spool(socket: Path, container: str) -> None:
    environment, stdin = request("DEL", container)
    environment[SENT] = str(int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000))
    frame = encode_request(Request(environment, stdin))
    assert isinstance(frame, bytes)
    spool.folder(socket).mkdir(exist_ok=True)
    (spool.folder(socket) / f"{container}-eth0-1").write_bytes(frame)


# 54
async def test_a_hundred_adds_and_dels_at_once(stage: Stage) -> None:
    answers = await asyncio.gather(*(stage.add(f"c{n}", uid=f"u{n}") for n in range(100)))
    assert len({addresses(each)[0] for each in answers}) == 100
    assert {code for code, _ in await asyncio.gather(*(stage.delete(f"c{n}") for n in range(100)))} == {0}
    assert not stage.api.kept


# --- CHECK, GC, STATUS


# 56, 57
async def test_check_holds_the_result_against_what_is_held(stage: Stage) -> None:
    _, result = await stage.add("c1")
    assert await stage.call("CHECK", "c1", prevResult=result) == (0, {})
    more = {"ips": [*result["ips"], {"address": "192.0.2.1/32"}]}
    assert await stage.call("CHECK", "c1", prevResult=more) == (0, {})
    for container, previous in (("c1", {"ips": [{"address": "10.9.9.9/24"}]}), ("c2", result)):
        code, error = await stage.call("CHECK", container, prevResult=previous)
        assert (code, error["code"]) == (1, 104)
    await stage.delete("c1")
    assert (await stage.call("CHECK", "c1", prevResult=result))[1]["code"] == 104


# 58-61
async def test_gc_frees_what_is_not_listed_of_its_network_alone(stage: Stage) -> None:
    await stage.add("c1")
    await stage.add("c2", uid="u2")
    await stage.add("c3", uid="u3", network="other")
    assert await stage.call("GC") == (0, {})
    assert stage.api.containers() == ["c1", "c2", "c3"]
    listed = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "unknown", "ifname": "eth0"}]
    assert await stage.call("GC", valid=listed) == (0, {})
    assert stage.api.containers() == ["c1", "c3"]
    assert await stage.call("GC", valid=[]) == (0, {})
    assert stage.api.containers() == ["c3"]


# 62
async def test_gc_goes_on_after_an_error_and_reports_it(stage: Stage) -> None:
    await stage.add("c1")
    await stage.add("c2", uid="u2")

    stage.api.lose("DELETE", "before")
    code, error = await stage.call("GC", valid=[])
    assert (code, error["code"]) == (1, 11)
    await eventually(stage.reach.answers.is_set)
    assert (await stage.call("GC", valid=[]))[0] == 0
    assert not stage.api.kept


# 63
async def test_status_follows_the_api_and_costs_it_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.api.requests.clear()
    assert await stage.call("STATUS") == (0, {})
    assert stage.api.requests == []
    stage.api.go_away()
    await eventually(lambda: stage.reach.away_for > 0)
    assert await stage.call("STATUS") == (0, {}), "a moment without the API makes no node NotReady"
    monkeypatch.setattr(berth_cni.agent, "STATUS_PATIENCE_SECONDS", 0.0)
    code, error = await stage.call("STATUS")
    assert (code, error["code"]) == (1, 50)
    stage.api.away = False
    await eventually(lambda: stage.reach.away_for == 0)
    assert await stage.call("STATUS") == (0, {})


async def test_before_the_endpoints_are_known_an_add_waits_and_a_del_is_kept(tmp_path: Path) -> None:
    api = ModelApi()
    api.go_away()
    async with Stage(tmp_path, api) as stage:
        assert (await stage.call("STATUS"))[1]["code"] == 50
        assert (await stage.call("CHECK", "c1", prevResult={"ips": []}))[1]["code"] == 11
        assert await stage.delete("c1") == (0, {})
        shim, task = stage.start("ADD", "c2")
        await asyncio.sleep(0.05)
        assert not task.done()
        api.away = False
        await task
        assert shim.answered.result()[0] == 0


async def test_version_is_answered_without_the_api(tmp_path: Path) -> None:
    api = ModelApi()
    api.go_away()
    async with Stage(tmp_path, api) as stage:
        code, printed = await stage.call("VERSION", version="0.4.0")
    assert (code, printed["cniVersion"]) == (0, "0.4.0")


async def test_a_bug_is_an_answer_too(stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(stage.claims, "of", lambda attachment: 1 / 0)
    code, error = await stage.call("CHECK", "c1", prevResult={"ips": []})
    assert (code, error["code"]) == (1, 11)
    assert "could not be answered" in caplog.text


async def test_calls_are_counted_by_their_outcome(stage: Stage) -> None:
    await stage.add("c1")
    stage.api.decide = lambda _: refused("PoolExhausted", "none is free")
    await stage.add("c2", uid="u2")
    text = stage.metrics.text({"berth_agent_endpoints": ("Endpoints of this node.", 1)})
    assert 'berth_cni_request_duration_seconds_count{command="ADD",code="0"} 1' in text
    assert 'berth_cni_request_duration_seconds_count{command="ADD",code="100"} 1' in text
    assert "berth_agent_endpoints 1\n" in text
