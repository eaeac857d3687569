"""Ends a cluster that nobody holds any more, and says what is left of one.

Nothing here relies on the process that made the cluster: processes are known by their mark, links and cgroups by
names made from the cluster's folder, and mounts and namespaces live only as long as the processes in them.
"""

import json
import shutil
import time
from pathlib import Path

from e2e.cluster import cgroups, network, process
from e2e.cluster.errors import ClusterError

STATE = "cluster.json"


def write_state(directory: Path, state: dict[str, object]) -> None:
    """Says that this folder is a cluster's, before anything else is made; the files of one that ended give way."""
    if _look(directory):
        raise ClusterError(f"a cluster runs in {directory}: end it with `down --dir {directory}`")
    if (directory / STATE).exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ClusterError(f"{directory} is not empty: choose a folder that the cluster may have for itself")
    (directory / STATE).write_text(json.dumps(state, indent=2) + "\n")


def read_state(directory: Path) -> dict[str, object]:
    file = directory / STATE
    if not file.exists():
        raise ClusterError(f"no cluster in {directory}: start one with `up --dir {directory}`")
    state: dict[str, object] = json.loads(file.read_text())
    return state


def end(directory: Path) -> None:
    """Ends all processes, cgroups and links of a cluster; what is gone already is no error. Files stay."""
    process.kill_marked(directory)
    cgroups.remove(directory)
    network.remove_links(directory)


def end_orphan(directory: Path) -> None:
    """Ends a cluster whose owner has just died: a command that it had under way may still make something."""
    end(directory)
    while _look(directory):
        time.sleep(0.2)
        end(directory)


def remove(directory: Path) -> None:
    """Ends a cluster and removes its folder."""
    end(directory)
    if (directory / STATE).exists():
        shutil.rmtree(directory)


def leftovers(directory: Path | None = None, bound: float = 3) -> list[str]:
    """What is left of one cluster, or of any; the kernel gets a moment, since it takes namespaces apart later."""
    until = time.monotonic() + bound
    while (found := _look(directory)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _look(directory: Path | None) -> list[str]:
    found = [f"process {pid} of {place}" for pid, place in process.marked(directory).items()]
    found += [f"cgroup {folder}" for folder in cgroups.roots(directory)]
    found += [f"link {link}" for link in network.links(directory)]
    if directory:
        mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        found += [f"mount {place}" for place in mounts if Path(place).is_relative_to(directory)]
    return found
