"""etcd restored from an old backup under real processes: what runs is asserted again before anything new is granted."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.api.names import REASSERTED
from berth.controller.restored import MARK
from berth.kube.client import Object
from berth.kube.resources import POOLS
from e2e.cluster import ControlPlane, Options
from e2e.cluster.shell import wait_for
from tests.cni.fleet import Fleet, Story, fleet

pytestmark = pytest.mark.api
CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture
def restorable(tmp_path: Path) -> Iterator[Fleet]:
    """A control plane of its own: to restore it takes everything else in it back too."""
    with ControlPlane(tmp_path / "plane", options=Options(controllers=False, fsync=False)) as plane:
        plane.kubectl("apply", "-f", str(CRDS))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        with fleet(plane, tmp_path) as made:
            yield made


def stopped(plane: ControlPlane) -> None:
    for name in ("kube-apiserver", "etcd"):
        plane.processes[name].kill()


def started(plane: ControlPlane) -> None:
    for name in ("etcd", "kube-apiserver"):
        plane.processes[name].start()
    plane.wait_ready()


def back_up(plane: ControlPlane) -> None:
    stopped(plane)
    shutil.copytree(plane.directory / "etcd", plane.directory / "backup")
    started(plane)


def restore(plane: ControlPlane) -> None:
    stopped(plane)
    shutil.rmtree(plane.directory / "etcd")
    shutil.copytree(plane.directory / "backup", plane.directory / "etcd")
    started(plane)


def old_lease(made: Fleet) -> None:
    """As a backup of yesterday has it."""
    spec = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z", "holderIdentity": "somebody"}}
    patch = ["--type=merge", "-p", json.dumps(spec)]
    made.plane.kubectl("patch", "lease", "berth-operator", "-n", made.namespace, *patch)


def lease(made: Fleet) -> Object:
    told: Object = json.loads(made.plane.kubectl("get", "lease", "berth-operator", "-n", made.namespace, "-o", "json"))
    return told


def held_back(made: Fleet) -> int:
    """How many terms have held grants back."""
    return made.operator.log.read_text().count("grants are held back")


async def claims(story: Story) -> dict[str, Object]:
    return {each["spec"]["containerID"]: each for each in await story.endpoints()}


def address(claim: Object) -> str:
    held = (claim.get("status") or {}).get("addresses") or [{"address": ""}]
    return str(held[0]["address"]).partition("/")[0]


@pytest.mark.parametrize(
    "operator", ["goes on", "is started anew by then", "has noticed, is killed, and another leads after it"]
)
async def test_after_a_restore_no_address_is_given_twice_and_all_come_back(restorable: Fleet, operator: str) -> None:
    plane, (node,) = restorable.plane, restorable.nodes
    async with restorable.story() as story:
        pool = await story.pool(ips=["{}.2-{}.6"])
        pods = dict(zip(("stays", "ends", "c", "d"), await story.pods(4), strict=True))
        (kept,) = await node.add("stays", pods["stays"], pool)
        await node.add("ends", pods["ends"], pool)
        await asyncio.sleep(1)  # settled
        back_up(plane)
        held = {"stays": kept}
        for name in ("c", "d"):
            (held[name],) = await node.add(name, pods[name], pool)
        await node.delete("ends")
        await asyncio.sleep(2)  # the API's history is now well ahead of the backup's

        terms = 1
        if operator == "is started anew by then":
            restorable.operator.kill()
        restore(plane)
        if operator == "is started anew by then":
            old_lease(restorable)
            restorable.operator.start()
        elif operator != "goes on":
            wait_for("a term that holds back", lambda: held_back(restorable) == 1, 30)
            restorable.operator.restart()
            terms = 2  # the Lease is seconds old: its mark tells
        late = await story.pod()
        (new,) = await node.add("late", late, pool)

        now = await claims(story)
        assert {name: address(each) for name, each in now.items()} == {**held, "late": new}
        assert new not in held.values()
        assert {name for name, each in now.items() if REASSERTED in each["metadata"].get("annotations", {})} == {
            "c",
            "d",
        }
        assert held_back(restorable) >= terms
        wait_for("the mark to be gone", lambda: MARK not in lease(restorable)["metadata"].get("annotations", {}), 10)
        for name in now:
            await node.delete(name)
        for pod in (*pods.values(), late):
            await story.remove(pod)

        def empty() -> bool:
            status = json.loads(plane.kubectl("get", "--raw", POOLS.path(pool)))["status"]
            return not status["allocated"] and not status["ledger"].get("blocks")

        wait_for("every address back", empty, 30)
