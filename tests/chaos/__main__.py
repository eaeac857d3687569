"""`python -m tests.chaos --minutes 3 [--seed 7] [--bug NAME] [-o json]`: faults on the real thing.

It ends with 1 when something was wrong (its history is kept then, and said where), with 2 when it could not run.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from bench import kernel
from berth.kube.errors import KubeError
from e2e.cluster import ClusterError
from tests.chaos.aimed import AIMED
from tests.chaos.run import CALM_SECONDS, Report, Run, Settings
from tests.chaos.world import ROOT, NotReady
from tests.simulation.bugs import BUGS

SELDOM_SECONDS = 10.0


def main() -> int:
    arguments = _arguments()
    console = Console(stderr=arguments.output == "json", width=None if sys.stdout.isatty() else 160)
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    settings = Settings(seed, arguments.minutes, arguments.nodes, arguments.bug, arguments.against, arguments.grace)
    if trouble := _unable():
        return _refuse(trouble)
    # What is mounted goes with this process and its children. Before any thread starts.
    kernel.own_mounts()
    # A short name: unix sockets below it have room for 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    kept = True
    try:
        report = uvloop.run(_run(settings, folder, console))
        kept = arguments.keep or not report.good
    except (NotReady, ClusterError, KubeError) as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        kept = arguments.keep
        _refuse("interrupted; everything it had started is ended")
        return 130
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    _show(report, folder if kept else None, console, arguments)
    return 0 if report.good else 1


def _refuse(why: str) -> int:
    sys.stderr.write(f"chaos: {why}\n")
    return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long trouble lasts (default %(default)s)")
    parser.add_argument("--seed", type=int, help="what faults and churn follow from (default: another each time)")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--bug", choices=sorted(BUGS), help="with this rule broken, on purpose")
    parser.add_argument("--against", choices=sorted(AIMED), help="the faults aimed at this bug, and nothing broken")
    parser.add_argument("--grace", type=float, default=CALM_SECONDS, help="seconds for calm, and again for quiet")
    parser.add_argument("--keep", action="store_true", help="history and logs, though all was well")
    parser.add_argument("-o", "--output", default="table", choices=("table", "json"))
    return parser.parse_args()


def _unable() -> str:
    if os.geteuid() != 0:
        return "network namespaces need root: run it as root, e.g. sudo make chaos"
    if not (ROOT / "cni-plugin" / "bin" / "berth").exists():
        return "cni-plugin/bin/berth is not built: run make shim"
    return ""


async def _run(settings: Settings, folder: Path, console: Console) -> Report:
    task = asyncio.current_task()
    assert task is not None
    # Once: what is being ended then is not to be interrupted.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    console.print(f"chaos: seed {settings.seed}, {settings.minutes:g} minutes, {settings.nodes} nodes; in {folder}")
    run = Run(settings, folder, lambda line: console.print(f"chaos: {line}", highlight=False))
    showing = asyncio.ensure_future(_show_progress(run, console))
    try:
        return await run.all()
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _show_progress(run: Run, console: Console) -> None:
    """One line, renewed; without a terminal one every few seconds."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(SELDOM_SECONDS)
            console.print(f"chaos: {run.line()}", highlight=False)
    with console.status(run.line()) as status:
        while True:
            await asyncio.sleep(0.2)
            status.update(run.line())


def _show(report: Report, folder: Path | None, console: Console, arguments: argparse.Namespace) -> None:
    if arguments.output == "json":
        sys.stdout.buffer.write(orjson.dumps(asdict(report) | {"good": report.good}, option=orjson.OPT_INDENT_2))
        sys.stdout.buffer.write(b"\n")
    else:
        _show_table(report, console)
    for line in (*report.violations, *report.leaks):
        console.print(f"WRONG: {line}", highlight=False, markup=False, soft_wrap=True)
    if folder is not None:
        console.print(
            f"history: {folder}/history.jsonl (a JSON object for each write, call and fault; grep it for an address, "
            f"a Pod's uid or a container), logs: {folder}/logs\n"
            f"the same faults again: make chaos SEED={report.seed} MINUTES={report.minutes:g}",
            highlight=False,
            soft_wrap=True,
        )


def _show_table(report: Report, console: Console) -> None:
    faults = Table("FAULT", "TIMES", box=None)
    for name, times in report.faults.items():
        faults.add_row(name, str(times))
    console.print(faults)
    told = Table("", "", box=None, show_header=False)
    for name, value in (
        ("faults", sum(report.faults.values())),
        ("deeds of people", report.deeds),
        ("ADDs answered", report.adds),
        ("ADDs failed, and tried again", report.failed_adds),
        ("longest ADD that succeeded", f"{report.longest_add:.1f} s"),
        ("DELs done", report.dels),
        ("DELs failed, and tried again", report.failed_dels),
        ("writes of Berth's kinds", report.api_writes),
        ("ended by themselves", ", ".join(f"{kind} {times}" for kind, times in report.exits.items()) or "none"),
        ("all Pods ran after calm", _after(report.calm_after)),
        ("all came back after quiet", _after(report.quiet_after)),
        ("violations", len(report.violations)),
        ("leaks", len(report.leaks)),
    ):
        told.add_row(name, str(value))
    console.print(told)
    for errors in (report.errors, report.troubles):
        for line, times in errors.items():
            console.print(f"  {times:4} {line}", highlight=False, markup=False)


def _after(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
