"""Clocks. This is the one place where the operator reads a wall clock: for people to read, and to guess how old a Lease
is that nobody here has seen renewed. Everything else is measured by clocks that nobody sets.
"""

import time
from datetime import UTC, datetime


def timestamp() -> str:
    """Now, as metav1.Time writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def since_boot() -> float:
    """Seconds; a machine that sleeps counts on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def apart(written: str) -> float:
    """Seconds between now and a local time without its zone, as kubernetes-asyncio writes it. One that is yet to come
    is as doubtful as one that is long over."""
    return abs((datetime.now() - datetime.fromisoformat(written)).total_seconds())
