"""One decision for one claim: an address of every family wanted, or none at all.

Nothing is changed unless each family has its address (design, section 2, rule 6). Families already pending for this
claim stay as they are: an address is never taken back from a claim that exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from berth.core.annotations import SLICE
from berth.core.claim import Claim
from berth.core.ledger import PENDING_MOST, Already, Exhausted, Found, Free, Ledger, Outside, Taken
from berth.core.pool import Pool
from berth.core.ranges import Family, Ranges, format_address
from berth.core.reasons import Reason
from berth.core.selection import Choice, Refused
from berth.core.slicing import SLICES_MOST


@dataclass(frozen=True, slots=True)
class Granted:
    """One address of each family, staged in the ledgers of these pools."""

    addresses: tuple[tuple[Pool, int], ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Every address of these pools is held, or their next batch is full: ask again when one comes back. `application`:
    what is waited for is of its slices."""

    pools: tuple[str, ...]
    refusal: Refused
    application: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """An address of a pool for a claim; `part`: the slice it is of, where the pool is cut into slices."""

    pool: Pool
    free: Free | Already
    part: Ranges | None = None


def grant(claim: Claim, choice: Choice, ledgers: Mapping[str, Ledger], now: float) -> Granted | Waiting | Refused:
    found: list[_Found] = []
    for family in sorted({*claim.wanted, *claim.among} - choice.candidates.keys()):
        asked = f"{_asked(claim, family)} is asked for, and no {family} pool"
        return Refused(Reason.ADDRESS_OUTSIDE, f"{asked}: name one that hands it out")
    for family, pools in choice.candidates.items():
        answer = _find(claim, family, pools, ledgers, now)
        if not isinstance(answer, _Found):
            return answer
        found.append(answer)
    for each in found:
        if each.part is not None:
            ledgers[each.pool.name].allot(claim.application, each.part)
        if isinstance(each.free, Free):
            ledgers[each.pool.name].grant(claim.uid, each.free.address)
    return Granted(tuple((each.pool, each.free.address) for each in found))


def _find(
    claim: Claim, family: Family, pools: tuple[Pool, ...], ledgers: Mapping[str, Ledger], now: float
) -> _Found | Waiting | Refused:
    for pool in pools:
        if (held := ledgers[pool.name].granted_to(claim.uid)) is not None:
            return _Found(pool, Already(held))
    wanted, among = claim.wanted.get(family), claim.among.get(family)
    names = tuple(pool.name for pool in pools)
    listed = ", ".join(names)
    taken = False
    for pool in pools:
        ledger = ledgers[pool.name]
        part = _part(claim, pool, ledger)
        match _find_in(part, ledger, claim.uid, now, wanted, among):
            case Free() if ledger.full:
                # There is an address, only not in this write: no reason to go to the next pool, still less to refuse.
                why = f"pool {listed} has {PENDING_MOST} grants under way: this claim comes with the next write"
                return Waiting(names, Refused(Reason.POOL_EXHAUSTED, why))
            case Free() | Already() as free:
                return _Found(pool, free, part)
            case Taken() | Exhausted():
                taken = True
            case Outside():
                pass
    if wanted is None and among is None:
        sliced = any(pool.slice_size is not None for pool in pools)
        refusal = Refused(Reason.POOL_EXHAUSTED, _exhausted(claim, family, pools, ledgers))
        return Waiting(names, refusal, claim.application if sliced else "")
    text, whose = _asked(claim, family), _whose(claim, pools)
    if not taken:
        return Refused(Reason.ADDRESS_OUTSIDE, f"{text}: none of the addresses that pool {listed} hands out{whose}")
    why = f"{text} of pool {listed} is held"
    if wanted is None:
        why = f"{text}: every address of these that pool {listed} hands out{whose} is held"
    return Waiting(names, Refused(Reason.ADDRESS_TAKEN, why))


def _part(claim: Claim, pool: Pool, ledger: Ledger) -> Ranges | None:
    """What the claim may draw from of a pool that is cut into slices; None: of all of it."""
    if pool.slice_size is None:
        return None
    return ledger.part(claim.application, claim.slice_size or pool.slice_size) if claim.application else Ranges()


def _find_in(
    part: Ranges | None, ledger: Ledger, claim: str, now: float, wanted: int | None, among: Ranges | None
) -> Found:
    if part is None:
        return ledger.find(claim, now, wanted, among)
    if not part:
        return Exhausted()
    if wanted is not None:
        return ledger.find(claim, now, wanted) if wanted in part else Outside(wanted)
    inside = part if among is None else part.intersect(among)
    return ledger.find(claim, now, among=inside) if inside else Outside(part.runs[0][0])


def _exhausted(claim: Claim, family: Family, pools: tuple[Pool, ...], ledgers: Mapping[str, Ledger]) -> str:
    said: list[str] = []
    if whole := [pool.name for pool in pools if pool.slice_size is None]:
        total = sum(ledgers[name].counts.total for name in whole)
        said.append(f"pool {', '.join(whole)} has no free {family} address ({total} in all): add ips, or delete Pods")
    for pool in pools:
        if pool.slice_size is not None:
            size, ledger = claim.slice_size or pool.slice_size, ledgers[pool.name]
            said.append(_slice_full(claim, pool, ledger, size))
    return "; ".join(said)


def _slice_full(claim: Claim, pool: Pool, ledger: Ledger, size: int) -> str:
    has, uncut = ledger.slices.get(claim.application), ledger.uncut().size
    if has is None and len(ledger.slices) >= SLICES_MOST:
        return f"pool {pool.name} has {SLICES_MOST} slices, and cannot have more: make another pool"
    if has is None:
        return (
            f"pool {pool.name} has no room for a slice of {size} {pool.family} addresses for {claim.application} "
            f"({uncut} uncut): add ips, ask for fewer with annotation {SLICE}, or delete applications"
        )
    count = has.intersect(ledger.allowed).size
    full = f"every address of the slice of {claim.application} in pool {pool.name} is held ({has.format(pool.family)})"
    if count < size:
        return f"{full}; {size} are asked for, and the pool has no more to cut: add ips to it, or delete Pods"
    return f"{full}: ask for more than {count} with annotation {SLICE}, or delete Pods"


def _whose(claim: Claim, pools: tuple[Pool, ...]) -> str:
    return f" to {claim.application}" if any(pool.slice_size is not None for pool in pools) else ""


def _asked(claim: Claim, family: Family) -> str:
    """The address, or the range, that this claim asks for."""
    wanted = claim.wanted.get(family)
    return format_address(family, wanted) if wanted is not None else claim.among[family].format(family)
