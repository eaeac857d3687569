"""A model of the API server: what kube-apiserver promises, and all the ways in which a request can go wrong.

What it keeps is in `store.py`, what watches tell in `watches.py`; here is the way of a request to it and back.

Gone wrong by seed: a request is lost before it is done; is done, and its answer lost; lands late, after its caller
has given up and others have written; is refused for no reason (429, 409, 500). A watch lags, is cut, is too old. The
server is away for a while. A request that was sent is under way by itself: what becomes of its sender changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context
from functools import partial
from random import Random
from typing import Any

import orjson

from berth.kube.client import Change, Listing, Object, Reading
from berth.kube.errors import Busy, Conflict, KubeError, NotFound, Unknown
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulatedLoop
from tests.simulation.objects import parse, selector
from tests.simulation.store import Store
from tests.simulation.watches import Stream, Watches, latency

CLIENT_SECONDS = 20.0  # after which a real client gives up
LATEST_SECONDS = 30.0  # how long after that a write may still land


class ApiServer:
    """The one API server of a simulated cluster."""

    def __init__(self, loop: SimulatedLoop, random: Random, faults: Faults) -> None:
        self.loop, self.random, self.faults = loop, random, faults
        self.watches = Watches(loop.time, self._later, random, faults)
        self.store = Store(loop.time, self.watches.tell)
        self.note: Callable[[str], None] = lambda text: None
        self._counted: dict[str, int] = {}
        self.away = False
        self.closed = False
        self._era = 0
        self._context = Context()

    @property
    def counted(self) -> dict[str, int]:
        """Faults by kind."""
        return self._counted | ({"cut": self.watches.were_cut} if self.watches.were_cut else {})

    def go_away(self) -> None:
        self.away = True
        self.watches.cut()

    def lose_requests(self) -> None:
        """Whatever is under way does not land any more: the server that had it is gone."""
        self._era += 1

    def come_back(self) -> None:
        self.away = False

    def close(self) -> None:
        """The history is over: nothing is answered any more."""
        self.closed = True
        self.go_away()

    def accept(self, client: str, name: str, act: Callable[[], Any], writes: bool) -> "asyncio.Future[Any]":
        """A request is sent: its fate is drawn."""
        answer: asyncio.Future[Any] = self.loop.create_future()
        lag = latency(self.random)
        if self.away:
            self._later(lag, self._answer, answer, Unknown(f"{name}: connection refused"))
            return answer
        fate = self.faults.fate(self.random)
        if fate is None or (fate == "conflict" and not name.startswith(("PUT", "DELETE"))):
            self._later(lag, self._land, act, answer, name, self._era)
            return answer
        self._counted[fate] = self._counted.get(fate, 0) + 1
        self.note(f"! {client}: {name} {fate}")
        if fate == "busy":
            self._later(lag, self._answer, answer, Busy(429, "TooManyRequests", name))
        elif fate == "conflict":
            self._later(lag, self._answer, answer, Conflict(409, "Conflict", name))
        elif fate == "broken":
            self._later(lag, self._answer, answer, Unknown(f"500 {name}"))
        elif fate == "slow":
            self._later(self.random.uniform(0.1, CLIENT_SECONDS / 2), self._land, act, answer, name, self._era)
        else:
            patience = self.random.uniform(0.2, CLIENT_SECONDS)
            self._later(patience, self._answer, answer, Unknown(f"{name}: timed out"))
            if fate == "unanswered":
                self._later(lag, self._land, act, None, name, self._era)
            elif fate == "late" and writes:
                self._later(patience + self.random.random() * LATEST_SECONDS, self._land, act, None, name, self._era)
        return answer

    def _later(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        self.loop.call_later(seconds, act, *args, context=self._context)

    def _land(self, act: Callable[[], Any], answer: "asyncio.Future[Any] | None", name: str, era: int) -> None:
        outcome: Any
        if self.closed:
            return
        if self.away or era != self._era:
            outcome = Unknown(f"{name}: connection lost")
        else:
            try:
                outcome = act()
            except KubeError as error:
                outcome = error
        if answer is not None:
            self._later(latency(self.random), self._answer, answer, outcome)

    def _answer(self, answer: "asyncio.Future[Any]", outcome: Any) -> None:
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


class Client:
    """One client's way to the server: an `Api`. `severed`: its node's network is gone."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self._server, self.name = server, name
        self.severed = False

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        target = parse(path)
        if not target.plural:
            raise NotFound(404, "NotFound", f"{path}: there are no kinds but those it is a model of")
        if not target.name:
            listing = await self.list(path, params)
            return {"metadata": {"resourceVersion": listing.version}, "items": listing.items}
        answered: Object = await self._ask(f"GET {path}", partial(self._server.store.get, target))
        return answered

    async def create(self, path: str, body: Object) -> Object:
        sent = orjson.loads(orjson.dumps(body))
        answered: Object = await self._ask(
            f"POST {path}", partial(self._server.store.create, parse(path), sent, self.name), True
        )
        return answered

    async def replace(self, path: str, body: Object) -> Object:
        sent = orjson.loads(orjson.dumps(body))
        answered: Object = await self._ask(
            f"PUT {path}", partial(self._server.store.replace, parse(path), sent, self.name), True
        )
        return answered

    async def patch(self, path: str, body: Object) -> Object:
        raise NotImplementedError("nothing that is simulated patches")

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        await self._ask(
            f"DELETE {path}", partial(self._server.store.delete, parse(path), uid, version, self.name), True
        )

    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing:
        matches = selector((params or {}).get("fieldSelector", ""))
        act = partial(self._server.store.list, parse(path), matches, metadata)
        listing: Listing = await self._ask(f"LIST {path}", act)
        return listing.read(reading)

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]:
        matches = selector((params or {}).get("fieldSelector", ""))
        opened = partial(self._server.watches.open, parse(path).plural, int(version), matches, metadata)
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
