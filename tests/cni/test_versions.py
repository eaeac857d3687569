"""Upgrade and downgrade: shims and agents of different versions meet, with Pods running and calls under way.

An older shim is this one without what was added last; a newer one is this one, made to speak the next version of the
protocol. Both are compiled here, from this tree's source.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from berth_cni import spool
from berth_cni.frames import SENT, Request
from berth_cni.install import install
from berth_cni.server import Server
from berth_cni.underway import Caller, Underway
from e2e.cluster import ControlPlane
from tests.cni.fleet import Fleet, fleet, told
from tests.cni.relay import PLUGIN, RESULT, Outcome, configuration, run, variables

SOURCE = PLUGIN / "shim" / "berth.c"
STAMP = f'    env_size = (size_t)snprintf(request.body, ENV_MAX, "{SENT}=%lld", now()) + 1;\n'


def compiled(folder: Path, name: str, old: str, new: str) -> Path:
    text = SOURCE.read_text()
    assert text.count(old) == 1
    (folder / f"{name}.c").write_text(text.replace(old, new))
    flags = ["-std=c11", "-D_GNU_SOURCE", '-DBERTH_VERSION="test"', "-Os", "-static"]
    made = folder / name
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *flags, "-o", made, f"{made}.c"], check=True)
    return made


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("older"), "berth", STAMP, "")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its requests are "BRT2"; the form of a reply is the same for ever."""
    sent = "request.head = (struct header){htonl(MAGIC)"
    return compiled(tmp_path_factory.mktemp("newer"), "berth", sent, sent.replace("MAGIC", "MAGIC + 1"))


@pytest.fixture
async def server(path: Path) -> AsyncIterator[None]:
    """An agent's front, which has one answer for all."""

    async def answer(request: Request, caller: Caller, underway: Underway) -> None:
        await caller.deliver(0, RESULT, acknowledged=request.environment["CNI_COMMAND"] == "ADD")

    serving = Server(path, answer)
    await serving.start()
    yield
    await serving.stop(1)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.usefixtures("server")
async def test_a_shim_of_another_version_gets_a_right_answer_or_one_clear_error(
    shim: Path, older: Path, newer: Path, path: Path, command: str
) -> None:
    stdin = configuration(path, filler="x" * 200_000)
    for each in (shim, older):
        assert await asyncio.to_thread(run, each, variables(command), stdin) == Outcome(0, RESULT)
    error = (await asyncio.to_thread(run, newer, variables(command), stdin)).error
    assert error["code"] == 11
    assert error["details"] == "the request is of version BRT2, this agent speaks BRT1"
    assert "install the shim that came with the agent (--install-shim)" in error["msg"]
    assert not spool.folder(path).exists()


def test_a_newer_shims_del_waits_in_the_spool_for_a_newer_agent(shim: Path, newer: Path, path: Path) -> None:
    assert run(newer, variables("DEL"), configuration(path)) == Outcome(0, b"")
    assert run(shim, variables("DEL", CNI_IFNAME="net1"), configuration(path)) == Outcome(0, b"")
    for _ in range(2):
        assert [each.request.environment["CNI_IFNAME"] for each in spool.pending(path)] == ["net1"]
    assert len(list(spool.folder(path).iterdir())) == 2


@pytest.fixture(scope="module")
def one_node(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(api_server, tmp_path_factory.mktemp("fleet")) as made:
        yield made


# 22
@pytest.mark.api
async def test_the_shim_is_upgraded_and_downgraded_with_pods_running(
    one_node: Fleet, shim: Path, older: Path, tmp_path: Path
) -> None:
    async with one_node.story() as story:
        (node,), pool = story.nodes, await story.pool()
        pods = await story.pods(4)
        for before, after in ((older, shim), (shim, older)):
            node.shim = install(before, tmp_path)
            await node.add("running", pods[0], pool)
            one_node.operator.pause()
            try:
                adding = await node.spawn("ADD", "starting", pod=pods[1], pools=(pool,))
                await asyncio.sleep(0.2)
                install(after, tmp_path)
            finally:
                one_node.operator.resume()
            assert (await told(adding))[0] == 0
            await node.delete("running")
            # The agent goes too, and comes back: what one shim has kept, and what the other has.
            await node.add("kept", pods[2], pool)
            await node.add("kept-too", pods[3], pool)
            node.process.kill()
            node.process.stop()
            await node.delete("kept")
            install(before, tmp_path)
            await node.delete("kept-too")
            await asyncio.to_thread(node.start)
            async with asyncio.timeout(20):
                while await story.containers() != ["starting"]:  # noqa: ASYNC110 (what is waited for tells nobody)
                    await asyncio.sleep(0.1)
            await node.delete("starting")
        await story.empty()
