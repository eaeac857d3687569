"""The stage of an end-to-end story: a namespace, pools, Pods; and the check that every story ends with.

The check is the invariant of the whole system: what each sandbox's interface really has, what its Endpoint says and
what the ledgers say are one; no address stands twice; and when the Pods are gone everything is free.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from e2e.cluster import Cluster
from e2e.cluster.shell import run
from e2e.invariants import violations
from e2e.view import Object, Snapshot, await_until, look
from tests.e2e.arp import answers

PAUSE = {"name": "pause", "image": "berth.test/pause:1", "imagePullPolicy": "Never"}


@dataclass(frozen=True, slots=True)
class Stage:
    cluster: Cluster
    namespace: str

    def open(self, *manifests: Object) -> None:
        """Its pools are for its namespace alone: what another story left behind is no concern of this one."""
        self.cluster.kubectl("create", "namespace", self.namespace)
        for each in manifests:
            if each["kind"] == "IPPool":
                each["spec"]["namespaces"] = [self.namespace]
        self.apply(*manifests)
        pools = [each["metadata"]["name"] for each in manifests if each["kind"] == "IPPool"]
        self.cluster.kubectl("wait", "ippool", *pools, "--for=condition=Ready", "--timeout=30s")

    def apply(self, *manifests: Object) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def deploy(self, name: str, replicas: int, node: str | None = None) -> None:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": pod_spec(node)}
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
            }
        )

    def run(self, name: str, node: str | None = None, annotations: Mapping[str, str] | None = None) -> None:
        """A Pod without an owner."""
        metadata = {"name": name, "namespace": self.namespace, "annotations": annotations or {}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(node)})

    def kubectl(self, *argv: str) -> str:
        """kubectl in the story's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *argv)

    def failures(self, pod: str) -> list[Object]:
        """The Events of a Pod that had no sandbox; `count` says how often."""
        chosen = f"--field-selector=involvedObject.name={pod},reason=FailedCreatePodSandBox"
        listed: list[Object] = json.loads(self.kubectl("get", "events", chosen, "-o", "json"))["items"]
        return listed

    def await_event(self, pod: str, part: str, seconds: float) -> None:
        await_until(
            lambda: self.failures(pod),
            lambda told: any(part in each["message"] for each in told),
            seconds,
            f"an Event of Pod {pod} that says {part!r}",
        )

    def look(self) -> Snapshot:
        seen = look(self.cluster.kubectl, self.namespace)
        own = [each for each in seen.pools if each["spec"].get("namespaces") == [self.namespace]]
        return replace(seen, pools=own)

    def await_running(self, pods: int, seconds: float = 120) -> Snapshot:
        """Exactly so many Pods run, none is on its way out."""
        return await_until(
            self.look,
            lambda seen: len(seen.running()) == pods == len(seen.pods),
            seconds,
            f"{pods} Pods Running, and no other",
        )

    def await_some(self, pods: int, seconds: float = 60) -> Snapshot:
        """At least so many Pods run: the middle of a roll-out."""
        return await_until(self.look, lambda seen: len(seen.running()) >= pods, seconds, f"{pods} Pods Running")

    def await_sound(self, pods: int, seconds: float = 120) -> Snapshot:
        """After a fault: so many Pods run, and the invariant holds. What kubelet says is late, so it is asked again."""
        told: list[str] = []

        def sound(snapshot: Snapshot) -> bool:
            told[:] = self.violations(snapshot)
            return not told

        try:
            return await_until(lambda: self.await_running(pods, seconds), sound, seconds, "sound")
        except TimeoutError as error:
            raise AssertionError("\n".join([*error.args, *told])) from error

    def check(self, snapshot: Snapshot) -> None:
        found = self.violations(snapshot)
        assert not found, "\n".join(found)

    def violations(self, snapshot: Snapshot) -> list[str]:
        """What is against the invariant, with the addresses read in the sandbox that each Endpoint names, and asked for
        on the wire."""
        found = violations(snapshot.pods, snapshot.endpoints, snapshot.pools)
        nodes = {endpoint["spec"]["node"] for endpoint in snapshot.endpoints}
        running = {name: self.cluster.nodes[name].containers() for name in nodes}
        stations: dict[str, set[str]] = {}
        for endpoint in snapshot.endpoints:
            spec, name = endpoint["spec"], endpoint["metadata"]["name"]
            process = running[spec["node"]].get(spec["containerID"])
            if process is None:
                found.append(f"{name} is of sandbox {spec['containerID']}, which {spec['node']} does not run")
                continue
            links = _links_in(process)
            real, said = _addresses_of(links, spec["interface"]), set(addresses(endpoint))
            if real != said:
                found.append(f"{name} says {sorted(said)}, its interface has {sorted(real)}")
            # Linux answers on each link of a namespace for the addresses of all.
            stations |= {
                each.partition("/")[0]: {link["address"] for link in links} for each in real if ":" not in each
            }
        for address, told in answers(self.cluster.network.bridge, stations).items():
            if not told or told - stations[address]:
                found.append(f"{address} is of {sorted(stations[address])}, and {sorted(told) or 'nobody'} answered")
        return found

    def close(self) -> None:
        """All Pods go; every address comes back; the pools can be deleted."""
        self.kubectl("delete", "deployment,pod", "--all", "--wait=false")
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
        self.cluster.kubectl("delete", "ippool", *(each["metadata"]["name"] for each in empty.pools))
        self.cluster.kubectl("delete", "reservedip", "--all")
        self.cluster.kubectl("delete", "namespace", self.namespace)


def pool(name: str, subnet: str, **spec: object) -> Object:
    return {
        "apiVersion": "ipam.berth.dev/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"subnet": subnet, "default": True, **spec},
    }


def pod_spec(node: str | None) -> dict[str, object]:
    placed = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {"containers": [PAUSE], "terminationGracePeriodSeconds": 1, **placed}


def addresses(endpoint: Object) -> list[str]:
    """With their prefix lengths."""
    return [each["address"] for each in (endpoint.get("status") or {}).get("addresses") or ()]


def by_pod(snapshot: Snapshot) -> dict[tuple[str, str], list[str]]:
    """The addresses of each Pod UID and interface."""
    named = {(each["spec"]["pod"]["uid"], each["spec"]["interface"]): addresses(each) for each in snapshot.endpoints}
    assert len(named) == len(snapshot.endpoints), "an attachment has two Endpoints"
    return named


def _links_in(process: int) -> list[Object]:
    """The links in the network namespace of a process; none when it has just ended."""
    printed = run("nsenter", "-t", str(process), "-n", "ip", "-json", "address", check=False)
    listed: list[Object] = json.loads(printed or "[]")
    return listed


def _addresses_of(links: list[Object], name: str) -> set[str]:
    """With their prefix lengths; those that the kernel made itself aside."""
    listed = [each for link in links if link["ifname"] == name for each in link["addr_info"]]
    return {f"{each['local']}/{each['prefixlen']}" for each in listed if each["scope"] == "global"}
