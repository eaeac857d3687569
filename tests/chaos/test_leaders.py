"""Two operators as real processes: how long nobody leads, and that no leader that should be none does harm.

Each story ends with the invariant: what was given, Endpoints and ledgers say one thing, and all of it comes back.
"""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from e2e.cluster import ControlPlane, Process
from e2e.cluster.shell import wait_for
from tests.chaos.faults import LEASE_SECONDS
from tests.cni.fleet import Fleet, Story, fleet

pytestmark = pytest.mark.api
TAKE_OVER_SECONDS = 10.0
HAND_OVER_SECONDS = 3.0
ADDRESSES = 24
START_SECONDS = 3.0  # a standby says nothing of itself


@pytest.fixture(scope="module")
def two_nodes(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(api_server, tmp_path_factory.mktemp("fleet"), nodes=2) as made:
        yield made


@pytest.fixture
async def story(two_nodes: Fleet) -> AsyncIterator[Story]:
    async with two_nodes.story() as story:
        yield story


@pytest.fixture
def standby(two_nodes: Fleet) -> Iterator[Process]:
    """Of the same Lease as the fleet's operator, which leads."""
    wait_for("the fleet's operator as leader", lambda: _leader(two_nodes) == two_nodes.namespace, 20)
    with _another(two_nodes, two_nodes.namespace) as process:
        yield process
    two_nodes.operator.resume()
    if not two_nodes.operator.running:
        two_nodes.operator.start()


def _leader(fleet: Fleet) -> str:
    where = ["lease", "berth-operator", "--namespace", fleet.namespace, "--ignore-not-found"]
    return fleet.plane.kubectl("get", *where, "-o", "jsonpath={.spec.holderIdentity}").strip()


@pytest.fixture
def rival(two_nodes: Fleet) -> Iterator[Process]:
    """Of a Lease of its own: both lead."""
    with _another(two_nodes, "default") as process:
        yield process


@contextmanager
def _another(fleet: Fleet, namespace: str) -> Iterator[Process]:
    """A second operator, whose Lease is in `namespace`."""
    leading = fleet.operator
    own = ["--namespace", namespace, "--identity", "the-other"]
    argv = [*leading.argv[: leading.argv.index("--namespace")], *own]
    process = Process(f"{leading.name}-2", argv, leading.cluster, leading.env)
    process.start()
    try:
        time.sleep(START_SECONDS)
        process.check()
        yield process
    finally:
        process.stop(bound=5)


async def _timed_add(story: Story, container: str, pool: str) -> float:
    began = time.monotonic()
    await story.nodes[0].add(container, await story.pod(), pool)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("number", "most"), [(signal.SIGTERM, HAND_OVER_SECONDS), (signal.SIGKILL, TAKE_OVER_SECONDS)], ids=str
)
async def test_an_add_waits_for_the_next_leader_and_no_longer(
    story: Story, standby: Process, number: signal.Signals, most: float, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = await story.pool(["{}.10-{}.20"])
    await _timed_add(story, "before", pool)
    story.fleet.operator.signal(number)
    took = await _timed_add(story, "after", pool)
    with capsys.disabled():
        sys.stdout.write(f"\n{number.name}: the first ADD after it took {took:.1f} s\n")
    assert took < most
    await story.check()
    for container in ("before", "after"):
        await story.nodes[0].delete(container)
    await story.empty()


async def test_a_leader_that_was_stopped_for_longer_than_its_lease_does_no_harm(story: Story, standby: Process) -> None:
    pool = await story.pool([f"{{}}.10-{{}}.{9 + ADDRESSES}"])
    before = asyncio.ensure_future(_churn(story, pool, "before", rounds=1))
    await asyncio.sleep(0.2)
    story.fleet.operator.pause()
    await before
    during = asyncio.ensure_future(_churn(story, pool, "during", rounds=3))
    await asyncio.sleep(LEASE_SECONDS)
    story.fleet.operator.resume()
    await during
    await _churn(story, pool, "after", rounds=1)
    await story.check()
    await story.empty()


async def test_two_operators_that_both_lead_do_no_harm(story: Story, rival: Process) -> None:
    pool = await story.pool([f"{{}}.10-{{}}.{9 + ADDRESSES}"])
    await _churn(story, pool, "both", rounds=4)
    rival.pause()
    await _churn(story, pool, "one", rounds=1)
    rival.resume()
    await _churn(story, pool, "again", rounds=2)
    await story.check()
    await story.empty()


async def _churn(story: Story, pool: str, name: str, rounds: int) -> None:
    """The whole pool again and again; within a round each address is given once."""
    for number in range(rounds):
        pods = await story.pods(ADDRESSES)
        calls = [story.nodes[index % 2].add(f"{name}-{number}-{index}", pod, pool) for index, pod in enumerate(pods)]
        given = [address for (address,) in await asyncio.gather(*calls)]
        assert len(set(given)) == ADDRESSES, f"an address was given twice: {sorted(given)}"
        await asyncio.gather(*(story.nodes[i % 2].delete(f"{name}-{number}-{i}") for i in range(ADDRESSES)))
        await asyncio.gather(*(story.remove(pod) for pod in pods))
