"""`make bench-scale`: what grows as a pool fills and Endpoints become many, and what does not.

    python -m bench.scale [LEVEL ...]        default 1000 10000 30000 60000

Against a real kube-apiserver and etcd, with one real operator, a pool of a whole /16, and a hundred agents' watches,
each of its own node's Endpoints. At each level the pool is filled up to it by claims that the operator grants (so many
a second), then single claims are timed on the idle system, then a new operator takes over: how long from being elected
to granting, and how much memory it has, at its most and once it is at rest. Nothing on the way of one address may grow
with the number of addresses held.
"""

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

from rich.console import Console

from bench.scale_report import Level, report
from berth.kube.client import Change, Client, Listing, Object
from berth.kube.config import load
from berth.kube.reflector import follow
from berth.kube.resources import API_VERSION, ENDPOINTS, POOLS
from e2e.cluster import ControlPlane, Options, Process

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
LEVELS = (1000, 10_000, 30_000, 60_000)
SINGLES = 100
AT_ONCE = 96
AGENTS = 100
REST_SECONDS = 5.0
NAMESPACE = "default"

console = Console(highlight=False)


class Confirmations:
    """A follower of Endpoints that tells when each is confirmed."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[float]] = {}

    def replaced(self, listing: Listing) -> None:
        for item in listing.items:
            self._see(item)

    def changed(self, change: Change) -> None:
        if change.kind == "DELETED":
            self.at.pop(change.object["metadata"]["name"], None)
        else:
            self._see(change.object)

    def _see(self, item: Object) -> None:
        name = item["metadata"]["name"]
        if (item.get("status") or {}).get("addresses") and name not in self.at:
            self.at[name] = time.perf_counter()
            if (future := self._waiting.pop(name, None)) is not None:
                future.set_result(self.at[name])

    async def of(self, name: str) -> float:
        if name in self.at:
            return self.at[name]
        future = self._waiting.setdefault(name, asyncio.get_running_loop().create_future())
        return await asyncio.wait_for(future, 120)


class Agents:
    """What a hundred agents are to the API server: a watch each, of their own node's Endpoints, as berth_cni has it."""

    def __init__(self) -> None:
        self.told = 0

    def replaced(self, listing: Listing) -> None:
        pass

    def changed(self, change: Change) -> None:
        self.told += 1


def main() -> None:
    levels = [int(each) for each in sys.argv[1:]] or list(LEVELS)
    # Claims need Pods that live: the ServiceAccount plugin would want an account for each.
    options = Options(
        controllers=False,
        fsync=False,
        api_server_flags=("--disable-admission-plugins=ServiceAccount", "--max-mutating-requests-inflight=800"),
    )
    with (
        tempfile.TemporaryDirectory(prefix="berth-scale-") as folder,
        ControlPlane(Path(folder), options=options) as plane,
    ):
        plane.kubectl("apply", "-f", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        plane.kubectl("create", "namespace", "berth-system")
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(_pool()))
        found = asyncio.run(_climb(plane, levels))
    report(found, console, RESULTS / f"scale-{datetime.now():%Y-%m-%dT%H%M%S}")


async def _climb(plane: ControlPlane, levels: list[int]) -> list[Level]:
    found: list[Level] = []
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Client(load(str(plane.kubeconfig)), rate=100_000, burst=100_000))
        watching = await stack.enter_async_context(
            Client(load(str(plane.kubeconfig)), rate=100_000, burst=100_000, connections=AGENTS + 1)
        )
        confirmations, agents = Confirmations(), Agents()
        tasks = [asyncio.create_task(follow(api, ENDPOINTS.path(), confirmations))]
        for number in range(AGENTS):
            own = {"fieldSelector": f"spec.node={_node(number)}"}
            tasks.append(asyncio.create_task(follow(watching, ENDPOINTS.path(), agents, params=own)))
        operator, _ = await _operator(plane, 0)
        filled = 0
        for number, level in enumerate(levels, 1):
            rate = await _fill(api, confirmations, filled, level)
            filled = level
            await asyncio.sleep(REST_SECONDS)
            singles = [await _single(api, confirmations, level, turn) for turn in range(SINGLES)]
            operator.stop()
            operator, takeover = await _operator(plane, number)
            await asyncio.sleep(REST_SECONDS)
            found.append(
                Level(
                    level,
                    rate,
                    1000 * statistics.median(singles),
                    1000 * statistics.quantiles(singles, n=10)[8],
                    takeover,
                    _memory(operator.pid, "VmHWM"),
                    _memory(operator.pid, "VmRSS"),
                    len(json.dumps(await api.get(POOLS.path("wide")))) / 1024,
                )
            )
            console.print(found[-1])
        assert agents.told >= 2 * filled, "the agents' watches were told of less than there was"
        for task in tasks:
            task.cancel()
        operator.stop()
    return found


