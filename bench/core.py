"""Grants and releases a minute, in one process, of the core alone: no API, no network.

    .venv/bin/python -m bench.core [cycles]

A cycle is the whole way of one address: found, granted, confirmed (settled), released; every thousand of them share one
drafted write, as on the way to the API. The cost must not depend on how large a pool is or how full.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from berth.core.ledger import Free, Image, Ledger
from berth.core.ranges import Ranges, Subnet, parse_subnet
from berth.core.settled import SPAN

BATCH = 1000
CYCLES = 200_000
HELD_OF_SIX = 1 << 24
ENOUGH_A_MINUTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    make: Callable[[], Ledger]


def whole(text: str) -> Ranges:
    subnet = parse_subnet(text)
    assert isinstance(subnet, Subnet)
    return Ranges(((subnet.network, subnet.last),))


def holding(allowed: Ranges, number: int) -> Ledger:
    """A ledger whose lowest `number` addresses are held."""
    first = allowed.runs[0][0] // SPAN
    full = (1 << SPAN) - 1
    return Ledger(Image(settled=dict.fromkeys(range(first, first + number // SPAN), full)), allowed)


def all_but_one_batch(allowed: Ranges) -> Ledger:
    ledger = holding(allowed, allowed.size)
    last = allowed.runs[-1][1]
    for address in range(last - BATCH + 1, last + 1):
        ledger.release(address, 0.0)
    return ledger


CASES = (
    Case("IPv4 /8, empty", lambda: holding(whole("10.0.0.0/8"), 0)),
    Case("IPv4 /8, full (all but a thousand)", lambda: all_but_one_batch(whole("10.0.0.0/8"))),
    Case("IPv6 /64, empty", lambda: holding(whole("fd00::/64"), 0)),
    Case("IPv6 /64, 16 million held", lambda: holding(whole("fd00::/64"), HELD_OF_SIX)),
)


def run(ledger: Ledger, cycles: int) -> tuple[float, float]:
    """Seconds spent on addresses, and on drafting and accepting the writes they share."""
    addresses = writes = 0.0
    for start in range(0, cycles, BATCH):
        begun = time.perf_counter()
        granted: list[tuple[str, int]] = []
        for number in range(start, start + BATCH):
            claim = f"claim {number}"
            found = ledger.find(claim, float(number))
            assert isinstance(found, Free)
            ledger.grant(claim, found.address)
            granted.append((claim, found.address))
        middle = time.perf_counter()
        ledger.accept(ledger.draft())
        written = time.perf_counter()
        for claim, address in granted:
            assert ledger.confirmable(claim) == address
            ledger.settle(address, claim)
        for _, address in granted:
            ledger.release(address, float(start))
        addresses += time.perf_counter() - written + middle - begun
        writes += written - middle
    return addresses, writes


def main() -> int:
    cycles = int(sys.argv[1]) if len(sys.argv) > 1 else CYCLES
    print(f"{cycles:,} addresses each: found, granted, settled, released; a write for every {BATCH:,}\n")
    print(f"{'pool':36} {'held':>12} {'µs/address':>11} {'a minute':>12} {'ms/write':>9} {'with writes':>12}")
    enough = True
    for case in CASES:
        ledger = case.make()
        held = ledger.counts.allocated
        run(ledger, BATCH)  # warm
        addresses, writes = run(ledger, cycles)
        assert ledger.counts.allocated == held, "something was lost"
        rate, with_writes = 60 * cycles / addresses, 60 * cycles / (addresses + writes)
        enough = enough and with_writes >= ENOUGH_A_MINUTE
        print(
            f"{case.name:36} {held:12,} {addresses / cycles * 1e6:11.2f} {rate:12,.0f}"
            f" {writes / cycles * BATCH * 1e3:9.2f} {with_writes:12,.0f}"
        )
    if not enough:
        print(f"\nless than {ENOUGH_A_MINUTE:,} a minute")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
