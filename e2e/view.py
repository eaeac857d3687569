"""What one would look at in a cluster with Berth: its Pods, Endpoints and pools, read with kubectl."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Object = dict[str, Any]
T = TypeVar("T")


class Kubectl(Protocol):
    """`ControlPlane.kubectl`, `Cluster.kubectl`: what kubectl printed; an exception when it failed."""

    def __call__(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 60) -> str: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at about one moment."""

    pods: list[Object]
    endpoints: list[Object]
    pools: list[Object]

    def running(self) -> list[Object]:
        return [pod for pod in self.pods if pod["status"].get("phase") == "Running" and not leaving(pod)]

    def pool(self, name: str) -> Object:
        return next(pool for pool in self.pools if pool["metadata"]["name"] == name)


def leaving(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]


def look(kubectl: Kubectl, namespace: str) -> Snapshot:
    return Snapshot(
        _items(kubectl, "pods", "--namespace", namespace),
        _items(kubectl, "endpoints.ipam.berth.dev", "--namespace", namespace),
        _items(kubectl, "ippools"),
    )


def _items(kubectl: Kubectl, *what: str) -> list[Object]:
    found: list[Object] = json.loads(kubectl("get", *what, "-o", "json"))["items"]
    return found


def await_until(seen: Callable[[], T], wanted: Callable[[T], bool], seconds: float, what: str) -> T:
    """Look until what is seen is what is wanted; TimeoutError says what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        now = seen()
        if wanted(now):
            return now
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s still not {what}")
        time.sleep(0.3)
