"""`berth` in a world that is not quite right: `python -m tests.chaos.altered [--clock FILE] [--bug NAME] -- COMMAND…`.

--clock: the wall clock is off by the seconds that the file says, from one call to the next. What asks the kernel
(file times, monotonic clocks) is not. --bug: with a rule of tests/simulation/bugs.py broken. Berth itself knows of
neither.
"""

import argparse
import datetime
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.altered")
    parser.add_argument("--clock", type=Path, metavar="FILE")
    parser.add_argument("--bug", metavar="NAME")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if arguments.clock is not None:
        shift_clock(arguments.clock)
    # Only now: what is imported takes the clock with it.
    from berth.cli.main import main as berth

    with _broken(arguments.bug):
        return berth(arguments.command)


def shift_clock(file: Path) -> None:
    seconds, nanoseconds = time.time, time.time_ns

    def offset() -> float:
        try:
            return float(file.read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime_type.fromtimestamp(seconds() + offset(), tz)

    datetime_type = datetime.datetime
    time.time = lambda: seconds() + offset()
    time.time_ns = lambda: nanoseconds() + int(offset() * 1e9)
    datetime.datetime = Shifted  # type: ignore[misc]


def _broken(bug: str | None) -> Any:
    if bug is None:
        return nullcontext()
    from tests.simulation.bugs import seeded

    return seeded(bug)


if __name__ == "__main__":
    sys.exit(main())
