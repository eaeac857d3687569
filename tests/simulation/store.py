"""What the model of the API server keeps, and what kube-apiserver promises of it.

One resourceVersion for all, uid and resourceVersion as preconditions, `status` as a subresource, finalizers, writes
that change nothing write nothing. Every write is told to the watches, and to whoever observes.
"""

from collections.abc import Callable
from typing import Any

import orjson

from berth.kube.client import Listing, Object
from berth.kube.errors import AlreadyExists, BadRequest, NotFound
from tests.simulation.checker import Landing
from tests.simulation.objects import Happened, Key, Matches, Stored, Target, check, timestamp

Kept = dict[str, dict[Key, Stored]]  # by kind

PEOPLES = ("labels", "annotations", "finalizers")  # of metadata, what a write of the object may change


class Store:
    def __init__(self, clock: Callable[[], float], tell: Callable[[str, Happened], None]) -> None:
        self._clock, self._tell = clock, tell
        self.observers: list[Callable[[Landing], None]] = []
        self.version = 1
        self.writes = 0
        self._kept: Kept = {}
        self._uids = 0

    # --- people, kubelets, controllers: done at once ----------------------------------------------------------------

    def read(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """To be read only."""
        stored = self._kept.get(plural, {}).get((namespace, name))
        return None if stored is None else stored.body

    def all(self, plural: str) -> list[Object]:
        """To be read only."""
        return [stored.body for stored in self._kept.get(plural, {}).values()]

    def make(self, plural: str, body: Object, by: str = "someone") -> Object:
        return self.create(Target(plural, body["metadata"].get("namespace", ""), "", ""), body, by, status=True)

    def change(self, plural: str, name: str, namespace: str, change: Callable[[Object], Any], by: str) -> None:
        """Anything of an object, spec and status alike."""
        stored = self._kept.get(plural, {}).get((namespace, name))
        if stored is not None:
            body = stored.copy()
            change(body)
            self._store(plural, (namespace, name), stored, body, by)

    def remove(self, plural: str, name: str, namespace: str = "", by: str = "someone") -> None:
        if (namespace, name) in self._kept.get(plural, {}):
            self.delete(Target(plural, namespace, name, ""), None, None, by)

    # --- backups ------------------------------------------------------------------------------------------------------

    def backup(self) -> Kept:
        return {plural: dict(objects) for plural, objects in self._kept.items()}

    def restore(self, kept: Kept, bump: int) -> None:
        """All is as it was, at the version it had. Those to come are above all that ever were, by `bump`. No UID is
        given twice."""
        self._kept = {plural: dict(objects) for plural, objects in kept.items()}
        self.version += bump

    # --- what requests do -------------------------------------------------------------------------------------------
    def _find(self, target: Target) -> Stored:
        stored = self._kept.get(target.plural, {}).get((target.namespace, target.name))
        if stored is None:
            raise NotFound(404, "NotFound", f"{target.plural} {target.name}")
        return stored

    def get(self, target: Target) -> Object:
        return self._find(target).copy()

    def create(self, target: Target, body: Object, by: str, status: bool = False) -> Object:
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
                "creationTimestamp": timestamp(self._clock()),
            },
        }
        if not status:
            made.pop("status", None)
        return self._store(target.plural, key, None, made, by)

    def replace(self, target: Target, body: Object, by: str) -> Object:
        stored = self._find(target)
        check(stored, body["metadata"].get("uid"), body["metadata"].get("resourceVersion"))
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

    def delete(self, target: Target, uid: str | None, version: str | None, by: str) -> None:
        stored = self._find(target)
        check(stored, uid, version)
        key, meta = (target.namespace, target.name), stored.body["metadata"]
        if not meta.get("finalizers"):
            self._drop(target.plural, key, stored, by)
        elif "deletionTimestamp" not in meta:
            leaving = {**meta, "deletionTimestamp": timestamp(self._clock()), "generation": meta["generation"] + 1}
            self._store(target.plural, key, stored, {**stored.body, "metadata": leaving}, by)

    def _drop(self, plural: str, key: Key, stored: Stored, by: str) -> None:
        self.version += 1
        self.writes += 1
        body = {**stored.body, "metadata": {**stored.body["metadata"], "resourceVersion": str(self.version)}}
        del self._kept[plural][key]
        self._tell(plural, Happened(self.version, stored, Stored.of({**body, "deleted": True})))
        self._observe(plural, key, stored.body, None, by)

    def list(self, target: Target, matches: Matches, metadata: bool) -> Listing:
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
        self.writes += 1
        meta = {**body["metadata"], "resourceVersion": str(self.version)}
        after = Stored.of({**body, "metadata": meta})
        self._kept.setdefault(plural, {})[key] = after
        self._tell(plural, Happened(self.version, before, after))
        self._observe(plural, key, None if before is None else before.body, after.body, by)
        return after.copy()

    def _observe(self, plural: str, key: Key, before: Object | None, after: Object | None, by: str) -> None:
        landing = Landing(self._clock(), plural, key, before, after, by)
        for observer in self.observers:
            observer(landing)
