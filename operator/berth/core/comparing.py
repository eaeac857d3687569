"""Whether what a leader remembers is what the API has: facts in, drifts out.

    drift               what was compared                                              looked at
    -----------------------------------------------------------------------------------------------------------
    LedgerDiffers       a ledger in memory, the pool as listed                         while no write is under way
    HoldingUnrecorded   an Endpoint that holds an address, its pool's ledger           the same
    AddressUnheld       an address in a ledger, its holder (or pending claim)          the same
    ClaimDiffers        Endpoints in memory, as listed                                 versions up to the list's
    PodDiffers          the view of Pods, as listed                                    always
    PodMissing          a claim's Pod, as listed                                       unless it is looked for already
    KeptForNobody       the Pod that an address is kept for, as listed                 always
    AddressTwice        what Endpoints hold, one with the other                        always

Watches lag and writes are under way, so a first look proves nothing: a drift is one that a second look, seconds later,
finds unchanged. AddressTwice alone is sure at once: a list shows one moment.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from berth.core.claim import Holding
from berth.core.ledger import Image
from berth.core.ranges import Family, format_address
from berth.core.reasons import Reason
from berth.core.settled import Settled

Place = tuple[str, int]  # a pool's name and an address of it


@dataclass(frozen=True, slots=True)
class LedgerFact:
    """`memory`: None while it is being read, or a write is to come or under way. `version`: of the pool in memory."""

    pool: str
    family: Family
    memory: Image | None
    version: int
    listed: Image


@dataclass(frozen=True, slots=True)
class ClaimFact:
    """An Endpoint in memory. `looked_for`: nobody need look for its Pod, since that is done, or it has none."""

    uid: str
    version: int
    pod_uid: str
    holdings: tuple[Holding, ...]
    looked_for: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """`listed_claims`: UID to version, at `as_of`; `pools_as_of`: the same of the pools. `listed_pods`: those that have
    not finished; UID to the UID that its CNI calls carry, if that is another (a static Pod's). `excused`: addresses
    without an Endpoint, kept for a Pod or in doubt."""

    ledgers: tuple[LedgerFact, ...]
    pools_as_of: int
    claims: tuple[ClaimFact, ...]
    listed_claims: Mapping[str, int]
    as_of: int
    pods: frozenset[str]
    listed_pods: Mapping[str, str | None]
    excused: frozenset[Place]
    kept_for: frozenset[str]


@dataclass(frozen=True, slots=True)
class Drift:
    """`of`: the pool's name, the claim's UID, or the Pod's."""

    kind: Reason
    of: str
    detail: str


def compare(facts: Facts) -> list[Drift]:
    """What differs at this moment."""
    return [*_ledgers(facts), *_claims(facts), *_pods(facts), *_twice(facts)]


def sure(first: Iterable[Drift], second: Iterable[Drift]) -> list[Drift]:
    """Those that a second look finds unchanged; and those that need none."""
    before = set(first)
    return [each for each in second if each in before or each.kind is Reason.ADDRESS_TWICE]


def _ledgers(facts: Facts) -> Iterator[Drift]:
    held = {(each.pool, each.address): claim.uid for claim in facts.claims for each in claim.holdings}
    unconfirmed = {claim.uid for claim in facts.claims if not claim.holdings}
    for fact in facts.ledgers:
        memory = fact.memory
        if memory is None or fact.version > facts.pools_as_of:
            continue
        if memory.sequence != fact.listed.sequence:
            detail = f"memory has sequence {memory.sequence}, the API {fact.listed.sequence}"
            yield Drift(Reason.LEDGER_DIFFERS, fact.pool, detail)
        elif memory != fact.listed:
            yield Drift(Reason.LEDGER_DIFFERS, fact.pool, f"sequence {memory.sequence} has other content in the API")
        settled = Settled(memory.settled)
        for (pool, address), uid in held.items():
            if pool == fact.pool and address not in settled:
                detail = f"{format_address(fact.family, address)} is held by Endpoint {uid} and not in the ledger"
                yield Drift(Reason.HOLDING_UNRECORDED, pool, detail)
        for address in settled:
            if (fact.pool, address) not in held and (fact.pool, address) not in facts.excused:
                detail = f"{format_address(fact.family, address)} is settled, and no Endpoint holds it"
                yield Drift(Reason.ADDRESS_UNHELD, fact.pool, detail)
        for address, uid in memory.pending.items():
            if uid not in unconfirmed:
                detail = f"{format_address(fact.family, address)} is pending for {uid}, which does not wait for it"
                yield Drift(Reason.ADDRESS_UNHELD, fact.pool, detail)


def _claims(facts: Facts) -> Iterator[Drift]:
    known = {claim.uid: claim.version for claim in facts.claims}
    for uid, version in facts.listed_claims.items():
        if known.get(uid, 0) < version:
            yield Drift(Reason.CLAIM_DIFFERS, uid, f"version {version} of it is not known")
    for uid, version in known.items():
        if uid not in facts.listed_claims and version <= facts.as_of:
            yield Drift(Reason.CLAIM_DIFFERS, uid, "it is known, and gone in the API")


def _pods(facts: Facts) -> Iterator[Drift]:
    for uid in sorted(facts.pods ^ facts.listed_pods.keys()):
        known = "is known, and gone or finished in the API" if uid in facts.pods else "is not known"
        yield Drift(Reason.POD_DIFFERS, uid, f"Pod {uid} {known}")
    alive = facts.listed_pods.keys() | set(filter(None, facts.listed_pods.values()))
    for claim in facts.claims:
        if claim.pod_uid not in alive and not claim.looked_for and claim.uid in facts.listed_claims:
            yield Drift(Reason.POD_MISSING, claim.uid, f"its Pod {claim.pod_uid} is gone, and nobody looks for it")
    for uid in sorted(facts.kept_for - alive):
        yield Drift(Reason.KEPT_FOR_NOBODY, uid, f"an address is kept for Pod {uid}, which is gone")


def _twice(facts: Facts) -> Iterator[Drift]:
    """Only of claims that are there as they are remembered."""
    holders: dict[tuple[Family, int], str] = {}
    for claim in facts.claims:
        if facts.listed_claims.get(claim.uid) != claim.version:
            continue
        for each in claim.holdings:
            first = holders.setdefault((each.family, each.address), claim.uid)
            if first != claim.uid:
                text = format_address(each.family, each.address)
                yield Drift(Reason.ADDRESS_TWICE, claim.uid, f"{text} is held by Endpoint {first} too")
