"""Of pools that hand out the same addresses, which one serves.

Two creates can pass any webhook at once, so the operator decides again, and always the same way: the one already Ready
wins, then the one in use, then the older creationTimestamp, then the smaller UID. A winner stays one while it exists:
an older pool that is seen late does not evict a live one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from berth.core.ranges import Family, Ranges


@dataclass(frozen=True, slots=True)
class Contender:
    """A pool, as far as overlap needs it. `created` sorts as RFC 3339 text does."""

    name: str
    uid: str
    family: Family
    offered: Ranges
    created: str
    incumbent: bool  # Ready, for the spec it has now
    in_use: bool = False  # addresses of it are held


@dataclass(frozen=True, slots=True)
class Conflict:
    """`loser` may not serve while `winner` exists: they share `common`."""

    winner: str
    loser: str
    common: Ranges


def conflicts(contenders: Iterable[Contender]) -> dict[str, Conflict]:
    """For each pool that must not serve, by name, the pool that serves instead and the addresses in common."""
    serving: list[Contender] = []
    lost: dict[str, Conflict] = {}
    for contender in sorted(contenders, key=lambda pool: (not pool.incumbent, not pool.in_use, pool.created, pool.uid)):
        for winner in serving:
            common = shared(winner, contender)
            if common:
                lost[contender.name] = Conflict(winner.name, contender.name, common)
                break
        else:
            serving.append(contender)
    return lost


def shared(one: Contender, other: Contender) -> Ranges:
    """The addresses both hand out."""
    if one.family is not other.family:
        return Ranges()
    return one.offered.intersect(other.offered)
