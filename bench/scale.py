"""`make bench-scale`: what grows as a pool fills and Endpoints become many, and what does not.

    python -m bench.scale [LEVEL ...]        default 1000 10000 30000 60000

Against a real kube-apiserver and etcd, with one real operator and a pool of a whole /16. At each level the pool is
filled up to it by claims that the operator grants (so many a second), then single claims are timed on the idle system,
then a new operator takes over: how long from being elected to granting, and how much memory it has. Nothing on the way
of one address may grow with the number of addresses held.
"""

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from berth.kube.client import Change, Client, Listing, Object
from berth.kube.config import load
from berth.kube.reflector import follow
from berth.kube.resources import API_VERSION, ENDPOINTS, POOLS
from e2e.cluster import ControlPlane, Options, Process

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
LEVELS = (1000, 10_000, 30_000, 60_000)
SINGLES = 60
AT_ONCE = 96
NAMESPACE = "default"
NODE = "scale"

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen with so many addresses held."""

    held: int
    grants_a_second: float
    latency_ms: float
    latency_p90_ms: float
    takeover_s: float
    operator_mib: float
    pool_kib: float


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
    _report(found)


async def _climb(plane: ControlPlane, levels: list[int]) -> list[Level]:
    found: list[Level] = []
    async with Client(load(str(plane.kubeconfig)), rate=100_000, burst=100_000) as api:
        confirmations = Confirmations()
        following = asyncio.create_task(follow(api, ENDPOINTS.path(), confirmations))
        operator, _ = await _operator(plane, 0)
        filled = 0
        for number, level in enumerate(levels, 1):
            rate = await _fill(api, confirmations, filled, level)
            filled = level
            singles = [await _single(api, confirmations, level, turn) for turn in range(SINGLES)]
            operator.stop()
            operator, takeover = await _operator(plane, number)
            await asyncio.sleep(2)
            found.append(
                Level(
                    level,
                    rate,
                    1000 * statistics.median(singles),
                    1000 * statistics.quantiles(singles, n=10)[8],
                    takeover,
                    _rss(operator.pid),
                    len(json.dumps(await api.get(POOLS.path("wide")))) / 1024,
                )
            )
            console.print(found[-1])
        following.cancel()
        operator.stop()
    return found


async def _fill(api: Client, confirmations: Confirmations, first: int, last: int) -> float:
    gate, begin = asyncio.Semaphore(AT_ONCE), time.perf_counter()

    async def one(number: int) -> None:
        async with gate:
            await _claim(api, f"claim-{number}")
            await confirmations.of(f"claim-{number}")

    await asyncio.gather(*(one(number) for number in range(first, last)))
    return (last - first) / (time.perf_counter() - begin)


async def _single(api: Client, confirmations: Confirmations, level: int, turn: int) -> float:
    """One claim on the idle system: from asking to being confirmed. It goes again."""
    name = f"single-{level}-{turn}"
    await api.create(_pods(), _pod(name))
    begin = time.perf_counter()
    await _claim(api, name, with_pod=False)
    seconds = await confirmations.of(name) - begin
    await api.delete(ENDPOINTS.path(name, namespace=NAMESPACE))
    await api.delete(f"{_pods()}/{name}")
    await asyncio.sleep(0.05)
    return seconds


async def _claim(api: Client, name: str, *, with_pod: bool = True) -> None:
    if with_pod:
        await api.create(_pods(), _pod(name))
    await api.create(ENDPOINTS.path(namespace=NAMESPACE), _endpoint(name, await _uid(api, name)))


async def _uid(api: Client, name: str) -> str:
    uid: str = (await api.get(f"{_pods()}/{name}"))["metadata"]["uid"]
    return uid


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


def _rss(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def _pods() -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/pods"


def _pod(name: str) -> Object:
    container = {"name": "none", "image": "none"}
    spec = {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _endpoint(name: str, pod_uid: str) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Endpoint",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "pod": {"name": name, "uid": pod_uid},
            "node": NODE,
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


def _report(levels: list[Level]) -> None:
    table = Table(title="as a /16 fills")
    for column in ("held", "grants/s", "latency ms", "p90 ms", "take-over s", "operator MiB", "pool KiB"):
        table.add_column(column, justify="right")
    for level in levels:
        table.add_row(
            str(level.held),
            f"{level.grants_a_second:.0f}",
            f"{level.latency_ms:.1f}",
            f"{level.latency_p90_ms:.1f}",
            f"{level.takeover_s:.2f}",
            f"{level.operator_mib:.0f}",
            f"{level.pool_kib:.1f}",
        )
    console.print(table)
    if len(levels) > 1:
        growth = levels[-1].latency_ms / levels[0].latency_ms
        console.print(f"latency at {levels[-1].held} held is {growth:.2f} x that at {levels[0].held}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"scale-{datetime.now():%Y-%m-%dT%H%M%S}.json"
    target.write_text(json.dumps([asdict(level) for level in levels], indent=1))


if __name__ == "__main__":
    main()
