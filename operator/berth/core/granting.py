"""One decision for one claim: an address of every family wanted, or none at all.

Nothing is changed unless each family has its address (design, section 2, rule 6). Families already pending for this
claim stay as they are: an address is never taken back from a claim that exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from berth.core.claim import Claim
from berth.core.ledger import PENDING_MOST, Already, Exhausted, Free, Ledger, Outside, Taken
from berth.core.pool import Pool
from berth.core.ranges import Family, format_address
from berth.core.reasons import Reason
from berth.core.selection import Choice, Refused


@dataclass(frozen=True, slots=True)
class Granted:
    """One address of each family, staged in the ledgers of these pools."""

    addresses: tuple[tuple[Pool, int], ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Every address of these pools is held, or their next batch is full: ask again when one comes back."""

    pools: tuple[str, ...]
    refusal: Refused


def grant(claim: Claim, choice: Choice, ledgers: Mapping[str, Ledger], now: float) -> Granted | Waiting | Refused:
    found: list[tuple[Pool, Free | Already]] = []
    for family in sorted({*claim.wanted, *claim.among} - choice.candidates.keys()):
        asked = f"{_asked(claim, family)} is asked for, and no {family} pool"
        return Refused(Reason.ADDRESS_OUTSIDE, f"{asked}: name one that hands it out")
    for family, pools in choice.candidates.items():
        answer = _find(claim, family, pools, ledgers, now)
        if not isinstance(answer, tuple):
            return answer
        found.append(answer)
    for pool, free in found:
        if isinstance(free, Free):
            ledgers[pool.name].grant(claim.uid, free.address)
    return Granted(tuple((pool, free.address) for pool, free in found))


def _find(
    claim: Claim, family: Family, pools: tuple[Pool, ...], ledgers: Mapping[str, Ledger], now: float
) -> tuple[Pool, Free | Already] | Waiting | Refused:
    for pool in pools:
        if (held := ledgers[pool.name].granted_to(claim.uid)) is not None:
            return pool, Already(held)
    wanted, among = claim.wanted.get(family), claim.among.get(family)
    names = ", ".join(pool.name for pool in pools)
    taken = False
    for pool in pools:
        match ledgers[pool.name].find(claim.uid, now, wanted, among):
            case Free() if ledgers[pool.name].full:
                # There is an address, only not in this write: no reason to go to the next pool, still less to refuse.
                return Waiting(
                    tuple(pool.name for pool in pools),
                    Refused(
                        Reason.POOL_EXHAUSTED,
                        f"pool {names} has {PENDING_MOST} grants under way: this claim comes with the next write",
                    ),
                )
            case Free() | Already() as free:
                return pool, free
            case Taken() | Exhausted():
                taken = True
            case Outside():
                pass
    if wanted is None and among is None:
        total = sum(ledgers[pool.name].counts.total for pool in pools)
        return Waiting(
            tuple(pool.name for pool in pools),
            Refused(
                Reason.POOL_EXHAUSTED,
                f"pool {names} has no free {family} address ({total} in all): add ips, or delete Pods",
            ),
        )
    text = _asked(claim, family)
    if not taken:
        return Refused(Reason.ADDRESS_OUTSIDE, f"{text}: none of the addresses that pool {names} hands out")
    why = f"{text} of pool {names} is held"
    if wanted is None:
        why = f"{text}: every address of these that pool {names} hands out is held"
    return Waiting(tuple(pool.name for pool in pools), Refused(Reason.ADDRESS_TAKEN, why))


def _asked(claim: Claim, family: Family) -> str:
    """The address, or the range, that this claim asks for."""
    wanted = claim.wanted.get(family)
    return format_address(family, wanted) if wanted is not None else claim.among[family].format(family)
