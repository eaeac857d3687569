"""What goes wrong with a request, and how often."""

from dataclasses import dataclass, fields, replace
from random import Random


@dataclass(slots=True)
class Faults:
    """How likely each is for one request; `lag`: how likely a watch is to be slow for a while, `cut` to be cut when
    something is told."""

    lost: float = 0.0
    unanswered: float = 0.0
    late: float = 0.0
    busy: float = 0.0
    conflict: float = 0.0
    broken: float = 0.0
    slow: float = 0.0
    lag: float = 0.0
    cut: float = 0.0

    @staticmethod
    def drawn(random: Random, most: float) -> "Faults":
        """Some kinds of them, none above `most`."""
        return Faults(**{each.name: random.random() * most * (random.random() < 0.5) for each in fields(Faults)})

    def calm(self) -> "Faults":
        """None of them any more; what they were."""
        before = replace(self)
        self.be(Faults())
        return before

    def be(self, others: "Faults") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(others, each.name))

    def fate(self, random: Random) -> str | None:
        """Of one request; None: all goes well."""
        drawn = random.random()
        for kind in ("lost", "unanswered", "late", "busy", "conflict", "broken", "slow"):
            drawn -= getattr(self, kind)
            if drawn < 0:
                return kind
        return None
