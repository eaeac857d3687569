"""The ledger protocol alone (design, section 2), every history of it up to a bound.

Two leaders that both lead, up to two pools (each claim wants an address of both) and three claims. Ledger writes and
confirmations land, are refused, or land late; leaders crash, read the pools and after them the claims, and learn of
claims in any order. What a leader decides is decided by the code itself: `core.ledger.Ledger`, `core.granting.grant`.
In every state no two claims that exist are confirmed with one address, and what is confirmed is not free in its ledger.

    python -m tests.simulation.exhaustive [bug]
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from berth.core.claim import Claim
from berth.core.granting import grant
from berth.core.ledger import Image, Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family, Ranges, Subnet
from berth.core.selection import Choice

FREE, SETTLED = -1, -2  # else the number of the claim an address is pending for
BUGS = ("no-cas", "takeback", "settle-early", "claims-first", "confirm-unwritten")

Content = tuple[int, ...]  # of a ledger: one for each address
Stored = tuple[int, Content]  # resourceVersion, content
Status = tuple[int, ...]  # the address confirmed in each pool; empty while it is not
Seen = tuple[str, Status, int]  # n (not yet), e (exists), g (gone); status; resourceVersion
# A leader's copy of a pool: () unread; (version, api) read, claims not yet; (version, api, memory) in use.
Copy = tuple[()] | tuple[int, Content] | tuple[int, Content, Content]
Leader = tuple[tuple[Copy, ...], tuple[Seen, ...]]
Late = tuple[int, int, Content] | tuple[str, int, int, Status]  # a ledger write, or a confirmation
Budget = tuple[int, int]  # late writes and crashes that may still be
State = tuple[tuple[Stored, ...], tuple[Seen, ...], tuple[Leader, ...], tuple[Late, ...], Budget]
Act = tuple[tuple[Stored, ...], tuple[Seen, ...], Leader, tuple[Late, ...], Budget]

ADDRESSES = 1  # of each pool: what nobody else has is what all want
POOLS = (
    Pool("four", Subnet(Family.IPV4, 0, 24), Ranges(((0, 0),))),
    Pool("six", Subnet(Family.IPV6, 0, 64), Ranges(((0, 0),))),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Each bound cuts histories off where it is reached; within them every one is seen."""

    pools: int = 2
    claims: int = 3
    writes: int = 2  # of each pool's ledger
    late: int = 1  # writes whose outcome nobody knows, in one history
    crashes: int = 1


# A minute of one core, all together. Two pools and three claims with one write of each ledger hold in 1,413,954 states.
BOUNDS = (Bounds(1, 3, 2, 1, 0), Bounds(2, 2, 1, 1, 0), Bounds(2, 2, 2, 0, 0))


@dataclass(frozen=True, slots=True)
class Found:
    states: int
    violation: tuple[State, ...] = ()


def explore(bounds: Bounds, bug: str = "") -> Found:
    """Breadth first, so that a violation comes with a shortest way to it."""
    protocol = Protocol(bounds, bug)
    start = protocol.start()
    came: dict[State, State | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for after in protocol.steps(state):
            if after in came:
                continue
            came[after] = state
            if protocol.wrong(after):
                return Found(len(came), tuple(_path(came, after)))
            queue.append(after)
    return Found(len(came))


def _path(came: dict[State, State | None], state: State | None) -> list[State]:
    path: list[State] = []
    while state is not None:
        path.append(state)
        state = came[state]
    return path[::-1]


def _put(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], item, *items[index + 1 :])


