"""A model of the API server: what kube-apiserver promises, and all the ways in which a request can go wrong.

Kept: one resourceVersion for all, uid and resourceVersion as preconditions, `status` as a subresource, writes that
change nothing write nothing, lists that are consistent, watches that tell everything in order, fields to select by.

Gone wrong by seed: a request is lost before it is done; is done, and its answer lost; lands late, after its caller
has given up and others have written; is refused for no reason (429, 409, 500). A watch lags, is cut, is too old. The
server is away for a while. A request that was sent is under way by itself: what becomes of its sender changes nothing.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from random import Random
from typing import Any

import orjson

from berth.kube.client import Change, Listing, Object, Reading
from berth.kube.errors import AlreadyExists, BadRequest, Busy, Conflict, Expired, KubeError, NotFound, Unknown
from tests.simulation.checker import Landing
from tests.simulation.loop import SimulatedLoop

CLIENT_SECONDS = 20.0  # after which a real client gives up
PEOPLES = ("labels", "annotations", "finalizers")  # of metadata, what a write of the object may change
LATEST_SECONDS = 30.0  # how long after that a write may still land


Key = tuple[str, str]  # namespace, name
Matches = Callable[[Object], bool]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object at one version. `body` is never changed: who asks gets a copy, made from `raw`."""

    body: Object
    raw: bytes

    @staticmethod
    def of(body: Object) -> "Stored":
        return Stored(body, orjson.dumps(body))

    def copy(self, metadata: bool = False) -> Object:
        loaded: Object = orjson.loads(self.raw)
        return {"metadata": loaded["metadata"]} if metadata else loaded


@dataclass(frozen=True, slots=True)
class Happened:
    """What watches tell."""

    version: int
    before: Stored | None
    after: Stored


@dataclass(slots=True)
class Faults:
    """How likely each is for one request; `lag`: how likely a watch is to be slow for a while, `cut` to be cut when
    something is told."""

    lost: float = 0.0
    unanswered: float = 0.0
    late: float = 0.0
    busy: float = 0.0
    conflict: float = 0.0
    broken: float = 0.0
    slow: float = 0.0
    lag: float = 0.0
    cut: float = 0.0

    @staticmethod
    def drawn(random: Random, most: float) -> "Faults":
        """Some kinds of them, none above `most`."""
        return Faults(**{each.name: random.random() * most * (random.random() < 0.5) for each in fields(Faults)})

    def calm(self) -> None:
        for each in fields(self):
            setattr(self, each.name, 0.0)


@dataclass(frozen=True, slots=True)
class Target:
    plural: str
    namespace: str
    name: str
    sub: str


@lru_cache(maxsize=4096)
def parse(path: str) -> Target:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    plural, name, sub = (*parts, "", "")[:3]
    return Target(plural, namespace, name, sub)


@lru_cache(maxsize=256)
def selector(text: str) -> Matches:
    """`a.b=X,c.d!=Y`."""
    terms: list[tuple[list[str], bool, str]] = []
    for term in filter(None, text.split(",")):
        field, _, value = term.replace("!=", "=!", 1).partition("=")
        terms.append((field.split("."), value.startswith("!"), value.lstrip("!")))

    def matches(body: Object) -> bool:
        return all((_field(body, field) == value) is not unwanted for field, unwanted, value in terms)

    return matches


def _field(body: Any, names: list[str]) -> str:
    for name in names:
        body = (body or {}).get(name)
    return body or ""


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


