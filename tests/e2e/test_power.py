"""A node loses its power, with all that it has in memory: what it holds stays held until it is back, and not longer."""

import json

import pytest

from e2e.cluster import Cluster
from e2e.view import await_until
from tests.e2e.stage import Stage, by_pod, pool

pytestmark = pytest.mark.cluster


def test_a_node_without_power_holds_its_addresses_and_is_back_with_them(cluster: Cluster) -> None:
    node, stage = cluster.nodes["node-2"], Stage(cluster, "power")
    stage.open(pool("power", "10.88.0.0/24", ips=["10.88.0.1-10.88.0.8"]))
    stage.deploy("web", 6, node="node-2")
    stage.run("goes-1", node="node-2")
    stage.run("goes-2", node="node-2")
    before = stage.await_running(8)
    stage.check(before)

    node.power_off()
    await_until(lambda: ready(cluster, "node-2"), lambda is_ready: not is_ready, 60, "NotReady")
    stage.kubectl("delete", "pod", "goes-1", "goes-2", "--grace-period=0", "--force")
    stage.run("waits", node="node-1")
    stage.await_event("waits", "pool power has no free", 30)
    assert stage.look().pool("power")["status"]["available"] == 0

    node.power_on()
    cluster.wait_nodes_ready()
    after = stage.await_sound(7)
    sandboxes = {each["spec"]["containerID"] for each in before.endpoints}
    assert not sandboxes & {each["spec"]["containerID"] for each in after.endpoints}, "every sandbox was made anew"
    stayed = {key: held for key, held in by_pod(before).items() if key in by_pod(after)}
    assert len(stayed) == 6
    assert stayed.items() <= by_pod(after).items()
    stage.close()


def ready(cluster: Cluster, node: str) -> bool:
    conditions = json.loads(cluster.kubectl("get", "node", node, "-o", "json"))["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
