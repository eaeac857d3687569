"""Whether what was kept for a StatefulSet's Pod is what that Pod, come again, is to have.

The Pod is new: its annotations, its node and the pools may have changed. So it is decided for like any other, and the
addresses kept are its own only if they are of what was chosen. Otherwise they are freed, and it gets others.
"""

from collections.abc import Callable, Iterable

from berth.core.claim import Claim, Holding
from berth.core.ranges import format_address
from berth.core.selection import Choice


def misfit(claim: Claim, choice: Choice, kept: Iterable[Holding], hands_out: Callable[[str, int], bool]) -> str | None:
    """Why the addresses kept cannot be this claim's; None when they can. `claim` and `choice` are what
    `core.request.decide` says; `hands_out` tells whether a pool (by name) still hands out an address."""
    kept = tuple(kept)
    if (had := {each.family for each in kept}) != choice.candidates.keys():
        return f"it had {_list(had)}, and is to have {_list(choice.candidates)}"
    for each in kept:
        text = format_address(each.family, each.address)
        if each.pool not in {pool.name for pool in choice.candidates[each.family]}:
            return f"pool {each.pool} is none of those chosen for it now"
        if claim.wanted.get(each.family, each.address) != each.address:
            return f"it had {text}, and asks for another address"
        if each.family in claim.among and each.address not in claim.among[each.family]:
            return f"it had {text}, which is none of those it asks for now"
        if not hands_out(each.pool, each.address):
            return f"pool {each.pool} does not hand out {text} any more"
    return None


def _list(families: Iterable[str]) -> str:
    return " and ".join(sorted(families))
