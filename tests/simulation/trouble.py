"""What people and bad luck do to a cluster. Each history leaves some of it out."""

from collections.abc import Callable
from random import Random
from typing import Any

from berth.kube.client import Object
from tests.simulation.cluster import Cluster
from tests.simulation.operators import Operator
from tests.simulation.outages import Outages


class Trouble:
    def __init__(self, cluster: Cluster, random: Random, hard: bool) -> None:
        self.cluster, self.random, self.hard = cluster, random, hard
        self.world, self.outages = cluster.world, Outages(cluster)

    def events(self) -> list[tuple[Callable[[], None], float]]:
        """What may happen in this history, and how often: each history leaves some of it out."""
        random = self.random
        rare = [
            self._finish_pod,
            self._force_delete_pod,
            self._forget_pod,
            self._crash_agent,
            self._pause_agent,
            self._crash_operator,
            self._pause_operator,
            self._both_lead,
            self._hand_over,
            self._api_away,
            self._cut_watches,
            self._compact,
            self._change_pool,
            self._delete_pool,
            self.outages.begin,
            self._force_delete_lost,
            self._reserve,
        ]
        chosen = [(each, random.uniform(0.2, 2.0)) for each in rare if random.random() < (0.6 if self.hard else 0.4)]
        return [
            (self.cluster.create_pod, 6.0),
            (self._delete_pod, 2.0),
            (self._replace_pod, 2.0),
            *chosen,
            *self.cluster.sets.events(),
        ]

    def _delete_pod(self) -> None:
        if (pod := self.cluster.some_pod()) is not None:
            self.cluster.delete(pod, force=False)

    def _force_delete_pod(self) -> None:
        """The Pod is gone from the API at once; its container a little later."""
        if (pod := self.cluster.some_pod()) is not None:
            self.cluster.delete(pod, force=True)
            if self.random.random() < 0.5 and not pod.of:
                self.cluster.create_pod(pod.name)

    def _force_delete_lost(self) -> None:
        """One whose node does not answer, whether or not it was asked to go before."""
        lost = [pod for node in self.cluster.nodes if node.away for pod in node.pods.values() if node.there(pod)]
        if lost:
            self.cluster.delete(self.random.choice(lost), force=True)

    def _replace_pod(self) -> None:
        """One goes and one comes at the same time, as when a Deployment rolls."""
        self._delete_pod()
        self.cluster.create_pod()

    def _forget_pod(self) -> None:
        """The runtime loses it: its sandbox is gone, no DEL comes, and its Pod goes."""
        if (pod := self.cluster.some_pod()) is not None:
            pod.orphaned = True
            self.cluster.delete(pod, force=False)

    def _finish_pod(self) -> None:
        if (pod := self.cluster.some_pod()) is None or pod.node.away:
            return
        self.world.note(f"* Pod {pod.name} ({pod.uid}) has finished")
        pod.finished = True
        pod.orphaned = self.random.random() < 0.3

        def finish(body: Object) -> None:
            body["status"]["phase"] = "Succeeded"

        pod.stop.set()
        self.world.loop.call_later(
            self.random.random(),
            self.world.api.store.change,
            "pods",
            pod.name,
            "default",
            _only(pod.uid, finish),
            "kubelet",
        )

    def _crash_agent(self) -> None:
        node = self.random.choice(self.cluster.nodes)
        if not node.off:
            node.agent.crash()
            self.world.loop.call_later(self.random.expovariate(1 / 3.0), node.start_agent)

    def _pause_agent(self) -> None:
        process = self.random.choice(self.cluster.nodes).agent.process
        self.world.note(f"* the agent of {process.name} is stopped")
        process.pause()
        self.world.loop.call_later(self.random.expovariate(1 / 5.0), process.resume)

    def _crash_operator(self) -> None:
        """Killed; it, the other, or after a while somebody, leads."""
        operator, other = self.random.sample(self.cluster.operators, 2)
        leads = operator.leads
        operator.crash()
        later = self.world.loop.call_later
        if leads:
            later(self.random.expovariate(1 / 3.0), self._succeed, other)
        later(self.random.expovariate(1 / 3.0), self._revive, operator)

    def _succeed(self, operator: Operator) -> None:
        if not self.world.calm and not any(each.leads for each in self.cluster.operators):
            operator.lead()

    def _revive(self, operator: Operator) -> None:
        if operator.process.dead:
            operator.restart(False)
        self._succeed(operator)

    def _pause_operator(self) -> None:
        """Stopped for longer than its lease: the other leads, and it believes for a while that it still does."""
        operator, other = self.random.sample(self.cluster.operators, 2)
        leads, process = operator.leads, operator.process
        self.world.note(f"* {operator.name} is stopped")
        process.pause()
        later = self.world.loop.call_later
        pause = self.random.expovariate(1 / 4.0)
        later(pause, self._go_on, process)
        if leads:
            other.lead()
            later(pause + self.random.expovariate(1 / 3.0), self._resign, operator)

    def _go_on(self, process: Any) -> None:
        if process.stopped and not process.dead:
            self.world.note(f"* {process.name} goes on")
            process.resume()

    def _resign(self, operator: Operator) -> None:
        if not self.world.calm and all(each.leads for each in self.cluster.operators):
            operator.step_down()

    def _both_lead(self) -> None:
        for operator in self.cluster.operators:
            operator.lead()
        self.world.loop.call_later(
            self.random.expovariate(1 / 10.0), self._resign, self.random.choice(self.cluster.operators)
        )

    def _hand_over(self) -> None:
        operator, other = self.random.sample(self.cluster.operators, 2)
        operator.step_down()
        other.lead()

    def _api_away(self) -> None:
        self.world.note("* the API server is away")
        self.world.api.go_away()
        self.world.loop.call_later(self.random.expovariate(1 / 3.0), self.world.api.come_back)

    def _cut_watches(self) -> None:
        self.world.note("* all watches are cut")
        self.world.api.watches.cut()

    def _compact(self) -> None:
        self.world.note("* old versions are compacted, all watches cut")
        self.world.api.watches.compact()
        self.world.api.watches.cut()

    def _change_pool(self) -> None:
        """Grown, shrunk, with an exclusion, disabled: admission is away and lets everything pass."""
        pools = self.world.api.store.all("ippools")
        if not pools:
            return
        pool = self.random.choice(pools)["metadata"]["name"]
        self.world.note(f"* pool {pool} is changed")
        self.world.api.store.change("ippools", pool, "", self._respec, "someone")

    def _respec(self, body: Object) -> None:
        random, spec = self.random, body["spec"]
        body["metadata"]["generation"] += 1
        first = spec["ips"][0].partition("-")[0]
        stem, separator, low = first.rpartition(":" if ":" in first else ".")
        change = random.choice(("resize", "resize", "exclude", "disable"))
        if change == "resize":
            spec["ips"] = [f"{first}-{stem}{separator}{int(low) + random.randint(0, 6):x}"]
        elif change == "exclude":
            spec["excludeIPs"] = [f"{stem}{separator}{int(low) + random.randint(0, 5):x}"] * (random.random() < 0.7)
        else:
            spec["disabled"] = not spec.get("disabled", False)

    def _delete_pool(self) -> None:
        """In use or not: admission is away. One of the same name, and the same addresses, comes after it."""
        name = self.random.choice(sorted(self.cluster.specs))
        if self.world.api.store.read("ippools", name) is not None:
            self.world.note(f"* pool {name} is deleted")
            self.world.api.store.remove("ippools", name)
            self.world.loop.call_later(self.random.expovariate(1 / 5.0), self._make_pool, name)

    def _make_pool(self, name: str) -> None:
        if self.world.calm:
            return
        if self.world.api.store.read("ippools", name) is None:
            self.world.note(f"* pool {name} is there again")
            self.cluster.make_pool(name)
        elif self.random.random() < 0.9:
            self.world.loop.call_later(self.random.expovariate(1 / 2.0), self._make_pool, name)

    def _reserve(self) -> None:
        name = f"reserved-{self.random.randint(0, 1)}"
        if self.world.api.store.read("reservedips", name) is not None:
            self.world.note(f"* {name} is gone")
            self.world.api.store.remove("reservedips", name)
            return
        ips = [self.random.choice((f"10.0.0.{self.random.randint(2, 6)}", "fd00::3"))]
        self.world.note(f"* {name} reserves {ips}")
        self.world.api.store.make("reservedips", {"metadata": {"name": name}, "spec": {"ips": ips}})


def _only(uid: str, change: Callable[[Object], None]) -> Callable[[Object], None]:
    def changed(body: Object) -> None:
        if body["metadata"]["uid"] == uid:
            change(body)

    return changed
