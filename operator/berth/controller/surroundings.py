"""What the operator knows of Pods, nodes, namespaces and StatefulSets: labels, annotations of ours, who owns a Pod and
whether it is alive, which Pods a StatefulSet is to have.

Metadata alone is followed, and of Pods only those that have not finished: a Pod that succeeds or fails leaves this view
as if it were deleted. It is a watch's view and may be late; nothing is freed by it without a live read, and
nothing is decided without one for a claim whose Pod, namespace, node or StatefulSet it does not show.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from berth.core.annotations import PREFIX
from berth.core.claim import Claim, Owner, Surroundings
from berth.core.reclaim import StatefulSetFact
from berth.core.slicing import application_of
from berth.kube.client import Change, Listing, Object

UNFINISHED = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}


class Life(Enum):
    """A Pod, as this view knows it."""

    ALIVE = "alive"
    LEAVING = "leaving"  # it has a deletionTimestamp
    UNKNOWN = "unknown"  # gone, finished, or not seen yet


NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Described:
    """What selectors and choices ask of a Pod, a namespace or a node. `owner`: its controller."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner: Owner | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What was read live for one claim, since it was in no view. What is not there describes nothing."""

    pod: Described = Described()
    namespace: Described = Described()
    node: Described = Described()
    stateful_set: StatefulSetFact | None = None


def describe(item: Object) -> Described:
    meta = item["metadata"]
    written = meta.get("annotations")
    # Most have none of ours: those share one empty mapping.
    ours = {key: text for key, text in written.items() if key.startswith(PREFIX)} if written else NOTHING
    return Described(meta.get("labels") or NOTHING, ours or NOTHING, owner_of(item))


def owner_of(item: Object) -> Owner | None:
    for each in item["metadata"].get("ownerReferences") or ():
        if each.get("controller"):
            return _owner(each["kind"], each["name"], each["uid"], each["apiVersion"].rpartition("/")[0])
    return None


# Thousands of Pods have the same one.
_owner = lru_cache(maxsize=4096)(Owner)


def surroundings(
    within: str,
    pod: Described,
    namespace: Described,
    node: Described,
    parents: Mapping[str, Owner | None],
    first_ordinal: int,
) -> Surroundings:
    application = application_of(within, pod.owner, parents)
    return Surroundings(
        pod.labels,
        namespace.labels,
        node.labels,
        pod.annotations,
        namespace.annotations,
        pod.owner,
        application,
        first_ordinal,
    )


def stateful_set_fact(item: Object) -> StatefulSetFact:
    spec = item["spec"]
    return StatefulSetFact(
        item["metadata"]["uid"], (spec.get("ordinals") or {}).get("start", 0), spec.get("replicas", 1)
    )


def read_stateful_set(item: Object) -> tuple[tuple[str, str], StatefulSetFact]:
    """Namespace and name, and what counts of it."""
    return (item["metadata"]["namespace"], item["metadata"]["name"]), stateful_set_fact(item)


@dataclass(slots=True)
class PodSeen:
    uid: str
    namespace: str
    name: str
    described: Described
    leaving: bool


def read_pod(item: Object) -> PodSeen:
    meta = item["metadata"]
    return PodSeen(meta["uid"], meta["namespace"], meta["name"], describe(item), "deletionTimestamp" in meta)


class PodView:
    """A follower of Pods. `parted` is told the UID of a Pod that begins to leave, or has gone."""

    def __init__(self, parted: Callable[[str], None]) -> None:
        self._parted = parted
        self.noticed: Callable[[PodSeen], None] = lambda pod: None  # told of a Pod of which something has changed
        self.pods: dict[str, PodSeen] = {}
        self.leaving: set[str] = set()

    def life(self, uid: str) -> Life:
        seen = self.pods.get(uid)
        if seen is None:
            return Life.UNKNOWN
        return Life.LEAVING if seen.leaving else Life.ALIVE

    def replaced(self, listing: Listing) -> None:
        """A listing read by `read_pod`."""
        present = {seen.uid for seen in listing.items}
        for uid in [uid for uid in self.pods if uid not in present]:
            self._gone(uid)
        for seen in listing.items:
            self._see(seen)

    def changed(self, change: Change) -> None:
        if change.kind == "DELETED":
            self._gone(change.object["metadata"]["uid"])
        else:
            self._see(read_pod(change.object))

    def _see(self, seen: PodSeen) -> None:
        before = self.pods.get(seen.uid)
        self.pods[seen.uid] = seen
        if seen.leaving and (before is None or not before.leaving):
            self.leaving.add(seen.uid)
            self._parted(seen.uid)
        self.noticed(seen)

    def _gone(self, uid: str) -> None:
        self.leaving.discard(uid)
        if self.pods.pop(uid, None) is not None:
            self._parted(uid)


class DescriptionView:
    """A follower that keeps the description of each object by name."""

    def __init__(self) -> None:
        self.described: dict[str, Described] = {}

    def replaced(self, listing: Listing) -> None:
        self.described = {item["metadata"]["name"]: describe(item) for item in listing.items}

    def changed(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        if change.kind == "DELETED":
            self.described.pop(name, None)
        else:
            self.described[name] = describe(change.object)


class StatefulSetView:
    """A follower that keeps which Pods each StatefulSet is to have."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str], StatefulSetFact] = {}

    def of(self, namespace: str, owner: Owner) -> StatefulSetFact | None:
        """This very set, not another one of its name."""
        fact = self._facts.get((namespace, owner.name))
        return fact if fact is not None and fact.uid == owner.uid else None

    def replaced(self, listing: Listing) -> None:
        """A listing read by `read_stateful_set`."""
        self._facts = dict(listing.items)

    def changed(self, change: Change) -> None:
        if change.kind == "DELETED":
            self._facts.pop(read_stateful_set(change.object)[0], None)
        else:
            key, fact = read_stateful_set(change.object)
            self._facts[key] = fact


class World:
    """All views, and beside them what was read live for claims that came before their Pod was seen."""

    def __init__(self, parted: Callable[[str], None]) -> None:
        self.pods = PodView(parted)
        self.nodes = DescriptionView()
        self.namespaces = DescriptionView()
        self.stateful_sets = StatefulSetView()
        self.live: dict[str, Live] = {}  # by claim
        self.parents: dict[str, Owner | None] = {}  # what made a ReplicaSet or Job, as read live, by its UID

    def around(self, claim: Claim) -> Surroundings | None:
        """None: some of it is in no view yet and has to be read."""
        seen = self.pods.pods.get(claim.pod_uid)
        pod = None if seen is None else seen.described
        namespace = self.namespaces.described.get(claim.namespace)
        node = self.nodes.described.get(claim.node)
        live = self.live.get(claim.uid)
        if pod is None or namespace is None or node is None:
            if live is None:
                return None
            pod, namespace, node = pod or live.pod, namespace or live.namespace, node or live.node
        first = 0
        if pod.owner is not None and pod.owner.is_stateful_set:
            fact = self.stateful_sets.of(claim.namespace, pod.owner)
            if fact is None and live is None:
                return None
            fact = fact or (live.stateful_set if live is not None else None)
            first = 0 if fact is None else fact.first
        return surroundings(claim.namespace, pod, namespace, node, self.parents, first)

    def annotated(self, claim: Claim) -> bool:
        """Its Pod or its namespace has a say in what it gets."""
        around = self.around(claim)
        return around is not None and bool(around.pod_annotations or around.namespace_annotations)
