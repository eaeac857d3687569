"""Watches: each tells its client everything in order, unless it is slow, cut, or too old to be taken up again."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from random import Random

from berth.kube.client import Change
from berth.kube.errors import Expired, Unknown
from tests.simulation.faults import Faults
from tests.simulation.objects import Happened, Matches

Later = Callable[..., None]  # seconds, what is called then, its arguments


class Stream:
    """One watch, as its client reads it."""

    def __init__(self, matches: Matches, metadata: bool, ends: float, slowness: float) -> None:
        self.matches, self.metadata, self.ends, self.slowness = matches, metadata, ends, slowness
        self.told = 0.0  # when the last one is told
        self._under_way: deque[tuple[str, Happened]] = deque()
        self._items: deque[Change | Exception | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.over = False

    def push(self, item: Change | Exception | None) -> None:
        if self.over:
            return
        self.over = not isinstance(item, Change)
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def idle(self) -> bool:
        """Everything that was sent has arrived."""
        return not self._under_way

    def send(self, kind: str, happened: Happened) -> None:
        self._under_way.append((kind, happened))

    def arrive(self) -> None:
        """What was sent first arrives first."""
        kind, happened = self._under_way.popleft()
        if not self.over:
            item = happened.after.copy(self.metadata)
            item.pop("deleted", None)
            self.push(Change(kind, item))

    async def next(self) -> Change | Exception | None:
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()


class Watches:
    """All open watches, and what has happened since the last compaction."""

    def __init__(self, clock: Callable[[], float], later: Later, random: Random, faults: Faults) -> None:
        self._clock, self._later, self._random, self._faults = clock, later, random, faults
        self._happened: dict[str, list[Happened]] = {}
        self._compacted = 0
        self._streams: dict[str, dict[Stream, None]] = {}
        self.version = 1  # of the latest that has happened
        self.were_cut = 0  # by a fault

    def open(self, plural: str, version: int, matches: Matches, metadata: bool) -> Stream:
        """From after `version` on."""
        if version < self._compacted:
            raise Expired(410, "Expired", f"too old resource version: {version}")
        random, faults = self._random, self._faults
        slowness = random.uniform(0.5, 15.0) if random.random() < faults.lag else 0.0
        stream = Stream(matches, metadata, self._clock() + random.uniform(30, 300), slowness)
        self._streams.setdefault(plural, {})[stream] = None
        happened = self._happened.setdefault(plural, [])
        for each in happened[bisect_right(happened, version, key=lambda each: each.version) :]:
            self._send(plural, stream, each)
        self._later(stream.ends - self._clock(), self._end, plural, stream)
        return stream

    def tell(self, plural: str, happened: Happened) -> None:
        self.version = happened.version
        self._happened.setdefault(plural, []).append(happened)
        for stream in list(self._streams.get(plural, ())):
            self._send(plural, stream, happened)

    def cut(self) -> None:
        for streams in self._streams.values():
            for stream in list(streams):
                stream.push(Unknown("watch: the connection was cut"))
            streams.clear()

    def compact(self) -> None:
        """From now on no watch can be taken up from before."""
        self.compact_to(self.version)

    def compact_to(self, version: int) -> None:
        self.version = self._compacted = version
        for happened in self._happened.values():
            happened.clear()

    def _send(self, plural: str, stream: Stream, happened: Happened) -> None:
        kind = happened.kind(stream.matches)
        if kind is None or stream.over or stream.ends == 0.0:
            return  # what follows a cut is not told either
        random = self._random
        if random.random() < self._faults.cut:
            self._streams[plural].pop(stream, None)
            self.were_cut += 1
            self._later(latency(random), stream.push, Unknown("watch: the connection was cut"))
            stream.ends = 0.0
            return
        lag = latency(random) + (random.random() * stream.slowness if stream.slowness else 0.0)
        stream.told = max(stream.told, self._clock() + lag)
        stream.send(kind, happened)
        self._later(stream.told - self._clock(), stream.arrive)

    def _end(self, plural: str, stream: Stream) -> None:
        """The server ends a watch after a while; sometimes it has sent a bookmark before."""
        if stream.over or stream.ends == 0.0:
            return
        self._streams[plural].pop(stream, None)
        if stream.idle:
            stream.push(Change("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))
        stream.push(None)


def latency(random: Random) -> float:
    """Seconds that a message is under way."""
    return 0.001 + random.expovariate(200.0)
