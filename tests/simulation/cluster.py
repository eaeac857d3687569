"""A simulated cluster: its nodes, pools, operators and Pods, and what people ask of it."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import orjson

from berth.kube.client import Object
from tests.simulation.kubelets import Node, Pod
from tests.simulation.objects import timestamp
from tests.simulation.operators import Operator
from tests.simulation.sets import Shape, StatefulSets
from tests.simulation.world import World

NETWORK = "net"
SLICED = 0.2  # of all histories


class Cluster:
    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.nodes: list[Node] = []
        self.operators: list[Operator] = []
        self.pods: dict[str, Pod] = {}
        self.made: dict[str, Pod] = {}  # every Pod there ever was
        self.specs: dict[str, dict[str, Any]] = {}  # of pools, by name
        self._made = 0
        self._shapes: list[Shape] = []
        # Drawn from nothing that the rest draws from: a history without sets is what it was before there were any.
        own = Random("sets" + str(random.getstate()))
        self.sets = StatefulSets(world, own, self.pods, self._make_member, self.delete)

    def build(self) -> None:
        random = self.random
        for index in range(random.choice((1, 2, 2, 3))):
            self.nodes.append(Node(self.world, name := f"node-{index}"))
            self.make_node(name)
        self.world.api.store.make("namespaces", {"metadata": {"name": "default"}})
        self._make_pools()
        self.operators = [Operator(self.world, name) for name in ("operator-a", "operator-b")]
        self.operators[0].lead()
        self.sets.build([shape for shape in self._shapes if "sliced" not in shape[2]])

    def make_node(self, name: str) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.world.api.store.make("nodes", {"metadata": {"name": name}, "spec": {}, "status": ready})

    def _make_pools(self) -> None:
        random = self.random
        delay = random.choice(("0s", "1s", "5s"))
        size = random.randint(1, 6)
        self._pool("four", f"10.0.0.2-10.0.0.{size + 1}", delay, default=True)
        four: tuple[dict[str, Any], int, tuple[str, ...]] = ({"ipv4Pools": ["four"]}, 1, ("four",))
        self._shapes = [four]
        if random.random() < 0.4:
            self._pool(
                "six", f"fd00::2-fd00::{size + random.randint(0, 3) + 1:x}", delay, default=random.random() < 0.5
            )
            both = {"ipv4Pools": ["four"], "ipv6Pools": ["six"]}
            self._shapes += [(both, 2, ("four", "six"))] * 2
        if random.random() < 0.3:
            self._pool("rival-1", "10.0.1.2-10.0.1.4", delay, subnet="10.0.1.0/24")
            self._pool("rival-2", "10.0.1.3-10.0.1.6", delay, subnet="10.0.1.0/24")
            self._shapes += [({"ipv4Pools": [name]}, 1, (name,)) for name in ("rival-1", "rival-2")]
        # Drawn from nothing that the rest draws from: a history without slices is what it was before there were any.
        if Random(str(random.getstate())).random() < SLICED:
            slices = {"slices": {"size": random.randint(1, 2)}}
            self._pool("sliced", "10.0.2.2-10.0.2.7", delay, subnet="10.0.2.0/24", more=slices)
            self._shapes += [({"ipv4Pools": ["sliced"]}, 1, ("sliced",))] * 3

    def _pool(
        self,
        name: str,
        ips: str,
        delay: str,
        *,
        default: bool = False,
        subnet: str = "",
        more: Object | None = None,
    ) -> None:
        spec = {
            **(more or {}),
            "subnet": subnet or ("fd00::/64" if ":" in ips else "10.0.0.0/24"),
            "ips": [ips],
            "reuseDelay": delay,
            "default": default,
        }
        self.specs[name] = spec
        self.make_pool(name)

    def make_pool(self, name: str) -> None:
        """As it was at first, with a UID of its own."""
        spec = orjson.loads(orjson.dumps(self.specs[name]))
        self.world.api.store.make("ippools", {"metadata": {"name": name}, "spec": spec})

    def create_pod(self, name: str = "") -> None:
        """Some have a name that was used before."""
        self._create(name or f"pod-{self.random.randint(0, 9)}", None, None)

    def _make_member(self, name: str, shape: Shape, owner: Object) -> None:
        self._create(name, shape, owner)

    def _create(self, name: str, shaped: Shape | None, owner: Object | None) -> None:
        """Nothing, if one of this name is there still, or no node that it could run on."""
        random = self.random
        nodes = [node for node in self.nodes if not node.away]
        if not nodes or self.world.api.store.read("pods", name, "default") is not None:
            return
        node = random.choice(nodes)
        self._made += 1
        shape, families, pools = shaped or random.choice(self._shapes)
        body: Object = {
            "metadata": {"name": name, "namespace": "default", "uid": f"pod-{self._made}"},
            "spec": {"nodeName": node.name},
            "status": {"phase": "Running"},
        }
        if "sliced" in pools:
            # Applications of a kind that this API does not know: as soon as a slice of theirs is empty it may go.
            app = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": f"app-{random.randint(0, 3)}", "uid": "-"}
            owner = {**app, "controller": True}
        if owner is not None:
            body["metadata"]["ownerReferences"] = [owner]
        uid = self.world.api.store.make("pods", body)["metadata"]["uid"]
        config = {"cniVersion": "1.0.0", "name": NETWORK, "type": "bridge", "ipam": {"type": "berth", **shape}}
        pod = Pod(name, uid, node, config, families, pools, asyncio.Event())
        pod.of = owner["uid"] if owner is not None and shaped is not None else ""
        self.pods[uid] = self.made[uid] = pod
        self.world.note(f"* Pod {name} ({uid}) on {node.name}, from {', '.join(pools)}")
        node.run(pod)

    def run_again(self, node: Node, body: Object) -> None:
        """A restored Pod, which its kubelet does not know any more."""
        meta = body["metadata"]
        pod = replace(self.made[meta["uid"]], stop=asyncio.Event(), orphaned=False, running=False, container="")
        pod.leaving, pod.finished = "deletionTimestamp" in meta, body["status"].get("phase") == "Succeeded"
        self.world.note(f"* Pod {pod.name} ({pod.uid}) is there again")
        if not pod.leaving:
            self.pods[pod.uid] = pod
        if not pod.finished:
            node.run(pod)
        if pod.leaving:
            node.end(pod)

    def some_pod(self) -> Pod | None:
        pods = [pod for pod in self.pods.values() if not pod.leaving]
        return self.random.choice(pods) if pods else None

    def delete(self, pod: Pod, force: bool) -> None:
        if pod.leaving and not force:
            return
        self.world.note(f"* Pod {pod.name} ({pod.uid}) is {'force-' * force}deleted")
        if force and pod.node.away and self.ready(pod.node):
            # Not promised (docs/reliability.md): it is force-deleted before its node is seen to be not Ready.
            self.world.checker.waive(pod.uid)
        self.pods.pop(pod.uid, None)
        pod.leaving = True
        there = self.world.api.store.read("pods", pod.name, "default")
        if there is not None and there["metadata"]["uid"] == pod.uid:
            if force or pod.finished:
                self.world.api.store.remove("pods", pod.name, "default")
            else:
                self.world.api.store.change("pods", pod.name, "default", self._leave, "someone")
        pod.node.end(pod)

    def ready(self, node: Node) -> bool:
        """As the API says."""
        there = self.world.api.store.read("nodes", node.name)
        return there is not None and there["status"]["conditions"][0]["status"] == "True"

    def _leave(self, body: Object) -> None:
        body["metadata"]["deletionTimestamp"] = timestamp(self.world.loop.time())
