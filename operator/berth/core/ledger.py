"""The ledger of one pool: which address is free, pending or settled, and what the next write will say.

It is a write-ahead log in two parts (design, section 2). `pending` names the claim an address was granted to, until
that claim's Endpoint is known to say so; then a bit in `settled` is enough, since the Endpoint is the record of who
holds it. An address in neither may be granted.

Memory runs ahead of the API by what is staged: `draft` says what to write, `accept` that it was written. A grant may be
confirmed only after the draft that holds it was accepted. When a write is refused or its outcome unknown, the ledger
is thrown away and loaded anew: nothing here is worth keeping against the record.

No step of the way of one address grows with the number of addresses held: which address comes next is the head of a
queue of freed ones, or a mark that only moves forward over those never used.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from berth.core.ranges import Ranges
from berth.core.settled import Settled
from berth.core.slicing import SLICES_MOST, cut

# Pending entries are ~60 bytes each in the object that every write sends whole. Claims past this wait for the next
# batch, which settles what was confirmed meanwhile.
PENDING_MOST = 1000


@dataclass(frozen=True, slots=True)
class Image:
    """A ledger as the API holds it. `sequence` is raised by every ledger write: who sees it unchanged knows that
    nobody has written."""

    sequence: int = 0
    pending: Mapping[int, str] = field(default_factory=dict)
    settled: Mapping[int, int] = field(default_factory=dict)
    slices: Mapping[str, Ranges] = field(default_factory=dict)  # application -> what only its Pods draw from


@dataclass(frozen=True, slots=True)
class Counts:
    """`total`: addresses the pool may hand out; `allocated`: held, inside or outside of those; `available`: free."""

    total: int
    allocated: int
    available: int


@dataclass(frozen=True, slots=True)
class Free:
    """An address that could be granted now."""

    address: int


@dataclass(frozen=True, slots=True)
class Already:
    """The claim was granted this address before: asking again changes nothing."""

    address: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every address is held."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The wanted address is held by another."""

    address: int


@dataclass(frozen=True, slots=True)
class Outside:
    """The wanted address is none this pool hands out (out of its ranges, excluded, reserved, or its gateway)."""

    address: int


@dataclass(frozen=True, slots=True)
class Contested:
    """An Endpoint says it holds an address that the ledger gave to `claim`. Berth alone never comes to this: a restored
    backup does, or a status written by hand."""

    address: int
    claim: str


Found = Free | Already | Exhausted | Taken | Outside


