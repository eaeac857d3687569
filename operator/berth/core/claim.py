"""A claim: one attachment (Pod x network interface) that wants addresses, and what it holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from berth.core.ranges import Family, Ranges
from berth.core.routing import NO_SAY, Routing

_ORDINAL = re.compile(r"-(\d+)$")


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of a Pod."""

    kind: str
    name: str = ""
    uid: str = ""
    group: str = "apps"

    @property
    def is_stateful_set(self) -> bool:
        """Of Kubernetes itself: others have StatefulSets too, of which nothing is known here."""
        return self.kind == "StatefulSet" and self.group == "apps"


@dataclass(frozen=True, slots=True)
class Holding:
    """An address an Endpoint's status says it holds."""

    pool: str
    family: Family
    address: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An Endpoint, as far as deciding needs it. `uid` is the Endpoint's own: the ledger's pending names it.

    `pools`: the pools asked for, by family, in order; empty means the default pools decide. `families`: those asked
    for; empty means whatever the pools give. `wanted`: at most one address of each family. `among`: any of these.
    `application`: whose slice it draws from, where a pool is cut into slices; `slice_size`: how large that is to be.
    `reasserted`: its node's agent knew it as confirmed with what it wants, and found it gone.
    `held_for`: the StatefulSet whose Pod keeps its addresses when it comes again.
    `routing`: the routes that are to come with them.
    """

    uid: str
    namespace: str
    name: str
    pod: str
    pod_uid: str
    node: str
    network: str
    interface: str
    container: str
    pools: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    families: frozenset[Family] = frozenset()
    wanted: Mapping[Family, int] = field(default_factory=dict)
    among: Mapping[Family, Ranges] = field(default_factory=dict)
    routing: Routing = NO_SAY
    holdings: tuple[Holding, ...] = ()
    application: str = ""
    slice_size: int | None = None
    reasserted: bool = False
    held_for: Owner | None = None

    @property
    def confirmed(self) -> bool:
        return bool(self.holdings)

    @property
    def parked(self) -> bool:
        """It holds addresses that no container uses: they wait for the Pod to come again."""
        return self.confirmed and not self.container

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What stays the same when a StatefulSet makes its Pod again."""
        return self.namespace, self.pod, self.network, self.interface

    @property
    def attachment(self) -> tuple[str, str, str]:
        """What stays the same when a sandbox is made again: the Pod's UID, its network, its interface."""
        return self.pod_uid, self.network, self.interface


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of a claim besides itself: labels of its Pod, its namespace, its node; of the first two also the
    annotations with our prefix. `owner`: the Pod's controller. `application`: see `berth.core.slicing`; empty: it is of
    none, None: not known yet. `first_ordinal`: where its owner, if that is a StatefulSet, begins to count its Pods."""

    pod_labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    node_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    namespace_annotations: Mapping[str, str] = field(default_factory=dict)
    owner: Owner | None = None
    application: str | None = ""
    first_ordinal: int = 0


def ordinal_of(pod: str) -> int | None:
    """The number at the end of the name, by which a StatefulSet tells its Pods apart."""
    matched = _ORDINAL.search(pod)
    return int(matched[1]) if matched else None
