"""What happened, and what the checker says to it: every write of Berth's kinds, and every container's addresses.

Writes are read from etcd, not from the API server: etcd's log has each of them in order, also those that no watch of a
restarted API server would tell of. What containers had is in the nodes' journals. Both are put in one order by the
machine's monotonic clock and told to the checker of the simulation.

A write is noted when its news arrives here, after it was done; a container's end is written down before its DEL begins;
what caused something stands therefore always before it.
"""

import asyncio
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import orjson

from tests.chaos.load import NAMESPACE
from tests.simulation.checker import Checker, Landing, Violation

PREFIX = b"/registry/ipam.berth.dev/"
FAMILIES = 2
EXCUSED_SECONDS = 60.0


class EtcdLog:
    """Follows etcd's log through its JSON gateway, across its restarts."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v3/watch"
        self._next = 1
        self.landings: list[Landing] = []

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session:
            while True:
                try:
                    await self._follow(session)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    await asyncio.sleep(0.1)

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        end = PREFIX[:-1] + bytes([PREFIX[-1] + 1])
        asked = {"key": _base64(PREFIX), "range_end": _base64(end), "start_revision": self._next, "prev_kv": True}
        async with session.post(self._url, data=orjson.dumps({"create_request": asked})) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    self._told(orjson.loads(line))

    def _told(self, message: dict[str, Any]) -> None:
        result = message["result"]
        if result.get("canceled"):
            raise RuntimeError(f"etcd's log is not whole any more: {result}")
        for event in result.get("events") or ():
            self.landings.append(_landing(event, time.monotonic()))
            self._next = int(event["kv"]["mod_revision"]) + 1


def _landing(event: dict[str, Any], at: float) -> Landing:
    plural, *place = b64decode(event["kv"]["key"])[len(PREFIX) :].decode().split("/")
    before = event.get("prev_kv")
    after = orjson.loads(b64decode(event["kv"]["value"])) if event.get("type", "PUT") != "DELETE" else None
    namespace, name = ("", place[0]) if len(place) == 1 else place
    earlier = orjson.loads(b64decode(before["value"])) if before else None
    return Landing(at, plural, (namespace, name), earlier, after, _writer(after or earlier))


def _writer(body: dict[str, Any] | None) -> str:
    """Who wrote it last, as far as the API says."""
    fields_of = ((body or {}).get("metadata") or {}).get("managedFields") or ()
    return max(((each.get("time", ""), each["manager"]) for each in fields_of), default=("", "somebody"))[1]


def _base64(text: bytes) -> str:
    return b64encode(text).decode()


class Journals:
    """What the nodes write down, line by line as it is written."""

    def __init__(self, files: list[Path]) -> None:
        self._files, self._open = files, dict[Path, BinaryIO]()
        self._rest = dict.fromkeys(files, b"")

    def read(self) -> Iterator[dict[str, Any]]:
        for file in self._files:
            if file not in self._open and file.exists():
                self._open[file] = file.open("rb")
            if file in self._open:
                *lines, self._rest[file] = (self._rest[file] + self._open[file].read()).split(b"\n")
                yield from map(orjson.loads, lines)


@dataclass(slots=True)
class Tally:
    """What the nodes' calls came to. Seconds."""

    adds: int = 0
    failed_adds: int = 0
    dels: int = 0
    failed_dels: int = 0
    alive: set[str] = field(default_factory=set)  # containers that have addresses
    longest_add: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)


class Record:
    """Puts it in order, keeps it in a file, and has it judged as it goes on."""

    def __init__(self, log: EtcdLog, journals: Journals, file: Path) -> None:
        self._log, self._journals = log, journals
        self._file = file.open("wb")
        self._now = self._excused_until = 0.0
        self.checker = Checker(lambda: self._now)
        self.tally = Tally()
        self.violations: list[str] = []
        self.writes = 0

    def note(self, what: str, **more: Any) -> None:
        """A fault, an action, a phase: for who reads the history. What is kept for StatefulSets is promised by one
        leader that has the API, of a set that is not scaled."""
        if what.startswith("fault") and "agent" not in what:
            self._excused_until = time.monotonic() + EXCUSED_SECONDS
            self.checker.excuse()
        elif "StatefulSet is scaled" in what:
            self.checker.forget(more["of"])
        self._write({"at": time.monotonic(), "what": what, **more})

    def judge(self) -> None:
        """Everything up to now. Journals are read after that moment: whatever led to a write is in them by then."""
        until = time.monotonic()
        landings, self._log.landings = self._log.landings, []
        news: list[tuple[float, int, Any]] = [(each.at, 1, each) for each in landings]
        news += [(_at(entry), 0, entry) for entry in self._journals.read()]
        for at, _, each in sorted(news, key=lambda item: item[:2]):
            self._now = max(self._now, min(at, until))
            try:
                self._landed(each) if isinstance(each, Landing) else self._called(each)
            except Violation as violation:
                self.wrong(str(violation))
        self._file.flush()

    def wrong(self, what: str) -> None:
        self.violations.append(what)
        self._write({"at": self._now, "what": "VIOLATION", "violation": what})

    def close(self) -> None:
        self._file.close()

    def _landed(self, landing: Landing) -> None:
        self.writes += 1
        status = (landing.after or {}).get("status")
        place = "/".join(filter(None, landing.key))
        spec = (landing.after or landing.before or {}).get("spec")
        what = f"{landing.plural} {'written' if landing.after else 'deleted'}"
        self._write({"at": landing.at, "what": what, "name": place, "by": landing.by, "spec": spec, "status": status})
        self.checker.observe(landing)

    def _called(self, entry: dict[str, Any]) -> None:
        self._write({"at": _at(entry), "what": entry["event"], **entry})
        tally = self.tally
        match entry["event"]:
            case "END":
                tally.alive.discard(entry["container"])
                self.checker.ended(entry["container"])
            case "ADD" if entry["error"]:
                tally.failed_adds += 1
                tally.errors[f"ADD {_kind(entry['error'])}"] += 1
            case "ADD":
                tally.adds += 1
                tally.alive.add(entry["container"])
                waited = entry["end"] - entry["begin"]
                tally.longest_add = max(tally.longest_add, waited)
                if len(entry["addresses"]) != FAMILIES:
                    self.wrong(f"an ADD for Pod {entry['uid']} returned {entry['addresses']}: not one of each family")
                self.checker.added(entry["container"], entry["uid"], entry["addresses"], waited)
            case "POD" if entry["application"]:
                kind, name = entry["application"]
                owner = {"ownerReferences": [{"kind": kind, "name": name}]}
                pod = {"metadata": {"uid": entry["uid"], "namespace": NAMESPACE, **owner}}
                self.checker.observe(Landing(self._now, "pods", (NAMESPACE, ""), None, pod, "kubelet"))
            case "CAME":
                if self._now < self._excused_until:
                    self.checker.excuse()
                self.checker.came(entry["of"], entry["pod"], entry["addresses"])
            case "DEL" if entry["error"]:
                tally.failed_dels += 1
                tally.errors[f"DEL {_kind(entry['error'])}"] += 1
            case "DEL":
                tally.dels += 1
            case "trouble":
                tally.troubles[entry["error"][:160]] += 1

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(entry) + b"\n")


def _at(entry: dict[str, Any]) -> float:
    """A container has its addresses when its ADD has answered; the rest is as of when it was noted."""
    return float(entry.get("at") or entry.get("end") or 0.0)


def _kind(error: str) -> str:
    """An error without what is different each time."""
    return error[:110]
