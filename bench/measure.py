"""What is counted from outside: requests at the API server, bytes in etcd's log, CPU and memory of processes.

Counters are read before and after a phase; the difference is the phase's. Nothing here is in the way of what is
measured but the reading itself, between phases.
"""

import os
import re
import ssl
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from berth.kube.resources import GROUP

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REQUESTS = "apiserver_request_total"
_LOGGED = "etcd_disk_wal_write_bytes_total"
_TICKS = os.sysconf("SC_CLK_TCK")

Labels = dict[str, str]


@dataclass(slots=True)
class Counters:
    """All counters at one moment, or the difference of two moments."""

    requests: Counter[str] = field(
        default_factory=Counter
    )  # "POST endpoints": Berth's own group, lists and watches not counted
    pod_reads: int = 0
    conflicts: int = 0
    all_requests: int = 0
    etcd_bytes: int = 0
    cpu: Counter[str] = field(default_factory=Counter)  # seconds by part, in milliseconds to stay exact
    machine_cpu: int = 0

    def since(self, before: "Counters") -> "Counters":
        return Counters(
            self.requests - before.requests,
            self.pod_reads - before.pod_reads,
            self.conflicts - before.conflicts,
            self.all_requests - before.all_requests,
            self.etcd_bytes - before.etcd_bytes,
            self.cpu - before.cpu,
            self.machine_cpu - before.machine_cpu,
        )


@dataclass(frozen=True, slots=True)
class Gauge:
    """Where to read. `parts`: the process IDs of each part."""

    api_server: str
    tls: ssl.SSLContext | None
    etcd: str
    parts: Mapping[str, list[int]]

    def read(self) -> Counters:
        counted = Counters()
        count_requests(counted, self._text(f"{self.api_server}/metrics", self.tls))
        for _, value in _samples(self._text(f"{self.etcd}/metrics", None), _LOGGED):
            counted.etcd_bytes += int(value)
        for part, pids in self.parts.items():
            counted.cpu[part] = sum(_cpu(pid) for pid in pids)
        counted.machine_cpu = _machine_cpu()
        return counted

    def peak_memory(self) -> dict[str, float]:
        """MiB at most, of the largest process of each part."""
        return {part: max((_peak(pid) for pid in pids), default=0.0) for part, pids in self.parts.items()}

    @staticmethod
    def _text(url: str, tls: ssl.SSLContext | None) -> str:
        with urllib.request.urlopen(url, context=tls, timeout=30) as answer:
            return str(answer.read().decode())


def count_requests(counted: Counters, metrics: str) -> None:
    """From the API server's own counters: `apiserver_request_total`."""
    for labels, value in _samples(metrics, _REQUESTS):
        _count(counted, labels, int(value))


def _count(counted: Counters, labels: Labels, value: int) -> None:
    counted.all_requests += value
    resource, sub = labels["resource"], labels["subresource"]
    if labels["group"] == GROUP and resource and labels["verb"] not in ("LIST", "WATCH"):
        counted.requests[f"{labels['verb']} {resource}{'/' + sub if sub else ''}"] += value
        if labels["code"] == "409":
            counted.conflicts += value
    elif resource == "pods" and labels["verb"] == "GET" and not labels["group"]:
        counted.pod_reads += value


def _samples(text: str, name: str) -> Iterable[tuple[Labels, float]]:
    for line in text.splitlines():
        if line.startswith(name) and (found := _LINE.match(line)) is not None and found[1] == name:
            yield dict(_LABEL.findall(found[2] or "")), float(found[3])


def _cpu(pid: int) -> int:
    """Milliseconds of a process, without its children."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(each) for each in fields[11:13]) * 1000 // _TICKS
    return 0


def _machine_cpu() -> int:
    """Milliseconds that the machine's cores were busy."""
    user, nice, system, _, _, irq, softirq = (
        int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) * 1000 // _TICKS


def _peak(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
