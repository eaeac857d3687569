"""The real thing, as processes of this machine: a control plane, Berth's parts, and nodes with network namespaces.

etcd, kube-apiserver, controller-manager and scheduler; two operators, a webhook, and for each node an agent and a
kubelet (tests/chaos/kubelet.py). Operators and agents reach the API through a proxy each; kubelets, controllers and the
judge reach it straight. An agent's journal and spool are on a small disk of its own, which can be full; its wall clock,
as an operator's, is what a file says.

A process that ends by itself is started again, as its kubelet would.
"""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson
import yaml

from bench.contenders import plugins
from bench.node import Place
from e2e import accounts
from e2e.cluster import ControlPlane, Options, Process
from e2e.cluster.controlplane import free_ports
from tests.chaos.ground import POOL4, POOL6
from tests.chaos.kubelet import Habits
from tests.chaos.load import NAMESPACE
from tests.chaos.proxy import Proxy

ROOT = Path(__file__).parents[2]
OPERATORS = 2
READY_SECONDS = 90.0
START_AGAIN_SECONDS = 1.0
DISK = "size=256k,nr_inodes=512"
# A deletion of everything takes longer than the request timeout while the machine is busy.
API_SERVER_FLAGS = ("--request-timeout=10m",)


class NotReady(Exception):
    """The world did not come up; says which part, and where its log is."""


@dataclass(slots=True)
class Member:
    """One process that faults happen to. `down`: a fault keeps it from running."""

    kind: str
    process: Process
    proxy: Proxy | None = None
    clock: Path | None = None
    disk: Path | None = None
    down: bool = False
    stopped: bool = False
    ended: float | None = None  # when it was seen to have ended by itself
    exits: int = 0

    @property
    def name(self) -> str:
        return self.process.name

    def kill(self) -> None:
        self.down, self.stopped = True, False
        self.process.kill()

    def start(self) -> None:
        self.down, self.ended = False, None
        if not self.process.running:
            self.process.start()

    def stop(self) -> None:
        self.stopped = True
        self.process.pause()

    def go_on(self) -> None:
        self.stopped = False
        self.process.resume()


