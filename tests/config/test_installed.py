"""config/default on a real API server: it takes all of it, and the policy holds for agents, people and controllers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import CommandError, ControlPlane, Options
from e2e.cluster.shell import wait_for
from tests.config.manifests import CONFIG, REPOSITORY, load

pytestmark = pytest.mark.api

NODES = ("node-a", "node-b")
OPERATOR = "--as=system:serviceaccount:berth-system:berth-operator"
CONTROLLERS = ("namespace-controller", "generic-garbage-collector")
Kubectl = Callable[..., str]


def endpoint(name: str, node: str) -> str:
    spec = {
        "pod": {"name": "web-0", "uid": "0a0b0c0d"},
        "node": node,
        "network": "berth",
        "interface": "eth0",
        "containerID": "c1",
    }
    metadata = {"name": name, "namespace": "default"}
    return json.dumps({"apiVersion": "ipam.berth.dev/v1alpha1", "kind": "Endpoint", "metadata": metadata, "spec": spec})


def agent_pod(node: str) -> str:
    """The Pod that an agent's token is bound to; nothing runs it here."""
    container = {"name": "agent", "image": "none"}
    spec = {"nodeName": node, "serviceAccountName": "berth-agent", "containers": [container]}
    metadata = {"name": f"agent-{node}", "namespace": "berth-system"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def bearer(plane: ControlPlane, name: str, *bound: str) -> Kubectl:
    """kubectl with a token of the agents' service account, made as kubelet has it made."""
    token = plane.kubectl("create", "token", "berth-agent", "-n", "berth-system", *bound).strip()
    config: dict[str, Any] = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = plane.directory / f"{name}.kubeconfig"
    file.write_text(json.dumps(config))

    def kubectl(*argv: str, stdin: str | None = None) -> str:
        return plane.kubectl(f"--kubeconfig={file}", *argv, stdin=stdin)

    return kubectl


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("plane")
    with ControlPlane(directory, options=Options(controllers=False, fsync=False)) as plane:
        plane.kubectl("apply", "-f", str(REPOSITORY / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        plane.kubectl("apply", "-k", str(CONFIG / "default"))
        for node in NODES:
            plane.kubectl("create", "-f", "-", stdin=json.dumps(
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))  # fmt: skip
            plane.kubectl("create", "-f", "-", stdin=agent_pod(node))
        plane.kubectl("create", "-f", "-", stdin=endpoint("probe", "node-a"))
        # A policy takes a moment from being stored to being in force.
        wait_for("the policy", lambda: refused(plane.kubectl, "delete", "ipe", "probe", "--dry-run=server") != "", 30)
        yield plane


@pytest.fixture(scope="module")
def agent(plane: ControlPlane) -> Kubectl:
    """The agent of node-a."""
    return bearer(plane, "agent-a", "--bound-object-kind=Pod", "--bound-object-name=agent-node-a")


@pytest.fixture
def of_a(plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    return made(plane, request, "node-a")


@pytest.fixture
def of_b(plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    return made(plane, request, "node-b")


def made(plane: ControlPlane, request: pytest.FixtureRequest, node: str) -> str:
    name = f"{node}-{abs(hash(request.node.name)) % 10**8}"
    plane.kubectl("create", "-f", "-", stdin=endpoint(name, node))
    return name


def refused(kubectl: Kubectl, *argv: str, stdin: str | None = None) -> str:
    """What was said when it was refused; nothing when it was not."""
    try:
        kubectl(*argv, stdin=stdin)
    except CommandError as error:
        if "orbidden" not in error.output:  # another failure than the one that is tested
            raise
        return error.output
    return ""


def patch(kubectl: Kubectl, name: str, change: dict[str, Any], *more: str) -> str:
    return refused(kubectl, "patch", "ipe", name, "--type=merge", "-p", json.dumps(change), *more)


# --- all of it -------------------------------------------------------------------------------------------------------


def test_the_api_server_takes_everything_and_finds_nothing_odd_in_the_policy(plane: ControlPlane) -> None:
    rendered = plane.kubectl("kustomize", str(CONFIG / "default"))
    assert rendered.count("\nkind: ") + rendered.startswith("kind: ") == len(load())
    policy = json.loads(plane.kubectl("get", "validatingadmissionpolicy", "berth-endpoints", "-o", "json"))
    assert "expressionWarnings" not in policy.get("status", {}).get("typeChecking", {})


def test_on_one_node_every_part_that_is_bound_to_a_port_has_one_replica(plane: ControlPlane) -> None:
    rendered = list(yaml.safe_load_all(plane.kubectl("kustomize", str(CONFIG / "single-node"))))
    deployments = [each for each in load() if each["kind"] == "Deployment"]
    of_one = [each for each in rendered if each["kind"] == "Deployment"]
    assert [each["metadata"]["name"] for each in of_one] == [each["metadata"]["name"] for each in deployments]
    assert [each["spec"]["replicas"] for each in of_one] == [1, 1]


def test_applying_it_again_changes_nothing(plane: ControlPlane) -> None:
    everything = ("-k", str(CONFIG / "default"))

    def generations() -> str:
        fields = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{.data}{.rules}{'\\n'}{end}"
        return plane.kubectl("get", *everything, "-o", fields)

    before = generations()
    plane.kubectl("apply", *everything)
    assert generations() == before


def test_samples_are_taken(plane: ControlPlane) -> None:
    webhook = plane.kubectl("get", "validatingwebhookconfiguration", "berth", "-o", "json")
    plane.kubectl("delete", "validatingwebhookconfiguration", "berth")  # nobody serves it here
    try:
        for sample in sorted((CONFIG / "samples").glob("*.yaml")):
            wait_for(sample.name, lambda sample=sample: accepted(plane, sample), 20)  # type: ignore[misc]
    finally:
        cleaned = json.loads(webhook)
        cleaned["metadata"] = {"name": "berth", "annotations": cleaned["metadata"]["annotations"]}
        plane.kubectl("create", "-f", "-", stdin=json.dumps(cleaned))


def accepted(plane: ControlPlane, sample: Path) -> bool:
    try:
        return bool(plane.kubectl("apply", "--dry-run=server", "-f", str(sample)))
    except CommandError as error:
        if "webhook" in error.output:  # the API server has not seen its deletion yet
            return False
        raise


# --- agents ----------------------------------------------------------------------------------------------------------


def rewritten(agent: Kubectl, name: str, **change: str) -> str:
    """Replaces an Endpoint with one of another spec: agents may update, not patch. What was said when refused."""
    found = json.loads(agent("get", "ipe", name, "-o", "json"))
    found["spec"] |= change
    return refused(agent, "replace", "-f", "-", stdin=json.dumps(found))


def test_an_agent_claims_changes_and_releases_for_its_own_node(agent: Kubectl) -> None:
    agent("create", "-f", "-", stdin=endpoint("mine", "node-a"))
    assert rewritten(agent, "mine", containerID="c2") == ""
    assert rewritten(agent, "mine", containerID="") == "", "parked"
    agent("delete", "ipe", "mine")


def test_an_agent_may_not_claim_for_another_node(agent: Kubectl) -> None:
    said = refused(agent, "create", "-f", "-", stdin=endpoint("theirs", "node-b"))
    assert "is of node node-b, and this agent's token is bound to node-a" in said


def test_an_agent_may_not_release_or_take_what_another_node_holds(agent: Kubectl, of_b: str) -> None:
    assert "an agent writes the Endpoints of its own node only" in refused(agent, "delete", "ipe", of_b)
    for container in ("c2", ""):
        assert "bound to node-a" in rewritten(agent, of_b, containerID=container)


def test_an_agent_may_not_move_its_own_claim_to_another_node(agent: Kubectl, of_a: str) -> None:
    with pytest.raises(CommandError, match=r"bound to node-a|a claim never changes"):
        rewritten(agent, of_a, node="node-b")


def test_a_token_that_is_bound_to_no_pod_writes_nothing(plane: ControlPlane, of_a: str) -> None:
    """One that was made by hand from the agents' account, and would otherwise be every node's."""
    loose = bearer(plane, "loose")
    assert "bound to no node" in refused(loose, "delete", "ipe", of_a)
    assert "bound to no node" in refused(loose, "create", "-f", "-", stdin=endpoint("loose", "node-a"))


def test_an_agent_may_not_confirm_its_own_claim(agent: Kubectl, of_a: str) -> None:
    found = json.loads(agent("get", "ipe", of_a, "-o", "json"))
    found["status"] = {"addresses": [{"family": "IPv4", "address": "10.0.0.1/24", "pool": "p"}]}
    assert "endpoints/status" in refused(agent, "replace", "--subresource=status", "-f", "-", stdin=json.dumps(found))


def test_an_agent_sees_neither_pods_nor_secrets_nor_pools(agent: Kubectl) -> None:
    for kind in ("pods", "secrets", "ippools", "nodes"):
        assert "cannot list" in refused(agent, "get", kind, "-n", "berth-system")


# --- people ----------------------------------------------------------------------------------------------------------


def test_an_administrator_is_told_what_to_do_instead_of_deleting(plane: ControlPlane, of_a: str) -> None:
    said = refused(plane.kubectl, "delete", "ipe", of_a)
    assert f"Endpoint default/{of_a} records the address of Pod web-0. To free it, delete the Pod" in said
    assert OPERATOR in said


def test_the_remedy_that_the_message_names_works(plane: ControlPlane, of_a: str) -> None:
    plane.kubectl("delete", "ipe", of_a, OPERATOR)


def test_deleting_all_of_them_at_once_is_refused_too(plane: ControlPlane, of_a: str) -> None:
    assert "records the address" in refused(plane.kubectl, "delete", "--raw", COLLECTION)
    assert plane.kubectl("get", "ipe", of_a, "-o", "name")


COLLECTION = "/apis/ipam.berth.dev/v1alpha1/namespaces/default/endpoints"


def test_an_administrator_changes_neither_spec_nor_status(plane: ControlPlane, of_a: str) -> None:
    assert "change the Pod" in patch(plane.kubectl, of_a, {"spec": {"containerID": "other"}})
    addresses = [{"family": "IPv4", "address": "10.0.0.1/24", "pool": "p"}]
    said = patch(plane.kubectl, of_a, {"status": {"addresses": addresses}}, "--subresource=status")
    assert "the operator alone writes it" in said


def test_labels_and_annotations_are_anyones(plane: ControlPlane, of_a: str) -> None:
    assert patch(plane.kubectl, of_a, {"metadata": {"labels": {"team": "blue"}}}) == ""


# --- the operator, and Kubernetes' own controllers -------------------------------------------------------------------


def test_the_operator_confirms_parks_and_reclaims(plane: ControlPlane, of_b: str) -> None:
    found = json.loads(plane.kubectl("get", "ipe", of_b, "-o", "json"))
    found["status"] = {"addresses": [{"family": "IPv4", "address": "10.0.0.1/24", "pool": "p"}]}
    plane.kubectl("replace", "--subresource=status", "-f", "-", OPERATOR, stdin=json.dumps(found))
    found = json.loads(plane.kubectl("get", "ipe", of_b, "-o", "json"))
    found["spec"]["containerID"] = ""
    plane.kubectl("replace", "-f", "-", OPERATOR, stdin=json.dumps(found))
    plane.kubectl("delete", "ipe", of_b, OPERATOR)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_namespace_is_emptied_and_owners_are_followed(plane: ControlPlane, of_b: str, controller: str) -> None:
    plane.kubectl("delete", "ipe", of_b, f"--as=system:serviceaccount:kube-system:{controller}")


def test_a_controller_that_may_write_anything_does_not_change_a_claim(plane: ControlPlane, of_b: str) -> None:
    account = "--as=system:serviceaccount:kube-system:generic-garbage-collector"
    assert "change the Pod" in patch(plane.kubectl, of_b, {"spec": {"containerID": "other"}}, account)
