"""StatefulSets: a model of their controller. It makes the Pods that are missing and ends those that are too many."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from berth.kube.client import Object
from tests.simulation.kubelets import Pod
from tests.simulation.world import World

SOMETIMES = 0.2  # of all histories
Shape = tuple[dict[str, Any], int, tuple[str, ...]]  # CNI configuration, addresses, pools
Make = Callable[[str, Shape, Object], None]  # a Pod's name, its shape, the reference to its owner


class StatefulSets:
    """Of one history, as `random` draws them; as a rule none. `pods` are those of all kinds that are there."""

    def __init__(
        self, world: World, random: Random, pods: dict[str, Pod], make: Make, delete: Callable[[Pod, bool], None]
    ) -> None:
        self._world, self._random, self._pods, self._make, self._delete = world, random, pods, make, delete
        self._shapes: dict[str, Shape] = {}

    def build(self, shapes: list[Shape]) -> None:
        if self._random.random() >= SOMETIMES:
            return
        for name in ("db", "mq")[: self._random.randint(1, 2)]:
            self._shapes[name] = self._random.choice(shapes)
            self._create(name)
        self._tend()

    def events(self) -> list[tuple[Callable[[], None], float]]:
        return [(self._roll, 4.0), (self._scale, 0.7), (self._remake, 0.4)] if self._shapes else []

    def asked(self) -> Iterator[tuple[str, int, tuple[str, ...]]]:
        """Of each that is there: its name, how many Pods it is to have, the pools they ask."""
        for name, (_, _, pools) in self._shapes.items():
            if (there := self._there(name)) is not None:
                yield name, there["spec"]["replicas"], pools

    def remove(self, name: str) -> None:
        if self._there(name) is not None:
            self._world.note(f"* StatefulSet {name} is deleted")
            self._world.api.store.remove("statefulsets", name, "default")
            self._world.checker.forget(name)
            self._tend_now()

    def remove_all(self) -> None:
        for name in self._shapes:
            self.remove(name)

    # --- what people do ----------------------------------------------------------------------------------------------

    def _create(self, name: str) -> None:
        if not self._world.calm and self._there(name) is None:
            replicas = self._random.randint(1, 3)
            self._world.note(f"* StatefulSet {name} with {replicas} Pods")
            body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"replicas": replicas}}
            self._world.api.store.make("statefulsets", body)

    def _roll(self) -> None:
        """One of its Pods is deleted, which comes again."""
        pods = [pod for pod in self._pods.values() if pod.of and not pod.leaving]
        if pods:
            self._delete(self._random.choice(pods), False)

    def _scale(self) -> None:
        name = self._random.choice(sorted(self._shapes))
        replicas = self._random.randint(0, 3)

        def scale(body: Object) -> None:
            body["spec"]["replicas"] = replicas

        if self._there(name) is not None:
            self._world.note(f"* StatefulSet {name} is scaled to {replicas}")
            self._world.api.store.change("statefulsets", name, "default", scale, "someone")
            self._world.checker.forget(name)

    def _remake(self) -> None:
        name = self._random.choice(sorted(self._shapes))
        self.remove(name)
        self._world.loop.call_later(self._random.expovariate(1 / 5.0), self._create, name)

    # --- what its controller does ------------------------------------------------------------------------------------

    def _tend(self) -> None:
        self._tend_now()
        self._world.loop.call_later(self._random.uniform(0.1, 2.0), self._tend)

    def _tend_now(self) -> None:
        for pod in list(self._pods.values()):
            if pod.of and (pod.finished or not self._wanted(pod)):
                self._delete(pod, False)
        for name, shape in self._shapes.items():
            if (there := self._there(name)) is None:
                continue
            uid = there["metadata"]["uid"]
            owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": uid, "controller": True}
            for ordinal in range(there["spec"]["replicas"]):
                self._make(f"{name}-{ordinal}", shape, owner)

    def _wanted(self, pod: Pod) -> bool:
        name, _, ordinal = pod.name.rpartition("-")
        there = self._there(name)
        return there is not None and there["metadata"]["uid"] == pod.of and int(ordinal) < there["spec"]["replicas"]

    def _there(self, name: str) -> Object | None:
        return self._world.api.store.read("statefulsets", name, "default")
