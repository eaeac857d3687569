"""What must hold of any ledger at any time, counted the slow way. Every story about a ledger ends with it."""

from collections import Counter

from berth.core.ledger import Exhausted, Free, Ledger

# Pools larger than this are not walked address by address.
WALKED_MOST = 1 << 16
STRANGER = "a claim that nothing was granted to"


def check_ledger(ledger: Ledger, now: float = 0.0) -> None:
    pending, settled = list(ledger.pending), list(ledger.settled)
    held = Counter(ledger.held())
    assert all(times == 1 for times in held.values()), "an address stands twice"
    assert not set(pending) & set(settled), "an address is pending and settled"
    assert set(held) == {*pending, *settled}
    assert len(ledger.settled) == len(settled), "the settled ones are miscounted"

    claims = list(ledger.pending.values())
    assert len(set(claims)) == len(claims), "a claim has two addresses pending"
    for address, claim in ledger.pending.items():
        assert ledger.granted_to(claim) == address
        assert ledger.confirmable(claim) in (None, address)
    assert len(ledger._granted) == len(pending), "a grant is remembered that is not pending"
    assert ledger._staged <= set(pending), "a grant is staged that is not pending"

    inside = {address for address in held if address in ledger.allowed}
    counts = ledger.counts
    assert counts.total == ledger.allowed.size
    assert counts.allocated == len(held)
    assert counts.available == counts.total - len(inside)
    assert 0 <= counts.available <= counts.total
    if counts.total <= WALKED_MOST:
        free = [a for first, last in ledger.allowed.runs for a in range(first, last + 1) if not ledger.holds(a)]
        assert counts.available == len(free)

    for address in ledger._cooling:
        assert not ledger.holds(address), "a cooling address is held"
        assert address in ledger.allowed, "a cooling address is none the pool hands out"
    for address in ledger._freed_outside:
        assert not ledger.holds(address), "an address freed outside is held"
        assert address not in ledger.allowed, "an address freed outside is inside"

    match ledger.find(STRANGER, now):
        case Free(address):
            assert address in ledger.allowed, "an address outside would be granted"
            assert not ledger.holds(address), "a held address would be granted"
        case answer:
            assert answer == Exhausted()
            assert counts.available == 0, "the ledger says it is full, and it is not"