class Protocol:
    def __init__(self, bounds: Bounds, bug: str) -> None:
        self._bounds, self._bug = bounds, bug
        self._pools = POOLS[: bounds.pools]
        self._choice = Choice({pool.family: (pool,) for pool in self._pools})
        self._decide = lru_cache(maxsize=None)(self._decide_anew)

    def start(self) -> State:
        empty: Stored = (0, (FREE,) * ADDRESSES)
        return ((empty,) * self._bounds.pools, self._nothing, (self._nobody, self._nobody), (), self._budget)

    @property
    def _budget(self) -> Budget:
        return self._bounds.late, self._bounds.crashes

    @property
    def _nobody(self) -> Leader:
        return ((),) * self._bounds.pools, self._nothing

    @property
    def _nothing(self) -> tuple[Seen, ...]:
        return (("n", (), 0),) * self._bounds.claims

    # --- what may happen --------------------------------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[State]:
        yield from self._people(state)
        yield from self._landings(state)
        for index in (0, 1):
            for pools, claims, leader, late, budget in self._acts(state, state[2][index]):
                # Which of the two is called first makes no difference.
                leaders = tuple(sorted(_put(state[2], index, leader)))
                yield pools, claims, leaders, self._alive(pools, claims, late), budget

    def _people(self, state: State) -> Iterator[State]:
        pools, claims, leaders, late, budget = state
        lives = [life for life, _, _ in claims]
        changes = [(number, ("g", (), 0)) for number, life in enumerate(lives) if life == "e"]
        if "n" in lives:
            changes.append((lives.index("n"), ("e", (), 1)))
        for number, seen in changes:
            after = _put(claims, number, seen)
            yield pools, after, leaders, self._alive(pools, after, late), budget

    def _landings(self, state: State) -> Iterator[State]:
        pools, claims, leaders, late, budget = state
        for write in late:
            landed = self._land(pools, claims, write)
            if landed is not None:
                rest = tuple(each for each in late if each is not write)
                yield landed[0], landed[1], leaders, self._alive(landed[0], landed[1], rest), budget

    def _alive(self, pools: tuple[Stored, ...], claims: tuple[Seen, ...], late: tuple[Late, ...]) -> tuple[Late, ...]:
        """Those that could still land. One that is lost for good is one that never does."""
        return tuple(write for write in late if self._land(pools, claims, write) is not None)

    def _land(
        self, pools: tuple[Stored, ...], claims: tuple[Seen, ...], write: Late
    ) -> tuple[tuple[Stored, ...], tuple[Seen, ...]] | None:
        if len(write) == 3:
            pool, version, content = write
            now = pools[pool][0]
            if (now != version and self._bug != "no-cas") or now >= self._bounds.writes:
                return None
            return _put(pools, pool, (now + 1, content)), claims
        _, number, version, status = write
        if claims[number][0] != "e" or claims[number][2] != version:
            return None
        return pools, _put(claims, number, ("e", status, version + 1))

    # --- what a leader does -----------------------------------------------------------------------------------------

    def _acts(self, state: State, leader: Leader) -> Iterator[Act]:
        pools, claims, _, late, budget = state
        copies, view = leader
        if any(copies) and budget[1]:
            yield pools, claims, self._nobody, late, (budget[0], budget[1] - 1)
        if not all(copies):
            read = tuple(copy or stored for copy, stored in zip(copies, pools, strict=True))
            yield pools, claims, (read, self._early(view, claims)), late, budget
        elif any(len(copy) == 2 for copy in copies):
            known = view if self._bug == "claims-first" else claims
            loaded = tuple((*copy, copy[1]) if len(copy) == 2 else copy for copy in copies)
            yield pools, claims, self._decide((loaded, known)), late, budget
        if not any(len(copy) == 3 for copy in copies):
            return
        for number, seen in enumerate(claims):
            if view[number] != seen:
                yield pools, claims, self._decide((copies, _put(view, number, seen))), late, budget
        for write, after, without in self._writes(leader):
            landed = self._land(pools, claims, write)
            if landed is not None:
                yield landed[0], landed[1], after(landed), late, budget
                if budget[0]:
                    yield pools, claims, without, (*late, write), (budget[0] - 1, budget[1])
            elif without != leader:
                yield pools, claims, without, late, budget

    def _early(self, view: tuple[Seen, ...], claims: tuple[Seen, ...]) -> tuple[Seen, ...]:
        return claims if self._bug == "claims-first" and view == self._nothing else view

    def _writes(self, leader: Leader) -> Iterator[tuple[Late, "_After", Leader]]:
        """Each write it could do now, what it knows when it is done, and what when nobody knows."""
        copies, view = leader
        for pool, copy in enumerate(copies):
            if len(copy) == 3 and copy[1] != copy[2]:
                forgotten: Leader = (_put(copies, pool, ()), view)
                yield (pool, copy[0], copy[2]), _After(self, leader, pool), forgotten
        held = [self._granted(copy) for copy in copies]
        for number, (life, status, version) in enumerate(view):
            if life == "e" and not status and all(number in content for content in held):
                confirmed = tuple(content.index(number) for content in held)
                yield ("c", number, version, confirmed), _After(self, leader, -1), leader

    def _granted(self, copy: Copy) -> Content:
        """What of this pool it may confirm: what the API's own ledger says."""
        if len(copy) != 3:
            return ()
        return copy[2] if self._bug == "confirm-unwritten" else copy[1]

    def _decide_anew(self, leader: Leader) -> Leader:
        """Everything that follows from what it knows: settle, release, grant. By the code itself."""
        copies, view = leader
        ledgers = {POOLS[pool].name: self._ledger(copy[2]) for pool, copy in enumerate(copies) if len(copy) == 3}
        for pool, each in enumerate(self._pools):
            if (ledger := ledgers.get(each.name)) is not None:
                self._tidy(pool, ledger, view)
        if len(ledgers) == len(self._pools):
            for number, (life, status, _) in enumerate(view):
                if life == "e" and not status:
                    grant(_claim(number), self._choice, ledgers, 0.0)
        decided = tuple(
            (copy[0], copy[1], self._content(ledgers[POOLS[pool].name])) if len(copy) == 3 else copy
            for pool, copy in enumerate(copies)
        )
        return decided, view

    def _tidy(self, pool: int, ledger: Ledger, view: tuple[Seen, ...]) -> None:
        holders = {status[pool]: number for number, (life, status, _) in enumerate(view) if life == "e" and status}
        for address, claim in list(ledger.pending.items()):
            life, status, _ = view[int(claim)]
            gone = life == "g" or (life == "n" and self._bug == "claims-first")
            if gone or (self._bug == "takeback" and life == "e" and not status):
                ledger.withdraw(claim, 0.0)
            elif self._bug == "settle-early" and life == "e":
                ledger.settle(address, claim)
        for address, number in holders.items():
            ledger.settle(address, str(number))
        for address in list(ledger.settled):
            if address not in holders:
                ledger.release(address, 0.0)

    def _ledger(self, content: Content) -> Ledger:
        pending = {address: str(held) for address, held in enumerate(content) if held >= 0}
        settled = sum(1 << address for address, held in enumerate(content) if held == SETTLED)
        return Ledger(Image(0, pending, {0: settled} if settled else {}), Ranges(((0, ADDRESSES - 1),)))

    def _content(self, ledger: Ledger) -> Content:
        image = ledger.draft()
        settled = image.settled.get(0, 0)
        return tuple(
            int(image.pending[address]) if address in image.pending else SETTLED if settled >> address & 1 else FREE
            for address in range(ADDRESSES)
        )

    # --- what must hold ---------------------------------------------------------------------------------------------

    def wrong(self, state: State) -> bool:
        pools, claims = state[:2]
        for pool, (_, content) in enumerate(pools):
            held = [(status[pool], number) for number, (life, status, _) in enumerate(claims) if life == "e" and status]
            if len({address for address, _ in held}) != len(held):
                return True
            if any(content[address] not in (SETTLED, number) for address, number in held):
                return True
        return False


