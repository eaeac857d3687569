"""Several interfaces of one Pod, by Multus itself, as kubelet and containerd call it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster, Node, binaries
from e2e.view import Object, await_until
from tests.e2e.stage import Stage, by_pod, pool

pytestmark = pytest.mark.cluster

DEFINITION = Path(__file__).with_name("network-attachment-definition.yaml")
CONFIG = "00-multus.conf"
NETWORKS = "k8s.v1.cni.cncf.io/networks"


@pytest.fixture
def multus(cluster: Cluster) -> Iterator[Node]:
    """A node whose containerd calls Multus, which calls macvlan with Berth for every interface."""
    node, binary = cluster.nodes["node-1"], binaries.ensure("multus") / "multus"
    cluster.kubectl("apply", "-f", str(DEFINITION))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(DEFINITION))
    node.run("cp", "-L", str(binary), "/opt/cni/bin/")
    default = json.loads(node.run("cat", "/etc/cni/net.d/10-test.conflist"))
    own = {"cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus"}
    node.configure_cni({**own, "kubeconfig": str(cluster.kubeconfig), "delegates": [default]}, CONFIG)
    node.processes["containerd"].restart()  # it reads its configuration at once then
    cluster.wait_nodes_ready()
    yield node
    node.run("rm", f"/etc/cni/net.d/{CONFIG}")
    node.processes["containerd"].restart()
    cluster.kubectl("delete", "-f", str(DEFINITION))


def test_two_interfaces_on_one_pool_have_two_addresses(cluster: Cluster, multus: Node) -> None:
    stage = Stage(cluster, "multus")
    stage.open(
        pool("first", "10.92.0.0/24", ips=["10.92.0.1-10.92.0.8"]),
        pool("second", "10.93.0.0/24", ips=["10.93.0.1-10.93.0.8"], default=False),
        network("multus", "storage", "second"),
    )
    for name in ("web-0", "web-1"):
        stage.run(name, multus.name, {NETWORKS: "storage@net1,storage@net2"})
    snapshot = stage.await_running(2)
    stage.check(snapshot)
    held = by_pod(snapshot)
    assert sorted(interface for _, interface in held) == ["eth0", "eth0", "net1", "net1", "net2", "net2"]
    assert len({address for each in held.values() for address in each}) == 6
    for pod in snapshot.pods:
        told = json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"])
        uid = pod["metadata"]["uid"]
        told_of = {each["interface"]: each["ips"] for each in told}
        assert told_of == {each: plain(held[uid, each]) for each in ("eth0", "net1", "net2")}
    stage.close()


def test_an_empty_pool_of_one_interface_does_not_drain_those_of_the_others(cluster: Cluster, multus: Node) -> None:
    stage = Stage(cluster, "drain")
    stage.open(
        pool("wide", "10.94.0.0/24", ips=["10.94.0.1-10.94.0.9"]),
        pool("narrow", "10.95.0.0/24", ips=["10.95.0.1"], default=False),
        network("drain", "narrow", "narrow"),
    )
    stage.run("first", multus.name, {NETWORKS: "narrow@net1"})
    stage.await_running(1)
    stage.run("second", multus.name, {NETWORKS: "narrow@net1"})
    await_until(
        lambda: stage.look().pool("wide")["status"]["allocated"],
        lambda allocated: sum(each["count"] for each in stage.failures("second")) >= 2 and allocated <= 2,
        60,
        "two failed tries that hold no more than one address",
    )
    stage.await_event("second", "pool narrow has no free", 5)
    stage.kubectl("delete", "pod", "first", "--wait=false")
    snapshot = stage.await_sound(1)
    assert snapshot.pool("wide")["status"]["allocated"] == 1
    assert snapshot.pool("narrow")["status"]["allocated"] == 1
    stage.close()


def network(namespace: str, name: str, pool_name: str) -> Object:
    ipam = {"type": "berth", "ipv4Pools": [pool_name]}
    plugin = {"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"config": json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]})},
    }


def plain(held: list[str]) -> list[str]:
    return [address.partition("/")[0] for address in held]