class Ledger:
    """One pool's ledger in memory. Addresses are ints of the pool's family; times are seconds of a monotonic clock."""

    def __init__(self, image: Image, allowed: Ranges, reuse_delay: float = 0.0) -> None:
        self.sequence = image.sequence
        self.reuse_delay = reuse_delay
        self.pending: dict[int, str] = dict(image.pending)
        self.settled = Settled(image.settled)
        self.slices: dict[str, Ranges] = dict(image.slices)
        self._granted: dict[str, int] = {claim: address for address, claim in self.pending.items()}
        self._staged: set[int] = set()  # pending in memory only: not to be confirmed yet
        self._dirty = False
        self._in_flight: frozenset[int] | None = None
        self._cooling: OrderedDict[int, float] = OrderedDict()  # freed address -> when; oldest first; all inside
        self._freed_outside: dict[int, float] = {}  # the same for those the pool does not hand out now
        self._allowed = allowed
        self.reshape(allowed)

    # --- reading ---------------------------------------------------------------------------------------------------

    def holds(self, address: int) -> bool:
        return address in self.pending or address in self.settled

    def held(self) -> Iterator[int]:
        yield from self.pending
        yield from self.settled

    def granted_to(self, claim: str) -> int | None:
        """The pending address of this claim, if it has one."""
        return self._granted.get(claim)

    def confirmable(self, claim: str) -> int | None:
        """The address the API's own ledger gives to this claim: what may be written to its Endpoint."""
        address = self._granted.get(claim)
        return None if address is None or address in self._staged else address

    @property
    def allowed(self) -> Ranges:
        return self._allowed

    @property
    def counts(self) -> Counts:
        return Counts(self._total, len(self.pending) + len(self.settled), self._total - self._inside)

    @property
    def full(self) -> bool:
        """No further grant until a write has settled some of those pending."""
        return len(self.pending) >= PENDING_MOST

    @property
    def dirty(self) -> bool:
        """Memory says something the API does not."""
        return self._dirty

    @property
    def urgent(self) -> bool:
        """A claim waits for the next write; else it can wait a moment for company."""
        return bool(self._staged)

    # --- granting --------------------------------------------------------------------------------------------------

    def find(self, claim: str, now: float, wanted: int | None = None, among: Ranges | None = None) -> Found:
        """Which address this claim would get (`wanted`: that or none; `among`: one of these or none); nothing is
        changed. Order: first freed, first reused, once its cool-down is over; then the lowest never used; then, when
        nothing else is left, the first freed all the same."""
        if (held := self._granted.get(claim)) is not None:
            return Already(held) if wanted in (None, held) else Taken(wanted)
        if wanted is not None:
            if wanted not in self._allowed:
                return Outside(wanted)
            return Taken(wanted) if self.holds(wanted) else Free(wanted)
        if among is not None:
            return self._find_among(among, now)
        oldest = next(iter(self._cooling.items()), None)
        if oldest is not None and oldest[1] + self.reuse_delay <= now:
            return Free(oldest[0])
        if (fresh := self._fresh()) is not None:
            return Free(fresh)
        return Free(oldest[0]) if oldest is not None else Exhausted()

    def _find_among(self, among: Ranges, now: float) -> Found:
        """As above, in a part of the pool. It is walked: who names a range names one that is small, or mostly free."""
        part = self._allowed.intersect(among)
        if not part:
            return Outside(among.runs[0][0])
        oldest = next((freed for freed in self._cooling.items() if freed[0] in part), None)
        if oldest is not None and oldest[1] + self.reuse_delay <= now:
            return Free(oldest[0])
        for first, last in part.runs:
            address = self.settled.first_clear(first, last)
            while address is not None:
                if address not in self.pending and address not in self._cooling:
                    return Free(address)
                address = self.settled.first_clear(address + 1, last)
        return Free(oldest[0]) if oldest is not None else Exhausted()

    def grant(self, claim: str, address: int) -> None:
        """Stage `address` for `claim`. The caller has just found it free."""
        assert not self.holds(address), "granted twice"
        self._cooling.pop(address, None)
        self.pending[address] = claim
        self._granted[claim] = address
        self._staged.add(address)
        self._inside += address in self._allowed
        self._dirty = True

    def settle(self, address: int, claim: str) -> Contested | None:
        """The Endpoint of `claim` says it holds `address`. Seen again, or seen of an address that was never granted
        here (an Endpoint older than the ledger: it is put back), it is one rule: afterwards the bit is set.

        An Endpoint is the record, a grant only the promise of one: where another claim was granted this address the
        bit is set all the same, so that nothing that becomes of the other frees it, and the other's grant is off: it
        was not or must not be confirmed. The answer names it. If its Endpoint says the same, both hold the address."""
        granted = self.pending.get(address)
        if granted is not None:
            self._forget_pending(address)
        elif address in self.settled:
            return None
        else:
            self._cooling.pop(address, None)
            self._freed_outside.pop(address, None)
            self._inside += address in self._allowed
        self.settled.add(address)
        self._dirty = True
        return None if granted is None or granted == claim else Contested(address, granted)

    def release(self, address: int, now: float) -> None:
        """Free a settled `address`. Releasing what is free is success. What is pending stays: only `withdraw`, which
        names the claim, frees it, for it may have been granted anew since its last holder was last seen to be gone."""
        if address in self.settled:
            self.settled.remove(address)
            self._free(address, now)

    def withdraw(self, claim: str, now: float) -> None:
        """The claim is gone: what was pending for it is free."""
        if (address := self._granted.get(claim)) is not None:
            self._forget_pending(address)
            self._free(address, now)

    def reshape(self, allowed: Ranges) -> None:
        """The addresses the pool may hand out have changed (spec, reservations). Nobody loses what he holds."""
        self._dirty |= allowed != self._allowed  # the counts are to be written
        self._allowed = allowed
        self._total = allowed.size
        self._inside = sum(address in allowed for address in self.pending) + self.settled.count_inside(allowed)
        self._run, self._mark = 0, 0
        freed = sorted([*self._cooling.items(), *self._freed_outside.items()], key=_freed_at)
        self._cooling = OrderedDict((address, at) for address, at in freed if address in allowed)
        self._freed_outside = {address: at for address, at in freed if address not in allowed}

    # --- slices ----------------------------------------------------------------------------------------------------

    def part(self, application: str, size: int) -> Ranges:
        """The slice this application would draw from if it is to have `size` addresses that are handed out: the one it
        has, with more cut to it as far as there is room, or a new one, whole or not at all. Nothing is changed."""
        has = self.slices.get(application, Ranges())
        lacking = size - has.intersect(self._allowed).size
        if lacking <= 0 or (not has and len(self.slices) >= SLICES_MOST):
            return has
        made = cut(self.uncut(), lacking, has)
        return made if has or made.size == size else has

    def free_for(self, application: str) -> int:
        """How many addresses of its slice nobody holds."""
        part = self.slices.get(application, Ranges()).intersect(self._allowed)
        return part.size - self.held_in(part).size

    def uncut(self) -> Ranges:
        """What may still be cut: in no slice, and held by nobody."""
        rest = self._allowed.minus(Ranges.of(run for each in self.slices.values() for run in each.runs))
        return rest.minus(self.held_in(rest))

    def held_in(self, part: Ranges) -> Ranges:
        pending = Ranges.of((address, address) for address in self.pending if address in part)
        return self.settled.runs(part).union(pending)

    def allot(self, application: str, part: Ranges) -> None:
        """Stage that this application has this slice."""
        if part != self.slices.get(application):
            self.slices[application] = part
            self._dirty = True

    def drop(self, application: str) -> None:
        """Stage that it has none."""
        del self.slices[application]
        self._dirty = True

    # --- writing ---------------------------------------------------------------------------------------------------

    def image(self) -> Image:
        """As it is now."""
        return Image(self.sequence, dict(self.pending), self.settled.blocks(), dict(self.slices))

    def draft(self) -> Image:
        """What the next conditional write says. Until `accept` or a reload no other draft may be made."""
        assert self._in_flight is None, "one write at a time"
        self._in_flight = frozenset(self._staged)
        self._dirty = False
        return Image(self.sequence + 1, dict(self.pending), self.settled.blocks(), dict(self.slices))

    def accept(self, image: Image) -> list[tuple[str, int]]:
        """The draft was written: the grants in it, as (claim, address), are now to be confirmed."""
        assert self._in_flight is not None, "nothing was under way"
        written, self._in_flight = self._in_flight, None
        self.sequence = image.sequence
        # A grant withdrawn and granted anew to another claim while the write was under way is still staged.
        sure = {address for address in written if image.pending.get(address) == self.pending.get(address)}
        self._staged -= sure
        return [(self.pending[address], address) for address in sorted(sure)]

    def retry(self) -> None:
        """The draft was refused, and the API's sequence shows that no ledger write came between: draft anew."""
        self._in_flight = None
        self._dirty = True

    def rewrite(self) -> None:
        """What the API says beside the ledger (its counts) is out of date."""
        self._dirty = True

    # --- inside ----------------------------------------------------------------------------------------------------

    def _forget_pending(self, address: int) -> None:
        claim = self.pending.pop(address)
        self._granted.pop(claim, None)
        self._staged.discard(address)

    def _free(self, address: int, now: float) -> None:
        if address in self._allowed:
            self._inside -= 1
            self._cooling[address] = now
        else:
            self._freed_outside[address] = now
        self._dirty = True

    def _fresh(self) -> int | None:
        """The lowest address never used since loading. The mark only moves forward, so all calls together walk the
        ranges once; a full block of the bitmap is one step."""
        runs = self._allowed.runs
        while self._run < len(runs):
            first, last = runs[self._run]
            address = self.settled.first_clear(max(first, self._mark), last)
            if address is None:
                self._run += 1
            elif address in self.pending or address in self._cooling:
                self._mark = address + 1
            else:
                self._mark = address
                return address
        return None


def _freed_at(freed: tuple[int, float]) -> float:
    return freed[1]
