"""An election, and people who set the clock."""

import asyncio
import time
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes_asyncio.leaderelection.electionconfig import Config
from kubernetes_asyncio.leaderelection.leaderelectionrecord import LeaderElectionRecord

from berth.controller.clock import apart
from berth.controller.leadership import Idleness, SteadyElection

HOUR = 3600.0
LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 3, 2, 1


class Lock:
    """A Lease in memory; `away`: nothing answers."""

    def __init__(self, identity: str, shared: dict[str, Any]) -> None:
        self.identity, self.name, self.namespace = identity, "lease", "default"
        self._shared = shared
        self.away = False

    async def get(self, name: str, namespace: str) -> Any:
        record = self._shared.get("record")
        return (record is not None), record

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        return await self.update(name, namespace, election_record)

    async def update(self, name: str, namespace: str, record: LeaderElectionRecord) -> bool:
        if not self.away:
            self._shared["record"] = record
        return not self.away


def _election(lock: Lock) -> SteadyElection:
    return SteadyElection(Config(lock, LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, lambda: asyncio.sleep(60), None))  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    real, set_to = time.time, SimpleNamespace(off=0.0)
    monkeypatch.setattr(time, "time", lambda: real() + set_to.off)
    return set_to


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_standby_takes_over_when_the_lease_is_over_whatever_its_clock_says(
    clock: SimpleNamespace, step: float
) -> None:
    leader = LeaderElectionRecord("a", "6", "then", "then")
    standby = _election(Lock("b", {"record": leader}))
    assert not await standby.try_acquire_or_renew()
    clock.off = step
    began = time.monotonic()
    async with asyncio.timeout(3 * LEASE_SECONDS):
        while not await standby.try_acquire_or_renew():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.02)
    assert time.monotonic() - began > LEASE_SECONDS / 2


async def test_a_leader_that_cannot_renew_stops_though_its_clock_is_set_back(clock: SimpleNamespace) -> None:
    lock = Lock("a", {"record": LeaderElectionRecord("a", "6", "then", "then")})
    leader = _election(lock)
    assert await leader.try_acquire_or_renew()
    lock.away = True
    asyncio.get_running_loop().call_later(0.5, setattr, clock, "off", -HOUR)
    async with asyncio.timeout(3 * RENEW_SECONDS):
        await leader.renew_loop()


@pytest.mark.parametrize(
    ("story", "readings", "idle"),
    [
        # since boot, the Lease as it was renewed, and how old that is by the wall clock
        ("seen once, its own time tells", [(100.0, "a", 7.0)], 7.0),
        ("seen for long, whatever the wall clock says", [(100.0, "a", 1.0), (190.0, "a", HOUR)], 91.0),
        ("renewed since, and the clock was set", [(100.0, "a", 1.0), (101.0, "b", HOUR)], 1.0),
        ("the API was away: renewed at once, or just now", [(100.0, "a", 1.0), (180.0, "b", 0.0)], 80.0),
        ("and then nobody renewed it", [(100.0, "a", 1.0), (101.0, "b", HOUR), (171.0, "b", HOUR)], 71.0),
        ("it never was", [(100.0, None, 0.0), (170.0, None, 0.0)], 0.0),
    ],
)
def test_how_long_nobody_led_is_measured_by_a_clock_that_nobody_sets(
    story: str, readings: list[tuple[float, str | None, float]], idle: float
) -> None:
    moment = SimpleNamespace(clock=0.0, age=0.0)
    idleness = Idleness(lambda: moment.clock, lambda _: moment.age)
    for moment.clock, renewed, moment.age in readings:
        told = idleness.read(renewed)
    assert told == idle, story


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_lease_of_an_hour_ago_and_one_of_in_an_hour_are_as_doubtful(step: float) -> None:
    written = str(datetime.now() + timedelta(seconds=step))
    assert apart(written) == pytest.approx(HOUR, abs=60)
