"""Stories on a real cluster: kubelets, containerd, macvlan, Berth as Pods under its own service accounts."""

import os
import signal

import pytest

from e2e.cluster import Cluster
from e2e.cluster.errors import CommandError
from tests.e2e.parts import leader
from tests.e2e.stage import Stage, pool

pytestmark = pytest.mark.cluster


def test_thirty_pods_of_two_families_get_addresses_and_give_them_back(cluster: Cluster) -> None:
    stage = Stage(cluster, "two-families")
    stage.open(
        pool("four", "10.80.0.0/24", ips=["10.80.0.10-10.80.0.60"], excludeIPs=["10.80.0.12"], gateway="10.80.0.11"),
        pool("six", "fd80::/64"),
        {
            "apiVersion": "ipam.berth.dev/v1alpha1",
            "kind": "ReservedIP",
            "metadata": {"name": "kept"},
            "spec": {"ips": ["10.80.0.10", "fd80::1-fd80::4"]},
        },
    )
    stage.deploy("web", 30)
    snapshot = stage.await_running(30)
    stage.check(snapshot)
    used = {each["address"] for endpoint in snapshot.endpoints for each in endpoint["status"]["addresses"]}
    assert len(used) == 60
    assert not used & {"10.80.0.10/24", "10.80.0.11/24", "10.80.0.12/24", "fd80::1/64", "fd80::4/64"}
    stage.close()


def test_a_pool_of_exactly_thirty_serves_thirty_pods_twice(cluster: Cluster) -> None:
    stage = Stage(cluster, "exactly")
    stage.open(pool("thirty", "10.81.0.0/24", ips=["10.81.0.1-10.81.0.30"]))
    stage.deploy("web", 30)
    first = stage.await_running(30)
    stage.check(first)
    cluster.kubectl("delete", "pods", "--all", "--namespace", stage.namespace, "--wait=false")
    gone = {pod["metadata"]["uid"] for pod in first.pods}
    second = stage.await_running(30)
    while gone & {pod["metadata"]["uid"] for pod in second.pods}:
        second = stage.await_running(30)
    stage.check(second)
    assert second.pool("thirty")["status"]["available"] == 0
    stage.close()


def test_the_leader_is_killed_in_the_middle_of_a_rollout_of_fifty(cluster: Cluster) -> None:
    stage = Stage(cluster, "killed")
    stage.open(pool("fifty", "10.82.0.0/24", ips=["10.82.0.1-10.82.0.50"]))
    stage.deploy("web", 50)
    stage.await_some(5)
    os.kill(leader(cluster), signal.SIGKILL)
    snapshot = stage.await_running(50)
    stage.check(snapshot)
    stage.close()


def test_an_overlapping_pool_is_refused_by_kubectl_apply(cluster: Cluster) -> None:
    stage = Stage(cluster, "overlapping")
    stage.open(pool("first", "10.83.0.0/24", ips=["10.83.0.1-10.83.0.20"]))
    with pytest.raises(CommandError) as refused:
        stage.apply(pool("second", "10.83.0.0/24", ips=["10.83.0.15-10.83.0.30"]))
    for part in ("second", "first", "10.83.0.15-10.83.0.20", "excludeIPs"):
        assert part in str(refused.value)
    stage.close()
