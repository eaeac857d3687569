"""The run as a picture: for each contender a curve of Pods over time, one panel for each phase."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

from bench.report import Run
from bench.trial import PHASES

_TITLES = {
    "create": "Created: Pods that run",
    "restart": "All restarted: new Pods that run",
    "empty": "All deleted: Pods and addresses left",
}
_COLOURS = ("#5f6b7a", "#1668b8", "#c2410c", "#15803d", "#9ca3af")


def draw(run: Run, file: Path) -> None:
    figure, panels = plt.subplots(1, len(PHASES), figsize=(15, 4.6), layout="constrained")
    for panel, phase in zip(panels, PHASES, strict=True):
        for trial, colour in zip(run.trials, _COLOURS, strict=False):
            if found := trial.phases.get(phase):
                times, counts = zip(*found.curve, strict=True) if found.curve else ((), ())
                panel.plot(times, counts, color=colour, linewidth=1.8, drawstyle="steps-post", label=trial.title)
        panel.set_title(_TITLES[phase], fontsize=11, loc="left")
        panel.set_xlabel("seconds")
        panel.set_ylim(bottom=0)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle(
        f"{run.settings.pods} Pods on {run.settings.nodes} simulated nodes, {run.began[:10]}", x=0.01, ha="left"
    )
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
