"""`berth agent` as it runs on a node: its own process, the compiled shim before it, a real API server behind it.

The operator is stood in for by a watch that confirms each Endpoint. Numbers are those of the checklist
(research/cni.md, section 1.5)."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from berth.kube.client import Change, Client, Listing, Object
from berth.kube.config import load
from berth.kube.errors import Conflict, NotFound
from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS
from berth_cni.frames import Request, encode_request
from e2e.cluster import ControlPlane
from e2e.cluster.controlplane import free_ports
from tests.cni.stage import confirmed, eventually, refused, request

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.api


class Operator:
    """Confirms whatever is claimed on one node."""

    def __init__(self, api: Client) -> None:
        self.decide: Callable[[Object], dict[str, Any] | None] = lambda _: self.next()
        self._api = api
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 10

    def next(self) -> dict[str, Any]:
        self._count += 1
        return confirmed(f"10.0.{self._count // 250}.{self._count % 250}/16")

    def replaced(self, listing: Listing) -> None:
        for item in listing.items:
            self.changed(Change("ADDED", item))

    def changed(self, change: Change) -> None:
        if change.kind == "ADDED" and "status" not in change.object:
            task = asyncio.ensure_future(self._confirm(change.object))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _confirm(self, body: Object) -> None:
        if (status := self.decide(body)) is None:
            return
        metadata = body["metadata"]
        path = ENDPOINTS.path(metadata["name"], namespace=metadata["namespace"], sub="status")
        with contextlib.suppress(NotFound, Conflict):
            await self._api.replace(path, {**body, "status": status})


@dataclass(slots=True)
class Node:
    """One agent, and what calls it."""

    name: str
    folder: Path
    shim: Path
    api: Client
    operator: Operator
    kubeconfig: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "berth.sock"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(Path(sys.executable).with_name("berth"), "agent"),
            *("--kubeconfig", str(self.kubeconfig), "--node", self.name, "--socket", str(self.socket)),
            *("--state-dir", str(self.folder / "state"), "--health-port", str(self.port)),
            *("--install-shim", str(self.folder / "bin")),
            cwd=ROOT,
        )
        await eventually(self.socket.exists, 20)
        async with asyncio.timeout(20):
            while (await self.call("STATUS"))[0]:  # noqa: ASYNC110 (what is waited for tells nobody)
                await asyncio.sleep(0.02)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    async def call(self, command: str, container: str = "", **about: Any) -> tuple[int, Any]:
        """Through the shim, with an environment of CNI_* alone (21)."""
        environment, stdin = request(command, container, ipam={"type": "berth", "socket": str(self.socket)}, **about)
        shim = await asyncio.create_subprocess_exec(
            self.shim, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(70):
            stdout, _ = await shim.communicate(stdin)
        assert shim.returncode is not None
        return shim.returncode, json.loads(stdout) if stdout else {}

    async def endpoints(self) -> list[Object]:
        return (await self.api.list(ENDPOINTS.path(), {"fieldSelector": f"spec.node={self.name}"})).items

    async def gone(self) -> None:
        async with asyncio.timeout(20):
            while await self.endpoints():  # noqa: ASYNC110 (what is waited for tells nobody)
                await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def shim() -> Path:
    subprocess.run(["make", "-s", "-C", ROOT / "cni-plugin" / "shim", f"PYTHON={sys.executable}"], check=True)
    return ROOT / "cni-plugin" / "bin" / "berth"


@pytest.fixture
async def node(api_server: ControlPlane, shim: Path, tmp_path: Path) -> AsyncIterator[Node]:
    async with Client(load(str(api_server.kubeconfig)), rate=1000, burst=1000) as api:
        operator, name = Operator(api), f"node-{uuid.uuid4().hex[:8]}"
        selector = {"fieldSelector": f"spec.node={name}"}
        following = asyncio.ensure_future(follow(api, ENDPOINTS.path(), operator, params=selector))
        port = free_ports("127.0.0.1", 1)[0]
        node = Node(name, tmp_path, shim, api, operator, api_server.kubeconfig, port)
        await node.start()
        try:
            yield node
        finally:
            await node.stop(signal.SIGKILL)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            for each in await node.endpoints():
                await api.delete(ENDPOINTS.path(each["metadata"]["name"], namespace="default"))


# 18, 23, 44-46, 55-57, 63
async def test_the_life_of_an_address(node: Node) -> None:
    assert await node.call("STATUS") == (0, {})
    code, result = await node.call("ADD", "c1", version="0.4.0")
    assert code == 0, result
    (address,) = result["ips"]
    assert address["version"] == "4"
    assert await node.call("CHECK", "c1", version="0.4.0", prevResult=result) == (0, {})
    assert [each["spec"]["containerID"] for each in await node.endpoints()] == ["c1"]
    assert await node.call("DEL", "c1", version="0.4.0") == (0, {})
    assert await node.endpoints() == []
    assert await node.call("DEL", "c1", version="0.4.0") == (0, {})
    code, error = await node.call("CHECK", "c1", prevResult=result)
    assert (code, error["code"]) == (1, 104)


# 28: by hand the container ID is the same each time
async def test_add_and_del_again_with_the_same_container_id(node: Node) -> None:
    for _ in range(3):
        assert (await node.call("ADD", "c1"))[0] == 0
        assert await node.call("DEL", "c1") == (0, {})
    assert await node.endpoints() == []


# 29, 52
async def test_the_sandbox_is_made_again(node: Node) -> None:
    _, first = await node.call("ADD", "c1")
    _, second = await node.call("ADD", "c2")
    assert first["ips"] == second["ips"]
    assert await node.call("DEL", "c1") == (0, {})
    assert [each["spec"]["containerID"] for each in await node.endpoints()] == ["c2"]


async def test_pools_and_addresses_reach_the_claim(node: Node) -> None:
    environment, stdin = request("ADD", "c1", runtimeConfig={"ips": ["10.0.0.5/16"]})
    ipam = {"type": "berth", "socket": str(node.socket), "ipv4Pools": ["blue"], "families": ["IPv4"]}
    process = await asyncio.create_subprocess_exec(
        node.shim, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    node.operator.decide = lambda _: confirmed("10.0.0.5/16")
    await process.communicate(json.dumps({**json.loads(stdin), "ipam": ipam}).encode())
    assert process.returncode == 0
    (claim,) = await node.endpoints()
    assert {key: claim["spec"][key] for key in ("ipv4Pools", "families", "addresses")} == {
        "ipv4Pools": ["blue"],
        "families": ["IPv4"],
        "addresses": ["10.0.0.5"],
    }


# 32
async def test_an_exhausted_pool_is_an_error_and_leaves_nothing(node: Node) -> None:
    node.operator.decide = lambda _: refused("PoolExhausted", "pool blue has no free IPv4 address: add ips")
    code, error = await node.call("ADD", "c1")
    assert (code, error["code"]) == (1, 100)
    assert "pool blue" in error["msg"]
    assert await node.endpoints() == []


async def test_a_namespace_that_is_gone_is_said(node: Node) -> None:
    args = "K8S_POD_NAMESPACE=never-was;K8S_POD_NAME=web-0;K8S_POD_UID=u1"
    code, error = await node.call("ADD", "c1", cni_args=args)
    assert (code, error["code"]) == (1, 11)
    assert "never-was" in error["msg"]


# 39, 40
async def test_a_shim_that_is_killed_leaves_nothing(node: Node) -> None:
    node.operator.decide = lambda _: None
    environment, stdin = request("ADD", "c1", ipam={"type": "berth", "socket": str(node.socket)})
    shim = await asyncio.create_subprocess_exec(node.shim, env=environment, stdin=subprocess.PIPE)
    assert shim.stdin is not None
    shim.stdin.write(stdin)
    shim.stdin.close()
    async with asyncio.timeout(10):
        while not await node.endpoints():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.02)
    shim.kill()
    await shim.wait()
    await node.gone()


async def test_an_answer_that_nobody_acknowledges_is_taken_back(node: Node) -> None:
    frame = encode_request(Request(*request("ADD", "c1")))
    assert isinstance(frame, bytes)
    reader, writer = await asyncio.open_unix_connection(node.socket)
    writer.write(frame)
    assert await reader.readexactly(4) == b"BRT1"
    assert len(await node.endpoints()) == 1
    await node.gone()  # after five seconds
    with contextlib.suppress(ConnectionError):
        await reader.read()
        writer.close()
        await writer.wait_closed()


# 38
async def test_an_agent_that_is_killed_in_the_midst_of_an_add_loses_nothing(node: Node) -> None:
    node.operator.decide = lambda _: None
    add = asyncio.ensure_future(node.call("ADD", "c1"))
    async with asyncio.timeout(10):
        while not await node.endpoints():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.02)
    await node.stop(signal.SIGKILL)
    assert (await add)[1]["code"] == 11
    # The DEL comes while there is no agent, and is done by the next one.
    assert await node.call("DEL", "c1") == (0, {})
    assert len(await node.endpoints()) == 1
    node.socket.unlink()
    await node.start()
    await node.gone()


async def test_sigterm_lets_calls_end_and_takes_the_socket_away(node: Node) -> None:
    node.operator.decide = lambda _: None
    add = asyncio.ensure_future(node.call("ADD", "c1"))
    async with asyncio.timeout(10):
        while not await node.endpoints():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.02)
    assert await node.stop() == 0
    code, error = await add
    assert (code, error["code"]) == (1, 11)
    assert "being stopped" in error["msg"]
    assert not node.socket.exists()
    assert await node.endpoints() == []


async def test_nonsense_and_silence_are_cut_off(node: Node) -> None:
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"BRT1\xff\xff\xff\xff\0\0\0\0", b"BRT1\0\0\0\1\0\0\0\0x"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5)
            caller.connect(str(node.socket))
            caller.sendall(nonsense)
            with contextlib.suppress(ConnectionError):
                assert caller.recv(1) == b""
    assert await node.call("STATUS") == (0, {})
    assert node.socket.stat().st_mode & 0o777 == 0o600


async def test_the_agent_tells_how_it_is(node: Node) -> None:
    await node.call("ADD", "c1")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{node.port}/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with session.get(f"http://127.0.0.1:{node.port}/metrics") as answer:
            text = await answer.text()
    assert 'berth_cni_request_duration_seconds_count{command="ADD",code="0"} 1' in text
    assert "berth_agent_endpoints 1" in text


# 22
async def test_the_shim_is_installed_by_rename(node: Node) -> None:
    installed = node.folder / "bin" / "berth"
    assert installed.read_bytes() == node.shim.read_bytes()
    assert os.access(installed, os.X_OK)
    assert [each.name for each in installed.parent.iterdir()] == ["berth"]


# 31, 54, and the memory that a node has to spare
async def test_two_hundred_pods_come_and_go_in_45_mb(node: Node) -> None:
    for start in range(0, 200, 50):
        names = [f"c{number}" for number in range(start, start + 50)]
        answers = await asyncio.gather(*(node.call("ADD", name, uid=f"uid-{name}", pod=name) for name in names))
        assert [code for code, _ in answers] == [0] * 50
    assert len({each["status"]["addresses"][0]["address"] for each in await node.endpoints()}) == 200
    for start in range(0, 200, 50):
        gone = await asyncio.gather(*(node.call("DEL", f"c{number}") for number in range(start, start + 50)))
        assert {code for code, _ in gone} == {0}
    assert await node.endpoints() == []
    assert node.process is not None
    assert most_memory(node.process.pid) < 45 * 1024


def most_memory(pid: int) -> int:
    """In KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
