"""One term of leadership: from being elected to no longer being so.

Order matters (design, section 2, rule 5): first the surroundings, then the pools, and after them the Endpoints, all
with consistent reads. Only then is anything decided. Whatever is known dies with the term: what a term cannot read at
its start, or finds to be of another history (etcd was restored), ends it, and the next one begins.

Where the record may be an old one, after a restore or a long outage, nothing new is granted at first: agents assert
what their nodes hold (`berth_cni/asserting.py`), and that is decided before anything else.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from berth.controller.allocator import Allocator
from berth.controller.claims import read
from berth.controller.comparer import Comparer
from berth.controller.herald import Herald
from berth.controller.looker import Looker
from berth.controller.metrics import METRICS
from berth.controller.reclaimer import Reclaimer
from berth.controller.reservations import Reservations
from berth.controller.restored import Restored
from berth.controller.rollcall import RollCall
from berth.controller.scribe import Scribe
from berth.controller.settings import Settings
from berth.controller.shelf import Shelf
from berth.controller.slicer import Slicer
from berth.controller.surroundings import UNFINISHED, read_pod, read_stateful_set
from berth.kube.client import Api, Listing, Object, Reading
from berth.kube.errors import KubeError, Rewound
from berth.kube.reflector import Follower, follow
from berth.kube.resources import ENDPOINTS, NAMESPACES, NODES, PODS, POOLS, RESERVED, STATEFUL_SETS, Resource

log = logging.getLogger(__name__)

PATIENCE_LOOK_SECONDS = 0.25
PAUSE_BETWEEN_TERMS = 0.5
# kopf lists again after a watch that was too old, and then says nothing of what has vanished meanwhile; after a restore
# its watch is silent, and for up to a minute after its connection was lost without a word.
SWEEP_SECONDS = 10.0


async def reign(api: Api, settings: Settings, begins: "Callable[[Term], None]", restored: Restored) -> None:
    """One term after the other, until cancelled."""
    while True:
        term = Term(api, settings, restored)
        begins(term)
        try:
            await term.run()
        except* KubeError as failures:
            log.warning("term ended, the next begins", extra={"errors": [str(each) for each in failures.exceptions]})
        except* Rewound as contradictions:
            log.error(
                "etcd was restored: term ended", extra={"seen": [str(each) for each in contradictions.exceptions]}
            )
            METRICS.rewinds.inc()
            restored.notice()
        await asyncio.sleep(PAUSE_BETWEEN_TERMS)


class Term:
    """Everything a leader has. `run` ends by being cancelled, or with what ended it."""

    def __init__(self, api: Api, settings: Settings, restored: Restored) -> None:
        clock = asyncio.get_running_loop().time
        self._api = api
        self._settings = settings
        self._restored, self._noticed = restored, restored.times
        self._scribe = Scribe(api)
        self._looker, self._herald = Looker(api), Herald(api)
        self._slicer = Slicer(api, clock)
        self._reclaimer = Reclaimer(api, clock, settings, self._herald.reclaimed)
        self.allocator = Allocator(
            clock,
            self._scribe.write,
            self._reclaimer.suspect,
            self._looker.look,
            self._herald.complain,
            holding_back=restored.noticed,
        )
        self._roll_call = RollCall(api, self.allocator, self._herald)
        self._following: dict[Resource, Callable[[Listing | None], asyncio.Task[None]]] = {}
        self._watches: dict[Resource, asyncio.Task[None]] = {}
        self.allocator.prospects.doubted = self._reclaimer.doubted
        # What kopf tells waits until our own first reading is done, and ends with the term: the next one reads anew.
        self._told: asyncio.Queue[tuple[Resource, str | None, Object]] = asyncio.Queue()

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
            log.info("leading", extra={"pools": len(self.allocator.books), "endpoints": len(self.allocator.claims)})
            self._follow(tasks, ENDPOINTS, self.allocator.claims, listing, reading=read)
            comparer = Comparer(self._api, self.allocator, shelf, self._reclaimer, self._herald, self._anew)
            self.allocator.dispute = comparer.want
            tasks.create_task(comparer.run(self._settings.comparison))
            tasks.create_task(self._until_restored())
            tasks.create_task(self._listen(shelf, reservations))
            tasks.create_task(self._grant_on())
            tasks.create_task(shelf.run())
            tasks.create_task(reservations.run())
            tasks.create_task(self._scribe.run(self.allocator))
            tasks.create_task(self._looker.run(self.allocator))
            tasks.create_task(self._herald.run())
            tasks.create_task(self._roll_call.run())
            tasks.create_task(self._reclaimer.run(self.allocator))
            tasks.create_task(self._slicer.run(self.allocator))
            tasks.create_task(self._lose_patience())
            tasks.create_task(self._sweep(shelf, reservations))

    async def _look_around(self, tasks: asyncio.TaskGroup) -> None:
        world = self.allocator.world
        views = (
            (NAMESPACES, world.namespaces, None, None),
            (NODES, world.nodes, None, None),
            (STATEFUL_SETS, world.stateful_sets, None, read_stateful_set),
            (PODS, world.pods, UNFINISHED, read_pod),
        )
        for resource, view, params, reading in views:
            path = resource.path()
            metadata = resource is not STATEFUL_SETS  # of those it is the spec that tells
            listing = await self._api.list(path, params, metadata=metadata, reading=reading)
            view.replaced(listing)
            self._follow(tasks, resource, view, listing, params, metadata=metadata, reading=reading)

    def _follow(
        self,
        tasks: asyncio.TaskGroup,
        resource: Resource,
        view: Follower,
        listing: Listing,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> None:
        def begin(first: Listing | None) -> asyncio.Task[None]:
            return tasks.create_task(
                follow(
                    self._api,
                    resource.path(),
                    view,
                    params=params,
                    metadata=metadata,
                    reading=reading,
                    listing=first,
                    rewound=lambda: _rewound(resource),
                )
            )

        self._following[resource] = begin
        self._watches[resource] = begin(listing)

    def _anew(self, resource: Resource) -> None:
        """Its watch has not told everything: it begins anew with a list."""
        self._watches[resource].cancel()
        self._watches[resource] = self._following[resource](None)

    async def _grant_on(self) -> None:
        if self.allocator.holding_back:
            log.warning("grants are held back", extra={"seconds": self._settings.reassertion})
            await asyncio.sleep(self._settings.reassertion)
            self.allocator.grant_on()
            self._restored.over()

    async def _until_restored(self) -> None:
        await self._restored.once_more(self._noticed)
        raise Rewound("the Lease went back")

    async def _lose_patience(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE_LOOK_SECONDS)
            if len(self.allocator.waiting):
                self.allocator.lose_patience()

    async def _sweep(self, shelf: Shelf, reservations: Reservations) -> None:
        """Reservations and pools that have come, changed or gone, and nobody said so. What came while they were listed
        stays."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            reserved, books = dict(shelf.reserved), list(self.allocator.books.values())
            try:
                listed = [await self._api.list(RESERVED.path()), await self._api.list(POOLS.path(), metadata=True)]
                unknown = [await self._api.get(POOLS.path(name)) for name in self._unknown(listed[1])]
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
            for item in listed[0].items:
                name = item["metadata"]["name"]
                if shelf.reserved.get(name) is reserved.get(name):
                    reservations.seen(item)
            for item in [*unknown, *(item for item in listed[1].items if self._knows(item))]:
                shelf.pool_seen(item)

    def _knows(self, item: Object) -> bool:
        book = self.allocator.books.get(item["metadata"]["name"])
        return book is not None and book.meta.uid == item["metadata"]["uid"]

    def _unknown(self, listing: Listing) -> list[str]:
        return [item["metadata"]["name"] for item in listing.items if not self._knows(item)]

    # --- what kopf tells ---------------------------------------------------------------------------------------------

    def pool_event(self, kind: str | None, item: Object) -> None:
        self._told.put_nowait((POOLS, kind, item))

    def reserved_event(self, kind: str | None, item: Object) -> None:
        self._told.put_nowait((RESERVED, kind, item))

    async def _listen(self, shelf: Shelf, reservations: Reservations) -> None:
        deeds = {POOLS: (shelf.pool_seen, shelf.pool_gone), RESERVED: (reservations.seen, reservations.gone)}
        while True:
            resource, kind, item = await self._told.get()
            seen, gone = deeds[resource]
            (gone if kind == "DELETED" else seen)(item)


def _rewound(resource: Resource) -> None:
    raise Rewound(f"the resourceVersion of {resource.plural} went back")
