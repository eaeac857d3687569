"""Slices: the part of a pool that one application has to itself.

A pool with `spec.slices` gives no single address to just anybody. The first claim of an application cuts a slice for
it, and all of its Pods draw from that, and from nothing else of the pool. Who has which slice stands in the pool's
ledger (`Image.slices`) and is written with the grant that needed it: whatever holds for grants holds for slices.

An application is what people would call one: the Deployment behind a ReplicaSet, the CronJob behind a Job, else the
Pod's own controller. It is known by its name, so that it finds its slice again when it is deleted and made anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from berth.core.claim import Owner
from berth.core.ranges import Ranges, Run

# A slice is ~80 bytes in the object that every ledger write sends whole.
SLICES_MOST = 1000

# A roll-out makes a new one of these, a schedule a new one for each run: the application is what made them.
_PASSING = {("apps", "ReplicaSet"), ("batch", "Job")}


@dataclass(frozen=True, slots=True)
class Application:
    """As text `shop/Deployment.apps/web`, as kubectl would take it; that text is what it is known by."""

    namespace: str
    group: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}{'.' if self.group else ''}{self.group}/{self.name}"

    @staticmethod
    def read(text: str) -> "Application | None":
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            return None
        kind, _, group = parts[1].partition(".")
        return Application(parts[0], group, kind, parts[2])


def is_passing(owner: Owner | None) -> bool:
    """What made it has to be known to tell the application."""
    return owner is not None and (owner.group, owner.kind) in _PASSING


def application_of(namespace: str, owner: Owner | None, parents: Mapping[str, Owner | None]) -> str | None:
    """The application of a Pod with this owner: empty when it has none, None when what made the owner is not known yet.
    `parents`: what made them, by the owner's UID; None: nothing did."""
    if owner is None or (owner.kind == "Node" and not owner.group):  # the mirror of a static Pod is its node's
        return ""
    if is_passing(owner):
        if owner.uid not in parents:
            return None
        owner = parents[owner.uid] or owner
    return str(Application(namespace, owner.group, owner.kind, owner.name))


def cut(uncut: Ranges, lacking: int, has: Ranges) -> Ranges:
    """`has` and `lacking` addresses more, as far as there is room: those right above it, then the lowest place where
    the rest is in one piece, then the lowest pieces."""
    above = _lowest([run for _, last in has.runs for run in uncut.touching(last + 1, last + 1)], lacking)
    rest, lacking = uncut.minus(above), lacking - above.size
    whole = next((run for run in rest.runs if run[1] - run[0] + 1 >= lacking), None)
    return has.union(above).union(_lowest(rest.runs if whole is None else (whole,), lacking))


def trimmed(has: Ranges, surplus: int, held: Ranges) -> Ranges:
    """`has` without `surplus` addresses, or as many of them as nobody holds: the highest go first."""
    gone: list[Run] = []
    for first, last in reversed(has.minus(held).runs):
        if surplus <= 0:
            break
        gone.append((max(first, last - surplus + 1), last))
        surplus -= gone[-1][1] - gone[-1][0] + 1
    return has.minus(Ranges.of(gone))


def _lowest(runs: Iterable[Run], wanted: int) -> Ranges:
    """The first `wanted` addresses of these."""
    found: list[Run] = []
    for first, last in runs:
        if wanted <= 0:
            break
        found.append((first, min(last, first + wanted - 1)))
        wanted -= found[-1][1] - first + 1
    return Ranges.of(found)