class _After:
    """What a leader knows when a write of its own has landed."""

    def __init__(self, protocol: Protocol, leader: Leader, pool: int) -> None:
        self._protocol, self._leader, self._pool = protocol, leader, pool

    def __call__(self, landed: tuple[tuple[Stored, ...], tuple[Seen, ...]]) -> Leader:
        copies, view = self._leader
        if self._pool < 0:
            return self._protocol._decide((copies, landed[1] if view == landed[1] else _merged(view, landed[1])))
        version, content = landed[0][self._pool]
        return self._protocol._decide((_put(copies, self._pool, (version, content, content)), view))


def _merged(view: tuple[Seen, ...], claims: tuple[Seen, ...]) -> tuple[Seen, ...]:
    """Of the answer to a confirmation it learns of that claim: the one that is confirmed now and was not."""
    return tuple(
        new if new[1] and not old[1] and old[2] == new[2] - 1 else old for old, new in zip(view, claims, strict=True)
    )


@lru_cache
def _claim(number: int) -> Claim:
    return Claim(str(number), "", "", "", "", "", "", "", "")


def main() -> int:
    bug = sys.argv[1] if len(sys.argv) > 1 else ""
    for bounds in BOUNDS:
        began = time.process_time()
        found = explore(bounds, bug)
        for state in found.violation:
            sys.stdout.write(f"{state}\n")
        verdict = "VIOLATION after" if found.violation else "holds in"
        sys.stdout.write(f"{bounds}: {verdict} {found.states} states, {time.process_time() - began:.0f} s\n")
        if found.violation:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