@dataclass(slots=True)
class World:
    folder: Path
    random: Random
    nodes: int
    bug: str | None = None
    counted: Counter[str] = field(default_factory=Counter)
    members: dict[str, Member] = field(default_factory=dict)
    kubelets: list[Process] = field(default_factory=list)
    plane: ControlPlane = field(init=False)

    def __post_init__(self) -> None:
        self.plane = ControlPlane(self.folder, options=Options(fsync=False, api_server_flags=API_SERVER_FLAGS))

    @property
    def etcd_url(self) -> str:
        (flag,) = [each for each in self.plane.processes["etcd"].argv if each.startswith("--listen-client-urls=")]
        return flag.partition("=")[2]

    @property
    def journals(self) -> list[Path]:
        return [self._node_folder(number) / "journal.jsonl" for number in range(self.nodes)]

    def of_kind(self, kind: str) -> list[Member]:
        return [each for each in self.members.values() if each.kind == kind]

    # --- starting ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything but pools and Pods."""
        await asyncio.to_thread(self.plane.start)
        await asyncio.to_thread(accounts.install, self.plane)
        for name in ("etcd", "kube-apiserver"):
            self._member(name, self.plane.processes[name])
        search = await asyncio.to_thread(plugins)
        for number in range(self.nodes):
            await asyncio.to_thread(self._make_node, number, search)
        await self.until("the nodes", self._nodes_ready)
        for number in range(self.nodes):
            await self._start_agent(number)
        for number in range(OPERATORS):
            await self._start_operator(number)
        await self._start_webhook()
        await self.until("the agents' sockets", self._sockets_there)

    async def stop(self) -> None:
        for member in self.members.values():
            if member.proxy is not None:
                await member.proxy.stop()
        await asyncio.to_thread(self.plane.stop)
        await asyncio.to_thread(self._unmount)

    def _unmount(self) -> None:
        """So that the folder can be removed; what is mounted would go with this process anyway."""
        for number in range(self.nodes):
            subprocess.run(["umount", "-l", self._node_folder(number) / "disk"], check=False, capture_output=True)

    def _make_node(self, number: int, search: str) -> None:
        name, folder = f"node-{number}", self._node_folder(number)
        disk = folder / "disk"
        disk.mkdir(parents=True)
        # Before the kubelet starts: its plugins must see the agent's socket there.
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "berth-chaos", disk], check=True)
        network = {
            "cniVersion": "1.0.0",
            "name": "chaos",
            "type": "macvlan",
            "master": "eth0",
            "mode": "bridge",
            "ipam": {
                "type": "berth",
                "socket": str(disk / "berth.sock"),
                "ipv4Pools": [POOL4],
                "ipv6Pools": [POOL6],
            },
        }
        configuration = folder / "chaos.conf"
        configuration.write_bytes(orjson.dumps(network))
        place = Place(
            name=name,
            address=f"192.0.2.{number + 1}",
            kubeconfig=str(self.plane.kubeconfig_for(f"system:node:{name}", ["system:nodes"])),
            configuration=str(configuration),
            plugins=search,
            folder=str(folder),
        )
        (folder / "node.json").write_text(json.dumps(asdict(place) | {"habits": asdict(Habits(self._seed()))}))
        command = [sys.executable, "-m", "tests.chaos.kubelet", str(folder / "node.json")]
        process = Process(name, command, self.folder, self._environment())
        process.start()
        self.kubelets.append(process)

    async def _start_agent(self, number: int) -> None:
        name, node, disk = f"agent-{number}", f"node-{number}", self._node_folder(number) / "disk"
        proxy, kubeconfig = await self._proxied(name, "berth-agent", node)
        own = ["--node", node, "--socket", str(disk / "berth.sock"), "--state-dir", str(disk)]
        member = self._berth(name, "agent", ["agent", "--kubeconfig", str(kubeconfig), *own])
        member.proxy, member.disk = proxy, disk

    async def _start_operator(self, number: int) -> None:
        name = f"operator-{number}"
        proxy, kubeconfig = await self._proxied(name, "berth-operator")
        command = ["operator", "--kubeconfig", str(kubeconfig), "--identity", name]
        self._berth(name, "operator", command).proxy = proxy

    async def _start_webhook(self) -> None:
        (port,) = free_ports("127.0.0.1", 1)
        serving = self.plane.authority.issue("webhook", "webhook", hosts=["127.0.0.1"])
        files = ["--cert", str(serving.cert), "--key", str(serving.key)]
        command = ["webhook", "--kubeconfig", str(self.plane.kubeconfig), *files, "--port", str(port)]
        self._berth("webhook", "webhook", command)
        content = yaml.safe_load((ROOT / "config/webhook/configuration.yaml").read_text())
        bundle = b64encode(self.plane.authority.cert.read_bytes()).decode()
        for webhook in content["webhooks"]:
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/validate", "caBundle": bundle}
        await self.until("the webhook", lambda: _listens(port))
        await asyncio.to_thread(self.plane.kubectl, "apply", "-f", "-", stdin=json.dumps(content))

    async def _proxied(self, name: str, account: str, node: str = "") -> tuple[Proxy, Path]:
        """A proxy for one client, and the kubeconfig that leads through it."""
        (port,) = free_ports("127.0.0.1", 1)
        folder = self.plane.authority.folder
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(folder / "api-server.crt", folder / "api-server.key")
        trust = ssl.create_default_context(cafile=str(self.plane.authority.cert))
        proxy = Proxy(name, self.plane.url, trust, Random(self._seed()), self.counted)
        await proxy.start(port, serving)
        server = f"https://127.0.0.1:{port}"
        file = await asyncio.to_thread(accounts.kubeconfig, self.plane, account, node, name=name, server=server)
        return proxy, file

    def _berth(self, name: str, kind: str, arguments: list[str]) -> Member:
        clock = self.folder / f"{name}.clock"
        clock.write_text("0")
        bug = ["--bug", self.bug] if self.bug else []
        command = [sys.executable, "-m", "tests.chaos.altered", "--clock", str(clock), *bug, "--", *arguments]
        process = Process(name, command, self.folder, self._environment())
        process.start()
        member = self._member(kind, process)
        member.clock = clock
        return member

    def _member(self, kind: str, process: Process) -> Member:
        member = self.members[process.name] = Member(kind, process)
        return member

    def _environment(self) -> dict[str, str]:
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}

    def _node_folder(self, number: int) -> Path:
        return self.folder / f"n{number}"

    def _seed(self) -> int:
        return self.random.randrange(1 << 30)

    # --- keeping it up -----------------------------------------------------------------------------------------------

    def keep_up(self, ended: Callable[[Member], None]) -> None:
        """Called every now and then: starts again what ended by itself, and tells of it."""
        now = time.monotonic()
        for member in self.members.values():
            if member.down or member.process.running:
                continue
            if member.ended is None:
                member.ended = now
                member.exits += 1
                ended(member)
            elif now > member.ended + START_AGAIN_SECONDS:
                member.start()
        for process in (*self.kubelets, *(self.plane.processes[name] for name in _CONTROLLERS)):
            process.check()

    def end_faults(self) -> None:
        """Everything runs, the weather is fine, clocks are right, disks have room, nobody's kubelet has bad days."""
        for member in self.members.values():
            member.go_on()
            member.start()
            if member.proxy is not None:
                member.proxy.calm()
            if member.clock is not None:
                member.clock.write_text("0")
            if member.disk is not None:
                (member.disk / BALLAST).unlink(missing_ok=True)
        for number in range(self.nodes):
            (self._node_folder(number) / "calm").touch()
        for kubelet in self.kubelets:
            kubelet.resume()

    def call_not_ready(self, node: str) -> None:
        """As the controller for nodes does with one that is silent."""
        condition = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "it is silent"}
        body = json.dumps({"status": {"conditions": [condition]}})
        self.plane.kubectl("patch", "node", node, "--subresource=status", "--type=strategic", "-p", body)

    def force_delete(self, node: str) -> None:
        """All Pods of this node."""
        mine = f"--field-selector=spec.nodeName={node}"
        self.plane.kubectl("delete", "pods", "-n", NAMESPACE, mine, "--force", "--grace-period=0", "--wait=false")

    # --- waiting and asking ------------------------------------------------------------------------------------------

    async def until(self, what: str, there: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await there():
                    self.keep_up(lambda _: None)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NotReady(f"{what} were not ready within {READY_SECONDS:.0f} s: see {self.folder / 'logs'}") from None

    async def _nodes_ready(self) -> bool:
        listed = json.loads(await asyncio.to_thread(self.plane.kubectl, "get", "nodes", "-o", "json"))["items"]
        return len(listed) == self.nodes and not any(node["spec"].get("taints") for node in listed)

    async def _sockets_there(self) -> bool:
        return all((self._node_folder(number) / "disk" / "berth.sock").exists() for number in range(self.nodes))

    async def look(self) -> tuple[dict[str, list[str]], int]:
        """What the kernel has for each running Pod, and how many Pods the nodes still have something of."""
        interfaces: dict[str, list[str]] = {}
        tenants = 0
        for number in range(self.nodes):
            place = str(self._node_folder(number) / "node.sock")
            reader, writer = await asyncio.open_unix_connection(place, limit=1 << 22)
            writer.write(b"?\n")
            told: dict[str, Any] = orjson.loads(await reader.readline())
            writer.close()
            interfaces |= told["interfaces"]
            tenants += told["tenants"]
        return interfaces, tenants


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
BALLAST = "ballast"


def fill(disk: Path) -> None:
    """Until not a byte more goes there."""
    with suppress(OSError), (disk / BALLAST).open("ab", buffering=0) as file:
        while True:
            file.write(os.urandom(512))
