"""Bugs on purpose: each breaks one rule, and the simulation must see it.

They are patches of the running code, for tests only; the code itself has no switches. A simulation that does not find
them proves nothing by finding nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.simulation import bugs_of_backups, bugs_of_rules, bugs_of_sets

Bug = Callable[[], Iterator[Any]]

BUGS: Mapping[str, Bug] = {
    bug.__name__.replace("_", "-"): bug for bug in (*bugs_of_rules.ALL, *bugs_of_sets.ALL, *bugs_of_backups.ALL)
}

# A seed that showed each on 2026-11-24, to begin the search with.
FIRST: Mapping[str, int] = {
    "no-precondition": 20,
    "take-back": 571,
    "claims-before-ledger": 94,
    "release-by-name": 135,
    "one-observation": 36,
    "settle-before-confirm": 305,
    "no-pending-list": 651,
    "any-container": 139,
    "resurrect": 299,
    "unknown-is-done": 121,
    "forget-slices": 37,
    "cut-slices-twice": 22,
    "ignore-sequence": 388,
    "trust-the-silent": 156,
    "no-assertion": 2968,
    "grant-at-once": 916,
    "no-mark": 916,
    "trust-unconfirmed": 916,
}


@contextmanager
def seeded(name: str) -> Iterator[None]:
    """Within, the rule of this name is broken."""
    with ExitStack() as stack:
        for patch in BUGS[name]():
            stack.enter_context(patch)
        yield
