"""The way to the Kubernetes API: JSON in, JSON out, no models (they take 16 times as long to decode).

One HTTP/1.1 connection pool with TLS, a token bucket so that one client never floods the API server, and errors of
`berth.kube.errors`. Whether a write may be repeated is for the caller to know; only a 429, which promises that nothing
was done, is waited out here. aiohttp itself repeats a PUT or DELETE whose kept-alive connection was dropped: harmless,
because each of ours carries a uid or a resourceVersion.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp
import orjson

from berth.kube.config import Access
from berth.kube.errors import Busy, Expired, Unknown, answer

Object = dict[str, Any]
# What is made of each object of a listing, as soon as its page is there.
Reading = Callable[[Object], Any]

# A request that takes longer than this has an unknown outcome.
REQUEST_SECONDS = 20.0
# The API server sends a bookmark about once a minute; a watch silent for longer is dead.
SILENCE_SECONDS = 100.0
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects at one moment, or what a reading made of each, and the resourceVersion to watch on from."""

    items: list[Any]
    version: str

    def read(self, reading: Reading | None) -> "Listing":
        return self if reading is None else Listing([reading(item) for item in self.items], self.version)


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    kind: str
    object: Object


class Api(Protocol):
    """What Berth asks of the API: the real client, or a model of one where time and faults must be controlled."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object: ...
    async def create(self, path: str, body: Object) -> Object: ...
    async def replace(self, path: str, body: Object) -> Object: ...
    async def patch(self, path: str, body: Object) -> Object: ...
    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None: ...
    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing: ...
    def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]: ...


class TokenBucket:
    """At most `rate` requests a second, `burst` of them at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = float(burst), time.monotonic()

    async def take(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


class Client:
    """The real way. Use it as an async context manager, inside a running loop."""

    def __init__(
        self, access: Access, *, rate: float = 50.0, burst: int = 100, connections: int = 64, name: str = "berth"
    ) -> None:
        self._access = access
        self._connections = connections
        self._bucket = TokenBucket(rate, burst)
        self._name = name
        self._token, self._token_until = access.token, 0.0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url=self._access.server,
            connector=aiohttp.TCPConnector(
                ssl=self._access.tls or False, limit=self._connections, keepalive_timeout=60
            ),
            headers={"User-Agent": self._name},
            json_serialize=lambda body: orjson.dumps(body).decode(),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Object) -> Object:
        return await self._request("POST", path, body=body)

    async def replace(self, path: str, body: Object) -> Object:
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: Object) -> Object:
        """A merge patch. Never used where two writers could meet without a resourceVersion in the body."""
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if preconditions:
            body["preconditions"] = preconditions
        await self._request("DELETE", path, body=body)

    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing:
        """A consistent read (no resourceVersion is named, so never an old cache's view), in pages of one moment. With
        `reading`, of fifty thousand objects no more than a page is in memory as JSON, and the event loop, which the
        lease is renewed on, is never held up for longer than one page takes."""
        items: list[Any] = []
        query = {**(params or {}), "limit": str(PAGE)}
        while True:
            page = await self._request("GET", path, params=query, accept=_accept("List", metadata))
            found = page.get("items") or []
            items += found if reading is None else map(reading, found)
            follow = page["metadata"].get("continue")
            if not follow:
                return Listing(items, page["metadata"]["resourceVersion"])
            query["continue"] = follow

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]:
        """Changes after `version`. Ends when the server ends it; raises Expired when `version` is too old."""
        query = {**(params or {}), "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
        headers = {"Accept": _accept("", metadata), **self._authorization()}
        await self._bucket.take()
        try:
            async with self._running.get(path, params=query, headers=headers, timeout=timeout) as response:
                if response.status != 200:
                    raise _error(response.status, await response.read())
                async for line in _lines(response):
                    yield _change(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unknown(f"watch of {path}: {error or type(error).__name__}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        content = None if body is None else orjson.dumps(body)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=5)
        for wait in (0.2, 0.5, 1.0, None):
            await self._bucket.take()
            headers = {"Accept": accept, "Content-Type": content_type, **self._authorization()}
            try:
                async with self._running.request(
                    method, path, params=params, data=content, headers=headers, timeout=timeout
                ) as response:
                    status, answered = response.status, await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unknown(f"{method} {path}: {error or type(error).__name__}") from error
            if status < 300:
                loaded: Object = orjson.loads(answered)
                return loaded
            failure = _error(status, answered)
            if wait is None or not isinstance(failure, Busy):
                raise failure
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    @property
    def _running(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the client as an async context manager"
        return self._session

    def _authorization(self) -> dict[str, str]:
        if self._access.token_file is not None and time.monotonic() >= self._token_until:
            # Bound tokens are rotated by kubelet; client-go reads the file once a minute too.
            self._token = self._access.bearer()
            self._token_until = time.monotonic() + 60
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _accept(suffix: str, metadata: bool) -> str:
    if not metadata:
        return "application/json"
    return f"application/json;as=PartialObjectMetadata{suffix};g=meta.k8s.io;v=v1"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, of any length: a pool with a full ledger is longer than aiohttp's own readline allows."""
    rest = b""
    async for chunk in response.content.iter_any():
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line:
                yield line


def _change(line: bytes) -> Change:
    event = orjson.loads(line)
    if event["type"] == "ERROR":
        status = event["object"]
        code = int(status.get("code", 500))
        if code == 410:
            raise Expired(code, "Expired", status.get("message", ""))
        raise answer(code, status.get("reason", ""), status.get("message", ""))
    return Change(event["type"], event["object"])


def _error(status: int, content: bytes) -> Exception:
    try:
        told = orjson.loads(content)
        return answer(status, told.get("reason", ""), told.get("message", ""))
    except (orjson.JSONDecodeError, AttributeError):
        return answer(status, "", content[:200].decode("utf-8", "replace"))
