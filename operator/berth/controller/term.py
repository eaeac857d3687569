"""One term of leadership: from being elected to no longer being so.

Order matters (design, section 2, rule 5): first the surroundings, then the pools, and after them the Endpoints, all
with consistent reads. Only then is anything decided. Whatever is known dies with the term.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from berth.controller.allocator import Allocator
from berth.controller.claims import read
from berth.controller.herald import Herald
from berth.controller.looker import Looker
from berth.controller.reclaimer import Reclaimer
from berth.controller.reservations import Reservations
from berth.controller.scribe import Scribe
from berth.controller.shelf import Shelf
from berth.controller.slicer import Slicer
from berth.controller.surroundings import UNFINISHED, read_pod
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError
from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS, NAMESPACES, NODES, PODS, POOLS, RESERVED

log = logging.getLogger(__name__)

PATIENCE_LOOK_SECONDS = 0.25
# kopf lists again after a watch that was too old, and then says nothing of what has vanished meanwhile.
SWEEP_SECONDS = 60.0


class Term:
    """Everything a leader has. `run` returns only by being cancelled."""

    def __init__(self, api: Api) -> None:
        clock = asyncio.get_running_loop().time
        self._api = api
        self._scribe = Scribe(api)
        self._reclaimer = Reclaimer(api, clock)
        self._looker, self._herald = Looker(api), Herald(api)
        self._slicer = Slicer(api, clock)
        self.allocator = Allocator(
            clock, self._scribe.write, self._reclaimer.suspect, self._looker.look, self._herald.complain
        )
        self._shelf: Shelf | None = None
        self._reservations: Reservations | None = None
        self._early: list[Callable[[], None]] = []  # events that came before our own first reading was done

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            await self._look_around(tasks)

            def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                return tasks.create_task(coroutine)

            shelf = Shelf(self._api, self.allocator, spawn)
            shelf.doubt = self._reclaimer.doubt
            reservations = Reservations(self._api, self.allocator, shelf)
            for item in (await self._api.list(RESERVED.path())).items:
                reservations.seen(item)
            listing = await shelf.load_all(await self._api.list(POOLS.path()))
            for seen in self.allocator.claims:
                if seen.claim.pod_uid not in self.allocator.world.pods.pods:
                    self._reclaimer.suspect(seen)
            self._shelf, self._reservations = shelf, reservations
            for event in self._early:
                event()
            log.info("leading", extra={"pools": len(self.allocator.books), "endpoints": len(self.allocator.claims)})
            tasks.create_task(follow(self._api, ENDPOINTS.path(), self.allocator.claims, reading=read, listing=listing))
            tasks.create_task(shelf.run())
            tasks.create_task(reservations.run())
            tasks.create_task(self._scribe.run(self.allocator))
            tasks.create_task(self._looker.run(self.allocator))
            tasks.create_task(self._herald.run())
            tasks.create_task(self._reclaimer.run(self.allocator))
            tasks.create_task(self._slicer.run(self.allocator))
            tasks.create_task(self._lose_patience())
            tasks.create_task(self._sweep(shelf, reservations))

    async def _look_around(self, tasks: asyncio.TaskGroup) -> None:
        world = self.allocator.world
        views = (
            (NAMESPACES, world.namespaces, None, None),
            (NODES, world.nodes, None, None),
            (PODS, world.pods, UNFINISHED, read_pod),
        )
        for resource, view, params, reading in views:
            path = resource.path()
            listing = await self._api.list(path, params, metadata=True, reading=reading)
            view.replaced(listing)
            following = follow(self._api, path, view, params=params, metadata=True, reading=reading, listing=listing)
            tasks.create_task(following)

    async def _lose_patience(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE_LOOK_SECONDS)
            if len(self.allocator.waiting):
                self.allocator.lose_patience()

    async def _sweep(self, shelf: Shelf, reservations: Reservations) -> None:
        """Reservations and pools that are gone, and nobody said so. What came while they were listed stays."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            reserved, books = dict(shelf.reserved), list(self.allocator.books.values())
            try:
                listed = [await self._api.list(each.path(), metadata=True) for each in (RESERVED, POOLS)]
            except KubeError as error:
                log.warning("pools and reservations not readable, trying again", extra={"error": str(error)})
                continue
            names = {item["metadata"]["name"] for item in listed[0].items}
            uids = {item["metadata"]["uid"] for item in listed[1].items}
            for name, ranges in reserved.items():
                if name not in names and shelf.reserved.get(name) is ranges:
                    reservations.gone({"metadata": {"name": name}})
            for book in books:
                if book.meta.uid not in uids:
                    book.recheck()

    # --- what kopf tells ---------------------------------------------------------------------------------------------

    def pool_event(self, kind: str | None, item: Object) -> None:
        if self._shelf is None:
            self._early.append(lambda: self.pool_event(kind, item))
        elif kind == "DELETED":
            self._shelf.pool_gone(item)
        else:
            self._shelf.pool_seen(item)

    def reserved_event(self, kind: str | None, item: Object) -> None:
        if self._reservations is None:
            self._early.append(lambda: self.reserved_event(kind, item))
        elif kind == "DELETED":
            self._reservations.gone(item)
        else:
            self._reservations.seen(item)
