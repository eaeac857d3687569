"""The one place where the operator reads a wall clock: for people to read, never to decide by."""

from datetime import UTC, datetime


def timestamp() -> str:
    """Now, as metav1.Time writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
