"""`python -m bench`: every contender on a fresh control plane, then the report. Settings are environment variables.

    BENCH_PODS=1000 BENCH_NODES=10         how many; the exact pools hold BENCH_PODS addresses
    BENCH_CONTENDERS=host-local,berth,...  which, and in which order (also: host-local-dual)
    BENCH_PHASE_SECONDS=600                a phase that takes longer has failed
    BENCH_PROFILE=operator                 or agent (cProfile), api-server (pprof): see bench/profiling.py
    BENCH_KEEP=1                           keep each trial's folder: logs, journals, etcd
    BENCH_RESULTS=bench/results            where the report goes

It ends with 1 when something was wrong (an address twice or lost, an ADD failed, the API budget exceeded, a phase that
never ended), with 2 when it could not run. Times are reported and never fail it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from bench import report, settings, trial
from bench.contenders import ALL
from bench.drawing import draw
from bench.fleet import NotReady
from bench.progress import Progress
from bench.settings import BadSettings, Settings
from berth.kube.errors import KubeError
from e2e.cluster import ClusterError


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 180)
    try:
        chosen = settings.read()
        _able()
        run = uvloop.run(_run(chosen, console))
    except (BadSettings, NotReady, ClusterError, KubeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except ExceptionGroup as group:
        print(f"bench: {group.exceptions[0]}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: interrupted; everything it had started is ended", file=sys.stderr)
        return 130
    report.show(run, console)
    return 1 if any(each.faults for each in run.trials) else 0


def _able() -> None:
    if os.geteuid() != 0:
        raise BadSettings("network namespaces need root: run it as root, e.g. sudo make bench")
    if not (settings.ROOT / "cni-plugin" / "bin" / "berth").exists():
        raise BadSettings("cni-plugin/bin/berth is not built: run make shim")


async def _run(chosen: Settings, console: Console) -> report.Run:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    run, progress = report.Run(chosen), Progress(console)
    console.print(f"{chosen.pods} Pods on {chosen.nodes} nodes; {report.machine()}; {report.flags()}", highlight=False)
    showing = asyncio.ensure_future(progress.show())
    try:
        for name in chosen.contenders:
            run.trials.append(await _one(name, chosen, progress, console))
            _keep(run, console, last=name == chosen.contenders[-1])
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing
    return run


async def _one(name: str, chosen: Settings, progress: Progress, console: Console) -> trial.Trial:
    # A short name: unix sockets below it have room for 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    kept = chosen.keep or bool(chosen.profile)
    try:
        done = await trial.run(ALL[name], chosen, folder, progress)
        kept = kept or bool(done.faults)
    finally:
        if kept:
            console.print(f"{name}: logs and journals are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    times = ", ".join(f"{phase} {found.seconds or -1:.1f} s" for phase, found in done.phases.items())
    console.print(f"{done.title}: {times}", highlight=False)
    return done


def _keep(run: report.Run, console: Console, last: bool) -> None:
    """After each contender: an interrupted run has what it had."""
    folder = run.settings.results
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{run.began.replace(':', '')}.json"
    file.write_bytes(run.as_json())
    draw(run, file.with_suffix(".svg"))
    if last:
        console.print(f"{file} and .svg", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