class ApiServer:
    """The one API server of a simulated cluster, and what it keeps."""

    def __init__(self, loop: SimulatedLoop, random: Random, faults: Faults) -> None:
        self.loop, self.random, self.faults = loop, random, faults
        self.observers: list[Callable[[Landing], None]] = []
        self.note: Callable[[str], None] = lambda text: None
        self.counted: dict[str, int] = {}
        self.version = 1
        self.away = False
        self.closed = False
        self._kept: dict[str, dict[Key, Stored]] = {}
        self._told: dict[str, list[Happened]] = {}
        self._compacted = 0
        self._streams: dict[str, dict[Stream, None]] = {}
        self._uids = 0
        self._context = Context()

    # --- people, kubelets, controllers: done at once ----------------------------------------------------------------

    def read(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """To be read only."""
        stored = self._kept.get(plural, {}).get((namespace, name))
        return None if stored is None else stored.body

    def all(self, plural: str) -> list[Object]:
        """To be read only."""
        return [stored.body for stored in self._kept.get(plural, {}).values()]

    def make(self, plural: str, body: Object, by: str = "someone") -> Object:
        return self._create(Target(plural, body["metadata"].get("namespace", ""), "", ""), body, by, status=True)

    def change(self, plural: str, name: str, namespace: str, change: Callable[[Object], None], by: str) -> None:
        """Anything of an object, spec and status alike."""
        stored = self._kept.get(plural, {}).get((namespace, name))
        if stored is not None:
            body = stored.copy()
            change(body)
            self._store(plural, (namespace, name), stored, body, by)

    def remove(self, plural: str, name: str, namespace: str = "", by: str = "someone") -> None:
        if (namespace, name) in self._kept.get(plural, {}):
            self._delete(Target(plural, namespace, name, ""), None, None, by)

    # --- faults in time ---------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        self.away = True
        self.cut_watches()

    def come_back(self) -> None:
        self.away = False

    def cut_watches(self) -> None:
        for streams in self._streams.values():
            for stream in list(streams):
                stream.push(Unknown("watch: the connection was cut"))
            streams.clear()

    def compact(self) -> None:
        """From now on no watch can be taken up from before."""
        self._compacted = self.version
        for told in self._told.values():
            told.clear()

    def close(self) -> None:
        """The history is over: nothing is answered any more."""
        self.closed = True
        self.go_away()

    # --- requests ---------------------------------------------------------------------------------------------------

    def accept(self, client: str, name: str, act: Callable[[], Any], writes: bool) -> "asyncio.Future[Any]":
        """A request is sent: its fate is drawn."""
        answer: asyncio.Future[Any] = self.loop.create_future()
        lag = self._latency()
        if self.away:
            self._later(lag, self._answer, answer, Unknown(f"{name}: connection refused"))
            return answer
        fate = self._fate()
        if fate is None or (fate == "conflict" and not name.startswith(("PUT", "DELETE"))):
            self._later(lag, self._land, act, answer, name)
            return answer
        self.counted[fate] = self.counted.get(fate, 0) + 1
        self.note(f"! {client}: {name} {fate}")
        if fate == "busy":
            self._later(lag, self._answer, answer, Busy(429, "TooManyRequests", name))
        elif fate == "conflict":
            self._later(lag, self._answer, answer, Conflict(409, "Conflict", name))
        elif fate == "broken":
            self._later(lag, self._answer, answer, Unknown(f"500 {name}"))
        elif fate == "slow":
            self._later(self.random.uniform(0.1, CLIENT_SECONDS / 2), self._land, act, answer, name)
        else:
            patience = self.random.uniform(0.2, CLIENT_SECONDS)
            self._later(patience, self._answer, answer, Unknown(f"{name}: timed out"))
            if fate == "unanswered":
                self._later(lag, self._land, act, None, name)
            elif fate == "late" and writes:
                self._later(patience + self.random.random() * LATEST_SECONDS, self._land, act, None, name)
        return answer

    def _fate(self) -> str | None:
        drawn = self.random.random()
        for kind in ("lost", "unanswered", "late", "busy", "conflict", "broken", "slow"):
            drawn -= getattr(self.faults, kind)
            if drawn < 0:
                return kind
        return None

    def _latency(self) -> float:
        return 0.001 + self.random.expovariate(200.0)

    def _later(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        self.loop.call_later(seconds, act, *args, context=self._context)

    def _land(self, act: Callable[[], Any], answer: "asyncio.Future[Any] | None", name: str) -> None:
        outcome: Any
        if self.closed:
            return
        if self.away:
            outcome = Unknown(f"{name}: connection lost")
        else:
            try:
                outcome = act()
            except KubeError as error:
                outcome = error
        if answer is not None:
            self._later(self._latency(), self._answer, answer, outcome)

    def _answer(self, answer: "asyncio.Future[Any]", outcome: Any) -> None:
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    # --- what requests do -------------------------------------------------------------------------------------------

    def _find(self, target: Target) -> Stored:
        stored = self._kept.get(target.plural, {}).get((target.namespace, target.name))
        if stored is None:
            raise NotFound(404, "NotFound", f"{target.plural} {target.name}")
        return stored

    def _get(self, target: Target) -> Object:
        return self._find(target).copy()

    def _create(self, target: Target, body: Object, by: str, status: bool = False) -> Object:
        meta = body["metadata"]
        key = (target.namespace, meta["name"])
        if key in self._kept.get(target.plural, {}):
            raise AlreadyExists(409, "AlreadyExists", f"{target.plural} {meta['name']}")
        self._uids += 1
        made = {
            **body,
            "metadata": {
                **meta,
                "uid": meta.get("uid") or f"{target.plural[:3]}-{self._uids}",
                "generation": 1,
                "creationTimestamp": timestamp(self.loop.time()),
            },
        }
        if not status:
            made.pop("status", None)
        return self._store(target.plural, key, None, made, by)

    def _replace(self, target: Target, body: Object, by: str) -> Object:
        stored = self._find(target)
        _check(stored, body["metadata"].get("uid"), body["metadata"].get("resourceVersion"))
        now, key = stored.body, (target.namespace, target.name)
        if target.sub == "status":
            return self._store(target.plural, key, stored, {**now, "status": body.get("status", {})}, by)
        if target.plural == "endpoints" and {**now["spec"], "containerID": ""} != {**body["spec"], "containerID": ""}:
            raise BadRequest(422, "Invalid", "a claim never changes, but for its containerID")
        changed = {key: value for key, value in body.items() if key not in ("metadata", "status")}
        meta = {name: value for name, value in now["metadata"].items() if name not in PEOPLES}
        meta |= {name: body["metadata"][name] for name in PEOPLES if body["metadata"].get(name)}
        meta["generation"] += body.get("spec") != now.get("spec")
        kept = {"status": now["status"]} if "status" in now else {}
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            self._drop(target.plural, key, stored, by)
            return stored.copy()
        return self._store(target.plural, key, stored, {**changed, "metadata": meta, **kept}, by)

    def _delete(self, target: Target, uid: str | None, version: str | None, by: str) -> None:
        stored = self._find(target)
        _check(stored, uid, version)
        key, meta = (target.namespace, target.name), stored.body["metadata"]
        if not meta.get("finalizers"):
            self._drop(target.plural, key, stored, by)
        elif "deletionTimestamp" not in meta:
            leaving = {**meta, "deletionTimestamp": timestamp(self.loop.time()), "generation": meta["generation"] + 1}
            self._store(target.plural, key, stored, {**stored.body, "metadata": leaving}, by)

    def _drop(self, plural: str, key: Key, stored: Stored, by: str) -> None:
        self.version += 1
        body = {**stored.body, "metadata": {**stored.body["metadata"], "resourceVersion": str(self.version)}}
        del self._kept[plural][key]
        self._tell(plural, Happened(self.version, stored, Stored.of({**body, "deleted": True})))
        self._observe(plural, key, stored.body, None, by)

    def _list(self, target: Target, matches: Matches, metadata: bool) -> Listing:
        items = [
            stored.copy(metadata)
            for (namespace, _), stored in self._kept.get(target.plural, {}).items()
            if (not target.namespace or namespace == target.namespace) and matches(stored.body)
        ]
        return Listing(items, str(self.version))

    def _store(self, plural: str, key: Key, before: Stored | None, body: Object, by: str) -> Object:
        if before is not None and orjson.dumps(body) == before.raw:
            return before.copy()
        self.version += 1
        meta = {**body["metadata"], "resourceVersion": str(self.version)}
        after = Stored.of({**body, "metadata": meta})
        self._kept.setdefault(plural, {})[key] = after
        self._tell(plural, Happened(self.version, before, after))
        self._observe(plural, key, None if before is None else before.body, after.body, by)
        return after.copy()

    def _observe(self, plural: str, key: Key, before: Object | None, after: Object | None, by: str) -> None:
        landing = Landing(self.loop.time(), plural, key, before, after, by)
        for observer in self.observers:
            observer(landing)

    # --- watches ----------------------------------------------------------------------------------------------------

    def _open(self, target: Target, version: int, matches: Matches, metadata: bool) -> Stream:
        if version < self._compacted:
            raise Expired(410, "Expired", f"too old resource version: {version}")
        slowness = self.random.uniform(0.5, 15.0) if self.random.random() < self.faults.lag else 0.0
        stream = Stream(matches, metadata, self.loop.time() + self.random.uniform(30, 300), slowness)
        self._streams.setdefault(target.plural, {})[stream] = None
        told = self._told.setdefault(target.plural, [])
        for happened in told[bisect_right(told, version, key=lambda each: each.version) :]:
            self._send(target.plural, stream, happened)
        self._later(stream.ends - self.loop.time(), self._end, target.plural, stream)
        return stream

    def _tell(self, plural: str, happened: Happened) -> None:
        self._told.setdefault(plural, []).append(happened)
        for stream in list(self._streams.get(plural, ())):
            self._send(plural, stream, happened)

    def _send(self, plural: str, stream: Stream, happened: Happened) -> None:
        kind = _kind(stream.matches, happened)
        if kind is None or stream.over or stream.ends == 0.0:
            return  # what follows a cut is not told either
        if self.random.random() < self.faults.cut:
            self._streams[plural].pop(stream, None)
            self.counted["cut"] = self.counted.get("cut", 0) + 1
            self._later(self._latency(), stream.push, Unknown("watch: the connection was cut"))
            stream.ends = 0.0
            return
        lag = self._latency() + (self.random.random() * stream.slowness if stream.slowness else 0.0)
        stream.told = max(stream.told, self.loop.time() + lag)
        stream.send(kind, happened)
        self._later(stream.told - self.loop.time(), stream.arrive)

    def _end(self, plural: str, stream: Stream) -> None:
        """The server ends a watch after a while; sometimes it has sent a bookmark before."""
        if stream.over or stream.ends == 0.0:
            return
        self._streams[plural].pop(stream, None)
        if stream.idle:
            stream.push(Change("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))
        stream.push(None)


class Client:
    """One client's way to the server: an `Api`. `severed`: its node's network is gone."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self._server, self.name = server, name
        self.severed = False

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        target = parse(path)
        if not target.name:
            return {"items": (await self.list(path, params)).items}
        answered: Object = await self._ask(f"GET {path}", partial(self._server._get, target))
        return answered

    async def create(self, path: str, body: Object) -> Object:
        sent = orjson.loads(orjson.dumps(body))
        answered: Object = await self._ask(
            f"POST {path}", partial(self._server._create, parse(path), sent, self.name), True
        )
        return answered

    async def replace(self, path: str, body: Object) -> Object:
        sent = orjson.loads(orjson.dumps(body))
        answered: Object = await self._ask(
            f"PUT {path}", partial(self._server._replace, parse(path), sent, self.name), True
        )
        return answered

    async def patch(self, path: str, body: Object) -> Object:
        raise NotImplementedError("nothing that is simulated patches")

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        await self._ask(f"DELETE {path}", partial(self._server._delete, parse(path), uid, version, self.name), True)

    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing:
        matches = selector((params or {}).get("fieldSelector", ""))
        listing: Listing = await self._ask(f"LIST {path}", partial(self._server._list, parse(path), matches, metadata))
        return listing.read(reading)

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]:
        matches = selector((params or {}).get("fieldSelector", ""))
        opened = partial(self._server._open, parse(path), int(version), matches, metadata)
        stream: Stream = await self._ask(f"WATCH {path}", opened)
        while (item := await stream.next()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def _ask(self, name: str, act: Callable[[], Any], writes: bool = False) -> Any:
        """As the real client does: only a 429, which promises that nothing was done, is waited out here."""
        for wait in (0.2, 0.5, 1.0, None):
            if self.severed:
                await asyncio.sleep(self._server.random.uniform(0.1, 5.0))
                raise Unknown(f"{name}: no route to host")
            try:
                return await self._server.accept(self.name, name, act, writes)
            except Busy:
                if wait is None:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")


def timestamp(now: float) -> str:
    """Simulated time as metav1.Time has it; days do not change within a history."""
    minutes, seconds = divmod(int(now), 60)
    hours, minutes = divmod(minutes, 60)
    return f"2026-01-01T{hours:02}:{minutes:02}:{seconds:02}Z"


def _check(stored: Stored, uid: str | None, version: str | None) -> None:
    meta = stored.body["metadata"]
    if uid and uid != meta["uid"]:
        raise Conflict(409, "Conflict", f"uid is {meta['uid']}, not {uid}")
    if version and version != meta["resourceVersion"]:
        raise Conflict(409, "Conflict", f"resourceVersion is {meta['resourceVersion']}, not {version}")


def _kind(matches: Matches, happened: Happened) -> str | None:
    """What a watch calls it: an object that stops matching is deleted as far as that watch can see."""
    was = happened.before is not None and matches(happened.before.body)
    deleted = "deleted" in happened.after.body
    now = not deleted and matches(happened.after.body)
    if now:
        return "MODIFIED" if was else "ADDED"
    return "DELETED" if was else None
