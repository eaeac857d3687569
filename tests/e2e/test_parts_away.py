"""A part of the cluster, or of Berth, does not answer for a while: Pods wait, say why, and run when it does."""

import json
import time

import pytest

from e2e.cluster import Cluster, CommandError, Node
from e2e.view import await_until
from tests.e2e.parts import frozen_operators
from tests.e2e.stage import Stage, pool

pytestmark = pytest.mark.cluster


def test_operators_that_hang_past_every_deadline_leave_nothing_behind(cluster: Cluster) -> None:
    """On node-1 the agent's deadline ends the ADD, which says why. On node-2 kubelet's ends it before that."""
    stage = Stage(cluster, "hang")
    stage.open(pool("hang", "10.89.0.0/24", ips=["10.89.0.1-10.89.0.4"]))
    kubelet_deadline(cluster.nodes["node-2"], seconds=5)
    cluster.wait_nodes_ready()
    with frozen_operators(cluster):
        stage.run("patient", node="node-1")
        stage.run("hurried", node="node-2")
        stage.await_event("hurried", "DeadlineExceeded", 40)
        stage.await_event("patient", "is berth-operator running?", 75)
    kubelet_deadline(cluster.nodes["node-2"], seconds=None)
    stage.await_sound(2)
    stage.close()


def test_etcd_and_the_api_server_are_killed_in_the_middle_of_a_rollout(cluster: Cluster) -> None:
    stage = Stage(cluster, "control-plane")
    stage.open(pool("control-plane", "10.90.0.0/24", ips=["10.90.0.1-10.90.0.30"]))
    stage.deploy("web", 30)
    stage.await_some(5)
    etcd, server = (cluster.plane.processes[name] for name in ("etcd", "kube-apiserver"))
    server.kill()
    etcd.kill()
    time.sleep(2)
    etcd.start()
    server.start()
    cluster.plane.wait_ready()
    stage.await_sound(30)
    stage.close()


def test_without_the_webhook_pods_get_addresses_and_pools_cannot_be_changed(cluster: Cluster) -> None:
    stage = Stage(cluster, "no-webhook")
    stage.open(pool("no-webhook", "10.91.0.0/24", ips=["10.91.0.1-10.91.0.8"]))
    scale_webhook(cluster, 0)
    try:
        stage.deploy("web", 4)
        stage.check(stage.await_running(4))
        with pytest.raises(CommandError, match="berth-webhook"):
            stage.apply(pool("another", "10.91.1.0/24"))
    finally:
        scale_webhook(cluster, 2)
    stage.close()


def kubelet_deadline(node: Node, seconds: int | None) -> None:
    """How long kubelet waits for a call of the runtime; twice as long for a sandbox. None: two minutes, the default."""
    file = node.folder / "kubelet.json"
    config = json.loads(file.read_text())
    config["runtimeRequestTimeout"] = f"{seconds or 120}s"
    file.write_text(json.dumps(config))
    node.processes["kubelet"].restart()


def scale_webhook(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", "-n", "berth-system", "deployment/berth-webhook", f"--replicas={replicas}")
    await_until(
        lambda: cluster.kubectl("get", "pods", "-n", "berth-system", "-l", "app.kubernetes.io/component=webhook", "-o",
                                "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}").split(),
        lambda told: told == ["True"] * replicas,
        60,
        f"{replicas} webhooks",
    )  # fmt: skip
