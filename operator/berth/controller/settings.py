"""What an operator may be told on its command line. All are seconds; docs/operations.md says why each is what it is.

Safety rests on none of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`grace`: between the two observations of a Pod that is gone. `recheck`: until one whose node is not Ready is
    looked at again. `comparison`: between two full comparisons. `reassertion`: how long grants are held back for
    agents to assert what their nodes hold, when the record may be an old one."""

    grace: float = 10.0
    recheck: float = 30.0
    comparison: float = 600.0
    reassertion: float = 10.0
