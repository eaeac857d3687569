"""What one event costs on its way into the operator: kopf's `on.event`, and a list-and-watch of our own.

    python -m bench.event_path [OBJECTS]

Both follow the same Endpoints of a real API server, each in a process of its own, while OBJECTS of them are created and
deleted: two events each. Printed: CPU milliseconds for an event, and memory. It says why Endpoints do not go through
kopf.
"""

import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

from berth.controller.claims import ClaimView, Seen, read
from berth.kube.client import Change, Client, Listing, Object
from berth.kube.config import load
from berth.kube.reflector import follow
from berth.kube.resources import API_VERSION, ENDPOINTS, GROUP, VERSION
from e2e.cluster import ControlPlane

ROOT = Path(__file__).parents[1]
AT_ONCE = 32
SETTLE_SECONDS = 3.0


def main() -> None:
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with (
        tempfile.TemporaryDirectory(prefix="berth-bench-") as folder,
        ControlPlane(Path(folder), controllers=False) as plane,
    ):
        plane.kubectl("apply", "-f", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        time.sleep(2)
        print(f"{'followed by':<12} {'events':>7} {'ms CPU each':>12} {'RSS MB':>7}")
        for name, follower in (("reflector", by_reflector), ("kopf", by_kopf)):
            events, cpu, rss = _measure(str(plane.kubeconfig), follower, objects)
            print(f"{name:<12} {events:>7} {1000 * cpu / (2 * objects):>12.3f} {rss:>7.0f}", flush=True)


def _measure(kubeconfig: str, follower: Callable[..., None], objects: int) -> tuple[int, float, float]:
    context = multiprocessing.get_context("spawn")
    ready, ended, told = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=follower, args=(kubeconfig, ready, ended, told))
    process.start()
    ready.wait()
    time.sleep(2)
    asyncio.run(_churn(kubeconfig, objects))
    ended.set()
    answer: tuple[int, float, float] = told.get(timeout=120)
    process.kill()  # kopf's own way out takes its time
    process.join()
    return answer


async def _churn(kubeconfig: str, objects: int) -> None:
    async with Client(load(kubeconfig), rate=10_000, burst=10_000) as api:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await api.create(ENDPOINTS.path(namespace="default"), endpoint(number))
                await api.delete(ENDPOINTS.path(f"pod-{number}", namespace="default"))

        await asyncio.gather(*(one(number) for number in range(objects)))


def endpoint(number: int) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Endpoint",
        "metadata": {"name": f"pod-{number}", "namespace": "default"},
        "spec": {
            "pod": {"name": f"pod-{number}", "uid": f"5f0c7d4e-0000-4000-8000-{number:012d}"},
            "node": "node-1",
            "network": "net",
            "interface": "eth0",
            "containerID": f"{number:064x}",
        },
    }


class Count:
    """Counts the events that a handler was told of, and what all of it cost. kopf may tell only the last of several."""

    def __init__(self) -> None:
        self._events, self._begin = 0, time.process_time()

    def one(self) -> None:
        self._events += 1

    async def report(self, ended: Event, told: "multiprocessing.Queue[tuple[int, float, float]]") -> None:
        await asyncio.to_thread(ended.wait)
        await asyncio.sleep(SETTLE_SECONDS)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told.put((self._events, time.process_time() - self._begin, rss))


def by_reflector(
    kubeconfig: str, ready: Event, ended: Event, told: "multiprocessing.Queue[tuple[int, float, float]]"
) -> None:
    """As the operator does: the event is parsed, becomes a claim, and is kept."""

    class Nobody:
        def seen(self, seen: Seen) -> None: ...
        def gone(self, seen: Seen) -> None: ...

    async def run() -> None:
        count, view = Count(), ClaimView(Nobody())

        class Counting:
            def replaced(self, listing: Listing) -> None:
                view.replaced(listing)
                ready.set()

            def changed(self, change: Change) -> None:
                view.changed(change)
                count.one()

        async with Client(load(kubeconfig)) as api:
            following = asyncio.create_task(follow(api, ENDPOINTS.path(), Counting(), reading=read))
            await count.report(ended, told)
            following.cancel()

    import uvloop

    uvloop.run(run())


def by_kopf(
    kubeconfig: str, ready: Event, ended: Event, told: "multiprocessing.Queue[tuple[int, float, float]]"
) -> None:
    """One `on.event` handler that does nothing."""
    import kopf
    import uvloop

    async def run() -> None:
        count = Count()
        registry = kopf.OperatorRegistry()
        access = load(kubeconfig)

        @kopf.on.startup(registry=registry)
        async def configure(settings: kopf.OperatorSettings, **_: object) -> None:
            settings.posting.enabled = False
            settings.scanning.disabled = True
            ready.set()

        @kopf.on.login(registry=registry)
        async def log_in(**_: object) -> kopf.ConnectionInfo:
            certificate, key = access.certificate or (None, None)
            return kopf.ConnectionInfo(
                server=access.server, ca_data=access.ca_data, certificate_data=certificate, private_key_data=key
            )

        @kopf.on.event(GROUP, VERSION, ENDPOINTS.plural, registry=registry)
        async def changed(**_: object) -> None:
            count.one()

        stop = asyncio.Event()
        operator = asyncio.create_task(
            kopf.operator(registry=registry, standalone=True, clusterwide=True, stop_flag=stop)
        )
        await count.report(ended, told)
        stop.set()
        operator.cancel()

    uvloop.run(run())


if __name__ == "__main__":
    main()
