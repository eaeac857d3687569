"""The network between one client and the API server: a proxy for each, TLS on both sides, with weather of its own.

A request is delayed, lost before it is done, done and not answered, done and answered late, done long after its sender
was told nothing, or refused for no reason (409, 429, 500); a watch is held up or cut. `cut_off`: nothing passes at all.
Weather can be bad at one point alone, a watch can stand still, one write can be withheld until it is let go. A proxy
can also let its client believe that it holds the Lease.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict

from berth.kube.client import Object

LEASE = "/leases/berth-operator"
LONGEST_DELAY = 4.0
LATEST_SECONDS = 25.0
LONGEST_LAG = 3.0
STILL_LOOK_SECONDS = 0.05
_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_REFUSALS = {"conflict": (409, "Conflict"), "busy": (429, "TooManyRequests"), "broken": (500, "InternalError")}


@dataclass(slots=True)
class Weather:
    """How likely each is for one request; `lag` and `cut` for each piece of a watch."""

    slow: float = 0.0
    lost: float = 0.0
    unanswered: float = 0.0
    stale: float = 0.0
    late: float = 0.0
    conflict: float = 0.0
    busy: float = 0.0
    broken: float = 0.0
    lag: float = 0.0
    cut: float = 0.0

    @staticmethod
    def drawn(random: Random, most: float) -> "Weather":
        """Some kinds of it, none above `most`."""
        return Weather(**{each.name: random.random() * most * (random.random() < 0.6) for each in fields(Weather)})


@dataclass(frozen=True, slots=True)
class Point:
    """A request at which something is to happen: its method, and what its path holds."""

    name: str
    method: str
    path: str

    def meets(self, request: web.BaseRequest) -> bool:
        return request.method == self.method and self.path in request.path


@dataclass(slots=True)
class Withheld:
    """The first write at a point: its sender is told nothing, nor are those who try the same later (`path`), until it
    is done after all."""

    point: Point
    path: str = ""
    sender: str = ""
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Trap:
    point: Point
    done: bool
    spring: Callable[[], None]
    sprung: asyncio.Event

    def meets(self, request: web.BaseRequest, done: bool) -> bool:
        return self.point.meets(request) and done == self.done and not self.sprung.is_set()


class Proxy:
    """`counted`: how often each has happened, shared by all proxies."""

    def __init__(self, name: str, upstream: str, trust: ssl.SSLContext, random: Random, counted: Counter[str]) -> None:
        self.name = name
        self.weather = Weather()
        self.weather_at: dict[Point, Weather] = {}
        self.withheld: Withheld | None = None
        self.stands_still = ""  # watches of what has this in its path
        self.cut_off = False
        self.leads = False
        self._upstream, self._trust, self._random, self._counted = upstream, trust, random, counted
        self._lease: Object = {}
        self._trap: _Trap | None = None
        self._watches: dict[int, web.BaseRequest] = {}
        self._late: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int, serving: ssl.SSLContext) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=0),
            auto_decompress=False,
            skip_auto_headers=("Content-Type", "Accept", "User-Agent"),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        )
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=serving).start()

    async def stop(self) -> None:
        for task in self._late:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def calm(self) -> None:
        self.weather, self.weather_at, self.withheld, self.stands_still = Weather(), {}, None, ""
        self.cut_off, self._trap = False, None
        self.lead_no_more()

    def lead(self) -> None:
        """From now on its client holds the Lease, whatever others think."""
        self.leads, self._lease = True, {}

    def lead_no_more(self) -> None:
        self.leads = False

    async def reached(self, point: Point, done: bool, spring: Callable[[], None], seconds: float) -> bool:
        """Calls `spring` at the next such request, before it is passed on or (`done`) before its answer is."""
        trap = self._trap = _Trap(point, done, spring, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await trap.sprung.wait()
        except TimeoutError:
            return False
        finally:
            self._trap = None
        return True

    def _step(self, request: web.BaseRequest, done: bool) -> None:
        trap = self._trap
        if trap is not None and trap.meets(request, done):
            trap.spring()
            trap.sprung.set()

    def cut_watches(self) -> None:
        for request in self._watches.values():
            self._counted["watch cut"] += 1
            _hang_up(request)

    def _comes(self, kind: str, request: web.BaseRequest) -> bool:
        here = (weather for point, weather in self.weather_at.items() if point.meets(request))
        weather = next(here, self.weather)
        if self._random.random() >= getattr(weather, kind):
            return False
        self._counted[f"request {kind}" if kind not in ("lag", "cut") else f"watch {kind}"] += 1
        return True

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.cut_off:
            return _hang_up(request)
        if self.leads and LEASE in request.path:
            return await self._as_leader(request)
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request)
        body = await request.read()
        self._step(request, done=False)
        if self.withheld is not None and await self._withhold(self.withheld, request, body):
            return _hang_up(request)
        for kind, (status, reason) in _REFUSALS.items():
            if self._comes(kind, request):
                return _refusal(status, reason)
        if self._comes("slow", request):
            await asyncio.sleep(self._random.random() * LONGEST_DELAY)
        if self._comes("lost", request):
            return _hang_up(request)
        if request.method in _WRITES and self._comes("late", request):
            self._later(self._land(request, body, self._random.uniform(0.5, LATEST_SECONDS)))
            return _hang_up(request)
        try:
            status, headers, content = await self._ask(request, body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return _hang_up(request)
        self._step(request, done=True)
        if self.cut_off or self._comes("unanswered", request):
            return _hang_up(request)
        if self._comes("stale", request):
            await asyncio.sleep(self._random.random() * LONGEST_DELAY)
        return web.Response(status=status, headers=headers, body=content)

    async def _ask(self, request: web.BaseRequest, body: bytes) -> tuple[int, "CIMultiDict[str]", bytes]:
        assert self._session is not None
        url = self._upstream + request.raw_path
        async with self._session.request(
            request.method, url, headers=_passed(request.headers), data=body or None
        ) as answer:
            return answer.status, _passed(answer.headers), await answer.read()

    async def _land(self, request: web.BaseRequest, body: bytes, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await self._ask(request, body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return  # then it never lands

    async def _withhold(self, withheld: Withheld, request: web.BaseRequest, body: bytes) -> bool:
        """Whether its sender is told nothing."""
        if withheld.caught.is_set():
            return request.method == withheld.point.method and request.path == withheld.path
        if not withheld.point.meets(request):
            return False
        withheld.path, withheld.sender = request.path, self.name
        withheld.caught.set()
        self._later(self._let_go(withheld, request, body))
        return True

    async def _let_go(self, withheld: Withheld, request: web.BaseRequest, body: bytes) -> None:
        await withheld.let_go.wait()
        await self._land(request, body, 0.0)
        withheld.done.set()

    def _later(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._session is not None
        self._watches[id(request)] = request
        url = self._upstream + request.raw_path
        try:
            async with self._session.get(url, headers=_passed(request.headers)) as answer:
                response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    if self._comes("lag", request):
                        await asyncio.sleep(self._random.random() * LONGEST_LAG)
                    while self.stands_still and self.stands_still in request.path:  # noqa: ASYNC110 - seldom
                        await asyncio.sleep(STILL_LOOK_SECONDS)
                    if self.cut_off or self._comes("cut", request):
                        return _hang_up(request)
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, TimeoutError, OSError):
            return _hang_up(request)
        finally:
            del self._watches[id(request)]

    async def _as_leader(self, request: web.BaseRequest) -> web.StreamResponse:
        """Its client's own Lease, kept here: whatever it writes is so."""
        body = await request.read()
        if request.method == "GET" and not self._lease:
            try:
                _, _, content = await self._ask(request, body)
                self._lease = orjson.loads(content)
                self._lease["spec"] |= {"holderIdentity": self.name}
            except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError):
                return _hang_up(request)
        elif request.method == "PUT":
            self._lease = orjson.loads(body)
        return web.Response(body=orjson.dumps(self._lease), content_type="application/json")


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    """The connection breaks; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _refusal(code: int, reason: str) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    headers = {"Retry-After": "1"} if code == 429 else {}
    body = orjson.dumps({**status, "message": "the weather is bad"})
    return web.Response(status=code, body=body, headers=headers, content_type="application/json")


def _passed(headers: Mapping[str, str]) -> "CIMultiDict[str]":
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _OF_ONE_HOP)
