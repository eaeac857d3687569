"""`make fuzz SECONDS=n`: atheris looks for bytes that break a law, n seconds for each target.

Each target is a process of its own, for libFuzzer ends the process it runs in, as a finding does. A finding is printed
as a row for FOUND in test_targets.py, which then holds its fix.

    python -m tests.fuzz [--seconds 60] [TARGET ...]
"""

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.targets import TARGETS

LONGEST = 512
# Journal and spool are files: in memory, where that can be had.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# libFuzzer's last lines: how often the law was asked, and how many branches were seen, at the start and at the end.
_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERAGE = re.compile(r"cov: (\d+)")


def main() -> int:
    asked = _parser().parse_args()
    if asked.child is not None:
        _fuzz(asked.child, asked.rest)
    table = Table("target", "executions", "branches seen", "finding", title=f"{asked.seconds} s for each target")
    findings = 0
    with tempfile.TemporaryDirectory(prefix="berth-fuzz-", dir=MEMORY) as scratch:
        for number, target in enumerate(asked.rest or TARGETS, 1):
            sys.stderr.write(f"fuzz: {target} ({number} of {len(asked.rest or TARGETS)})\n")
            output, finding = _run(target, asked.seconds, Path(scratch))
            findings += finding is not None
            executions, branches = _EXECUTIONS.search(output), _COVERAGE.findall(output)
            seen = f"{branches[0]} to {branches[-1]}" if branches else "none"
            table.add_row(
                target, executions[1] if executions else "ended early", seen, "" if finding is None else "yes"
            )
            if finding is not None:
                sys.stdout.write(f"{output}\n    ({target!r}, {finding!r}),  # for FOUND in test_targets.py\n")
    Console().print(table)
    return 1 if findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Looks for input that breaks a law.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none is named")
    return parser


def _run(target: str, seconds: int, scratch: Path) -> tuple[str, bytes | None]:
    """What libFuzzer said, and the bytes that broke the law."""
    corpus, finding = scratch / target, scratch / f"{target}.finding"
    corpus.mkdir()
    flags = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-exact_artifact_path={finding}"]
    flags += ["-print_final_stats=1", "-timeout=5", "-rss_limit_mb=1024", str(corpus)]
    command = [sys.executable, "-m", "tests.fuzz", "--child", target, "--", *flags]
    environment = {**os.environ, "TMPDIR": str(scratch)}  # a finding ends the process at once: the folder is ours
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if finding.exists():
        return done.stdout, finding.read_bytes()
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\nfuzz: {target} ended with {done.returncode} without a finding")
    return done.stdout, None


def _fuzz(target: str, flags: list[str]) -> None:
    """Never returns."""
    logging.disable()
    import atheris  # here alone: the wheel exists for one Python and one machine

    law = TARGETS[target]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *flags], law)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
