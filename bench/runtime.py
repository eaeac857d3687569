"""The container runtime of a simulated node: network namespaces, and the plugin chain executed in the node's own.

One thread does it. It lives in the node's network namespace, so the programs it starts do too, as containerd's would;
the rest of the process stays outside, with the API. A plugin reads its configuration from a file and writes its
answer to memory; its end is a readable pidfd, so a hundred of them at once cost no thread.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from bench import kernel

INTERFACE = "eth0"
_ANSWER_MOST = 1 << 20
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the runtime knows of a Pod's sandbox."""

    container: str
    namespace: str
    pod: str
    pod_uid: str
    network: Path

    def arguments(self) -> str:
        """CNI_ARGS in containerd's words."""
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={self.pod}"
            f";K8S_POD_INFRA_CONTAINER_ID={self.container};K8S_POD_UID={self.pod_uid}"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a plugin ended: `error` is "" when well; `cpu` counts the plugin and all that it started."""

    error: str
    addresses: tuple[str, ...]
    cpu: float


class Runtime:
    """Use it inside a running loop."""

    def __init__(self, configuration: Path, plugins: str, networks: Path) -> None:
        self._configuration = configuration
        self._plugin, self._search = _find(orjson.loads(configuration.read_bytes())["type"], plugins), plugins
        self._networks = networks
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._home = -1
        self._environment = {key: os.environ[key] for key in ("PATH", "BERTH_CLUSTER") if key in os.environ}

    async def start(self) -> None:
        """The node's network: its link, as far as its other end. Nothing leaves the machine."""
        self._networks.mkdir(parents=True, exist_ok=True)
        await self._in_node(self._make_node)

    async def make(self, container: str) -> Path:
        place = self._networks / container
        await self._in_node(lambda: kernel.make_network(place, self._home))
        return place

    async def remove(self, sandbox: Sandbox) -> None:
        await self._in_node(lambda: kernel.remove_network(sandbox.network))

    async def addresses(self, sandbox: Sandbox) -> list[str]:
        """What the kernel says of the Pod's link."""

        def look() -> list[str]:
            with kernel.network_of(sandbox.network, self._home):
                return kernel.addresses_of(INTERFACE)

        return await self._in_node(look)

    async def execute(self, command: str, sandbox: Sandbox) -> Outcome:
        answer = os.memfd_create("answer", os.MFD_CLOEXEC)
        try:
            pid = await self._in_node(lambda: self._spawn(command, sandbox, answer))
            status, cpu = await _ended(pid)
            return _outcome(os.waitstatus_to_exitcode(status), os.pread(answer, _ANSWER_MOST, 0), cpu)
        finally:
            os.close(answer)

    def _spawn(self, command: str, sandbox: Sandbox, answer: int) -> int:
        environment = {
            **self._environment,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox.container,
            "CNI_NETNS": str(sandbox.network),
            "CNI_IFNAME": INTERFACE,
            "CNI_PATH": self._search,
            "CNI_ARGS": sandbox.arguments(),
        }
        files = [
            (os.POSIX_SPAWN_OPEN, 0, str(self._configuration), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, answer, 1),
        ]
        return os.posix_spawn(self._plugin, [self._plugin], environment, file_actions=files)

    def _make_node(self) -> None:
        self._home = kernel.own_network()
        for command in (
            f"link add {INTERFACE} type veth peer name uplink",
            "link set lo up",
            "link set uplink up",
            f"link set {INTERFACE} up",
        ):
            subprocess.run(["ip", *command.split()], check=True)

    async def _in_node(self, do: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do)


async def _ended(pid: int) -> tuple[int, float]:
    """The wait status of a child, and the CPU seconds of it and of its own children."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, over.set_result, None)
    over.add_done_callback(lambda _: loop.remove_reader(descriptor))
    try:
        await over
    finally:
        os.close(descriptor)
    _, status, usage = os.wait4(pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended
    return status, usage.ru_utime + usage.ru_stime


def _outcome(code: int, answer: bytes, cpu: float) -> Outcome:
    try:
        told: dict[str, Any] = orjson.loads(answer) if answer.strip() else {}
    except orjson.JSONDecodeError:
        return Outcome(f"exit {code}, no JSON: {answer[:200]!r}", (), cpu)
    if code != 0:
        return Outcome(f"code {told.get('code')}: {told.get('msg')} {told.get('details', '')}".strip(), (), cpu)
    return Outcome("", tuple(each["address"].partition("/")[0] for each in told.get("ips", ())), cpu)


def _find(plugin: str, search: str) -> str:
    for folder in search.split(os.pathsep):
        if (Path(folder) / plugin).exists():
            return str(Path(folder) / plugin)
    raise FileNotFoundError(f"the CNI plugin {plugin} is in none of {search}")
