"""The stage of an acceptance scenario: a real API server, the real operator, the real agent, the real CNI executable.

Pods are objects only: what a kubelet and a runtime would do (call CNI, report the addresses, delete the Pod) the story
does. Every story ends with `close`, which checks the invariant, deletes all Pods, and checks that everything came back.
"""

import json
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.cluster import ControlPlane, Process
from e2e.cluster.shell import wait_for
from e2e.invariants import leaks, violations

Object = dict[str, Any]
Call = tuple[str, str, Object]  # interface, container, configuration
ROOT = Path(__file__).parents[2]
BERTH = ROOT / ".venv" / "bin" / "berth"
API = "ipam.berth.dev/v1alpha1"
PREFIX = "ipam.berth.dev/"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the CNI executable answered to an ADD: addresses without prefix length, or a code and a message."""

    addresses: tuple[str, ...] = ()
    code: int = 0
    message: str = ""
    result: Object = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """What all stories share: one control plane, one operator, one node with its agent."""

    plane: ControlPlane
    operator: Process
    agents: Mapping[str, Process]
    sockets: Mapping[str, Path]
    shim: Path

    def get(self, what: str, namespace: str = "") -> list[Object]:
        where = ["-n", namespace] if namespace else []
        found: list[Object] = json.loads(self.plane.kubectl("get", what, *where, "-o", "json"))["items"]
        return found


def open_place(plane: ControlPlane, shim: Path, folder: Path, nodes: tuple[str, ...]) -> Place:
    plane.kubectl("create", "namespace", "berth-system", check=False)  # another suite may have made it
    common = ["--kubeconfig", str(plane.kubeconfig)]
    operator = Process("operator", [str(BERTH), "operator", *common], plane.directory)
    operator.start()
    agents, sockets = {}, {}
    for node in nodes:
        labels = {"kubernetes.io/hostname": node, "zone": node[-1]}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}
        plane.kubectl("create", "-f", "-", stdin=json.dumps(body))
        sockets[node] = folder / f"{node}.sock"
        state = ["--node", node, "--socket", str(sockets[node]), "--state-dir", str(folder / node)]
        agents[node] = Process(f"agent-{node}", [str(BERTH), "agent", *common, *state], plane.directory)
        agents[node].start()
    for node in nodes:
        wait_for(f"the agent of {node}", sockets[node].exists, 30)
    return Place(plane, operator, agents, sockets, shim)


def close_place(place: Place) -> None:
    for process in (*place.agents.values(), place.operator):
        process.stop()


class Stage:
    """One story: a namespace of its own, pools of its own."""

    def __init__(self, place: Place, name: str, **annotations: str) -> None:
        self.place, self.namespace = place, name
        self._kubectl = place.plane.kubectl
        self._calls: dict[str, list[Call]] = {}  # by Pod
        self._namespaces = [name]
        self._pools: list[str] = []
        self._others: list[tuple[str, str]] = []
        self.more_namespace(name, **annotations)

    # --- what people do ----------------------------------------------------------------------------------------------

    def more_namespace(self, name: str, **annotations: str) -> None:
        said = {PREFIX + key: text for key, text in annotations.items()}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": said}}
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": name},
        }
        self.apply(body, account)
        if name not in self._namespaces:
            self._namespaces.append(name)

    def apply(self, *objects: Object) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self._kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def pools(self, *, ready: bool = True, **subnets: str | Object) -> None:
        """`four="10.0.0.0/30"`, or a whole spec; `_` in a name is written `-`."""
        made: list[Object] = []
        for key, said in subnets.items():
            spec = {"subnet": said} if isinstance(said, str) else said
            made.append({"apiVersion": API, "kind": "IPPool", "metadata": {"name": self.pool(key)}, "spec": spec})
        self._pools += [each["metadata"]["name"] for each in made if each["metadata"]["name"] not in self._pools]
        self.apply(*made)
        if ready:
            names = [each["metadata"]["name"] for each in made]
            self._kubectl("wait", "ippool", *names, "--for=condition=Ready", "--timeout=30s")

    def pool(self, key: str) -> str:
        """The stories share one cluster: a pool is named after its story."""
        return f"{self.namespace}-{key.replace('_', '-')}"

    def reserve(self, *ips: str) -> None:
        body = {
            "apiVersion": API,
            "kind": "ReservedIP",
            "metadata": {"name": self.namespace},
            "spec": {"ips": list(ips)},
        }
        self._others.append(("reservedip", self.namespace))
        self.apply(body)
        ready = ["--for=condition=Ready", "--timeout=30s"]
        self._kubectl("wait", "reservedip", self.namespace, *ready)

    # --- what kubelet and runtime do ---------------------------------------------------------------------------------

    def add(
        self,
        pod: str,
        *,
        interface: str = "eth0",
        node: str = "node-a",
        namespace: str = "",
        owner: str | Object = "",
        labels: Mapping[str, str] | None = None,
        ipam: Mapping[str, Any] | None = None,
        network: str = "lan",
        ips: tuple[str, ...] = (),
        **annotations: str,
    ) -> Answer:
        """Makes the Pod if it is not there, and calls the executable for one interface of it. `_` in the name of an
        annotation is written `.`: `pools_net1`; of `default_route` alone it is a dash. `owner`: the kind of its
        controller, or the whole reference to it."""
        namespace = namespace or self.namespace
        uid = self._pod(namespace, pod, node, owner, labels or {}, annotations)
        container = uuid.uuid4().hex
        configuration: Object = {
            "cniVersion": "1.0.0",
            "name": network,
            "type": "macvlan",
            "ipam": {"type": "berth", "socket": str(self.place.sockets[node]), **(ipam or {})},
            **({"runtimeConfig": {"ips": list(ips)}} if ips else {}),
        }
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};K8S_POD_UID={uid}"
        code, told = self._call("ADD", interface, container, configuration, arguments)
        if code:
            self._call("DEL", interface, container, configuration, arguments)
            return Answer((), told["code"], told["msg"])
        addresses = tuple(each["address"].partition("/")[0] for each in told["ips"])
        self._calls.setdefault(f"{namespace}/{pod}", []).append((interface, container, configuration))
        if interface == "eth0":
            self._report(namespace, pod, addresses)
        return Answer(addresses, result=told)

    def end(self, pod: str, namespace: str = "") -> None:
        """DEL for each interface, then the Pod goes."""
        namespace = namespace or self.namespace
        self.release(self.take_calls(pod, namespace))
        self._kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force", check=False)

    def take_calls(self, pod: str, namespace: str = "") -> list[Call]:
        """The ADDs of this Pod, for which no DEL will be called any more, unless the story does."""
        return self._calls.pop(f"{namespace or self.namespace}/{pod}", [])

    def release(self, calls: list[Call]) -> None:
        """The DEL of each."""
        for interface, container, configuration in calls:
            code, told = self._call("DEL", interface, container, configuration, "")
            assert code == 0, told

    def forget(self, pod: str) -> list[Call]:
        """The Pod is force-deleted, and no DEL comes until the story calls it."""
        self._kubectl("delete", "pod", pod, "-n", self.namespace, "--grace-period=0", "--force")
        return self.take_calls(pod)

    def _call(self, command: str, interface: str, container: str, configuration: Object, args: str) -> tuple[int, Any]:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/run/netns/x",
            "CNI_IFNAME": interface,
            "CNI_ARGS": args,
        }
        done = subprocess.run(
            [self.place.shim],
            input=json.dumps(configuration).encode(),
            env=environment,
            capture_output=True,
            timeout=70,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def _pod(
        self,
        namespace: str,
        name: str,
        node: str,
        owner: str | Object,
        labels: Mapping[str, str],
        said: Mapping[str, str],
    ) -> str:
        there = self._kubectl("get", "pod", name, "-n", namespace, "--ignore-not-found", "-o", "json")
        if there.strip():
            return str(json.loads(there)["metadata"]["uid"])
        metadata: Object = {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "annotations": {PREFIX + _annotation(key): text for key, text in said.items()},
        }
        if isinstance(owner, dict):
            metadata["ownerReferences"] = [owner]
        elif owner == "StatefulSet":
            metadata["ownerReferences"] = [self._set_of(namespace, name)]
        elif owner:
            version = "v1" if owner == "ReplicationController" else "apps/v1"
            reference = {"apiVersion": version, "kind": owner, "name": "owner", "uid": "1", "controller": True}
            metadata["ownerReferences"] = [reference]
        spec = {"nodeName": node, "containers": [{"name": "pause", "image": "none"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        printed = self._kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(body))
        return str(json.loads(printed)["metadata"]["uid"])

    def stateful_set(self, name: str, replicas: int, start: int = 0, namespace: str = "") -> None:
        """Makes it, or scales it. Nobody here makes its Pods: the story does."""
        labels = {"app": name}
        spec = {
            "replicas": replicas,
            "ordinals": {"start": start},
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "pause", "image": "none"}]}},
        }
        metadata = {"name": name, "namespace": namespace or self.namespace}
        self.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec})

    def _set_of(self, namespace: str, pod: str) -> Object:
        """The owner that its StatefulSet is to the Pod; one of nine replicas if the story has made none."""
        name = pod.rpartition("-")[0]
        there = self._kubectl("get", "statefulset", name, "-n", namespace, "--ignore-not-found", "-o", "json")
        if not there.strip():
            self.stateful_set(name, 9, namespace=namespace)
            there = self._kubectl("get", "statefulset", name, "-n", namespace, "-o", "json")
        uid = json.loads(there)["metadata"]["uid"]
        return {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": uid, "controller": True}

    def _report(self, namespace: str, pod: str, addresses: tuple[str, ...]) -> None:
        status = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses]}
        patch = ["--subresource=status", "--type=merge", "-p", json.dumps({"status": status})]
        self._kubectl("patch", "pod", pod, "-n", namespace, *patch)

    # --- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """The invariant: Pods, Endpoints and ledgers tell one story. Settling may take half a second."""
        seen: list[str] = []

        def holds() -> bool:
            sets = [each for name in self._namespaces for each in self.place.get("statefulsets", name)]
            seen[:] = violations(*self._all(), stateful_sets=sets)
            return not seen

        try:
            wait_for("the invariant", holds, 10)
        finally:
            assert seen == []

    def _all(self) -> tuple[list[Object], list[Object], list[Object]]:
        pods, endpoints = [], []
        for namespace in self._namespaces:
            pods += self.place.get("pods", namespace)
            endpoints += self.place.get("endpoints.ipam.berth.dev", namespace)
        pools = [each for each in self.place.get("ippools") if each["metadata"]["name"] in self._pools]
        return pods, endpoints, pools

    def close(self) -> None:
        """The invariant; then all Pods go, every address comes back, and the pools can be deleted."""
        self.check()
        for key in list(self._calls):
            namespace, _, pod = key.partition("/")
            self.end(pod, namespace)
        for namespace in self._namespaces:
            self._kubectl("delete", "statefulsets", "--all", "-n", namespace)
            self._kubectl("delete", "pods", "--all", "-n", namespace, "--grace-period=0", "--force", check=False)
        wait_for("every address back", lambda: not leaks(*self._all()[1:]), 30)
        self.check()
        self._kubectl("delete", "ippool", "--ignore-not-found", *self._pools)
        for kind, name in self._others:
            self._kubectl("delete", kind, name)


def _annotation(key: str) -> str:
    return "default-route" if key == "default_route" else key.replace("_", ".")
