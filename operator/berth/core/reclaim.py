"""When the address of a claim may come back although nobody has deleted its Endpoint.

    claim's Pod, read live            node, read live             verdict
    ---------------------------------------------------------------------------------------------
    same UID, not finished            any                         held: the view was late
    same UID as its static Pod's hash any                         held: a mirror Pod has a UID of its own
    same UID, Succeeded or Failed     any                         released: PodFinished
    gone, or another UID              gone                        released: NodeGone
    gone, or another UID              out-of-service taint        released: NodeOutOfService
    gone, or another UID              not Ready                   held: the container may still run
    gone, or another UID              Ready                       released: PodGone (a grace later, if its node was
                                                                  not Ready before: its kubelet hears only now)

Default to held: what could not be read is no reason to free anything. Each verdict is reached after a first observation
(a watch no longer shows the Pod) and a grace; this is the second.

The Endpoint of a StatefulSet's Pod is then parked instead, and after a DEL as well: it keeps its addresses, without a
container, for the Pod that comes again. When such an Endpoint is of no use any more, this table says:

    its StatefulSet, read live        the Pod's ordinal                 its pools         verdict
    ------------------------------------------------------------------------------------------------------------
    gone, or another UID              any                               any               released: StatefulSetGone
    same UID                          in [start, start + replicas)      any               held: the Pod comes again
    same UID                          outside                           all say Retain    held: until the set is gone
    same UID                          outside                           else              released: ScaledDown
"""

from dataclasses import dataclass

from berth.core.claim import Claim, ordinal_of
from berth.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class PodFact:
    """The Pod of the claim's namespace and name, as just read."""

    uid: str
    finished: bool
    static_hash: str | None = None  # annotation kubernetes.io/config.hash: the UID that a static Pod's CNI calls carry


@dataclass(frozen=True, slots=True)
class NodeFact:
    """The claim's node, as just read."""

    ready: bool
    out_of_service: bool


@dataclass(frozen=True, slots=True)
class StatefulSetFact:
    """A StatefulSet: which Pods it is to have, `replicas` of them, counted from `first`."""

    uid: str
    first: int
    replicas: int

    def has(self, ordinal: int | None) -> bool:
        return ordinal is not None and self.first <= ordinal < self.first + self.replicas


@dataclass(frozen=True, slots=True)
class Release:
    reason: Reason


@dataclass(frozen=True, slots=True)
class Held:
    """`recheck`: nothing will tell when this changes, so look again later."""

    why: str
    recheck: bool = False


def judge(pod_uid: str, pod: PodFact | None, node: NodeFact | None) -> Release | Held:
    """`None` means read and not there."""
    if pod is not None and pod_uid in (pod.uid, pod.static_hash):
        return Release(Reason.POD_FINISHED) if pod.finished else Held("its Pod is alive")
    if node is None:
        return Release(Reason.NODE_GONE)
    if node.out_of_service:
        return Release(Reason.NODE_OUT_OF_SERVICE)
    if not node.ready:
        return Held("its node is not Ready: the container may still run", recheck=True)
    return Release(Reason.POD_GONE)


def judge_parked(claim: Claim, owner: StatefulSetFact | None, retained: bool) -> Release | Held:
    """`retained`: every pool it has an address of says Retain. What is held for nobody is of no use to anybody."""
    if claim.held_for is None or owner is None or owner.uid != claim.held_for.uid:
        return Release(Reason.STATEFUL_SET_GONE)
    if owner.has(ordinal_of(claim.pod)):
        return Held("its StatefulSet makes the Pod again")
    return Held("its pools retain it until its StatefulSet is gone") if retained else Release(Reason.SCALED_DOWN)
