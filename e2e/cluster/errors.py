"""What can go wrong with a cluster: one small tree, each error one sentence with its remedy."""

from pathlib import Path


class ClusterError(Exception):
    """The root of all errors of this package."""


class MissingToolError(ClusterError):
    """A program of the machine is absent."""


class BuildError(ClusterError):
    """A binary could not be built."""


class StartError(ClusterError):
    """A part of the cluster died at start, or was not ready in time."""


class CommandError(ClusterError):
    """A command that the cluster relies on failed."""

    def __init__(self, argv: list[str], status: int, output: str) -> None:
        self.status = status
        self.output = output.strip()
        super().__init__(f"{' '.join(argv)} ended with status {status}: {self.output or 'no output'}")


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log file, for an error message."""
    if not log.exists():
        return f"(no log at {log})"
    lines = log.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines) or f"    ({log} is empty)"
