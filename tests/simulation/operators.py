"""Operators: the real `Term` against the model of the API, fed pools and reservations as kopf feeds them."""

import asyncio
from collections.abc import Callable

from berth.controller.restored import Restored
from berth.controller.settings import Settings
from berth.controller.term import Term, reign
from berth.kube.client import Change, Listing, Object
from berth.kube.reflector import follow
from berth.kube.resources import POOLS, RESERVED, Resource
from tests.simulation.apiserver import Client
from tests.simulation.loop import Process
from tests.simulation.world import World


class Feed:
    """Pools or reservations as kopf tells of them: what a listing shows has no kind, and what vanished while no watch
    was open is never told."""

    def __init__(self, told: Callable[[str | None, Object], None]) -> None:
        self._told = told

    def replaced(self, listing: Listing) -> None:
        for item in listing.items:
            self._told(None, item)

    def changed(self, change: Change) -> None:
        self._told(change.kind, change.object)


class Marked(Restored):
    """What the Lease says of a restore, as if it were read at each election, and written by whoever leads."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def notice(self) -> None:
        super().notice()
        self._world.marked = True

    def over(self) -> None:
        super().over()
        self._world.marked = False


class Operator:
    """One replica. Who leads is for the history to say: often nobody, sometimes both."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.restored = Marked(world)
        self._term: Term | None = None
        self._leading: asyncio.Task[None] | None = None
        self.process = self._start()

    @property
    def leads(self) -> bool:
        return self._leading is not None

    def _start(self) -> Process:
        process = self._world.process(self.name)
        self._client = Client(self._world.api, self.name)
        process.spawn(self._watch(POOLS, self._pool_event))
        process.spawn(self._watch(RESERVED, self._reserved_event))
        return process

    def _pool_event(self, kind: str | None, item: Object) -> None:
        if self._term is not None:
            self._term.pool_event(kind, item)

    def _reserved_event(self, kind: str | None, item: Object) -> None:
        if self._term is not None:
            self._term.reserved_event(kind, item)

    async def _watch(self, resource: Resource, told: Callable[[str | None, Object], None]) -> None:
        await follow(self._client, resource.path(), Feed(told))

    def lead(self) -> None:
        if self._leading is None and not self.process.dead:
            self._world.note(f"* {self.name} leads")
            self._world.checker.excuse()
            self.read_mark()
            self._leading = self.process.spawn(self._lead())
            self._leading.add_done_callback(self._led)

    async def _lead(self) -> None:
        mine: list[Term] = []

        def begins(term: Term) -> None:
            mine[:] = [term]
            self._term = term

        try:
            await reign(self._client, Settings(), begins, self.restored)
        finally:
            if self._term in mine:
                self._term = None

    def read_mark(self) -> None:
        self.restored.noticed = self._world.marked

    def reads_lease(self) -> None:
        """Of its own, each second: after a restore it finds it older than it was."""
        if self.leads and not self.process.dead and not self.process.stopped and not self.restored.noticed:
            self.restored.notice()

    def step_down(self) -> None:
        if self._leading is not None:
            self._world.note(f"* {self.name} leads no longer")
            self._world.checker.excuse()
            self._leading.cancel()
            self._leading = None

    def _led(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        if task is self._leading and (error := task.exception()) is not None:
            self._world.failures.append(error)

    def crash(self) -> None:
        self._world.note(f"* {self.name} is killed")
        self._world.checker.excuse()
        self.process.kill()
        self._leading = self._term = None

    def restart(self, leads: bool) -> None:
        self.restored = Marked(self._world)
        self.process = self._start()
        if leads:
            self.lead()
