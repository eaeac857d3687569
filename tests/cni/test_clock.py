"""Case 42 of docs/cni.md: the wall clock jumps by an hour while calls are under way, and nothing is decided by it."""

import os
import time
from pathlib import Path

import pytest

from berth_cni import spool
from berth_cni.frames import Request, encode_request
from tests.cni.stage import Shim, Stage, eventually, request


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
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
        frame = encode_request(Request(*request("DEL", "c1")))
        assert isinstance(frame, bytes)
        spool.folder(stage.socket).mkdir()
        (spool.folder(stage.socket) / "c1-eth0-1").write_bytes(frame)
        await stage.releaser.take_spool()
        await eventually(lambda: stage.api.containers() == ["c2"])
        assert await stage.delete("c2", uid="u2") == (0, {})
        # It was started before its DEL, however the clock stands.
        assert (await stage.call("ADD", "c2", Shim(pid=os.getpid()), uid="u2"))[1]["code"] == 11
        assert not stage.api.kept
