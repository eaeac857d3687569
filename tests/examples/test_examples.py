"""Each example is taken by a real API server, and what it says is what the operator's own functions decide."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.api.ippool import IPPoolSpec
from berth.api.reservedip import ReservedIPSpec
from berth.controller.surroundings import describe
from berth.core.claim import Claim, Owner, Surroundings
from berth.core.explaining import Explanation, explain
from berth.core.ledger import Image, Ledger
from berth.core.pool import Pool
from berth.core.selection import Offer
from berth_cni.calls import Add
from berth_cni.configuration import parse
from e2e.cluster import ControlPlane

FOLDER = Path(__file__).parents[2] / "examples"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
Object = dict[str, Any]

EXPECTED = {  # file, Pod, interface -> addresses
    ("default", "plain", "eth0"): "10.20.0.10 fd20::1",
    ("pod-pools", "chooser", "eth0"): "10.21.0.1",
    ("wildcard", "anywhere", "eth0"): "10.21.1.1",
    ("namespace-pools", "tester", "eth0"): "10.21.0.1",
    ("interfaces", "two-links", "eth0"): "10.20.0.10",
    ("interfaces", "two-links", "net1"): "10.22.0.10",
    ("by-order", "router", "eth0"): "10.20.0.10",
    ("by-order", "router", "net1"): "10.22.0.10",
    ("one-family", "modern", "eth0"): "fd20::1",
    ("address", "fixed", "eth0"): "10.20.0.77 fd20::77",
    ("statefulset", "db-0", "eth0"): "10.22.0.10",
    ("statefulset", "db-1", "eth0"): "10.22.0.20",
    ("statefulset", "db-2", "eth0"): "10.22.0.21",
    ("statefulset-retained", "queue-0", "eth0"): "10.24.0.1",
    ("deployment", "web-abc12", "eth0"): "10.20.0.100",
    ("slices", "api-abc12", "eth0"): "10.23.0.2",
}


def load(name: str) -> list[Object]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def decided(objects: list[Object], pod: str, interface: str) -> Explanation:
    """What the operator would decide for this Pod, were the pools of the examples there and empty."""
    pools, ledgers = {}, {}
    reserved = [each for each in load("pools") if each["kind"] == "ReservedIP"]
    for item in load("pools"):
        if item["kind"] == "IPPool":
            pool = IPPoolSpec.model_validate(item["spec"]).to_core(item["metadata"]["name"])
            assert isinstance(pool, Pool)
            pools[pool.name] = Offer(pool, True)
            allowed = pool.offered
            for each in reserved:
                withheld = ReservedIPSpec.model_validate(each["spec"]).to_core()
                assert isinstance(withheld, dict)
                allowed = allowed.minus(withheld[pool.family])
            ledgers[pool.name] = Ledger(Image(), allowed)
    owners = {"StatefulSet": "StatefulSet", "Deployment": "ReplicaSet"}
    [item] = [each for each in objects if each["kind"] in ("Pod", *owners)]
    template = item if item["kind"] == "Pod" else item["spec"]["template"]
    namespaces = [each for each in objects if each["kind"] == "Namespace"]
    of_pod, of_namespace = describe(template), describe(namespaces[0] if namespaces else {"metadata": {}})
    namespace = item["metadata"].get("namespace", "default")
    owner = Owner(owners[item["kind"]]) if item["kind"] in owners else None
    application = f"{namespace}/{item['kind']}.apps/{item['metadata']['name']}" if owner else ""
    around = Surroundings(of_pod.labels, {}, {}, of_pod.annotations, of_namespace.annotations, owner, application)
    claim = Claim("claim", namespace, "", pod, "uid", "node-1", "lan", interface, "c1")
    return explain(claim, around, pools, ledgers)


@pytest.mark.parametrize(("file", "pod", "interface"), EXPECTED)
def test_an_example_gets_what_its_comment_says(file: str, pod: str, interface: str) -> None:
    told = decided(load(file), pod, interface)
    assert " ".join(address for _, address in told.addresses) == EXPECTED[file, pod, interface], told.refused


def test_every_example_is_listed_and_expected() -> None:
    listed = (FOLDER / "README.md").read_text()
    for file in FOLDER.iterdir():
        assert file.name == "README.md" or f"]({file.name})" in listed
    assert {file for file, _, _ in EXPECTED} == {path.stem for path in MANIFESTS} - {"pools"}


def test_the_cni_configuration_is_understood() -> None:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "net1",
        "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1",
    }
    call = parse(environment, (FOLDER / "cni-configuration.json").read_bytes())
    assert isinstance(call, Add)
    assert call.ipv4_pools == ("storage", "lab-a")
    assert call.families == ("IPv4",)


@pytest.fixture(scope="module")
def prepared(api_server: ControlPlane) -> Iterator[ControlPlane]:
    """What a cluster's controllers would have made: the service account of each namespace."""
    api_server.kubectl("create", "namespace", "lab")
    for namespace in ("default", "lab"):
        api_server.kubectl("create", "serviceaccount", "default", "-n", namespace, check=False)
    yield api_server
    api_server.kubectl("delete", "namespace", "lab", "--wait=false")


@pytest.mark.api
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_the_api_server_takes_an_example(prepared: ControlPlane, manifest: Path) -> None:
    printed = prepared.kubectl("apply", "--dry-run=server", "-o", "json", "-f", str(manifest))
    taken = json.loads(printed)
    assert len(taken["items"] if taken["kind"] == "List" else [taken]) == len(load(manifest.stem))
