"""`berth` under cProfile, for BENCH_PROFILE: what it writes is read with `python -m pstats FILE`.

A profile tells where Python's time goes, not how much there is: it doubles the cost of a call. Its trial is not
measured against others.
"""

import cProfile
import sys
from collections.abc import Sequence

from berth.cli.main import main as berth


def main(arguments: Sequence[str]) -> None:
    """The first argument is the file to write, the rest `berth`'s own."""
    output, *own = arguments
    profiler = cProfile.Profile()
    try:
        code = profiler.runcall(berth, own)
    finally:
        profiler.dump_stats(output)
    sys.exit(code)
