"""`make demo`: a real two-node cluster, Berth in it as Pods, and what one would look at.

It tells a story in seven steps and stops at the first that is not true. `KEEP=1` leaves the cluster up afterwards;
`make down` ends it.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from e2e.cluster import Cluster
from e2e.cluster.errors import ClusterError, CommandError
from e2e.install import install
from e2e.invariants import violations
from e2e.view import Object, Snapshot, await_until, leaving, look

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "config" / "samples"
# The folder `make down` knows.
DIRECTORY = ROOT / "run" / "cluster"
NAMESPACE = "default"
DEPLOYMENTS = ("web", "api", "jobs")
REPLICAS = 10
PODS = len(DEPLOYMENTS) * REPLICAS
PAUSE_IMAGE = "berth.test/pause:1"

POOLS = """
apiVersion: ipam.berth.dev/v1alpha1
kind: IPPool
metadata: {name: harbour-v4}
spec:
  subnet: 10.77.0.0/24
  ips: [10.77.0.10-10.77.0.99]
  excludeIPs: [10.77.0.13]
  gateway: 10.77.0.1
  default: true
---
apiVersion: ipam.berth.dev/v1alpha1
kind: IPPool
metadata: {name: harbour-v6}
spec: {subnet: "fd77::/64", default: true}
---
apiVersion: ipam.berth.dev/v1alpha1
kind: ReservedIP
metadata: {name: printer}
spec: {ips: [10.77.0.11, "fd77::2"]}
"""

OVERLAPPING = """
apiVersion: ipam.berth.dev/v1alpha1
kind: IPPool
metadata: {name: intruder}
spec: {subnet: 10.77.0.0/24, ips: [10.77.0.90-10.77.0.120]}
"""

console = Console(highlight=False)


class NotTrueError(Exception):
    """A step of the story did not come true."""


def main() -> int:
    keep = os.environ.get("KEEP") == "1"
    begin = time.monotonic()
    cluster = Cluster(DIRECTORY, nodes=2, owned=not keep)
    try:
        _tell(cluster)
    except (ClusterError, NotTrueError, TimeoutError) as error:
        console.print(f"[red]demo: {error}[/]")
        if not keep:
            cluster.stop()
        return 1
    except KeyboardInterrupt:
        cluster.stop()
        return 130
    console.print(f"\n[bold]All of it was true[/], in {time.monotonic() - begin:.0f} s.")
    if keep:
        console.print(
            f"The cluster is up: [cyan]export KUBECONFIG={cluster.kubeconfig}[/]; [cyan]make down[/] ends it."
        )
    else:
        cluster.stop()
        console.print("The cluster is gone. [cyan]KEEP=1 make demo[/] leaves it up; README.md says where to look next.")
    return 0


def _tell(cluster: Cluster) -> None:
    _step(1, "A control plane and two nodes: etcd, kube-apiserver, kubelet, containerd, each the real one")
    cluster.start()
    _step(2, "Berth as Pods: kubectl apply -f crds/, kubectl apply -k config/default")
    conflist = json.loads((SAMPLES / "10-berth-macvlan.conflist").read_text())
    for node in cluster.nodes.values():
        node.configure_cni(conflist)
    install(cluster)
    cluster.wait_nodes_ready()
    _step(3, "Two pools, a reservation, and three Deployments of ten Pods")
    _apply_pools(cluster)
    for name in DEPLOYMENTS:
        cluster.kubectl("apply", "-f", "-", stdin=_deployment(name))
    began = time.monotonic()
    snapshot = await_until(
        lambda: look(cluster.kubectl, NAMESPACE), lambda seen: len(seen.running()) == PODS, 120, f"{PODS} Pods Running"
    )
    console.print(f"{PODS} Pods Running after {time.monotonic() - began:.1f} s")
    _show(cluster, snapshot)
    _check(snapshot)
    _step(4, "Pods reach each other across nodes")
    _ping_across(cluster, snapshot)
    _step(5, "An overlapping pool is refused, with the way out")
    _refused(cluster)
    _step(6, "The Pods go, and every address comes back")
    _delete(cluster)
    _step(7, "What the pools say now")
    print(cluster.kubectl("get", "ippools,ipe,rip", "--all-namespaces"))


def _step(number: int, what: str) -> None:
    console.print(f"\n[bold blue]{number}.[/] [bold]{what}[/]")


def _apply_pools(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=POOLS)
    cluster.kubectl("wait", "ippool", "--all", "--for=condition=Ready", "--timeout=20s")
    print(cluster.kubectl("get", "ippools"))


def _deployment(name: str) -> str:
    labels = {"app": name}
    container = {"name": "pause", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "replicas": REPLICAS,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
                },
            },
        }
    )


def _show(cluster: Cluster, snapshot: Snapshot) -> None:
    """The addresses, by node and pool."""
    table = Table("Node", "Pod", "IPv4", "IPv6", title=f"{len(snapshot.endpoints)} attachments")
    by_node = sorted(snapshot.endpoints, key=lambda each: (each["spec"]["node"], each["metadata"]["name"]))
    for endpoint in by_node:
        families = {each["family"]: each["address"] for each in endpoint["status"]["addresses"]}
        spec = endpoint["spec"]
        table.add_row(spec["node"], spec["pod"]["name"], families.get("IPv4", "-"), families.get("IPv6", "-"))
    console.print(table)
    drawn = Counter(
        (endpoint["spec"]["node"], each["pool"])
        for endpoint in snapshot.endpoints
        for each in endpoint["status"]["addresses"]
    )
    pools = sorted({pool for _, pool in drawn})
    summary = Table("Node", *pools, title="addresses by node and pool")
    for node in cluster.nodes:
        summary.add_row(node, *(str(drawn[node, pool]) for pool in pools))
    console.print(summary)


def _check(snapshot: Snapshot) -> None:
    """All distinct, inside the pool, outside of excludes, gateway and reservation; counts exact."""
    found = violations(snapshot.pods, snapshot.endpoints, snapshot.pools)
    withheld = {"10.77.0.1", "10.77.0.11", "10.77.0.13", "fd77::2"}
    used = {
        each["address"].partition("/")[0] for endpoint in snapshot.endpoints for each in endpoint["status"]["addresses"]
    }
    found += [f"{address} is withheld, and was handed out" for address in sorted(used & withheld)]
    if len(used) != 2 * PODS:
        found.append(f"{len(used)} addresses for {PODS} Pods of two families")
    if found:
        raise NotTrueError("; ".join(found))
    console.print(f"{len(used)} addresses, all distinct, none withheld; Pods, Endpoints and ledgers agree")


def _ping_across(cluster: Cluster, snapshot: Snapshot) -> None:
    by_node: dict[str, Object] = {pod["spec"]["nodeName"]: pod for pod in snapshot.running()}
    if len(by_node) < 2:
        raise NotTrueError("all Pods are on one node")
    one, other = list(by_node.values())[:2]
    for each in other["status"]["podIPs"]:
        cluster.exec_in_pod(NAMESPACE, one["metadata"]["name"], sys.executable, "-m", "e2e.cluster.ping", each["ip"])
        console.print(f"{one['metadata']['name']} on {one['spec']['nodeName']} reaches {each['ip']} of the other node")


def _refused(cluster: Cluster) -> None:
    console.print(OVERLAPPING.strip(), style="dim")
    try:
        cluster.kubectl("apply", "-f", "-", stdin=OVERLAPPING)
    except CommandError as error:
        console.print(str(error).partition("status 1: ")[2] or str(error), style="yellow")
        return
    raise NotTrueError("an overlapping pool was accepted")


def _delete(cluster: Cluster) -> None:
    cluster.kubectl("delete", "deployment", *DEPLOYMENTS, "--namespace", NAMESPACE, "--wait=false")
    last = -1
    deadline = time.monotonic() + 90
    while last != 0:
        seen = look(cluster.kubectl, NAMESPACE)
        held = sum(int(pool["status"]["allocated"]) for pool in seen.pools)
        if held != last:
            console.print(f"{'█' * (held * 60 // (2 * PODS)):<60} {held} addresses held")
        last = held if held or any(leaving(pod) for pod in seen.pods) or seen.endpoints else 0
        if time.monotonic() > deadline:
            raise NotTrueError(f"{held} addresses are still held")
        time.sleep(0.5)


if __name__ == "__main__":
    raise SystemExit(main())
