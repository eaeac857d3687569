"""Operators: the real `Term` against the model of the API, fed pools and reservations as kopf feeds them."""

import asyncio
from collections.abc import Callable

from berth.controller.term import Term
from berth.kube.client import Change, Listing, Object
from berth.kube.errors import Expired, KubeError
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


class Operator:
    """One replica. Who leads is for the history to say: often nobody, sometimes both."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
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
            self._leading = self.process.spawn(self._lead())
            self._leading.add_done_callback(self._led)

    async def _lead(self) -> None:
        self._term = term = Term(self._client)
        try:
            await term.run()
        finally:
            if self._term is term:
                self._term = None

    def step_down(self) -> None:
        if self._leading is not None:
            self._world.note(f"* {self.name} leads no longer")
            self._leading.cancel()
            self._leading = None

    def _led(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if task is not self._leading:
            return
        if error is not None and not _ordinary(error):
            self._world.failures.append(error)
        # An error within a term ends the process, which is started again.
        self.crash()
        self._world.loop.call_later(1.0, self.restart, True)

    def crash(self) -> None:
        self._world.note(f"* {self.name} is killed")
        self.process.kill()
        self._leading = self._term = None

    def restart(self, leads: bool) -> None:
        self.process = self._start()
        if leads:
            self.lead()


def _ordinary(error: BaseException) -> bool:
    """The API could not be read when the term began."""
    if isinstance(error, BaseExceptionGroup):
        return all(_ordinary(each) for each in error.exceptions)
    return isinstance(error, KubeError) and not isinstance(error, Expired)
