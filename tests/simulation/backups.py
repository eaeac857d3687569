"""etcd restored from an old backup: what the API keeps is as it was, and what runs is not.

No request of before lands afterwards. Versions go on far above all that were, and older ones count as compacted, as
`etcdutl snapshot restore --bump-revision --mark-compacted` has it. Kubelets then make what runs match the API: a Pod
that is there again is started again, one that the API does not know ends. Who leads finds the Lease as it was.

Not promised (docs/reliability.md), so not asked: that a sandbox keeps what nobody asserted in the time that agents have
for it, because its agent or the API was away; or what by the record of then is another's, or no pool's.
"""

import asyncio
from collections.abc import Callable
from random import Random

from berth.kube.client import Object
from tests.simulation.cluster import Cluster
from tests.simulation.kubelets import Node
from tests.simulation.loop import Process
from tests.simulation.store import Kept

SOMETIMES = 0.3  # of all histories
BUMP = 1_000_000
MOST_AWAY_SECONDS = 5.0
ASSERTING_SECONDS = 20.0  # requests go through for longer than grants are held back
LOOK_SECONDS = 0.1
NOTICE_SECONDS = 1.5  # within which a leader has read the Lease
HEARD_SECONDS = 3.0  # within which a kubelet knows what the API has now


class Backups:
    """Of one history, as `random` draws them; as a rule none."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster, self._random, self._world = cluster, random, cluster.world
        self._ever = random.random() < SOMETIMES
        self._backup: Kept | None = None
        self._restoring = False

    def events(self) -> list[tuple[Callable[[], None], float]]:
        return [(self._take, 2.0), (self.restore, 1.0)] if self._ever else []

    def _take(self) -> None:
        self._world.note("* a backup is taken")
        self._backup = self._world.api.store.backup()

    def restore(self) -> None:
        backup, world = self._backup, self._world
        if backup is None or self._restoring or world.calm:
            return
        world.note("* etcd is restored")
        self._backup, self._restoring = None, True
        world.api.go_away()
        world.api.lose_requests()
        world.api.store.restore(backup, BUMP)
        world.api.watches.compact_to(world.api.store.version)
        world.marked = True
        world.checker.restored({kind: world.api.store.all(kind) for kind in ("ippools", "endpoints", "reservedips")})
        world.go(self._come_back())

    async def _come_back(self) -> None:
        world = self._world
        knowing = {node.agent.process for node in self._cluster.nodes if node.agent.remembers}
        await asyncio.sleep(self._random.uniform(0.0, MOST_AWAY_SECONDS))
        faults = world.api.faults.calm()
        world.api.come_back()
        for node in self._cluster.nodes:
            self._hear(node)
        for operator in self._cluster.operators:
            world.loop.call_later(self._random.random() * NOTICE_SECONDS, operator.reads_lease)
        until = world.loop.time() + ASSERTING_SECONDS
        while world.loop.time() < until:
            self._look(knowing)
            await asyncio.sleep(LOOK_SECONDS)
        self._restoring = False
        if not world.calm:
            world.api.faults.be(faults)

    def _look(self, knowing: set[Process]) -> None:
        """Whom nothing keeps from asserting what it knows is held to it."""
        checker = self._world.checker
        checker.excuse()
        for node in self._cluster.nodes:
            process = node.agent.process
            if self._world.api.away or node.away or process.dead or process.stopped:
                knowing.discard(process)
            if process not in knowing:
                for pod in node.pods.values():
                    checker.waive_unrecorded(pod.uid)

    # --- what kubelets and the control plane make of it -------------------------------------------------------------

    def _hear(self, node: Node) -> None:
        world, later, random = self._world, self._world.loop.call_later, self._random
        if node.away or world.api.away:
            later(1.0, self._hear, node)
            return
        if world.api.store.read("nodes", node.name) is None:
            self._cluster.make_node(node.name)
        world.api.store.change("nodes", node.name, "", _ready, "control plane")
        for pod in [*self._cluster.pods.values(), *node.pods.values()]:
            if pod.node is node and node.there(pod) is None:
                self._cluster.pods.pop(pod.uid, None)
                pod.leaving = True
                later(random.random() * HEARD_SECONDS, node.end, pod)
        for body in world.api.store.all("pods"):
            if body["spec"]["nodeName"] == node.name and self._cluster.pods.get(body["metadata"]["uid"]) is None:
                later(random.random() * HEARD_SECONDS, self._start, node, body["metadata"]["uid"])

    def _start(self, node: Node, uid: str) -> None:
        """When what it ran under this UID has ended, and the Pod is still there."""
        there = node.there(self._cluster.made[uid])
        if there is None or uid in self._cluster.pods:
            return
        if node.away or uid in node.pods:
            self._world.loop.call_later(1.0, self._start, node, uid)
        else:
            self._cluster.run_again(node, there)


def _ready(body: Object) -> None:
    body["spec"].pop("taints", None)
    body["status"].update(conditions=[{"type": "Ready", "status": "True"}])
