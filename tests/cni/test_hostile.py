"""The agent's socket and callers that are strangers, slow, dead, many, or talk nonsense: none costs another anything.

The real server on a real socket; only what it does with a call is stood in for, by an answer at once.
"""

import asyncio
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from berth_cni import server as served
from berth_cni.frames import MAGIC, Reply, Request, decode_reply
from berth_cni.server import MOST_CONNECTIONS, Server
from berth_cni.underway import Caller, Underway

NOBODY = 65534
CALL = MAGIC + struct.pack(">II", 19, 2) + b"CNI_COMMAND=STATUS\0{}"


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    """Where anybody could go, so that it is the socket that keeps strangers out."""

    async def answer(request: Request, caller: Caller, underway: Underway) -> None:
        await caller.deliver(0, b"done", acknowledged=False)

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        server = Server(Path(folder) / "berth.sock", answer)
        await server.start()
        yield Path(folder) / "berth.sock"
        await server.stop(grace=1)


async def call(path: Path) -> Reply:
    """One that is as it should be."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(CALL)
    reply = decode_reply(await asyncio.wait_for(reader.read(), 5))
    writer.close()
    await writer.wait_closed()
    assert isinstance(reply, Reply)
    return reply


async def sent(path: Path, content: bytes) -> bytes:
    """What comes back before the server hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(content)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


AS_NOBODY = f"""
import os, socket, sys
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
caller = socket.socket(socket.AF_UNIX)
caller.settimeout(5)
try:
    caller.connect(sys.argv[1])
    caller.sendall(bytes.fromhex(sys.argv[2]))
    print("answered" if caller.recv(4096) else "cut off")
except PermissionError:
    print("not let in")
except (ConnectionResetError, BrokenPipeError):
    print("cut off")
"""


@pytest.mark.parametrize(("mode", "outcome"), [(None, "not let in"), (0o666, "cut off")])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_caller_of_another_user_gets_nothing_by_mode_nor_by_its_credentials(
    path: Path, mode: int | None, outcome: str
) -> None:
    if mode is not None:
        os.chmod(path, mode)
    asked = [sys.executable, "-c", AS_NOBODY, str(path), CALL.hex()]
    done = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, timeout=20)
    assert (done.stdout.strip(), done.stderr) == (outcome, "")
    assert (await call(path)).stdout == b"done"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(struct.pack(">4sII", MAGIC, 1 << 31, 0), id="an environment of 2 GiB"),
        pytest.param(struct.pack(">4sII", MAGIC, 0, 1 << 31), id="a configuration of 2 GiB"),
        pytest.param(struct.pack(">4sII", MAGIC, 4, 0) + b"oops", id="a bad environment"),
    ],
)
async def test_nonsense_is_cut_off_at_once_and_before_its_body_comes(path: Path, content: bytes) -> None:
    began = time.monotonic()
    assert await sent(path, content) == b""
    assert time.monotonic() - began < served.REQUEST_SECONDS / 2
    assert (await call(path)).stdout == b"done"


async def test_half_a_frame_and_one_that_never_ends_are_cut_off_in_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "REQUEST_SECONDS", 0.5)
    before = descriptors()
    assert await sent(path, CALL[:-1]) == b""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(struct.pack(">4sII", MAGIC, 1000, 0))
    began = time.monotonic()
    while time.monotonic() - began < 5 and not reader.at_eof():
        writer.write(b"x")  # a drop now and then keeps no connection open
        await asyncio.sleep(0.05)
    assert reader.at_eof() or reader.exception() is not None
    writer.close()
    await asyncio.sleep(0.1)
    assert descriptors() == before


async def test_a_thousand_that_say_nothing_hold_up_nobody_and_leave_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "REQUEST_SECONDS", 2.0)
    before = descriptors()
    silent: list[socket.socket] = []
    for _ in range(10):
        for _ in range(100):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            one.connect(str(path))
            silent.append(one)
        await asyncio.sleep(0)  # the server takes them in
        began = time.monotonic()
        assert (await call(path)).stdout == b"done"
        assert time.monotonic() - began < 1
    assert descriptors() - before <= len(silent) + MOST_CONNECTIONS
    for one in silent[::2]:
        one.close()  # dead; the others go on to say nothing
    await asyncio.sleep(2.5)
    for one in silent[1::2]:
        one.close()
    assert descriptors() == before
    assert (await call(path)).stdout == b"done"
