"""Why a claim gets what it gets: the same functions that decide, asked one by one, and their answers kept.

It is given ledgers of its own, read from the API: asking changes them, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from berth.core.claim import Claim, Surroundings
from berth.core.granting import Granted, Waiting, grant
from berth.core.ledger import Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family, format_address
from berth.core.request import Request, request_of
from berth.core.selection import Choice, Offer, Passed, Refused, choose


class Verdict(StrEnum):
    """What became of a pool that was looked at."""

    TAKEN = "taken"
    NEXT = "next"  # it may serve, and one before it did
    EXHAUSTED = "exhausted"  # it may serve, and has no address for this claim
    PASSED = "passed over"


@dataclass(frozen=True, slots=True)
class Looked:
    """A pool that was looked at."""

    pool: str
    family: Family | None  # None: it does not exist
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`addresses`: what the claim would get now, or holds; else `refused` says why not."""

    asked: tuple[str, ...]
    looked: tuple[Looked, ...]
    addresses: tuple[tuple[str, str], ...] = ()  # pool, address
    refused: Refused | None = None
    waits: bool = False


def explain(
    claim: Claim, around: Surroundings, offers: Mapping[str, Offer], ledgers: Mapping[str, Ledger]
) -> Explanation:
    request = request_of(claim, around, offers)
    if isinstance(request, Refused):
        return Explanation((), _passed(request.passed, offers), refused=request)
    asked = tuple(_asked(request))
    choice = choose(request.claim, around, offers)
    if isinstance(choice, Refused):
        return Explanation(asked, _passed((*request.passed, *choice.passed), offers), refused=choice)
    passed = _passed((*request.passed, *choice.passed), offers)
    if claim.holdings:
        held = tuple((each.pool, format_address(each.family, each.address)) for each in claim.holdings)
        return Explanation(
            asked, (*_candidates(request.claim, choice, {pool for pool, _ in held}, ledgers), *passed), held
        )
    unread = sorted({pool.name for pools in choice.candidates.values() for pool in pools} - ledgers.keys())
    if unread:
        raise ValueError(f"the ledger of IPPool {', '.join(unread)} cannot be read")
    match grant(request.claim, choice, ledgers, 0.0):
        case Granted(addresses):
            got = tuple((pool.name, format_address(pool.family, address)) for pool, address in addresses)
            return Explanation(
                asked, (*_candidates(request.claim, choice, {pool for pool, _ in got}, ledgers), *passed), got
            )
        case Waiting(_, refusal):
            return Explanation(
                asked, (*_candidates(request.claim, choice, set(), ledgers), *passed), refused=refusal, waits=True
            )
        case Refused() as refused:
            return Explanation(asked, (*_candidates(request.claim, choice, set(), ledgers), *passed), refused=refused)


def _asked(request: Request) -> list[str]:
    claim = request.claim
    said = [
        f"{family} pools {', '.join(claim.pools[family])}: {source}"
        for family, source in request.sources.items()
        if claim.pools.get(family)
    ]
    said = said or [
        f"{family} pools {', '.join(names)}: CNI configuration" for family, names in claim.pools.items() if names
    ]
    if not said:
        said.append("pools: nobody names any, so the default pools")
    if claim.families:
        said.append(f"families: {', '.join(sorted(claim.families))}")
    if claim.slice_size is not None:
        said.append(f"a slice of {claim.slice_size} addresses")
    said += [f"address: {format_address(family, address)}" for family, address in claim.wanted.items()]
    said += [f"an address of: {ranges.format(family)}" for family, ranges in claim.among.items()]
    said += [
        f"route: {each.destination}" + (f" via {each.gateway}" if each.gateway else "") for each in claim.routing.routes
    ]
    if claim.routing.default is not None:
        said.append("the default route" if claim.routing.default else "no default route: another interface has it")
    return said


def _candidates(claim: Claim, choice: Choice, used: set[str], ledgers: Mapping[str, Ledger]) -> list[Looked]:
    found: list[Looked] = []
    for family, pools in choice.candidates.items():
        served = False
        for pool in pools:
            free, why = _counts(claim, pool, ledgers)
            if pool.name in used and not served:
                verdict, served = Verdict.TAKEN, True
            else:
                verdict = Verdict.NEXT if served or free else Verdict.EXHAUSTED
            found.append(Looked(pool.name, family, verdict, why))
    return found


def _counts(claim: Claim, pool: Pool, ledgers: Mapping[str, Ledger]) -> tuple[int, str]:
    """How many addresses are free for this claim, and of which."""
    if pool.name not in ledgers:
        return 0, "its ledger cannot be read"
    ledger = ledgers[pool.name]
    if pool.slice_size is None:
        return ledger.counts.available, f"{ledger.counts.available} of {ledger.counts.total} free"
    part = ledger.slices.get(claim.application)
    if part is None:
        uncut, size = ledger.uncut().size, claim.slice_size or pool.slice_size
        return uncut if uncut >= size else 0, f"no slice yet for {claim.application}, {uncut} addresses uncut"
    free, total = ledger.free_for(claim.application), part.intersect(ledger.allowed).size
    return free, f"{free} of {total} free in the slice of {claim.application}"


def _passed(passed: tuple[Passed, ...], offers: Mapping[str, Offer]) -> tuple[Looked, ...]:
    return tuple(
        Looked(each.pool, offers[each.pool].pool.family if each.pool in offers else None, Verdict.PASSED, each.why)
        for each in dict.fromkeys(passed)
    )
