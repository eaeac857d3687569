"""Berth's own processes on the nodes, found as this machine sees them: to be killed and frozen."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster import Cluster
from e2e.install import NAMESPACE

_LOOK_SECONDS = 0.1


def leader(cluster: Cluster) -> int:
    """The process that holds the Lease."""
    lease = json.loads(cluster.kubectl("get", "lease", "-n", NAMESPACE, "berth-operator", "-o", "json"))
    holder: str = lease["spec"]["holderIdentity"]
    uid = next(uid for name, uid in _pods(cluster, "operator").items() if holder.startswith(name))
    (process,) = _processes([uid], "operator")
    return process


@contextlib.contextmanager
def frozen_operators(cluster: Cluster) -> Iterator[None]:
    """All operators stand still, those too that kubelet starts in place of one that answers no probe."""
    pods, end, frozen = list(_pods(cluster, "operator").values()), threading.Event(), set[int]()

    def freeze() -> None:
        while not end.wait(_LOOK_SECONDS):
            for process in _processes(pods, "operator"):
                _signal(process, signal.SIGSTOP)
                frozen.add(process)

    freezer = threading.Thread(target=freeze)
    freezer.start()
    try:
        yield
    finally:
        end.set()
        freezer.join()
        for process in frozen:
            _signal(process, signal.SIGCONT)


def _signal(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _pods(cluster: Cluster, component: str) -> dict[str, str]:
    """The UID of each Pod of one of Berth's parts, by its name."""
    chosen = f"--selector=app.kubernetes.io/component={component}"
    listed = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, chosen, "-o", "json"))["items"]
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in listed}


def _processes(pods: list[str], command: str) -> list[int]:
    """What runs `berth COMMAND` in these Pods: a process's cgroup carries its Pod's UID."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if command in (folder / "cmdline").read_text().split("\0"):
                group = (folder / "cgroup").read_text()
                found += [int(folder.name)] if any(uid in group for uid in pods) else []
    return found
