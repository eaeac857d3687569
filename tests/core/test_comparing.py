"""Drift: each kind is seen, what agrees or may be under way is not, and one look proves nothing."""

from dataclasses import replace

import pytest

from berth.core.claim import Holding
from berth.core.comparing import ClaimFact, Drift, Facts, LedgerFact, compare, sure
from berth.core.ledger import Image
from berth.core.ranges import Family
from berth.core.reasons import Reason
from berth.core.settled import Settled

BASE = 10 << 24  # 10.0.0.0


def image(*settled: int, pending: dict[int, str] | None = None, sequence: int = 7) -> Image:
    bits = Settled()
    for address in settled:
        bits.add(BASE + address)
    return Image(sequence, {BASE + address: claim for address, claim in (pending or {}).items()}, bits.blocks())


def holds(uid: str, *addresses: int, pod: str = "pod-1", version: int = 5, looked_for: bool = False) -> ClaimFact:
    held = tuple(Holding("office", Family.IPV4, BASE + address) for address in addresses)
    return ClaimFact(uid, version, pod, held, looked_for)


def ledger(memory: Image | None, listed: Image, version: int = 9) -> LedgerFact:
    return LedgerFact("office", Family.IPV4, memory, version, listed)


AGREE = Facts(
    ledgers=(ledger(image(1, pending={2: "e-2"}), image(1, pending={2: "e-2"})),),
    pools_as_of=10,
    claims=(holds("e-1", 1), holds("e-2")),
    listed_claims={"e-1": 5, "e-2": 5},
    as_of=10,
    pods=frozenset({"pod-1"}),
    listed_pods={"pod-1": None},
    excused=frozenset(),
    kept_for=frozenset(),
)


def facts(**changes: object) -> Facts:
    return replace(AGREE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("story", "seen"),
    [
        ("all agree", AGREE),
        ("a ledger write is under way", facts(ledgers=(ledger(None, image(9, sequence=8)),))),
        ("memory is newer than the list", facts(ledgers=(ledger(image(1), image(9), version=11),))),
        ("a claim is newer than the list", facts(claims=(*AGREE.claims, holds("e-3", version=11)))),
        ("its Pod is looked for already", facts(claims=(*AGREE.claims, holds("e-1", 1, pod="x", looked_for=True)))),
        ("a static Pod", facts(claims=(holds("e-1", 1, pod="hash"), holds("e-2")), listed_pods={"pod-1": "hash"})),
        (
            "kept for a Pod, or in doubt",
            facts(
                ledgers=(ledger(image(1, 3), image(1, 3)),),
                excused=frozenset({("office", BASE + 3)}),
                kept_for=frozenset({"pod-1"}),
            ),
        ),
    ],
)
def test_no_drift(story: str, seen: Facts) -> None:
    assert compare(seen) == [], story


@pytest.mark.parametrize(
    ("story", "seen", "kind", "of"),
    [
        (
            "somebody else wrote the ledger",
            facts(ledgers=(ledger(image(1), image(1, sequence=8)),)),
            Reason.LEDGER_DIFFERS,
            "office",
        ),
        (
            "a bit was changed by hand",
            facts(ledgers=(ledger(image(1), image(1, 2)),)),
            Reason.LEDGER_DIFFERS,
            "office",
        ),
        (
            "an Endpoint that the ledger forgot",
            facts(ledgers=(ledger(image(), image()),)),
            Reason.HOLDING_UNRECORDED,
            "office",
        ),
        (
            "settled for nobody",
            facts(ledgers=(ledger(image(1, 3), image(1, 3)),)),
            Reason.ADDRESS_UNHELD,
            "office",
        ),
        (
            "pending for a claim that is gone",
            facts(ledgers=(ledger(image(1, pending={3: "e-9"}), image(1, pending={3: "e-9"})),)),
            Reason.ADDRESS_UNHELD,
            "office",
        ),
        ("an Endpoint never told of", facts(listed_claims={"e-1": 5, "e-2": 5, "e-3": 6}), Reason.CLAIM_DIFFERS, "e-3"),
        ("a change never told of", facts(listed_claims={"e-1": 6, "e-2": 5}), Reason.CLAIM_DIFFERS, "e-1"),
        ("an end never told of", facts(listed_claims={"e-1": 5}), Reason.CLAIM_DIFFERS, "e-2"),
        ("a Pod never told of", facts(listed_pods={"pod-1": None, "pod-2": None}), Reason.POD_DIFFERS, "pod-2"),
        ("a Pod whose end was never told of", facts(pods=frozenset({"pod-1", "pod-2"})), Reason.POD_DIFFERS, "pod-2"),
        (
            "a static Pod is gone, and its DEL was lost",
            facts(claims=(holds("e-1", 1, pod="hash"), holds("e-2"))),
            Reason.POD_MISSING,
            "e-1",
        ),
        ("kept for a Pod that is gone", facts(kept_for=frozenset({"pod-9"})), Reason.KEPT_FOR_NOBODY, "pod-9"),
        (
            "one address, two Endpoints",
            facts(claims=(holds("e-1", 1), holds("e-2", 1)), ledgers=()),
            Reason.ADDRESS_TWICE,
            "e-2",
        ),
    ],
)
def test_each_kind_of_drift(story: str, seen: Facts, kind: Reason, of: str) -> None:
    assert [(drift.kind, drift.of) for drift in compare(seen)] == [(kind, of)], story


def test_one_address_of_two_endpoints_of_which_one_is_gone_is_not_held_twice() -> None:
    seen = facts(claims=(holds("e-1", 1), holds("e-2", 1)), listed_claims={"e-2": 5}, ledgers=())
    assert Reason.ADDRESS_TWICE not in {drift.kind for drift in compare(seen)}


def test_only_what_a_second_look_finds_unchanged_is_sure() -> None:
    lag, stays, other = (
        Drift(Reason.CLAIM_DIFFERS, "e-1", "version 5 of it is not known"),
        Drift(Reason.POD_DIFFERS, "pod-1", "Pod pod-1 is not known"),
        Drift(Reason.CLAIM_DIFFERS, "e-1", "version 6 of it is not known"),
    )
    twice = Drift(Reason.ADDRESS_TWICE, "e-2", "10.0.0.1 is held by Endpoint e-1 too")
    assert sure([lag, stays], [stays, other, twice]) == [stays, twice]
