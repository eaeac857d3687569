"""What a run is told from outside, by environment variables, and nothing else."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPLICAS = 10
CREATORS = 20
GRACE_SECONDS = 30
CONTROLLER_QPS = 1000
# A deletecollection that takes longer than the request timeout (1 minute) ends half-way: on a slow machine it would.
API_SERVER_FLAGS = ("--delete-collection-workers=10", "--request-timeout=10m")
KNOWN = ("host-local", "berth", "berth-dual", "berth-ample", "host-local-dual")
USUAL = KNOWN[:4]
PROFILED = ("operator", "agent", "api-server")


class BadSettings(Exception):
    """One line: which variable, what is wrong, what to write instead."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`pods` is what the pool of exactly that many addresses is made for."""

    pods: int = 1000
    nodes: int = 10
    contenders: tuple[str, ...] = USUAL
    phase_seconds: float = 600.0
    profile: str = ""
    keep: bool = False
    results: Path = field(default=ROOT / "bench" / "results")

    @property
    def deployments(self) -> int:
        return -(-self.pods // REPLICAS)

    def replicas(self, deployment: int) -> int:
        return min(REPLICAS, self.pods - deployment * REPLICAS)


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    contenders = tuple(environment.get("BENCH_CONTENDERS", ",".join(USUAL)).replace(" ", "").split(","))
    for name in contenders:
        if name not in KNOWN:
            raise BadSettings(f'BENCH_CONTENDERS: "{name}" is not known: choose of {", ".join(KNOWN)}')
    profile = environment.get("BENCH_PROFILE", "")
    if profile not in ("", *PROFILED):
        raise BadSettings(f'BENCH_PROFILE: "{profile}" is not known: choose of {", ".join(PROFILED)}')
    return Settings(
        pods=_number(environment, "BENCH_PODS", 1000, most=60_000),
        nodes=_number(environment, "BENCH_NODES", 10, most=200),
        contenders=contenders,
        phase_seconds=_number(environment, "BENCH_PHASE_SECONDS", 600, most=86_400),
        profile=profile,
        keep=bool(environment.get("BENCH_KEEP")),
        results=Path(environment.get("BENCH_RESULTS", ROOT / "bench" / "results")),
    )


def _number(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit() or not 0 < int(text) <= most:
        raise BadSettings(f'{name}: "{text}" will not do: write a number from 1 to {most}')
    return int(text)


def program(name: str) -> str:
    """A command of the virtual environment that runs this."""
    return str(Path(sys.executable).with_name(name))
