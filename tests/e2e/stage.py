"""The stage of an end-to-end story: a namespace, pools, Deployments; and the check that every story ends with.

The check is the invariant of the whole system: what each Pod's interface really has, what its Endpoint says and what
the ledgers say are one; no address stands twice; and when the Pods are gone everything is free.
"""

import json
from dataclasses import dataclass

from e2e.cluster import Cluster
from e2e.invariants import violations
from e2e.view import Snapshot, await_until, look

PAUSE = {"name": "pause", "image": "berth.test/pause:1", "imagePullPolicy": "Never"}


@dataclass(frozen=True, slots=True)
class Stage:
    cluster: Cluster
    namespace: str

    def open(self, *manifests: dict[str, object]) -> None:
        self.cluster.kubectl("create", "namespace", self.namespace)
        self.apply(*manifests)
        self.cluster.kubectl("wait", "ippool", "--all", "--for=condition=Ready", "--timeout=30s")

    def apply(self, *manifests: dict[str, object]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def deploy(self, name: str, replicas: int) -> None:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [PAUSE], "terminationGracePeriodSeconds": 1}}
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
            }
        )

    def look(self) -> Snapshot:
        return look(self.cluster.kubectl, self.namespace)

    def await_running(self, pods: int, seconds: float = 120) -> Snapshot:
        """Exactly so many Pods run, none is on its way out."""
        return await_until(
            self.look,
            lambda seen: len(seen.running()) == pods == len(seen.pods),
            seconds,
            f"{pods} Pods Running, and no other",
        )

    def check(self, snapshot: Snapshot) -> None:
        """The invariant, with the addresses read from inside each Pod's network namespace."""
        found = violations(snapshot.pods, snapshot.endpoints, snapshot.pools)
        for endpoint in snapshot.endpoints:
            real = self.real_addresses(endpoint["spec"]["pod"]["name"], endpoint["spec"]["interface"])
            said = {each["address"] for each in endpoint["status"]["addresses"]}
            if not said <= real:
                found.append(f"{endpoint['metadata']['name']} says {sorted(said)}, its interface has {sorted(real)}")
        assert found == []

    def real_addresses(self, pod: str, interface: str) -> set[str]:
        printed = self.cluster.exec_in_pod(self.namespace, pod, "ip", "-json", "address", "show", "dev", interface)
        return {f"{each['local']}/{each['prefixlen']}" for link in json.loads(printed) for each in link["addr_info"]}

    def close(self) -> None:
        """All Pods go; every address comes back; the pools can be deleted."""
        self.cluster.kubectl("delete", "deployment", "--all", "--namespace", self.namespace, "--wait=false")
        empty = await_until(
            self.look,
            lambda seen: (
                not seen.pods and not seen.endpoints and all(pool["status"]["allocated"] == 0 for pool in seen.pools)
            ),
            90,
            "every address back",
        )
        self.check(empty)
        for pool in empty.pools:
            ledger = pool["status"]["ledger"]
            assert not ledger.get("pending"), "an empty pool has nothing pending"
            assert not ledger.get("blocks"), "an empty pool has nothing settled"
        self.cluster.kubectl("delete", "ippool", "--all")
        self.cluster.kubectl("delete", "reservedip", "--all")
        self.cluster.kubectl("delete", "namespace", self.namespace)


def pool(name: str, subnet: str, **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "ipam.berth.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "default": True, **spec},
    }
