"""Berth on a cluster, as its README says: the image on every node, `kubectl apply -f crds/`, `apply -k config/default`.

`install` returns when all replicas are ready and the webhook is trusted; else it raises, after showing what those that
are not ready say of themselves. `connect` then does the administrator's part: a CNI configuration on each node, and
a pool that fits the network. `python3 -m e2e.install` does all of it on a cluster of its own, and ends that.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from e2e import image
from e2e.cluster import Cluster, ClusterError
from e2e.cluster.errors import CommandError, StartError
from e2e.cluster.shell import wait_for

REPOSITORY = Path(__file__).parents[1]
SAMPLES = REPOSITORY / "config" / "samples"
NAMESPACE = "berth-system"
PARTS = ("deployment/berth-operator", "deployment/berth-webhook", "daemonset/berth-agent")
CONFLIST = "10-berth-macvlan.conflist"
SAMPLE_PREFIX = "172.30.0."


class Target(Protocol):
    """What is asked of a cluster: ours or kind's."""

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str: ...
    def import_image(self, archive: Path) -> None: ...


def install(cluster: Target, bound: float = 180) -> None:
    """Everything that `kubectl apply` installs, ready within `bound` seconds."""
    archive = image.build()
    with _timed(f"importing the image ({archive.stat().st_size / 1e6:.0f} MB) into every node"):
        cluster.import_image(archive)
    with _timed("applying crds/ and config/default"):
        cluster.kubectl("apply", "-f", str(REPOSITORY / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=berth")
        cluster.kubectl("apply", "-k", str(REPOSITORY / "config" / "default"))
    with _timed("waiting for operator, webhook and agents"):
        _wait_ready(cluster, bound)


def connect(cluster: Cluster, bound: float = 60) -> None:
    """The CNI configuration on each node, and a default pool of the cluster's subnet."""
    conflist = json.loads((SAMPLES / CONFLIST).read_text())
    with _timed("a CNI configuration on each node, and a pool"):
        for node in cluster.nodes.values():
            node.configure_cni(conflist, CONFLIST)
        cluster.kubectl("apply", "-f", "-", stdin=sample(cluster, "ippool-v4.yaml"))
        cluster.kubectl("wait", "--for=condition=Ready", "ipp", "--all", "--timeout=30s")
        cluster.wait_nodes_ready(bound)


def sample(cluster: Cluster, name: str) -> str:
    """A file of config/samples, moved into the cluster's own subnet."""
    prefix = str(cluster.network.subnet.network_address).rpartition(".")[0] + "."
    return (SAMPLES / name).read_text().replace(SAMPLE_PREFIX, prefix)


# --- waiting ---------------------------------------------------------------------------------------------------------


def _wait_ready(cluster: Target, bound: float) -> None:
    said = ""

    def ready() -> bool:
        nonlocal said
        counts = {part: _counts(cluster, part) for part in PARTS}
        line = ", ".join(f"{part.partition('-')[2]} {have}/{want}" for part, (have, want) in counts.items())
        if line != said:
            print(f"install:   {line}", file=sys.stderr, flush=True)
            said = line
        return all(have == want > 0 for have, want in counts.values()) and _trusted(cluster)

    try:
        wait_for("a ready Berth", ready, bound, pause=0.5)
    except StartError as error:
        raise StartError(f"{error}\n{describe(cluster)}") from error


def _counts(cluster: Target, part: str) -> tuple[int, int]:
    """Replicas of the present generation that are ready, and how many there should be."""
    found = json.loads(cluster.kubectl("get", "-n", NAMESPACE, part, "-o", "json"))
    status = found["status"]
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return 0, -1
    if found["kind"] == "DaemonSet":
        have = min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
        return have, status["desiredNumberScheduled"]
    return min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0)), found["spec"]["replicas"]


def _trusted(cluster: Target) -> bool:
    """The webhook has told the API server its CA."""
    bundle = "jsonpath={.webhooks[*].clientConfig.caBundle}"
    return bool(cluster.kubectl("get", "validatingwebhookconfiguration", "berth", "-o", bundle))


# --- when it goes wrong ----------------------------------------------------------------------------------------------


def describe(cluster: Target) -> str:
    """What every Pod of Berth that is not ready says: its state, the last lines of its log, its events."""
    pods = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    told = [_describe(cluster, pod) for pod in pods if not _is_ready(pod)]
    return (
        "\n".join(told) or "every Pod that exists is ready; see kubectl describe of the Deployments and the DaemonSet"
    )


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _describe(cluster: Target, pod: dict[str, Any]) -> str:
    name = pod["metadata"]["name"]
    states = [json.dumps(each.get("state")) for each in pod["status"].get("containerStatuses") or []]
    lines = [f"{name} on {pod['spec'].get('nodeName', 'no node')}: {pod['status'].get('phase')} {' '.join(states)}"]
    for previous in ([], ["--previous"]):
        log = cluster.kubectl("logs", "-n", NAMESPACE, name, "--tail=15", *previous, check=False)
        lines += [f"    {line}" for line in log.splitlines()]
    chosen = f"involvedObject.name={name}"
    fields = "jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}"
    events = cluster.kubectl("get", "events", "-n", NAMESPACE, f"--field-selector={chosen}", "-o", fields, check=False)
    return "\n".join([*lines, *(f"    event {line}" for line in events.splitlines()[-6:])])


@contextmanager
def _timed(what: str) -> Iterator[None]:
    print(f"install: {what} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    yield
    print(f"install: {what}: done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def main() -> int:
    """A cluster of its own, for a look: ends with it."""
    folder = REPOSITORY / "run" / "install"
    try:
        with Cluster(folder) as cluster:
            install(cluster)
            connect(cluster)
            print(cluster.kubectl("get", "pods,berth", "-A", "-o", "wide"))
    except (ClusterError, CommandError) as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
