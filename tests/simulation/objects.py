"""Objects as the model of the API server keeps them, and how a request names them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from berth.kube.client import Object
from berth.kube.errors import Conflict

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

    def kind(self, matches: Matches) -> str | None:
        """What a watch calls it: an object that stops matching is deleted as far as that watch can see."""
        was = self.before is not None and matches(self.before.body)
        now = "deleted" not in self.after.body and matches(self.after.body)
        if now:
            return "MODIFIED" if was else "ADDED"
        return "DELETED" if was else None


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
    plural, name, sub = (*parts, "", "", "")[:3]
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


def timestamp(now: float) -> str:
    """Simulated time as metav1.Time has it; days do not change within a history."""
    minutes, seconds = divmod(int(now), 60)
    hours, minutes = divmod(minutes, 60)
    return f"2026-01-01T{hours:02}:{minutes:02}:{seconds:02}Z"


def check(stored: Stored, uid: str | None, version: str | None) -> None:
    """The preconditions of a write, where it has any."""
    meta = stored.body["metadata"]
    if uid and uid != meta["uid"]:
        raise Conflict(409, "Conflict", f"uid is {meta['uid']}, not {uid}")
    if version and version != meta["resourceVersion"]:
        raise Conflict(409, "Conflict", f"resourceVersion is {meta['resourceVersion']}, not {version}")
