"""Counts and latencies of CNI calls, in Prometheus' text form; by hand, as a node has no memory to spare."""

from bisect import bisect_left
from collections.abc import Mapping

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COMMANDS = frozenset(("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"))
_NAME = "berth_cni_request_duration_seconds"


class Metrics:
    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int], list[int]] = {}
        self._seconds: dict[tuple[str, int], float] = {}

    def observe(self, command: str, code: int, seconds: float) -> None:
        """`code`: of the CNI error; 0 for success."""
        key = (command if command in _COMMANDS else "other", code)
        if (buckets := self._buckets.get(key)) is None:
            buckets = self._buckets[key] = [0] * (len(_BOUNDS) + 1)
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[key] = self._seconds.get(key, 0.0) + seconds

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """`gauges`: name → (help, value now)."""
        lines = [f"# HELP {_NAME} CNI calls answered; code is that of the CNI error, 0 for success."]
        lines.append(f"# TYPE {_NAME} histogram")
        for (command, code), buckets in self._buckets.items():
            labels, running = f'command="{command}",code="{code}"', 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), buckets, strict=True):
                running += count
                lines.append(f'{_NAME}_bucket{{{labels},le="{bound}"}} {running}')
            lines.append(f"{_NAME}_sum{{{labels}}} {self._seconds[command, code]:.6f}")
            lines.append(f"{_NAME}_count{{{labels}}} {running}")
        for name, (meaning, value) in gauges.items():
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"
