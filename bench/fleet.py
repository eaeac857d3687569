"""The processes of one trial: simulated nodes on a control plane and, if Berth is measured, its agents and operator.

Each is a process of the cluster (`e2e.cluster.Process`), so whatever ends the benchmark ends them. Berth's parts run
with the rights that `config/` gives them: service account tokens, an agent's bound to its node, as in a real cluster.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson

from bench.api import BenchClient
from bench.contenders import Contender, plugins
from bench.settings import ROOT, Settings, program
from berth.kube.client import Object
from berth.kube.resources import NODES, POOLS
from e2e import accounts
from e2e.cluster import ControlPlane, Process

READY_SECONDS = 60.0
# The rest of a process's command line is its own: the profiler's output goes beside its log.
_PROFILED = ("-c", "import sys; from bench.profiling import main; main(sys.argv[1:])")


class NotReady(Exception):
    """A part of the trial did not come up; says which, and where its log is."""


class Fleet:
    def __init__(self, plane: ControlPlane, api: BenchClient, contender: Contender, settings: Settings) -> None:
        self._plane = plane
        self._api = api
        self._contender = contender
        self._settings = settings
        self.nodes: list[Process] = []
        self.agents: list[Process] = []
        self.operators: list[Process] = []

    def folder(self, node: int) -> Path:
        return self._plane.directory / f"n{node}"

    async def start(self) -> None:
        if self._contender.berth:
            await asyncio.to_thread(accounts.install, self._plane)
        search = await asyncio.to_thread(plugins)
        for number in range(self._settings.nodes):
            self.nodes.append(await asyncio.to_thread(self._node, number, search))
        await self._until("the nodes", self._nodes_ready)
        if not self._contender.berth:
            return
        for number in range(self._settings.nodes):
            self.agents.append(await self._agent(number))
        self.operators.append(await self._operator())
        for pool in self._contender.pools(self._settings):
            await self._api.create(POOLS.path(), pool)
        await self._until("the pools (is the operator running?)", self._pools_ready)
        await self._until("the agents' sockets", self._sockets_there)

    def alive(self) -> None:
        """Raises with the end of its log when one of them has died."""
        for process in (*self.nodes, *self.agents, *self.operators):
            process.check()

    def stop(self) -> None:
        """Politely, so that a profiler can write down what it has; what stays is killed with the control plane."""
        for process in (*self.agents, *self.operators):
            process.stop(bound=5)

    async def interfaces(self) -> dict[str, list[str]]:
        """What the kernel has for each running Pod."""
        found: dict[str, list[str]] = {}
        for number in range(self._settings.nodes):
            found |= (await self._ask(number))["interfaces"]
        return found

    async def tenants(self) -> int:
        """Pods that the nodes still have something of."""
        return sum([(await self._ask(number))["tenants"] for number in range(self._settings.nodes)])

    def kept_by_host_local(self) -> int:
        """Addresses in host-local's folders."""
        return sum(
            1
            for each in self._plane.directory.glob("n*/host-local/bench/*")
            if ":" in each.name or each.name[0].isdigit()
        )

    # --- starting ----------------------------------------------------------------------------------------------------

    def _node(self, number: int, search: str) -> Process:
        name, folder = f"node-{number}", self.folder(number)
        folder.mkdir()
        configuration = folder / "bench.conf"
        configuration.write_bytes(orjson.dumps(self._contender.network(number, folder)))
        place = {
            "name": name,
            "address": f"192.0.2.{number + 1}",
            "kubeconfig": str(self._plane.kubeconfig_for(f"system:node:{name}", ["system:nodes"])),
            "configuration": str(configuration),
            "plugins": search,
            "folder": str(folder),
            "most_pods": max(250, 2 * self._settings.pods // self._settings.nodes),
        }
        (folder / "node.json").write_text(json.dumps(place))
        return self._process(name, [program("python"), "-m", "bench.node", str(folder / "node.json")])

    async def _agent(self, number: int) -> Process:
        folder, node = self.folder(number), f"node-{number}"
        kubeconfig = await asyncio.to_thread(accounts.kubeconfig, self._plane, "berth-agent", node)
        own = ["--node", node, "--socket", str(folder / "berth.sock"), "--state-dir", str(folder / "state")]
        profiled = self._settings.profile == "agent" and number == 0
        return self._berth(f"agent-{number}", ["agent", "--kubeconfig", str(kubeconfig), *own], profiled)

    async def _operator(self) -> Process:
        kubeconfig = await asyncio.to_thread(accounts.kubeconfig, self._plane, "berth-operator")
        return self._berth(
            "operator", ["operator", "--kubeconfig", str(kubeconfig)], self._settings.profile == "operator"
        )

    def _berth(self, name: str, arguments: list[str], profiled: bool) -> Process:
        output = self._plane.directory / "logs" / f"{name}.profile"
        command = [program("python"), *_PROFILED, str(output)] if profiled else [program("berth")]
        return self._process(name, [*command, *arguments])

    def _process(self, name: str, argv: list[str]) -> Process:
        # Temporary files, as the operator's of the CA, go with the trial's folder though the process is killed.
        temporary = self._plane.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        process = Process(name, argv, self._plane.directory, {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)})
        process.start()
        return process

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _until(self, what: str, there: Any) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await there():
                    self.alive()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logs = self._plane.directory / "logs"
            raise NotReady(
                f"{what} were not ready within {READY_SECONDS:.0f} s: see {logs} (BENCH_KEEP=1 keeps it)"
            ) from None

    async def _nodes_ready(self) -> bool:
        nodes = (await self._api.list(NODES.path())).items
        return len(nodes) == self._settings.nodes and not any(node["spec"].get("taints") for node in nodes)

    async def _pools_ready(self) -> bool:
        return all(_ready(pool) for pool in (await self._api.list(POOLS.path())).items)

    async def _sockets_there(self) -> bool:
        return all((self.folder(number) / "berth.sock").exists() for number in range(self._settings.nodes))

    async def _ask(self, node: int) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.folder(node) / "node.sock"), limit=1 << 22)
        writer.write(b"?\n")
        told: dict[str, Any] = orjson.loads(await reader.readline())
        writer.close()
        return told


def _ready(pool: Object) -> bool:
    conditions = (pool.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
