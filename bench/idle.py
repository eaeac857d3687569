"""What one ADD and one DEL cost when nothing else goes on: from the start of the plugin to its answer.

    python -m bench.idle [ROUNDS]

A real API server, operator and agent, started for this. Each round is a new Pod, as on a node; the median counts. The
target of an ADD is 50 ms.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from e2e.cluster import ControlPlane, Options
from tests.cni.fleet import Fleet, fleet

ROUNDS = 100
TARGET_MS = 50.0


async def measure(made: Fleet, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each ADD and of each DEL."""
    adds, dels = [], []
    async with made.story() as story:
        node, pool = story.nodes[0], await story.pool()
        for number in range(rounds + 5):
            pod = await story.pod()
            await asyncio.sleep(0.05)
            began = time.perf_counter()
            await node.add(f"c{number}", pod, pool)
            adds.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(0.05)
            began = time.perf_counter()
            await node.delete(f"c{number}")
            dels.append(1000 * (time.perf_counter() - began))
            await story.remove(pod)
    return adds[5:], dels[5:]  # the first ones open connections


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        place = Path(folder)
        with ControlPlane(place / "plane", options=Options(controllers=False)) as plane:
            crds = Path(__file__).parents[1] / "crds"
            plane.kubectl("apply", "-f", str(crds))
            plane.kubectl("wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=berth")
            with fleet(plane, place) as made:
                for name, taken in zip(("ADD", "DEL"), asyncio.run(measure(made, rounds)), strict=True):
                    slow = statistics.quantiles(taken, n=20)[-1]
                    target = f"  (target {TARGET_MS:.0f} ms)" if name == "ADD" else ""
                    print(f"{name}  median {statistics.median(taken):6.1f} ms  p95 {slow:6.1f} ms{target}", flush=True)


if __name__ == "__main__":
    main()