async def _fill(api: Client, confirmations: Confirmations, first: int, last: int) -> float:
    gate, begin, shown = asyncio.Semaphore(AT_ONCE), time.perf_counter(), time.perf_counter()

    async def one(number: int) -> None:
        nonlocal shown
        async with gate:
            await _claim(api, f"claim-{number}", _node(number))
            await confirmations.of(f"claim-{number}")
        if time.perf_counter() - shown > 10:
            shown = time.perf_counter()
            console.print(f"  {len(confirmations.at)} of {last} held, {shown - begin:.0f} s")

    await asyncio.gather(*(one(number) for number in range(first, last)))
    return (last - first) / (time.perf_counter() - begin)


async def _single(api: Client, confirmations: Confirmations, level: int, turn: int) -> float:
    """One claim on the idle system: from asking to being confirmed. It goes again."""
    name = f"single-{level}-{turn}"
    pod = await api.create(_pods(), _pod(name))
    await asyncio.sleep(0.05)  # an operator knows a Pod for longer than this when its claim comes
    begin = time.perf_counter()
    await api.create(ENDPOINTS.path(namespace=NAMESPACE), _endpoint(name, pod["metadata"]["uid"], _node(turn)))
    seconds = await confirmations.of(name) - begin
    await api.delete(ENDPOINTS.path(name, namespace=NAMESPACE))
    await api.delete(f"{_pods()}/{name}")
    await asyncio.sleep(0.05)
    return seconds


async def _claim(api: Client, name: str, node: str) -> None:
    pod = await api.create(_pods(), _pod(name))
    await api.create(ENDPOINTS.path(namespace=NAMESPACE), _endpoint(name, pod["metadata"]["uid"], node))


async def _operator(plane: ControlPlane, number: int) -> tuple[Process, float]:
    """A new operator, once it leads; and the seconds from its election until then."""
    argv = [str(ROOT / ".venv" / "bin" / "berth"), "operator", "--kubeconfig", str(plane.kubeconfig)]
    process = Process(f"operator-{number}", argv, plane.directory)
    process.start()
    while not (told := _times(process.log.read_text())):
        process.check()
        await asyncio.sleep(0.05)
    return process, told[1] - told[0]


def _times(log: str) -> tuple[float, float] | None:
    elected = re.search(r"^(\S+ \S+) INFO \S+: elected ", log, re.MULTILINE)
    leading = re.search(r"^(\S+ \S+) INFO \S+: leading ", log, re.MULTILINE)
    if elected is None or leading is None:
        return None
    begin, end = (datetime.strptime(each[1], "%Y-%m-%d %H:%M:%S,%f").timestamp() for each in (elected, leading))
    return begin, end


def _memory(pid: int, kind: str) -> float:
    """MiB of a process: `VmHWM`, the most it ever had, or `VmRSS`."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{kind}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def _node(number: int) -> str:
    return f"scale-{number % AGENTS}"


def _pods() -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/pods"


def _pod(name: str) -> Object:
    container = {"name": "none", "image": "none"}
    spec = {"nodeName": "scale", "containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _endpoint(name: str, pod_uid: str, node: str) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Endpoint",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "pod": {"name": name, "uid": pod_uid},
            "node": node,
            "network": "net",
            "interface": "eth0",
            "containerID": f"{pod_uid}-{pod_uid}",
        },
    }


def _pool() -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "IPPool",
        "metadata": {"name": "wide"},
        "spec": {"subnet": "10.0.0.0/16", "default": True},
    }


if __name__ == "__main__":
    main()
