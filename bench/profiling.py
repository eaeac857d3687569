"""Profiles, for BENCH_PROFILE: where the time of a part goes. Their trials are not measured against others.

`operator` and `agent` run under cProfile (`python -m pstats FILE`), which doubles the cost of a call: it tells shares,
not amounts. `api-server` is asked for its own profile in each phase (`go tool pprof -top FILE`), which costs little.
"""

import cProfile
import shutil
import ssl
import sys
import threading
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from berth.cli.main import main as berth

SECONDS = 25


def main(arguments: Sequence[str]) -> None:
    """`berth` under a profiler. The first argument is the file to write, the rest `berth`'s own."""
    output, *own = arguments
    profiler = cProfile.Profile()
    try:
        code = profiler.runcall(berth, own)
    finally:
        profiler.dump_stats(output)
    sys.exit(code)


def api_profile(url: str, tls: ssl.SSLContext | None, output: Path) -> None:
    """The API server's next seconds, fetched beside what goes on."""

    def fetch() -> None:
        with (
            suppress(OSError),
            urllib.request.urlopen(
                f"{url}/debug/pprof/profile?seconds={SECONDS}", context=tls, timeout=SECONDS + 30
            ) as answer,
            output.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)

    threading.Thread(target=fetch, daemon=True).start()
