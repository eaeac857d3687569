"""A stage for the agent: the real one, on a model of the API which fails on cue, called as shims call it."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from berth.kube.client import Change, Listing, Object, Reading
from berth.kube.errors import AlreadyExists, Conflict, Expired, NotFound, Unknown
from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS
from berth_cni.adding import Adder
from berth_cni.agent import Agent
from berth_cni.asserting import Asserter
from berth_cni.claims import Claims
from berth_cni.frames import Request
from berth_cni.journal import Journal
from berth_cni.metrics import Metrics
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser
from berth_cni.underway import Lanes, Underway

NODE = "node-1"
Status = dict[str, Any]


def confirmed(*addresses: str) -> Status:
    return {
        "addresses": [
            {"family": "IPv6" if ":" in each else "IPv4", "address": each, "gateway": "10.0.0.1", "pool": "blue"}
            for each in addresses
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
        "conditions": [_ready("True", "Confirmed", "")],
    }


def refused(reason: str, message: str) -> Status:
    return {"conditions": [_ready("False", reason, message)]}


def _ready(status: str, reason: str, message: str) -> dict[str, str]:
    since = "2026-01-01T00:00:00Z"
    return {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


class ModelApi:
    """Endpoints in memory, watched; `decide` is the operator. `lose` makes requests of a method fail: "before" or
    "after" they were done."""

    def __init__(self) -> None:
        self.kept: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.compacted = 0
        self.requests: list[str] = []
        self.away = False
        self.decide: Callable[[Object], Status | None] = self._next
        self._lost: dict[str, list[str]] = {}
        self._version = itertools.count(1)
        self._watches: set[asyncio.Queue[Change | None]] = set()
        self._numbers = itertools.count(1)

    def lose(self, method: str, when: str, times: int = 1) -> None:
        self._lost.setdefault(method, []).extend([when] * times)

    def go_away(self) -> None:
        self.away = True
        self.cut()

    def containers(self) -> list[str]:
        return sorted(each["spec"]["containerID"] for each in self.kept.values())

    def only(self) -> Object:
        (found,) = self.kept.values()
        return found

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        if params is not None:
            return await self._ask("LIST", path, lambda: {"metadata": {"resourceVersion": str(next(self._version))}})
        return await self._ask("GET", path, lambda: _copy(self._find(path)))

    async def create(self, path: str, body: Object) -> Object:
        def act() -> Object:
            place = f"{path}/{body['metadata']['name']}"
            if place in self.kept:
                raise AlreadyExists(409, "AlreadyExists", place)
            made = _copy(body)
            made["metadata"]["uid"] = f"uid-{next(self._numbers)}"
            self._store(place, made, "ADDED")
            asyncio.get_running_loop().call_later(0.005, self._confirm, place, made["metadata"]["uid"])
            return _copy(self.kept[place])

        return await self._ask("POST", path, act)

    async def replace(self, path: str, body: Object) -> Object:
        def act() -> Object:
            _check(self._find(path), body["metadata"]["uid"], body["metadata"]["resourceVersion"])
            self._store(path, _copy(body), "MODIFIED")
            return _copy(self.kept[path])

        return await self._ask("PUT", path, act)

    async def patch(self, path: str, body: Object) -> Object:
        raise NotImplementedError

    async def delete(self, path: str, *, uid: str | None = None, version: str | None = None) -> None:
        def act() -> Object:
            _check(self._find(path), uid, version)
            gone = self.kept.pop(path)
            self._tell(
                "DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(next(self._version))}}
            )
            return {}

        await self._ask("DELETE", path, act)

    async def list(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        metadata: bool = False,
        reading: Reading | None = None,
    ) -> Listing:
        items = await self._ask("LIST", path, lambda: {"items": [_copy(each) for each in self.kept.values()]})
        return Listing(items["items"], str(next(self._version))).read(reading)

    async def watch(
        self, path: str, version: str, params: Mapping[str, str] | None = None, *, metadata: bool = False
    ) -> AsyncIterator[Change]:
        assert params == {"fieldSelector": f"spec.node={NODE}"}
        if self.away:
            raise Unknown("connection refused")
        if int(version) < self.compacted:
            raise Expired(410, "Expired", f"too old resource version: {version}")
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watches.add(queue)
        for each in self.kept.values():
            if int(each["metadata"]["resourceVersion"]) > int(version):
                queue.put_nowait(Change("MODIFIED", _copy(each)))
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._watches.discard(queue)
        raise Unknown("connection lost")

    def compact(self, without: str = "") -> None:
        """Watches are cut, and cannot be taken up; the Endpoint at this path is gone meanwhile."""
        self.kept.pop(without, None)
        self.compacted = next(self._version)
        self.cut()

    def cut(self) -> None:
        for watch in self._watches:
            watch.put_nowait(None)

    def restore(self, kept: dict[str, Object], version: int) -> None:
        """etcd as it was: what it kept, and the resourceVersion it had."""
        self.kept = kept
        self._version = itertools.count(version)
        self.cut()

    def put(self, path: str, change: Callable[[Object], None]) -> None:
        """Somebody else writes."""
        body = _copy(self._find(path))
        change(body)
        self._store(path, body, "MODIFIED")

    async def _ask(self, method: str, path: str, act: Callable[[], Object]) -> Object:
        self.requests.append(method)
        await asyncio.sleep(0.001)
        lost = self._lost.get(method) or [""]
        when = lost.pop(0)
        if self.away or when == "before":
            raise Unknown(f"{method} {path}: connection refused")
        if when == "late":
            asyncio.get_running_loop().call_later(0.1, act)
            raise Unknown(f"{method} {path}: timed out")
        answer = act()
        if when == "after":
            raise Unknown(f"{method} {path}: connection lost")
        return answer

    def _find(self, path: str) -> Object:
        found = self.kept.get(path, self.pods.get(path))
        if found is None:
            raise NotFound(404, "NotFound", path)
        return found

    def _store(self, path: str, body: Object, kind: str) -> None:
        body["metadata"]["resourceVersion"] = str(next(self._version))
        self.kept[path] = body
        self._tell(kind, body)

    def _tell(self, kind: str, body: Object) -> None:
        for watch in self._watches:
            watch.put_nowait(Change(kind, _copy(body)))

    def _confirm(self, path: str, uid: str) -> None:
        there = self.kept.get(path)
        if there is None or there["metadata"]["uid"] != uid or "status" in there:
            return
        if (status := self.decide(there)) is not None:
            self.put(path, lambda body: body.update(status=status))

    def _next(self, body: Object) -> Status:
        return confirmed(f"10.0.0.{next(self._numbers) + 10}/24")


def _copy(body: Object) -> Object:
    copied: Object = json.loads(json.dumps(body))
    return copied


def _check(there: Object, uid: str | None, version: str | None) -> None:
    metadata = there["metadata"]
    if (uid and uid != metadata["uid"]) or (version and version != metadata["resourceVersion"]):
        raise Conflict(409, "Conflict", "a precondition does not hold")


@dataclass(slots=True)
class Shim:
    """One call as it is under way. `acknowledges`: whether its caller lives to hear the answer."""

    pid: int = 0
    acknowledges: bool = True
    underway: Underway = field(default_factory=Underway)
    answered: "asyncio.Future[tuple[int, dict[str, Any]]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    stdout: bytes = b""

    async def deliver(self, exit_code: int, stdout: bytes, *, acknowledged: bool) -> bool:
        if self.answered.done() or self.underway.abandoned == "its caller went away":
            return False
        self.stdout = stdout
        self.answered.set_result((exit_code, json.loads(stdout) if stdout else {}))
        return self.acknowledges

    def die(self) -> None:
        self.underway.abandon("its caller went away")


class Stage:
    """`async with Stage(folder) as stage:`, then `await stage.add("c1")`."""

    def __init__(self, folder: Path, api: ModelApi | None = None) -> None:
        self.api = api or ModelApi()
        self.socket = folder / "berth.sock"
        self.reach, self.claims, self.lanes, self.metrics = Reach(self.api), Claims(), Lanes(), Metrics()
        self.journal = Journal(folder / "state" / "journal")
        self.journal.load()
        self.releaser = Releaser(self.reach, self.claims, self.journal, self.lanes, self.socket)
        adder = Adder(NODE, self.reach, self.claims, self.releaser)
        self.agent = Agent(adder, self.releaser, self.claims, self.reach, self.lanes, self.metrics)
        self.asserter = Asserter(self.reach, self.claims, self.releaser, self.lanes)
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> "Stage":
        parameters = {"fieldSelector": f"spec.node={NODE}"}
        self._tasks = [
            asyncio.ensure_future(each)
            for each in (
                follow(self.reach, ENDPOINTS.path(), self.claims, params=parameters, rewound=self.claims.rewound),
                self.reach.probe(NODE),
                self.releaser.replay(),
                self.releaser.watch_spool(),
            )
        ]
        if not self.api.away:
            await self.claims.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(
        self, command: str, container: str, shim: Shim | None = None, **about: Any
    ) -> "tuple[Shim, asyncio.Task[None]]":
        shim = shim or Shim()
        environment, stdin = request(command, container, **about)
        return shim, asyncio.ensure_future(self.agent.answer(Request(environment, stdin), shim, shim.underway))

    async def call(self, command: str, container: str = "", shim: Shim | None = None, **about: Any) -> tuple[int, Any]:
        shim, task = self.start(command, container, shim, **about)
        async with asyncio.timeout(5):
            await task
        return shim.answered.result()

    async def add(self, container: str, **about: Any) -> tuple[int, Any]:
        return await self.call("ADD", container, **about)

    async def delete(self, container: str, **about: Any) -> tuple[int, Any]:
        return await self.call("DEL", container, **about)


def request(
    command: str,
    container: str = "",
    *,
    pod: str = "web-0",
    uid: str = "pod-uid",
    interface: str = "eth0",
    network: str = "net",
    version: str = "1.1.0",
    cni_args: str | None = None,
    valid: list[dict[str, str]] | None = None,
    **more: Any,
) -> tuple[dict[str, str], bytes]:
    told = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID={uid}"
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": interface,
        "CNI_ARGS": told if cni_args is None else cni_args,
    }
    configuration: dict[str, Any] = {
        "cniVersion": version,
        "name": network,
        "type": "macvlan",
        "ipam": {"type": "berth"},
        **more,
    }
    if valid is not None:
        configuration["cni.dev/valid-attachments"] = valid
    return environment, json.dumps(configuration).encode()


async def eventually(holds: Callable[[], bool], bound: float = 5.0) -> None:
    async with asyncio.timeout(bound):
        while not holds():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.005)
