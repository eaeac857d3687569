"""Two real nodes: Pods that run and reach each other, Services that answer, and nothing left behind."""

import base64
import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster, CommandError, leftovers
from e2e.cluster.images import PAUSE
from e2e.cluster.network import links
from e2e.cluster.shell import wait_for

pytestmark = pytest.mark.cluster

PING = (sys.executable, "-m", "e2e.cluster.ping")


def deployment(name: str, replicas: int) -> str:
    labels = {"app": name}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }
    container = {"name": "pause", "image": PAUSE, "imagePullPolicy": "Never"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": 1},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})


def run_pods(cluster: Cluster, name: str, replicas: int) -> dict[str, dict[str, str]]:
    """Runs a Deployment and returns node and address of each Pod."""
    cluster.kubectl("apply", "-f", "-", stdin=deployment(name, replicas))
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    listed = json.loads(cluster.kubectl("get", "pods", "-l", f"app={name}", "-o", "json"))["items"]
    return {
        pod["metadata"]["name"]: {"node": pod["spec"]["nodeName"], "address": pod["status"]["podIP"]} for pod in listed
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, nodes=2) as cluster:
        yield cluster
    assert leftovers(directory) == []


def test_a_node_is_not_ready_until_it_has_a_cni_configuration(cluster: Cluster) -> None:
    ready = 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
    assert cluster.kubectl("get", "nodes", "-o", ready) == "False False"
    cluster.use_bridge_cni()
    cluster.wait_nodes_ready()
    assert cluster.kubectl("get", "nodes", "-o", ready) == "True True"


def test_four_pods_run_and_ping_each_other_over_the_nodes(cluster: Cluster) -> None:
    pods = run_pods(cluster, "bridged", 4)
    assert sorted(pod["node"] for pod in pods.values()) == ["node-1", "node-1", "node-2", "node-2"]
    first, *others = pods
    for other in others:
        cluster.exec_in_pod("default", first, *PING, pods[other]["address"])


def test_macvlan_puts_pods_of_both_nodes_on_the_bridge(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        first, last = (str(cluster.network.subnet[node.index * 50 + offset]) for offset in (0, 9))
        spans = [[{"subnet": str(cluster.network.subnet), "rangeStart": first, "rangeEnd": last}]]
        ipam = {"type": "host-local", "ranges": spans, "dataDir": "/run/macvlan"}
        plugin = {"type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam}
        node.configure_cni({"cniVersion": "1.0.0", "name": "macvlan", "plugins": [plugin]}, "05-macvlan.conflist")
    time.sleep(1)  # containerd reads its configuration when the folder changes
    pods = run_pods(cluster, "flat", 2)
    (one, _), (_, other) = pods.items()
    assert ipaddress.ip_address(other["address"]) in cluster.network.subnet
    cluster.exec_in_pod("default", one, *PING, other["address"])


def test_a_process_on_a_node_reaches_the_api_server_by_its_service(cluster: Cluster) -> None:
    ask = """
import ssl, sys, urllib.request
trust = ssl.create_default_context(cafile=sys.argv[1])
print(urllib.request.urlopen("https://10.96.0.1:443/version", context=trust, timeout=5).status)
"""
    for node in cluster.nodes.values():
        assert node.run(sys.executable, "-c", ask, str(cluster.plane.authority.cert)) == "200\n"


def test_the_api_server_asks_a_webhook_in_a_pod_which_reads_with_its_service_account(cluster: Cluster) -> None:
    """As Berth is installed: hostNetwork Pods with a service account, behind a Service. Python is the machine's own."""
    gate = cluster.plane.authority.issue("gate", "gate", hosts=["gate.default.svc"])
    secret = ["create", "secret", "generic", "gate", f"--from-file={gate.cert}", f"--from-file={gate.key}"]
    cluster.kubectl(*secret)
    cluster.kubectl("create", "configmap", "gate", f"--from-file={Path(__file__).with_name('gate.py')}")
    cluster.kubectl("create", "clusterrolebinding", "gate", "--clusterrole=view", "--serviceaccount=default:default")
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": gate_objects()}))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/gate", "--timeout=60s")
    trust = base64.b64encode(cluster.plane.authority.cert.read_bytes()).decode()
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(gate_webhook(trust)))
    with pytest.raises(CommandError, match=r"the gate sees [0-9]+ Pods and says no"):
        wait_for(
            "the webhook's no", lambda: not cluster.kubectl("create", "configmap", "tried", "--dry-run=server"), 20
        )


def gate_objects() -> list[dict[str, object]]:
    """A Pod that serves gate.py with the machine's Python, and the Service in front of it."""
    machine = [place for place in ("/usr", "/lib", "/lib64", "/bin", sys.base_prefix) if Path(place).exists()]
    volumes: list[dict[str, object]] = [
        {"name": f"machine-{index}", "hostPath": {"path": place}} for index, place in enumerate(machine)
    ]
    mounts = [{"name": f"machine-{index}", "mountPath": place} for index, place in enumerate(machine)]
    mounts += [{"name": "cert", "mountPath": "/cert"}, {"name": "code", "mountPath": "/code"}]
    volumes += [{"name": "cert", "secret": {"secretName": "gate"}}, {"name": "code", "configMap": {"name": "gate"}}]
    container = {
        "name": "gate",
        "image": PAUSE,
        "imagePullPolicy": "Never",
        "command": [f"{sys.base_prefix}/bin/python3", "/code/gate.py"],
        "volumeMounts": mounts,
        "readinessProbe": {"tcpSocket": {"port": 9443}, "periodSeconds": 1},
    }
    pod = {"hostNetwork": True, "volumes": volumes, "containers": [container], "terminationGracePeriodSeconds": 0}
    service = {"selector": {"app": "gate"}, "ports": [{"port": 443, "targetPort": 9443}]}
    labels = {"app": "gate"}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gate", "labels": labels}, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gate"}, "spec": service},
    ]


