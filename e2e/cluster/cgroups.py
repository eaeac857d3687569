"""A cgroup for each node: kubelet puts its Pods under it, and so they are found and ended when the cluster goes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from e2e.cluster.errors import StartError
from e2e.cluster.network import PREFIX, bridge_of

ROOT = Path("/sys/fs/cgroup")
_CPUSET = ("cpuset.cpus", "cpuset.mems")


def create(directory: Path, node: str) -> str:
    """Makes the node's cgroup in every hierarchy of this machine and returns its path, as kubelet wants it."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for name in (bridge_of(directory), node):
            _delegate(folder)
            folder = folder / name
            folder.mkdir(exist_ok=True)
            for file in _CPUSET:  # version 1: a new cpuset holds no CPU, so nothing could run in it
                if (folder.parent / file).exists() and not (folder / file).read_text().strip():
                    (folder / file).write_text((folder.parent / file).read_text())
    return f"/{bridge_of(directory)}/{node}"


def roots(directory: Path | None = None) -> list[Path]:
    """The topmost cgroups of one cluster, or of any, in every hierarchy."""
    name = bridge_of(directory) if directory else f"{PREFIX}*"
    return [folder for hierarchy in _hierarchies() for folder in hierarchy.glob(name)]


def remove(directory: Path, node: str = "", bound: float = 10) -> None:
    """Kills whatever runs in the cgroups of a cluster, or of one of its nodes, and removes them."""
    end = time.monotonic() + bound
    while remaining := [root / node for root in roots(directory) if (root / node).exists()]:
        for folder in [folder for root in remaining for folder in _upwards(root)]:
            with suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            with suppress(OSError):  # still busy: the dead are being collected
                folder.rmdir()
        if time.monotonic() > end:
            raise StartError(f"cgroups {', '.join(map(str, remaining))} can't be removed: look what runs in them")
        time.sleep(0.05)


def _hierarchies() -> list[Path]:
    """The mounted hierarchies: one in version 2, one for each controller in version 1."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [folder for folder in ROOT.iterdir() if (folder / "cgroup.procs").exists() and not folder.is_symlink()]


def _delegate(folder: Path) -> None:
    """Version 2: children get the controllers that kubelet needs only when their parent passes them on."""
    control = folder / "cgroup.subtree_control"
    if control.exists():
        offered = (folder / "cgroup.controllers").read_text().split()
        for controller in {"cpu", "cpuset", "io", "memory", "pids"} & set(offered):
            control.write_text(f"+{controller}")


def _upwards(root: Path) -> Iterator[Path]:
    """A tree of cgroups, the deepest first."""
    for place, _, _ in os.walk(root, topdown=False):
        yield Path(place)
