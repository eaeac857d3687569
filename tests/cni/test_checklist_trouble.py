"""The checklist of docs/cni.md where it hurts: pools that run dry, processes that die at any step, calls that cross.

Each story ends with nothing held: neither by an Endpoint nor by a ledger.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import ControlPlane
from tests.cni.fleet import HURRIED, Fleet, Story, bare, fleet, told

pytestmark = pytest.mark.api
# From before the shim has read its input to after an idle ADD is answered.
STEPS = [0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.13]


@pytest.fixture(scope="module")
def four_nodes(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(api_server, tmp_path_factory.mktemp("fleet"), nodes=4) as made:
        yield made


@pytest.fixture
async def story(four_nodes: Fleet) -> AsyncIterator[Story]:
    async with four_nodes.story() as story:
        yield story


# --- pools that run dry


# 31-33
async def test_two_hundred_adds_at_once_on_a_pool_of_two_hundred_and_then_one_more(story: Story) -> None:
    pool = await story.pool(["{}.11-{}.210"])
    pods = await story.pods(202)
    given = await asyncio.gather(
        *(story.nodes[number % 4].add(f"c{number}", pod, pool) for number, pod in enumerate(pods[:200]))
    )
    assert len({address for (address,) in given}) == 200
    await story.check()
    # 32: a machine that is busy may make one slow, not three
    taken = []
    for _ in range(3):
        began = time.monotonic()
        code, error = await story.nodes[0].call("ADD", "late", pod=pods[200], pools=(pool,))
        taken.append(time.monotonic() - began)
        assert (code, error["code"]) == (1, 100)
        assert pool in error["msg"]
    assert min(taken) < 1.0
    assert "late" not in await story.containers()
    await story.check()
    # 33: a Pod goes
    await story.nodes[3].delete("c7")
    await story.remove(pods[7])
    await story.until(lambda found: found["status"]["available"] == 1, pool)
    assert await story.nodes[1].add("next", pods[201], pool) == given[7]
    await asyncio.gather(*(story.nodes[number % 4].delete(f"c{number}") for number in range(200)))
    await story.nodes[1].delete("next")
    await story.empty(30)


# 24: all that a pool hands out, and nothing else
@pytest.mark.parametrize(
    ("subnet", "spec", "six", "lasts"),
    [
        ("{}.0/29", {"gateway": "{}.1", "excludeIPs": ["{}.3"]}, False, [2, 4, 5, 6]),
        ("{}.0/31", {}, False, [0, 1]),
        ("{}.9/32", {}, False, [9]),
        ("{}:10/127", {}, True, ["10", "11"]),
        ("{}:9/128", {}, True, ["9"]),
    ],
)
async def test_a_pool_is_handed_out_to_its_last_address(
    story: Story, subnet: str, spec: dict[str, Any], six: bool, lasts: list[int | str]
) -> None:
    node = story.nodes[0]
    pool = await story.pool(six=six, subnet=subnet, **spec)
    pods = await story.pods(len(lasts) + 1)
    given = [
        (await node.add(f"c{number}", pod, pool))[0].rpartition(":" if six else ".")[2]
        for number, pod in enumerate(pods[:-1])
    ]
    assert sorted(given) == sorted(str(each) for each in lasts)
    code, error = await node.call("ADD", "late", pod=pods[-1], pools=(pool,))
    assert (code, error["code"]) == (1, 100)
    await story.check()
    for number in range(len(lasts)):
        await node.delete(f"c{number}")
    await story.empty()


# 25: both families or none
async def test_two_families_are_given_together_or_not_at_all(story: Story) -> None:
    node = story.nodes[0]
    four, six = await story.pool(), await story.pool(["{}:5"], six=True)
    first, second = await story.pods(2)
    code, result = await node.call("ADD", "c1", pod=first, pools=(four, six))
    assert code == 0, result
    assert [":" in each for each in bare(result)] == [False, True]
    code, error = await node.call("ADD", "c2", pod=second, pools=(four, six))
    assert (code, error["code"]) == (1, 100)
    assert six in error["msg"]
    await story.until(lambda found: found["status"]["allocated"] == 1, four)
    assert await story.containers() == ["c1"]
    await story.check()
    await node.delete("c1")
    await story.empty()


# --- processes that die, calls that cross


# 38, 40, 46: the shim dies at some step, its DEL comes
async def test_a_shim_killed_at_any_step_and_its_del_leave_nothing(story: Story) -> None:
    node, pool = story.nodes[0], await story.pool()
    for number, (step, pod) in enumerate(zip(STEPS, await story.pods(len(STEPS)), strict=True)):
        shim = await node.spawn("ADD", f"c{number}", pod=pod, pools=(pool,))
        await asyncio.sleep(step)
        with contextlib.suppress(ProcessLookupError):
            shim.kill()
        await shim.communicate()
        await node.delete(f"c{number}")
    await _no_containers(story)
    await story.empty()


# 41: the DEL comes at some step of the ADD; the ADD goes on
async def test_a_del_at_any_step_of_its_add_leaves_nothing(story: Story) -> None:
    node, pool = story.nodes[0], await story.pool()
    for number, (step, pod) in enumerate(zip(STEPS, await story.pods(len(STEPS)), strict=True)):
        shim = await node.spawn("ADD", f"c{number}", pod=pod, pools=(pool,))
        await asyncio.sleep(step)
        await node.delete(f"c{number}")
        code, answer = await told(shim)
        assert code == 0 or answer["code"] == 11, answer
    await _no_containers(story)
    await story.empty()


# 38, 53: the agent dies at some step; the DEL comes before there is a new one
async def test_an_agent_killed_at_any_step_loses_no_del(story: Story) -> None:
    pool = await story.pool()
    for node, step in zip(story.nodes, (0.0, 0.01, 0.03, 0.08), strict=True):
        shim = await node.spawn("ADD", "c1", pod=await story.pod(), pools=(pool,))
        await asyncio.sleep(step)
        node.process.kill()
        await told(shim)
        await node.delete("c1")
    for node in story.nodes:
        node.process.start()
    for node in story.nodes:
        await asyncio.to_thread(node.serve)
    await _no_containers(story)
    await story.empty()


async def _no_containers(story: Story) -> None:
    async with asyncio.timeout(20):
        while await story.endpoints():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.1)


# --- those above are away


# 37, 5, 53, 63
async def test_an_api_server_that_hangs_is_code_11_in_time_and_dels_are_kept(four_nodes: Fleet, tmp_path: Path) -> None:
    with fleet(four_nodes.plane, tmp_path, agent=HURRIED, led_by=four_nodes.operator) as made:
        async with made.story() as story:
            (node,), (one, two) = story.nodes, await story.pods(2)
            pool = await story.pool()
            await node.add("c1", one, pool)
            server = made.plane.processes["kube-apiserver"]
            server.pause()
            try:
                assert (await node.call("VERSION"))[0] == 0
                began = time.monotonic()
                code, error = await node.call("ADD", "c2", pod=two, pools=(pool,))
                assert (code, error["code"]) == (1, 11)
                # Its deadline, and the ten seconds that its roll-back may take before it is kept for later.
                assert time.monotonic() - began < 15
                await node.delete("c1")
                began = time.monotonic()
                await node.call("STATUS")
                assert time.monotonic() - began < 1.0
            finally:
                server.resume()
            await _no_containers(story)
            await story.empty(30)


# 37: the operator is away; 77: and comes back
async def test_an_operator_that_is_away_is_code_11_in_time_and_no_leak(four_nodes: Fleet, tmp_path: Path) -> None:
    with fleet(four_nodes.plane, tmp_path, agent=HURRIED, led_by=four_nodes.operator) as made:
        async with made.story() as story:
            (node,), pod = story.nodes, await story.pod()
            pool = await story.pool()
            made.operator.pause()
            try:
                began = time.monotonic()
                code, error = await node.call("ADD", "c1", pod=pod, pools=(pool,))
                assert (code, error.get("code")) == (1, 11)
                assert "berth-operator" in error["msg"]
                assert time.monotonic() - began < 5
                assert await story.endpoints() == []
            finally:
                made.operator.resume()
            async with asyncio.timeout(20):
                while (await node.call("ADD", "c2", pod=pod, pools=(pool,)))[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await story.check()
            await node.delete("c2")
            await story.empty(30)
