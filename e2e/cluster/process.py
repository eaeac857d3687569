"""Processes of a cluster: started, killed, frozen and started again one by one, and never left behind.

Each carries the cluster's folder in its environment (`BERTH_CLUSTER`), and so do its children: that is how they are
found again by whoever cleans up, even after the one who started them was killed. A warden, a process that waits for
the death of its parent, does so at once when a test run is killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.errors import MissingToolError, StartError, last_lines
from e2e.cluster.shell import remedy

MARK = "BERTH_CLUSTER"


@dataclass(slots=True)
class Process:
    """One long-running program: its own process group, its own log file, restartable as it was."""

    name: str
    argv: list[str]
    cluster: Path
    """The folder of the cluster it belongs to."""
    env: Mapping[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.cluster / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise StartError(f"{self.name} was never started: call start() first")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        env = os.environ | self.env | {MARK: str(self.cluster)}
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
                )
            except FileNotFoundError as error:
                raise MissingToolError(f"{self.argv[0]} is not there: {remedy(self.argv[0])}") from error

    def check(self) -> None:
        """Raises with the end of the log when the process is dead."""
        if self._child is not None and (status := self._child.poll()) is not None:
            raise StartError(f"{self.name} died with status {status}; its log ends:\n{last_lines(self.log)}")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole group; a dead one is left in peace."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """kill -9: no chance to tidy up."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def stop(self, bound: float = 10) -> None:
        """Asks politely, waits `bound` seconds, then kills."""
        self.signal(signal.SIGTERM)
        self.resume()  # a frozen process can't act on SIGTERM
        with suppress(subprocess.TimeoutExpired):
            if self._child is not None:
                self._child.wait(bound)
        self.kill()

    def pause(self) -> None:
        """Freezes it as a stalled disk or a starved machine would: connections stay open, nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def restart(self) -> None:
        """Starts it again with the same arguments (port, data); kills it first if it still runs."""
        self.kill()
        self.start()


def marked(cluster: Path | None = None) -> dict[int, Path]:
    """The processes (pid → cluster folder) that carry the mark of one cluster, or of any."""
    found: dict[int, Path] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                name, _, value = entry.partition(b"=")
                if name == MARK.encode() and cluster in (None, Path(os.fsdecode(value))):
                    found[int(folder.name)] = Path(os.fsdecode(value))
    return {pid: place for pid, place in found.items() if pid != os.getpid()}


def kill_marked(cluster: Path, bound: float = 10) -> None:
    """Kills every process of a cluster, again and again until none is left: one may be forking meanwhile."""
    end = time.monotonic() + bound
    while processes := marked(cluster):
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise StartError(f"processes {sorted(processes)} of {cluster} do not die: look for state D in ps")
        time.sleep(0.02)


@dataclass(slots=True)
class Warden:
    """Ends a cluster when its owner dies, however it dies.

    The warden reads from a pipe whose other end only the owner has; when the owner is gone the read returns and the
    warden does what `python3 -m e2e.cluster down` does. Unlike a parent-death signal this also removes links and
    cgroups, and it does not fire when merely the thread that started a process ends.
    """

    cluster: Path
    _child: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        argv = [sys.executable, "-m", "e2e.cluster", "down", "--dir", str(self.cluster), "--when-orphaned"]
        root = Path(__file__).parents[2]
        self._child = subprocess.Popen(
            argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def dismiss(self) -> None:
        """The owner has cleaned up itself."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
