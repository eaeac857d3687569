"""The claims the leader knows: every Endpoint, who holds which address, which Pod it belongs to.

Fed by a watch, by full listings, and by the answers to our own writes. Those come in any order, so each object is taken
only if it is newer than what is known of its UID, and a UID that was deleted stays so: UIDs are never used again.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from berth.api.conditions import Condition
from berth.api.endpoint import Endpoint
from berth.core.claim import Claim
from berth.core.pool import BadField
from berth.kube.client import Change, Listing, Object
from berth.kube.errors import Rewound

log = logging.getLogger(__name__)

# UIDs of deleted Endpoints that a listing under way may still show.
REMEMBERED_DELETIONS = 20_000

Berth = tuple[str, int]  # a pool's name and an address of it
Place = tuple[str, str, str, str]  # as `Claim.place`


@dataclass(frozen=True, slots=True)
class Seen:
    """An Endpoint as last seen."""

    claim: Claim
    version: int
    generation: int
    ready: Condition | None


class Listener(Protocol):
    """Who decides. Called on the event loop, in order; `seen` again for each newer version."""

    def seen(self, seen: Seen) -> None: ...
    def gone(self, seen: Seen) -> None: ...


class ClaimView:
    """A follower of Endpoints."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._seen: dict[str, Seen] = {}
        self._by_pod: dict[str, set[str]] = {}
        self._at: dict[Place, tuple[str, ...]] = {}  # nearly always one
        self._parked: set[str] = set()
        self._deleted: OrderedDict[str, int] = OrderedDict()  # UID -> as of when it was gone
        self._as_of = 0  # the newest listing

    def __iter__(self) -> Iterator[Seen]:
        return iter(list(self._seen.values()))

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, uid: str) -> Seen | None:
        return self._seen.get(uid)

    def of_pod(self, pod_uid: str) -> list[Seen]:
        return [self._seen[uid] for uid in self._by_pod.get(pod_uid, ())]

    def others_at(self, claim: Claim) -> list[Claim]:
        """Those of other Pods with the name of its Pod, one after the other: for the same network and interface."""
        return [self._seen[uid].claim for uid in self._at.get(claim.place, ()) if uid != claim.uid]

    def parked(self) -> list[Seen]:
        return [self._seen[uid] for uid in self._parked]

    def replaced(self, listing: Listing) -> None:
        """A listing read by `read`."""
        present = {uid for uid, _ in listing.items}
        as_of = int(listing.version)
        for uid, found in listing.items:
            if self._contradicted(uid, found, as_of):
                raise Rewound(f"Endpoint {uid} is listed as it was before it changed or was deleted")
        for seen in self:
            if seen.claim.uid not in present and seen.version <= as_of:
                self._forget(seen.claim.uid, as_of)
        for uid, found in listing.items:
            if found is not None and self._is_news(uid, found.version):
                self._keep(found)
        self._as_of = max(self._as_of, as_of)

    def changed(self, change: Change) -> None:
        meta = change.object["metadata"]
        if meta["uid"] in self._seen or int(meta["resourceVersion"]) > self._as_of:
            # Else it is late news of one that was gone when all were listed.
            self.update(change.object)
        if change.kind == "DELETED":
            self._forget(meta["uid"], int(meta["resourceVersion"]))

    def _contradicted(self, uid: str, found: Seen | None, as_of: int) -> bool:
        """Whether a list of this moment shows an object as it no longer was then: etcd was restored."""
        seen, gone = self._seen.get(uid), self._deleted.get(uid)
        if gone is not None:
            return gone <= as_of
        return seen is not None and found is not None and found.version < seen.version <= as_of

    def update(self, item: Object) -> None:
        """An Endpoint as read or as answered to a write."""
        meta = item["metadata"]
        if self._is_news(meta["uid"], int(meta["resourceVersion"])) and (seen := read(item)[1]) is not None:
            self._keep(seen)

    def _is_news(self, uid: str, version: int) -> bool:
        before = self._seen.get(uid)
        return uid not in self._deleted and (before is None or before.version < version)

    def _keep(self, seen: Seen) -> None:
        claim = seen.claim
        if claim.uid not in self._seen:
            self._at[claim.place] = (*self._at.get(claim.place, ()), claim.uid)
        self._seen[claim.uid] = seen
        self._by_pod.setdefault(claim.pod_uid, set()).add(claim.uid)
        (self._parked.add if claim.parked else self._parked.discard)(claim.uid)
        self._listener.seen(seen)

    def _forget(self, uid: str, as_of: int) -> None:
        self._deleted[uid] = as_of
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        seen = self._seen.pop(uid, None)
        if seen is None:
            return
        siblings = self._by_pod[seen.claim.pod_uid]
        siblings.discard(uid)
        if not siblings:
            del self._by_pod[seen.claim.pod_uid]
        if others := tuple(each for each in self._at.pop(seen.claim.place) if each != uid):
            self._at[seen.claim.place] = others
        self._parked.discard(uid)
        self._listener.gone(seen)


def read(item: Object) -> tuple[str, Seen | None]:
    """An Endpoint's UID, and what it says; None when that makes no sense."""
    meta = item["metadata"]
    try:
        endpoint = Endpoint.model_validate(item)
    except ValidationError as error:
        log.error(
            "endpoint not understood", extra={"endpoint": f"{meta.get('namespace')}/{meta['name']}", "why": error}
        )
        return meta["uid"], None
    claim = endpoint.to_core()
    if isinstance(claim, BadField):
        log.error(
            "endpoint not understood", extra={"endpoint": f"{meta.get('namespace')}/{meta['name']}", "why": claim}
        )
        return meta["uid"], None
    version, generation = int(meta["resourceVersion"]), meta.get("generation", 1)
    return meta["uid"], Seen(claim, version, generation, endpoint.status.ready())
