"""A cluster as CNI sees it: a real API server, one `berth operator`, an agent for each simulated node, the real shim.

Pods are objects only: nothing runs in them. A story makes pools and Pods of its own, calls the executable as a runtime
does, and ends with `check`: Endpoints and ledgers tell one story, and with `empty`, that nothing is held any more.
"""

import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.kube.client import Client, Object
from berth.kube.config import load
from berth.kube.errors import KubeError, NotFound
from berth.kube.resources import API_VERSION, ENDPOINTS, PODS, POOLS, RESERVED
from e2e.cluster import ControlPlane
from e2e.cluster.process import Process
from e2e.cluster.shell import wait_for
from e2e.invariants import leaks, violations
from tests.cni.stage import request

ROOT = Path(__file__).parents[2]
SHIM = ROOT / "cni-plugin" / "bin" / "berth"
BERTH = [str(Path(sys.executable).with_name("berth"))]
# The same program, with a deadline of seconds for an ADD.
HURRIED = [sys.executable, "-m", "tests.cni.hurried"]
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]

_subnets = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    uid: str

    @property
    def cni_args(self) -> str:
        named = f"K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={self.name};K8S_POD_UID={self.uid}"
        return f"IgnoreUnknown=1;{named}"


Answer = tuple[int, dict[str, Any]]


