"""kubelet and containerd as they are: many Pods at once, and each of them killed at the worst moment."""

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from e2e.cluster import Cluster, Node
from e2e.cluster.shell import wait_for
from tests.e2e.stage import Stage, addresses, by_pod, pool

pytestmark = pytest.mark.cluster

# Named macvlan, beside the one that it calls: on ADD it keeps the whole answer back as long as /run/hold is there.
HOLDING = """\
#!/bin/sh
answer=$(/opt/cni/bin/macvlan.own)
status=$?
if [ "$CNI_COMMAND" = ADD ] && [ -e /run/hold ]; then
    touch "/run/held-$CNI_CONTAINERID"
    while [ -e /run/hold ]; do sleep 0.05; done
fi
printf %s "$answer"
exit $status
"""


def test_a_hundred_pods_at_once_on_one_node(cluster: Cluster) -> None:
    stage = Stage(cluster, "hundred")
    stage.open(pool("hundred", "10.84.0.0/24", ips=["10.84.0.1-10.84.0.100"]))
    stage.deploy("web", 100, node="node-1")
    snapshot = stage.await_running(100)
    stage.check(snapshot)
    assert len({address for each in snapshot.endpoints for address in addresses(each)}) == 100
    stage.close()


def test_a_kubelet_that_is_killed_in_the_middle_of_a_rollout_moves_no_address(cluster: Cluster) -> None:
    stage = Stage(cluster, "kubelet")
    stage.open(pool("kubelet", "10.85.0.0/24", ips=["10.85.0.1-10.85.0.30"]))
    stage.deploy("before", 10, node="node-1")
    before = by_pod(stage.await_running(10))
    stage.deploy("meanwhile", 20, node="node-1")
    stage.await_some(13)
    cluster.nodes["node-1"].processes["kubelet"].restart()
    after = by_pod(stage.await_sound(30))
    assert before.items() <= after.items()
    stage.close()


def test_containerd_killed_between_the_answer_and_its_own_record(cluster: Cluster) -> None:
    """One Pod stays: it keeps its address. The other is deleted meanwhile: no DEL may ever come, the address does."""
    node, stage = cluster.nodes["node-1"], Stage(cluster, "unrecorded")
    stage.open(pool("unrecorded", "10.86.0.0/24", ips=["10.86.0.1-10.86.0.8"]))
    with holding(node):
        stage.run("stays", node="node-1")
        stage.run("goes", node="node-1")
        wait_for("two answers that are kept back", lambda: len(held_back(node)) == 2, 60)
        answered = by_pod(stage.look())
        assert len(answered) == 2
        assert all(len(held) == 1 for held in answered.values())
        node.processes["containerd"].kill()
        stage.kubectl("delete", "pod", "goes", "--grace-period=0", "--force")
    node.processes["containerd"].start()
    after = stage.await_sound(1)
    (stays,) = after.endpoints
    assert by_pod(after).items() <= answered.items(), "the Pod has the address that it had"
    assert stays["spec"]["containerID"] not in held_back(node), "in a sandbox made anew"
    assert after.pool("unrecorded")["status"]["allocated"] == 1
    stage.close()


def test_a_shim_is_replaced_and_put_back_while_pods_come_and_go(cluster: Cluster) -> None:
    """As an upgrade of the DaemonSet does it, and its undoing: on each node the agent installs another file."""
    stage = Stage(cluster, "replaced")
    stage.open(pool("replaced", "10.87.0.0/24", ips=["10.87.0.1-10.87.0.24"]))
    stage.deploy("stays", 4)
    stays = by_pod(stage.await_running(4))
    stage.deploy("churn", 8)
    before = shims(cluster)
    for node in cluster.nodes.values():
        # A program does not mind what follows it in its file.
        node.run("sh", "-euc", f"(cat {SHIM}; echo another version) > {OTHER}; chmod 755 {OTHER}")
    for change in (f"BERTH_SHIM={OTHER}", "BERTH_SHIM-"):
        cluster.kubectl("set", "env", "-n", "berth-system", "daemonset/berth-agent", change)
        churn_until_rolled_out(stage)
        assert (shims(cluster) == before) == change.endswith("-")
    after = by_pod(stage.await_sound(12))
    assert stays.items() <= after.items()
    stage.close()


SHIM, OTHER = "/opt/cni/bin/berth", "/var/lib/berth/other-shim"


def shims(cluster: Cluster) -> list[str]:
    return [node.run("sha256sum", SHIM) for node in cluster.nodes.values()]


def churn_until_rolled_out(stage: Stage) -> None:
    """Pods go, and others come, until every agent is new."""
    rollout = ("rollout", "status", "-n", "berth-system", "daemonset/berth-agent")
    for _ in itertools.count():
        stage.kubectl("delete", "pod", "--selector=app=churn", "--wait=false")
        told = stage.cluster.kubectl(*rollout, "--watch=false")
        if "successfully rolled out" in told:
            return
        stage.await_some(6)


@contextlib.contextmanager
def holding(node: Node) -> Iterator[None]:
    """ADDs of this node are done to their end, and their answers kept back."""
    there = "cd /opt/cni/bin; cp macvlan macvlan.own; touch /run/hold"
    replace = 'printf %s "$1" > macvlan.new; chmod 755 macvlan.new; mv macvlan.new macvlan'
    node.run("sh", "-euc", f"{there}; {replace}", "sh", HOLDING)
    try:
        yield
    finally:
        node.run("sh", "-euc", "mv /opt/cni/bin/macvlan.own /opt/cni/bin/macvlan; rm /run/hold")


def held_back(node: Node) -> set[str]:
    """The sandboxes whose answer was kept back."""
    return {name.removeprefix("held-") for name in node.run("ls", "/run").split() if name.startswith("held-")}
