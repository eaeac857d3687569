"""Nodes that are cut off or without power, what the control plane makes of it, and what people do then.

A node is Ready for a while after its last word. Of one that is known to be down people may then take it out of service
or delete it, and its Pods are collected; never of one that is cut off: its containers run on. All come back.
"""

from collections.abc import Callable
from typing import Any

from berth.kube.client import Object
from tests.simulation.cluster import Cluster
from tests.simulation.kubelets import Node, Pod

UNREADY_SECONDS = 6.0  # at most; shorter than real ones, so that there is time for more to happen
OUT_OF_SERVICE = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}


class Outages:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.random, self.world = cluster, cluster.random, cluster.world
        self._count: dict[str, int] = {}

    def begin(self) -> None:
        node, random = self.random.choice(self.cluster.nodes), self.random
        if node.away:
            return
        if random.random() < 0.5:
            node.cut_off()
        else:
            node.power_off()
        self._count[node.name] = count = self._count.get(node.name, 0) + 1
        self.world.loop.call_later(random.uniform(0.5, UNREADY_SECONDS), self._unready, node, count)
        self.world.loop.call_later(random.uniform(5.0, 60.0), self._back, node, count)

    def _unready(self, node: Node, count: int) -> None:
        if self._over(node, count):
            return
        self.world.note(f"* {node.name} is not Ready")
        self._state(node, "Unknown")
        if node.off:
            act = self.random.choice((self._take_out, self._remove, None))
            if act is not None:
                self.world.loop.call_later(self.random.expovariate(1 / 3.0), act, node, count)
        elif self.random.random() < 0.5:
            self._collect(node)  # by impatient people, one by one: its containers run on

    def _take_out(self, node: Node, count: int) -> None:
        if not self._over(node, count):
            self.world.note(f"* {node.name} is taken out of service")
            self._change(node, lambda body: body["spec"].update(taints=[OUT_OF_SERVICE]))
            self._collect(node)

    def _remove(self, node: Node, count: int) -> None:
        if not self._over(node, count):
            self.world.note(f"* {node.name} is deleted")
            self.world.api.store.remove("nodes", node.name)
            self._collect(node)

    def _collect(self, node: Node) -> None:
        """As podgc does: its Pods go, and its kubelet does not hear of it."""
        for pod in list(node.pods.values()):
            self.world.loop.call_later(self.random.expovariate(1 / 3.0), self._force, pod)

    def _force(self, pod: Pod) -> None:
        if pod.node.away and pod.node.there(pod):
            self.cluster.delete(pod, force=True)

    def _back(self, node: Node, count: int) -> None:
        if not self._over(node, count):
            self.end(node)

    def end(self, node: Node) -> None:
        """It is Ready again some seconds before or after its kubelet has heard what was asked of it meanwhile."""
        if not node.away:
            return
        if self.world.api.store.read("nodes", node.name) is None:
            self.cluster.make_node(node.name)
        self._change(node, lambda body: body["spec"].pop("taints", None))
        self.world.loop.call_later(self.random.uniform(0.0, 3.0), self._ready, node)
        node.come_back()

    def _ready(self, node: Node) -> None:
        if not node.away:
            self._state(node, "True")

    def _over(self, node: Node, count: int) -> bool:
        return not node.away or self._count[node.name] != count

    def _state(self, node: Node, ready: str) -> None:
        self._change(node, lambda body: body["status"].update(conditions=[{"type": "Ready", "status": ready}]))

    def _change(self, node: Node, change: Callable[[Object], Any]) -> None:
        self.world.api.store.change("nodes", node.name, "", change, "control plane")
