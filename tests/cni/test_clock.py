"""Case 42 of docs/cni.md: the wall clock jumps by an hour while calls are under way, and nothing is decided by it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from berth_cni import spool, underway
from berth_cni.frames import SENT, Request, encode_request
from tests.cni.stage import Shim, Stage, eventually, request

HOUR = 3600.0


def keep(stage: Stage, container: str, sent: float | None, written: float) -> None:
    """As a shim does. `sent`: seconds since boot, None from an older shim; `written`: by the wall clock then."""
    environment, stdin = request("DEL", container)
    if sent is not None:
        environment[SENT] = str(int(sent * 1000))
    frame = encode_request(Request(environment, stdin))
    assert isinstance(frame, bytes)
    folder = spool.folder(stage.socket)
    folder.mkdir(exist_ok=True)
    (folder / container).write_bytes(frame)
    os.utime(folder / container, (written, written))


def since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@asynccontextmanager
async def process() -> AsyncIterator[int]:
    """One started some hundredths of a second after what was before, and before what comes: the kernel counts those."""
    await asyncio.sleep(0.03)
    started = await asyncio.create_subprocess_exec("sleep", "60")
    await asyncio.sleep(0.03)
    try:
        yield started.pid
    finally:
        started.kill()
        await started.wait()


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_a_wall_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real = time.time
    async with Stage(tmp_path) as stage:
        shim, task = stage.start("ADD", "c1")
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        await task
        assert shim.answered.result()[0] == 0
        assert (await stage.add("c2", uid="u2"))[0] == 0
        keep(stage, "c1", since_boot(), real())
        await stage.releaser.take_spool()
        await eventually(lambda: stage.api.containers() == ["c2"])
        assert await stage.delete("c2", uid="u2") == (0, {})
        # It was started before its DEL, however the clock stands.
        assert (await stage.call("ADD", "c2", Shim(pid=os.getpid()), uid="u2"))[1]["code"] == 11
        assert not stage.api.kept


@pytest.mark.parametrize("jump", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize(
    ("sent", "given"),
    [
        (lambda: since_boot() - 60, True),
        (since_boot, False),
        # Of an older shim nothing is known, and what is from before a reboot reads like the future: then it is now.
        (lambda: None, False),
        (lambda: since_boot() + HOUR, False),
    ],
    ids=["a minute before the ADD", "after the ADD", "an older shim", "before a reboot"],
)
async def test_how_old_a_kept_del_is_is_not_read_from_the_wall_clock(
    tmp_path: Path, sent: Callable[[], float | None], given: bool, jump: float
) -> None:
    """A spooled DEL ends an ADD that was started before it, and no other, whenever its file says it was written."""
    async with Stage(tmp_path) as stage:
        async with process() as adding:
            keep(stage, "c1", sent(), time.time() + jump)
            code, answer = await stage.call("ADD", "c1", Shim(pid=adding))
        assert (code, answer.get("code")) == ((0, None) if given else (1, 11))
        # A later one is the newer in any case.
        async with process() as later:
            assert (await stage.call("ADD", "c1", Shim(pid=later)))[0] == 0


async def test_a_spooled_del_that_is_older_than_any_tombstone_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after ten minutes without an agent."""
    monkeypatch.setattr(underway, "_TOMBSTONE_SECONDS", 0.5)
    async with Stage(tmp_path) as stage:
        assert (await stage.add("c1"))[0] == 0
        keep(stage, "c1", since_boot() - 1, time.time() - 1)
        await stage.releaser.take_spool()
        await eventually(lambda: stage.api.containers() == [])
        assert (await stage.add("c2", uid="u2"))[0] == 0
