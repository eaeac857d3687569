"""What a run came to: a JSON file for programs, tables for people, and a verdict for CI."""

import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.contenders import CONTROL
from bench.settings import API_SERVER_FLAGS, CONTROLLER_QPS, Settings
from bench.trial import NODE_PART, PHASES, PLUGIN_PART, Phase, Trial

TARGETS = {
    "berth": {"create": 1.5, "restart": 1.5},
    "berth-dual": {"create": 1.8, "restart": 1.8},
}
MEMORY_TARGETS = {"agents": 45.0, "operator": 150.0}
_PARTS = (PLUGIN_PART, "agents", "operator", "kube-apiserver", "etcd", "controllers", "scheduler", NODE_PART)
_TITLES = {"create": "all Running", "restart": "restart", "empty": "empty"}


@dataclass(slots=True)
class Run:
    """Everything of one `make bench`."""

    settings: Settings
    trials: list[Trial] = field(default_factory=list)
    began: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S"))

    def ratio(self, trial: Trial, phase: str) -> float | None:
        """Its time against the control's of this run."""
        control = next((each for each in self.trials if each.contender == CONTROL), None)
        own, floor = _seconds(trial, phase), _seconds(control, phase)
        return own / floor if own is not None and floor else None

    def as_json(self) -> bytes:
        told: dict[str, Any] = {
            "began": self.began,
            "machine": machine(),
            "settings": {"pods": self.settings.pods, "nodes": self.settings.nodes, **flags()},
            "trials": [
                {
                    **asdict(trial),
                    "failed_adds": trial.failed_adds,
                    "faults": trial.faults,
                    "ratios": {phase: self.ratio(trial, phase) for phase in PHASES},
                }
                for trial in self.trials
            ],
        }
        return orjson.dumps(told, option=orjson.OPT_INDENT_2)


def flags() -> dict[str, Any]:
    return {"api_server": list(API_SERVER_FLAGS), "controllers": [f"--kube-api-qps={CONTROLLER_QPS}"]}


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    cores = sum(line.startswith("processor") for line in lines)
    return {"cores": cores, "model": model, "memory_mib": memory, "kernel": platform.release()}


def show(run: Run, console: Console) -> None:
    for table in (_times(run), _calls(run), _api(run), _cpu(run), _memory(run)):
        console.print(table)
    for trial in run.trials:
        for line in trial.faults[:10]:
            console.print(f"[red]✗ {trial.title}: {line}")
        for error, times in list(trial.errors.items())[:5]:
            console.print(f"  {trial.title}: {times} × {error}")
    for line in beside_targets(run):
        console.print(line)


def beside_targets(run: Run) -> list[str]:
    """How the figures stand to issue 4's targets. Told, and no reason to fail: times depend on the machine."""
    lines: list[str] = []
    for trial in run.trials:
        for phase, most in TARGETS.get(trial.contender, {}).items():
            if (ratio := run.ratio(trial, phase)) is not None:
                lines.append(
                    _beside(
                        f"{trial.title}, {_TITLES[phase]}", f"{ratio:.2f} × the control", f"{most} ×", ratio <= most
                    )
                )
        for part, most in MEMORY_TARGETS.items():
            if part in trial.memory:
                peak = trial.memory[part]
                lines.append(_beside(f"{trial.title}, {part}", f"{peak:.0f} MiB", f"{most:.0f} MiB", peak <= most))
    return lines


def _beside(what: str, is_: str, most: str, held: bool) -> str:
    return f"[{'green]✓' if held else 'yellow]–'} {what}: {is_} (target: at most {most})[/]"


def _times(run: Run) -> Table:
    title = f"{run.settings.pods} Pods on {run.settings.nodes} nodes: seconds, and as a multiple of the control"
    table = _table(title, *_TITLES.values(), "failed ADDs", "duplicates", "leaks", "violations")
    for trial in run.trials:
        cells = [_time(run, trial, phase) for phase in PHASES]
        wrong = sum(len(phase.violations) for phase in trial.phases.values())
        counts = (trial.failed_adds, len(trial.duplicates), len(trial.leaks), wrong)
        table.add_row(trial.title, *cells, *(f"[{'red' if count else 'green'}]{count}" for count in counts))
    return table


def _calls(run: Run) -> Table:
    columns = [f"{call} {share}" for call in ("ADD", "DEL") for share in ("p50", "p90", "p99", "max")]
    table = _table(
        "Seconds of one call, under full load: ADD while all are created, DEL while all are deleted", *columns
    )
    for trial in run.trials:
        found = [
            getattr(phase, calls)
            for name, calls in (("create", "adds"), ("empty", "dels"))
            if (phase := trial.phases.get(name))
        ]
        table.add_row(
            trial.title, *(f"{value:.2f}" for each in found for value in (each.p50, each.p90, each.p99, each.most))
        )
    return table


def _api(run: Run) -> Table:
    table = _table(
        "Requests at Berth's resources, for each ADD (create) and each DEL (empty)",
        "phase",
        "requests",
        "conflicts",
        "all requests",
        "etcd log",
    )
    for trial in run.trials:
        for name, phase in trial.phases.items():
            told = ", ".join(f"{count / max(1, _of(phase)):.2f} {key}" for key, count in sorted(phase.api.items()))
            log = f"{phase.etcd_bytes / 1e6:.1f} MB"
            table.add_row(trial.title, _TITLES[name], told or "–", str(phase.conflicts), str(phase.all_requests), log)
    return table


def _cpu(run: Run) -> Table:
    table = _table(
        "CPU milliseconds for one Pod, by part (create; then restart, a DEL and an ADD)", "phase", *_PARTS, "together"
    )
    for trial in run.trials:
        for name in ("create", "restart"):
            if phase := trial.phases.get(name):
                each = [1000 * phase.cpu.get(part, 0.0) / run.settings.pods for part in _PARTS]
                table.add_row(trial.title, _TITLES[name], *(f"{value:.1f}" for value in (*each, sum(each))))
    return table


def _memory(run: Run) -> Table:
    parts = [part for part in _PARTS if part != PLUGIN_PART]
    table = _table("Peak memory in MiB, of the largest process of each part", *parts)
    for trial in run.trials:
        table.add_row(trial.title, *(f"{trial.memory[part]:.0f}" if part in trial.memory else "–" for part in parts))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="left" if column in ("phase", "requests") else "right")
    return table


def _of(phase: Phase) -> int:
    return max(phase.adds.count, phase.dels.count)


def _seconds(trial: Trial | None, phase: str) -> float | None:
    found = trial.phases.get(phase) if trial is not None else None
    return found.seconds if found is not None else None


def _time(run: Run, trial: Trial, phase: str) -> str:
    seconds, ratio = _seconds(trial, phase), run.ratio(trial, phase)
    if seconds is None:
        return "[red]never"
    return f"{seconds:.1f}" if ratio is None else f"{seconds:.1f}  ({ratio:.2f} ×)"
