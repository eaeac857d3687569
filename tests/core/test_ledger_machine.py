"""Histories of one pool, drawn at random: claims come and go, confirmations and ledger writes land late or never,
leaders crash, pools are reshaped, backups put strangers in. Beside the ledger stands a model of the world: which claims
exist and what their Endpoints say, what the API holds, and which address should come next."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from berth.core.ledger import Already, Contested, Exhausted, Found, Free, Image, Ledger, Taken
from berth.core.ranges import Ranges
from berth.core.settled import SPAN, Settled
from tests.invariants import check_ledger

FIRST = (10 << 24) + SPAN - 2  # a seam between two blocks in the middle
ADDRESSES = st.integers(FIRST, FIRST + 4)  # few, so that they are often granted anew
WHOLE = Ranges(((FIRST, FIRST + 4),))
DELAY = 10.0
PICK = st.integers(0, 1 << 20)


@dataclass
class Endpoint:
    exists: bool = True
    confirmed: int | None = None


def held_in(image: Image) -> set[int]:
    return {*image.pending, *Settled(image.settled)}


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.allowed = WHOLE
        self.endpoints: dict[str, Endpoint] = {}
        self.confirmations: list[tuple[str, int]] = []  # under way
        self.api = Image()
        self.late: list[Image] = []  # writes of leaders that are no more, still under way
        self.under_way: Image | None = None
        self.ledger = Ledger(self.api, self.allowed, DELAY)
        self.contested = False  # since loading
        self.freed: dict[int, float] = {}  # since loading: address -> when, in order

    # --- the world ---------------------------------------------------------------------------------------------------

    def existing(self, *, confirmed: bool) -> list[str]:
        return [
            claim
            for claim, endpoint in self.endpoints.items()
            if endpoint.exists and (endpoint.confirmed is not None) == confirmed
        ]

    def said_by_an_endpoint(self, address: int) -> bool:
        return any(endpoint.exists and endpoint.confirmed == address for endpoint in self.endpoints.values())

    @rule(wanted=st.none() | ADDRESSES)
    def a_claim_is_made(self, wanted: int | None) -> None:
        claim = f"claim {len(self.endpoints)}"
        self.endpoints[claim] = Endpoint()
        self.grant(claim, wanted)

    @precondition(lambda self: any(endpoint.exists for endpoint in self.endpoints.values()))
    @rule(pick=PICK)
    def an_endpoint_is_deleted(self, pick: int) -> None:
        self.delete(pick)

    def delete(self, pick: int) -> str:
        existing = [claim for claim, endpoint in self.endpoints.items() if endpoint.exists]
        claim = existing[pick % len(existing)]
        self.endpoints[claim].exists = False
        return claim

    @precondition(lambda self: any(endpoint.exists for endpoint in self.endpoints.values()))
    @rule(pick=PICK)
    def a_pod_is_replaced_and_wants_the_same_address(self, pick: int) -> None:
        old = self.delete(pick)
        address = self.endpoints[old].confirmed or self.ledger.granted_to(old)
        self.learn_gone(old)
        self.a_claim_is_made(address)

    @rule(seconds=st.floats(0, 2 * DELAY))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.confirmations)
    @rule(pick=PICK, lands=st.booleans())
    def a_confirmation_lands_or_is_lost(self, pick: int, lands: bool) -> None:
        claim, address = self.confirmations.pop(pick % len(self.confirmations))
        if lands:
            self.confirm(claim, address)

    def confirm(self, claim: str, address: int) -> None:
        endpoint = self.endpoints[claim]
        if endpoint.exists and endpoint.confirmed is None:
            endpoint.confirmed = address

    @rule(address=ADDRESSES)
    def a_node_says_it_holds_an_address_that_no_ledger_knows_of(self, address: int) -> None:
        """After a restore. Where nobody was told the address yet, nobody may be told it afterwards."""
        if self.said_by_an_endpoint(address) or any(told == address for _, told in self.confirmations):
            return
        claim = f"stranger {len(self.endpoints)}"
        self.endpoints[claim] = Endpoint(confirmed=address)
        granted = self.ledger.pending.get(address)
        contested = self.ledger.settle(address, claim)
        assert contested == (None if granted is None else Contested(address, granted))
        self.contested |= contested is not None
        self.freed.pop(address, None)

    # --- the leader --------------------------------------------------------------------------------------------------

    def next_ones(self) -> list[Found]:
        """The order, said in the plainest way. Those freed at the same moment may come in any order."""
        free = [a for first, last in self.allowed.runs for a in range(first, last + 1) if not self.ledger.holds(a)]
        unused = [address for address in free if address not in self.freed]
        resting = {address: at for address, at in self.freed.items() if address in free}
        oldest = min(resting.values(), default=0.0)
        if resting and (oldest + DELAY <= self.now or not unused):
            return [Free(address) for address, at in resting.items() if at == oldest]
        return [Free(unused[0])] if unused else [Exhausted()]

    def grant(self, claim: str, wanted: int | None) -> None:
        before = self.ledger.granted_to(claim)
        found = self.ledger.find(claim, self.now, wanted)
        if before is not None:
            assert found == (Already(before) if wanted in (None, before) else Taken(wanted or 0))
            return
        if wanted is None:
            assert found in self.next_ones()
        if isinstance(found, Free):
            assert found.address in self.allowed
            self.ledger.grant(claim, found.address)
            self.freed.pop(found.address, None)

    @precondition(lambda self: self.existing(confirmed=False))
    @rule(pick=PICK, wanted=st.none() | ADDRESSES)
    def a_claim_is_granted(self, pick: int, wanted: int | None) -> None:
        claims = self.existing(confirmed=False)
        self.grant(claims[pick % len(claims)], wanted)

    @precondition(lambda self: self.existing(confirmed=False))
    @rule(pick=PICK, lands_at_once=st.booleans())
    def a_confirmation_is_sent(self, pick: int, lands_at_once: bool) -> None:
        claims = self.existing(confirmed=False)
        claim = claims[pick % len(claims)]
        address = self.ledger.confirmable(claim)
        if address is not None:
            assert address in held_in(self.api), "confirmed before it was written"
            assert self.api.pending.get(address) == claim, "confirmed against the record"
            if lands_at_once:
                self.confirm(claim, address)
            else:
                self.confirmations.append((claim, address))

    @precondition(lambda self: self.existing(confirmed=True))
    @rule(pick=PICK)
    def a_confirmation_is_seen(self, pick: int) -> None:
        claims = self.existing(confirmed=True)
        self.learn_confirmed(claims[pick % len(claims)])

    def learn_confirmed(self, claim: str) -> None:
        address = self.endpoints[claim].confirmed
        assert address is not None
        assert self.ledger.settle(address, claim) is None
        self.freed.pop(address, None)

    @precondition(lambda self: any(not endpoint.exists for endpoint in self.endpoints.values()))
    @rule(pick=PICK)
    def a_deletion_is_seen_maybe_again(self, pick: int) -> None:
        gone = [claim for claim, endpoint in self.endpoints.items() if not endpoint.exists]
        self.learn_gone(gone[-1 - pick % min(3, len(gone))])

    def learn_gone(self, claim: str) -> None:
        before = set(self.ledger.held())
        granted = {each: self.ledger.granted_to(each) for each in self.existing(confirmed=False)}
        self.ledger.withdraw(claim, self.now)
        address = self.endpoints[claim].confirmed
        if address is not None and not self.said_by_an_endpoint(address):
            self.ledger.release(address, self.now)
        assert all(self.ledger.granted_to(each) == granted[each] for each in granted), "taken back from another"
        for freed in before - set(self.ledger.held()):
            self.freed[freed] = self.now

    @rule(first=ADDRESSES, last=ADDRESSES, hole=st.none() | ADDRESSES)
    def the_pool_is_reshaped(self, first: int, last: int, hole: int | None) -> None:
        self.reshape(Ranges(((min(first, last), max(first, last)),)).minus(Ranges(((hole, hole),) if hole else ())))

    @rule()
    def the_pool_is_whole_again(self) -> None:
        self.reshape(WHOLE)

    def reshape(self, allowed: Ranges) -> None:
        before = sorted(self.ledger.held())
        self.allowed = allowed
        self.ledger.reshape(allowed)
        assert sorted(self.ledger.held()) == before, "nobody loses what he holds"

    # --- ledger writes -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.under_way is None)
    @rule()
    def a_write_is_begun(self) -> None:
        self.under_way = self.ledger.draft()
        assert held_in(self.under_way) == set(self.ledger.held())

    def land(self, image: Image) -> bool:
        """The condition of the write: nobody has written since."""
        if self.api.sequence != image.sequence - 1:
            return False
        self.api = image
        return True

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def the_write_is_answered(self) -> None:
        image, self.under_way = self.under_way, None
        assert image is not None
        if not self.land(image):
            self.reload()
            return
        for claim, address in self.ledger.accept(image):
            assert image.pending[address] == claim
            assert self.ledger.confirmable(claim) == address

    @precondition(lambda self: self.under_way is not None and self.under_way.sequence == self.api.sequence + 1)
    @rule()
    def the_write_is_refused_though_nobody_wrote_the_ledger(self) -> None:
        self.under_way = None
        self.ledger.retry()

    @precondition(lambda self: self.under_way is not None)
    @rule(landed=st.booleans())
    def the_outcome_of_the_write_is_unknown(self, landed: bool) -> None:
        image, self.under_way = self.under_way, None
        assert image is not None
        if landed:
            self.land(image)
        self.reload()

    @rule()
    def the_leader_crashes(self) -> None:
        if self.under_way is not None:
            self.late.append(self.under_way)
            self.under_way = None
        self.reload()

    @precondition(lambda self: self.late)
    @rule(pick=PICK)
    def a_late_write_lands(self, pick: int) -> None:
        """The leader of today finds out when its own next write is refused."""
        self.land(self.late.pop(pick % len(self.late)))

    def reload(self) -> None:
        """A new leader reads the pool and then the Endpoints. What it knows is what the old one knew once told all,
        less what was never written."""
        old, sequence = self.ledger, self.ledger.sequence
        contested, self.contested = self.contested, False
        self.ledger = self.rebuilt()
        if self.api.sequence == sequence and not contested:  # else an unwritten decision is open again
            self.learn_all(old)
            never_written = {a for a, claim in old.pending.items() if old.confirmable(claim) is None}
            assert dict(self.ledger.pending) == {a: c for a, c in old.pending.items() if a not in never_written}
            assert set(self.ledger.settled) == set(old.settled)
            if not never_written:
                assert self.ledger.counts == old.counts

    def rebuilt(self) -> Ledger:
        ledger = Ledger(self.api, self.allowed, DELAY)
        self.freed = self.learn_all(ledger)
        return ledger

    def learn_all(self, ledger: Ledger) -> dict[int, float]:
        """What every start and take-over does, before anything is granted. Returns what it has freed."""
        for claim, endpoint in self.endpoints.items():
            if endpoint.exists and endpoint.confirmed is not None:
                self.contested |= ledger.settle(endpoint.confirmed, claim) is not None
        freed: dict[int, float] = {}
        for address, claim in list(ledger.pending.items()):
            if not self.endpoints[claim].exists:
                ledger.withdraw(claim, self.now)
                freed[address] = self.now
        for address in list(ledger.settled):
            if not self.said_by_an_endpoint(address):
                ledger.release(address, self.now)
                freed[address] = self.now
        return freed

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_ledger_is_sound(self) -> None:
        check_ledger(self.ledger, self.now)
        assert self.ledger.find("nobody", self.now) in self.next_ones()

    @invariant()
    def no_two_endpoints_say_the_same_address(self) -> None:
        said = [self.endpoints[claim].confirmed for claim in self.existing(confirmed=True)]
        assert len(set(said)) == len(said)

    @invariant()
    def what_an_endpoint_says_is_held(self) -> None:
        for claim in self.existing(confirmed=True):
            address = self.endpoints[claim].confirmed
            assert address is not None
            assert self.ledger.holds(address)
            assert claim.startswith("stranger") or address in held_in(self.api)

    def teardown(self) -> None:
        """Nothing is lost: when all claims are gone and that is written, every address is free."""
        self.late = []
        if self.under_way is not None:
            self.the_write_is_answered()
        for endpoint in self.endpoints.values():
            endpoint.exists = False
        for claim in self.endpoints:
            self.learn_gone(claim)
        for _ in range(2):  # a late write may have come before: then the first is refused
            self.under_way = self.ledger.draft()
            self.the_write_is_answered()
        assert held_in(self.api) == set()
        counts = self.ledger.counts
        assert (counts.allocated, counts.available) == (0, counts.total)
        check_ledger(self.ledger, self.now)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=min(10 * settings().max_examples, 2000))  # the heart of it