@dataclass(slots=True)
class Node:
    """One agent, and the calls of one runtime."""

    name: str
    folder: Path
    process: Process
    shim: Path = SHIM

    @property
    def socket(self) -> Path:
        return self.folder / "berth.sock"

    def ipam(self, *pools: str, **more: Any) -> dict[str, Any]:
        named: dict[str, list[str]] = {}
        for pool in pools:
            named.setdefault("ipv6Pools" if pool.startswith("six") else "ipv4Pools", []).append(pool)
        return {"type": "berth", "socket": str(self.socket), **named, **more}

    async def spawn(
        self, command: str, container: str = "", *, pod: Pod | None = None, pools: tuple[str, ...] = (), **about: Any
    ) -> asyncio.subprocess.Process:
        """The executable with nothing but CNI_* in its environment, its stdin given and closed."""
        about.setdefault("ipam", self.ipam(*pools))
        if pod is not None:
            about["cni_args"] = pod.cni_args + about.pop("more_args", "")
        environment, stdin = request(command, container, **about)
        shim = await asyncio.create_subprocess_exec(
            self.shim, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert shim.stdin is not None
        with contextlib.suppress(ConnectionError):
            shim.stdin.write(stdin)
            shim.stdin.close()
        return shim

    async def call(self, command: str, container: str = "", **about: Any) -> Answer:
        return await told(await self.spawn(command, container, **about))

    async def raw(self, environment: dict[str, str], stdin: bytes) -> Answer:
        """Any bytes, to the agent at the socket's usual place: in a mount namespace where that is this node's."""
        script = 'mount -t tmpfs none /run && mkdir /run/berth && mount --bind "$1" /run/berth && exec env -i'
        variables = [f"{name}={value}" for name, value in environment.items()]
        words = ["unshare", "--mount", "bash", "-c", f'{script} "${{@:2}}"', "bash", str(self.folder)]
        shim = await asyncio.create_subprocess_exec(
            *words, *variables, SHIM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(20):
            stdout, stderr = await shim.communicate(stdin)
        assert stderr == b""
        assert shim.returncode is not None
        return shim.returncode, json.loads(stdout) if stdout else {}

    async def add(self, container: str, pod: Pod, *pools: str, **about: Any) -> list[str]:
        """The addresses without prefix; raises with what was said when there are none."""
        code, result = await self.call("ADD", container, pod=pod, pools=pools, **about)
        assert code == 0, result
        return bare(result)

    async def delete(self, container: str, **about: Any) -> None:
        assert await self.call("DEL", container, **about) == (0, {})

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.signal(number)
        self.process.stop()
        self.socket.unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        self.process.start()
        self.serve()

    def serve(self) -> None:
        environment, stdin = request("STATUS", ipam=self.ipam())

        def answers() -> bool:
            self.process.check()
            # Through the socket alone: a shim whose agent is away would make its folder.
            return self.socket.exists() and not subprocess.run(
                [SHIM], env=environment, input=stdin, capture_output=True
            ).returncode  # fmt: skip

        wait_for(f"the agent of {self.name}", answers, 30)


async def told(shim: asyncio.subprocess.Process) -> Answer:
    """What it printed: one JSON document or nothing, and not a byte on stderr."""
    async with asyncio.timeout(70):
        stdout, stderr = await shim.communicate()
    assert stderr == b""
    assert shim.returncode is not None
    return shim.returncode, json.loads(stdout) if stdout else {}


def bare(result: dict[str, Any]) -> list[str]:
    return [each["address"].partition("/")[0] for each in result["ips"]]


@dataclass(slots=True)
class Fleet:
    plane: ControlPlane
    namespace: str
    operator: Process
    nodes: list[Node] = field(default_factory=list)

    @asynccontextmanager
    async def story(self) -> AsyncIterator["Story"]:
        async with Client(load(str(self.plane.kubeconfig)), rate=2000, burst=2000) as api:
            story = Story(self, api)
            try:
                yield story
            finally:
                await story.clear()


@dataclass(slots=True)
class Story:
    """Pools and Pods of one test; all of them go at its end."""

    fleet: Fleet
    api: Client
    pools: list[str] = field(default_factory=list)
    reservations: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        return self.fleet.nodes

    async def pool(self, ips: list[str] | None = None, *, six: bool = False, **spec: Any) -> str:
        """`ips` are written with {} for the subnet's first three numbers (or its IPv6 prefix)."""
        number = next(_subnets)
        start = f"fd66:{number:x}:" if six else f"10.66.{number % 250}"
        name = f"{'six' if six else 'four'}-{number}-{uuid.uuid4().hex[:5]}"
        spec.setdefault("subnet", "{}:/64" if six else "{}.0/24")
        spec.setdefault("reuseDelay", "1s")
        if ips is not None:
            spec["ips"] = ips
        filled = json.loads(json.dumps(spec).replace("{}", start))
        body = {"apiVersion": API_VERSION, "kind": POOLS.kind, "metadata": {"name": name}, "spec": filled}
        await self.api.create(POOLS.path(), body)
        self.pools.append(name)
        await self.until(lambda pool: _is_ready(pool), name)
        return name

    async def until(self, holds: Callable[[Object], bool], pool: str, bound: float = 20) -> None:
        async with asyncio.timeout(bound):
            while not holds(await self.api.get(POOLS.path(pool))):  # noqa: ASYNC110 (what is waited for tells nobody)
                await asyncio.sleep(0.05)

    async def reserve(self, *ips: str) -> None:
        name = f"kept-{uuid.uuid4().hex[:6]}"
        body = {"apiVersion": API_VERSION, "kind": RESERVED.kind, "metadata": {"name": name}}
        await self.api.create(RESERVED.path(), {**body, "spec": {"ips": list(ips)}})
        self.reservations.append(name)

    async def pod(self, name: str = "") -> Pod:
        name = name or f"pod-{uuid.uuid4().hex[:8]}"
        spec = {"containers": [{"name": "c", "image": "none"}], "automountServiceAccountToken": False}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        made = await self.api.create(PODS.path(namespace=self.fleet.namespace), body)
        return Pod(self.fleet.namespace, name, made["metadata"]["uid"])

    async def pods(self, count: int) -> list[Pod]:
        return list(await asyncio.gather(*(self.pod() for _ in range(count))))

    async def remove(self, pod: Pod) -> None:
        with contextlib.suppress(NotFound):
            await self.api.delete(PODS.path(pod.name, namespace=pod.namespace))

    async def endpoints(self) -> list[Object]:
        return (await self.api.list(ENDPOINTS.path(namespace=self.fleet.namespace))).items

    async def containers(self) -> list[str]:
        return sorted(each["spec"]["containerID"] for each in await self.endpoints())

    async def check(self, bound: float = 10) -> None:
        """The invariant; the ledger settles what it granted a moment later."""
        await self._none(lambda pods, endpoints, pools: violations(pods, endpoints, pools), bound)

    async def empty(self, bound: float = 15) -> None:
        """The Pods go (an address is kept for a Pod that is there); then nothing is held, nothing pending."""
        for each in (await self.api.list(PODS.path(namespace=self.fleet.namespace))).items:
            with contextlib.suppress(NotFound):
                await self.api.delete(PODS.path(each["metadata"]["name"], namespace=self.fleet.namespace))
        await self._none(
            lambda pods, endpoints, pools: violations(pods, endpoints, pools) + leaks(endpoints, pools), bound
        )

    async def _none(self, look: Callable[[list[Object], list[Object], list[Object]], list[str]], bound: float) -> None:
        end = time.monotonic() + bound
        while found := look(
            (await self.api.list(PODS.path(namespace=self.fleet.namespace))).items,
            await self.endpoints(),
            [each for name in self.pools if (each := await self._pool(name)) is not None],
        ):
            if time.monotonic() > end:
                raise AssertionError("\n".join(found))
            await asyncio.sleep(0.1)

    async def _pool(self, name: str) -> Object | None:
        try:
            return await self.api.get(POOLS.path(name))
        except NotFound:
            return None

    async def clear(self) -> None:
        namespace = self.fleet.namespace
        paths = [ENDPOINTS.path(each["metadata"]["name"], namespace=namespace) for each in await self.endpoints()]
        pods = (await self.api.list(PODS.path(namespace=namespace))).items
        paths += [PODS.path(each["metadata"]["name"], namespace=namespace) for each in pods]
        paths += [POOLS.path(name) for name in self.pools]
        paths += [RESERVED.path(name) for name in self.reservations]
        for path in paths:
            with contextlib.suppress(KubeError):
                await self.api.delete(path)


def _is_ready(pool: Object) -> bool:
    conditions = (pool.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@contextmanager
def fleet(
    plane: ControlPlane, folder: Path, nodes: int = 1, agent: list[str] = BERTH, led_by: Process | None = None
) -> Iterator[Fleet]:
    """All of it, started together and awaited. `led_by`: an operator that runs already (a second would lead too)."""
    subprocess.run(["make", "-s", "-C", ROOT / "cni-plugin" / "shim", f"PYTHON={sys.executable}"], check=True)
    namespace = f"cni-{uuid.uuid4().hex[:6]}"
    plane.kubectl("create", "namespace", namespace)
    plane.kubectl("create", "serviceaccount", "default", "-n", namespace)
    kubeconfig = ["--kubeconfig", str(plane.kubeconfig)]
    environment = {"PYTHONPATH": str(ROOT)}
    own = ["--namespace", namespace, "--identity", namespace]
    operator = led_by or Process(
        f"{namespace}-operator", [*BERTH, "operator", *kubeconfig, *own], plane.directory, environment
    )
    made = Fleet(plane, namespace, operator)
    for number in range(nodes):
        name = f"{namespace}-{number}"
        place = folder / f"n{number}"
        place.mkdir()
        arguments = ["--node", name, "--socket", str(place / "berth.sock"), "--state-dir", str(place / "state")]
        process = Process(name, [*agent, "agent", *kubeconfig, *arguments], plane.directory, environment)
        made.nodes.append(Node(name, place, process))
    try:
        if led_by is None:
            operator.start()
        for node in made.nodes:
            node.process.start()
        for node in made.nodes:
            node.serve()
        yield made
    finally:
        for node in made.nodes:
            node.process.stop(bound=2)
        if led_by is None:
            operator.stop()
