"""What the operator knows of Pods, nodes and namespaces: their labels, and whether a Pod is alive.

Metadata alone is followed, and of Pods only those that have not finished: a Pod that succeeds or fails leaves this view
as if it were deleted. It is a watch's view and may be late; nothing is freed by it without a live read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from berth.core.claim import Claim, Surroundings
from berth.kube.client import Change, Listing, Object

UNFINISHED = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}


class Life(Enum):
    """A Pod, as this view knows it."""

    ALIVE = "alive"
    LEAVING = "leaving"  # it has a deletionTimestamp
    UNKNOWN = "unknown"  # gone, finished, or not seen yet


@dataclass(slots=True)
class PodSeen:
    namespace: str
    name: str
    labels: dict[str, str]
    leaving: bool


class PodView:
    """A follower of Pods. `parted` is told the UID of a Pod that begins to leave, or has gone."""

    def __init__(self, parted: Callable[[str], None]) -> None:
        self._parted = parted
        self.pods: dict[str, PodSeen] = {}
        self.leaving: set[str] = set()

    def life(self, uid: str) -> Life:
        seen = self.pods.get(uid)
        if seen is None:
            return Life.UNKNOWN
        return Life.LEAVING if seen.leaving else Life.ALIVE

    def replaced(self, listing: Listing) -> None:
        present = {item["metadata"]["uid"] for item in listing.items}
        for uid in [uid for uid in self.pods if uid not in present]:
            self._gone(uid)
        for item in listing.items:
            self._see(item)

    def changed(self, change: Change) -> None:
        if change.kind == "DELETED":
            self._gone(change.object["metadata"]["uid"])
        else:
            self._see(change.object)

    def _see(self, item: Object) -> None:
        meta = item["metadata"]
        uid, leaving = meta["uid"], "deletionTimestamp" in meta
        before = self.pods.get(uid)
        self.pods[uid] = PodSeen(meta["namespace"], meta["name"], meta.get("labels") or {}, leaving)
        if leaving and (before is None or not before.leaving):
            self.leaving.add(uid)
            self._parted(uid)

    def _gone(self, uid: str) -> None:
        self.leaving.discard(uid)
        if self.pods.pop(uid, None) is not None:
            self._parted(uid)


class LabelView:
    """A follower that keeps the labels of each object by name."""

    def __init__(self) -> None:
        self.labels: dict[str, dict[str, str]] = {}

    def replaced(self, listing: Listing) -> None:
        self.labels = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in listing.items}

    def changed(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.kind == "DELETED":
            self.labels.pop(meta["name"], None)
        else:
            self.labels[meta["name"]] = meta.get("labels") or {}


class World:
    """All three views."""

    def __init__(self, parted: Callable[[str], None]) -> None:
        self.pods = PodView(parted)
        self.nodes = LabelView()
        self.namespaces = LabelView()

    def around(self, claim: Claim) -> Surroundings:
        pod = self.pods.pods.get(claim.pod_uid)
        return Surroundings(
            pod.labels if pod is not None else {},
            self.namespaces.labels.get(claim.namespace, {}),
            self.nodes.labels.get(claim.node, {}),
        )