def gate_webhook(trust: str) -> dict[str, object]:
    webhook = {
        "name": "gate.berth.test",
        "clientConfig": {"service": {"namespace": "default", "name": "gate", "path": "/"}, "caBundle": trust},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "failurePolicy": "Ignore",  # until the API server has seen the Service's endpoints
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "gate"},
        "webhooks": [webhook],
    }


def test_what_a_node_writes_is_its_own(cluster: Cluster) -> None:
    one, two = cluster.nodes.values()
    one.run("touch", "/opt/cni/bin/berth", "/etc/cni/net.d/mine", "/var/lib/mine")
    for place in ("/opt/cni/bin/berth", "/etc/cni/net.d/mine", "/var/lib/mine"):
        assert two.run("sh", "-c", f"test -e {place} || echo absent") == "absent\n"
        assert not Path(place).exists()


def test_a_kubelet_that_is_killed_comes_back_with_its_pods(cluster: Cluster) -> None:
    before = cluster.kubectl("get", "pods", "-o", "name")
    cluster.nodes["node-1"].processes["kubelet"].restart()
    cluster.wait_nodes_ready()
    assert cluster.kubectl("get", "pods", "-o", "name") == before


def test_down_cleans_up_after_an_up_that_was_killed(tmp_path: Path) -> None:
    place = ["--dir", str(tmp_path / "killed")]
    command = [sys.executable, "-m", "e2e.cluster"]
    with subprocess.Popen([*command, "up", *place]) as up:
        end = time.monotonic() + 60
        while len(links(tmp_path / "killed")) < 2 and time.monotonic() < end:
            time.sleep(0.05)  # a bridge and the first node's link to it: in the middle of everything
        up.kill()
    assert leftovers(tmp_path / "killed", bound=0) != []
    subprocess.run([*command, "down", *place], check=True)
    assert leftovers(tmp_path / "killed") == []
    assert not (tmp_path / "killed").exists()
