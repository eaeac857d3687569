"""What `bench.scale` found: a table, a JSON file, and a picture with a curve for each figure."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

_COLOUR, _SECOND = "#1668b8", "#c2410c"


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen with so many addresses held."""

    held: int
    grants_a_second: float
    latency_ms: float
    latency_p90_ms: float
    takeover_s: float
    operator_peak_mib: float
    operator_rest_mib: float
    pool_kib: float


# Title of a panel, and the figures in it with their legends.
_PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("grants a second, filling", {"grants_a_second": ""}),
    ("one grant on the idle system, ms", {"latency_ms": "median", "latency_p90_ms": "p90"}),
    ("take-over, s", {"takeover_s": ""}),
    ("operator after it, MiB", {"operator_peak_mib": "peak", "operator_rest_mib": "at rest"}),
    ("the pool object, KiB", {"pool_kib": ""}),
)


def report(levels: list[Level], console: Console, target: Path) -> None:
    """Prints the table; writes `target`.json and `target`.svg."""
    table = Table(title="as a /16 fills")
    for column in ("held", "grants/s", "latency ms", "p90 ms", "take-over s", "peak MiB", "at rest MiB", "pool KiB"):
        table.add_column(column, justify="right")
    for level in levels:
        table.add_row(
            str(level.held),
            f"{level.grants_a_second:.0f}",
            f"{level.latency_ms:.1f}",
            f"{level.latency_p90_ms:.1f}",
            f"{level.takeover_s:.2f}",
            f"{level.operator_peak_mib:.0f}",
            f"{level.operator_rest_mib:.0f}",
            f"{level.pool_kib:.1f}",
        )
    console.print(table)
    if len(levels) > 1:
        growth = levels[-1].latency_ms / levels[0].latency_ms
        console.print(f"latency at {levels[-1].held} held is {growth:.2f} x that at {levels[0].held}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps([asdict(level) for level in levels], indent=1))
    draw(levels, target.with_suffix(".svg"))
    console.print(f"drawn in {target.with_suffix('.svg')}")


def draw(levels: list[Level], file: Path) -> None:
    figure, panels = plt.subplots(1, len(_PANELS), figsize=(19, 3.8), layout="constrained")
    held = [level.held for level in levels]
    for panel, (title, figures) in zip(panels, _PANELS, strict=True):
        for (name, legend), colour in zip(figures.items(), (_COLOUR, _SECOND), strict=False):
            panel.plot(held, [getattr(level, name) for level in levels], marker="o", color=colour, label=legend)
        panel.set_title(title, fontsize=11, loc="left")
        panel.set_xlabel("addresses held")
        panel.set_ylim(bottom=0)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if len(figures) > 1:
            panel.legend(frameon=False, fontsize=9)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
