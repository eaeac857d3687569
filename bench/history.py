"""What the nodes wrote down: each ADD and DEL with its begin, its end, its CPU and its addresses; and what follows.

An address is certainly in use from the moment its ADD has answered until its DEL begins. Two Pods that certainly use
one address at one moment are a duplicate, whatever any object says. Times are of the machine's monotonic clock, which
all processes share.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path

import orjson

from berth.api.conditions import Wire


class Call(Wire):
    """One execution of the plugin chain."""

    event: str
    uid: str
    container: str
    begin: float
    end: float
    cpu: float
    addresses: tuple[str, ...] = ()
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Tenure:
    """A time during which a Pod certainly used an address."""

    address: str
    uid: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class History:
    calls: tuple[Call, ...]
    troubles: tuple[str, ...]

    def during(self, event: str, begin: float, end: float) -> list[Call]:
        """The calls of one kind that ended in a span of time."""
        return [call for call in self.calls if call.event == event and begin <= call.end <= end]

    def tenures(self) -> list[Tenure]:
        over = {(call.uid, call.container): call.begin for call in self.calls if call.event == "DEL"}
        return [
            Tenure(address, call.uid, call.end, over.get((call.uid, call.container), inf))
            for call in self.calls
            if call.event == "ADD" and not call.error
            for address in call.addresses
        ]

    def duplicates(self) -> list[str]:
        """Each pair of Pods that used one address at one moment."""
        found: list[str] = []
        latest: dict[str, Tenure] = {}
        for tenure in sorted(self.tenures(), key=lambda each: each.since):
            before = latest.get(tenure.address)
            if before is not None and before.until > tenure.since:
                found.append(f"{tenure.address} was used by Pods {before.uid} and {tenure.uid} at one time")
            if before is None or before.until < tenure.until:
                latest[tenure.address] = tenure
        return found


def read(journals: Iterable[Path]) -> History:
    calls: list[Call] = []
    troubles: list[str] = []
    for journal in journals:
        for line in journal.read_bytes().splitlines():
            entry = orjson.loads(line)
            if entry["event"] == "trouble":
                troubles.append(entry["error"])
            else:
                calls.append(Call.model_validate(entry))
    return History(tuple(calls), tuple(troubles))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0
