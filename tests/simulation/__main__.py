"""`python -m tests.simulation --seeds N [--seed S] [--bug NAME]`: histories from seeds, and the first that goes wrong.

A history follows from its seed alone, once the order of Python's sets does too: so the hash seed is fixed first.
Histories run in as many processes as there are cores (--jobs), and are told in the order of their seeds.
"""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import Pool

from tests.simulation.bugs import BUGS, FIRST, seeded
from tests.simulation.history import Told, run

PROGRESS_SECONDS = 10.0
SHOWN_LINES = 60
AT_ONCE = 5  # histories that a process takes together


@dataclass(slots=True)
class Tally:
    """What a run adds up to."""

    began: float = field(default_factory=time.monotonic)
    histories: int = 0
    adds: int = 0
    writes: int = 0
    simulated: float = 0.0
    longest_wait: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[int] = field(default_factory=list)

    def count(self, told: Told) -> None:
        self.histories += 1
        self.adds += told.adds
        self.writes += told.writes
        self.simulated += told.simulated
        self.longest_wait = max(self.longest_wait, told.longest_wait)
        self.faults.update(told.faults)
        if told.violation:
            self.wrong.append(told.seed)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        return (
            f"{self.histories} histories ({self.histories / seconds:.1f}/s), "
            f"{self.simulated / 3600:.1f} simulated hours, "
            f"{self.adds} addresses given, {self.writes} writes, longest ADD {self.longest_wait:.1f} s, "
            f"faults: {', '.join(f'{kind} {count}' for kind, count in sorted(self.faults.items()))}; "
            f"{len(self.wrong)} violations"
        )


def main() -> int:
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if arguments.hunt:
        return _hunt(arguments)
    with _broken(arguments.bug):
        return _search(arguments) if arguments.seed is None else _replay(arguments.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=2000, help="how many histories")
    parser.add_argument("--first", type=int, default=1, help="the first seed (--hunt: 0 for all, without hints)")
    parser.add_argument("--seed", type=int, help="this one alone, told in full")
    parser.add_argument("--bug", choices=sorted(BUGS), help="with this rule broken")
    parser.add_argument("--hunt", action="store_true", help="every seeded bug, each from a seed that has shown it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    parser.add_argument("--go-on", action="store_true", help="after a violation too")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _replay(seed: int) -> int:
    told = run(seed, trace=True)
    _say("\n".join(told.lines))
    _say(f"seed {seed}: {told.violation or 'nothing wrong'}")
    return 1 if told.violation else 0


def _broken(bug: str | None) -> AbstractContextManager[None]:
    return seeded(bug) if bug else nullcontext()


@contextmanager
def _workers(jobs: int) -> Iterator[Pool]:
    """They end with us, also by Ctrl-C, which is for us to hear."""
    with Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool


def _search(arguments: argparse.Namespace) -> int:
    tally, next_word = Tally(), time.monotonic() + PROGRESS_SECONDS
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with _workers(arguments.jobs) as pool:
        for told in pool.imap(run, seeds, AT_ONCE):
            tally.count(told)
            if told.violation:
                _say(f"seed {told.seed}: {told.violation}")
                if not arguments.go_on:
                    return _tell(told.seed, tally, arguments.bug)
            if time.monotonic() > next_word:
                next_word += PROGRESS_SECONDS
                _say(str(tally))
    _say(str(tally))
    return 1 if tally.wrong else 0


def _hunt(arguments: argparse.Namespace) -> int:
    """Whether the simulation can see: each bug, and how many histories it took."""
    hunts = [(name, FIRST.get(name, 1) if arguments.first else 1) for name in BUGS]
    missed = 0
    with _workers(arguments.jobs) as pool:
        for (name, began), found in zip(hunts, pool.imap(partial(_find, arguments.seeds), hunts), strict=True):
            if found is None:
                missed += 1
                _say(f"{name}: not found in {arguments.seeds} histories")
            else:
                _say(f"{name}: history {found.seed - began + 1}, seed {found.seed}: {found.violation}")
    _say(f"{len(BUGS) - missed} of {len(BUGS)} seeded bugs found")
    return 1 if missed else 0


def _find(seeds: int, hunt: tuple[str, int]) -> Told | None:
    """The first history that shows this bug, from the seed to begin with on."""
    name, began = hunt
    with seeded(name):
        return next((told for seed in range(began, began + seeds) if (told := run(seed)).violation), None)


def _tell(seed: int, tally: Tally, bug: str | None) -> int:
    told = run(seed, trace=True)
    _say("\n".join(line[:240] for line in told.lines[-SHOWN_LINES:]))
    _say(f"seed {seed}: {told.violation}")
    _say(f"{tally}\nreplay: python -m tests.simulation --seed {seed}" + (f" --bug {bug}" if bug else ""))
    return 1


if __name__ == "__main__":
    sys.exit(main())
