"""Each part of Berth as it is installed: with no more rights than it needs, and able to run where nothing else can."""

import json
import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth.cli.main import _parser
from tests.config.manifests import CONFIG, Manifest, named, of_kind, workloads

GOLDEN = Path(__file__).with_name("golden") / "rbac.txt"
BY_NAME = pytest.mark.parametrize("workload", workloads(), ids=lambda each: each["metadata"]["name"])


def pod_of(workload: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container_of(workload: Manifest) -> dict[str, Any]:
    (container,) = pod_of(workload)["containers"]
    found: dict[str, Any] = container
    return found


# --- who may do what -------------------------------------------------------------------------------------------------


def rights() -> Iterator[str]:
    """One line for each right, to be read by a person."""
    holders = {
        binding["roleRef"]["name"]: ", ".join(f"{each['namespace']}/{each['name']}" for each in binding["subjects"])
        for binding in of_kind("ClusterRoleBinding", "RoleBinding")
    }
    for role in of_kind("ClusterRole", "Role"):
        where = role["metadata"].get("namespace", "every namespace, and the cluster")
        labels = role["metadata"]["labels"]
        joined = sorted(name.rpartition("aggregate-to-")[2] for name in labels if "aggregate-to-" in name)
        holder = f"part of {', '.join(joined)}" if joined else holders[role["metadata"]["name"]]
        yield f"{role['metadata']['name']} ({holder}) in {where}"
        for rule in role["rules"]:
            only = f" named {', '.join(rule['resourceNames'])}" if "resourceNames" in rule else ""
            group = rule["apiGroups"][0] or "core"
            for resource in rule["resources"]:
                yield f"    {group} {resource}{only}: {' '.join(rule['verbs'])}"


def test_rights_are_those_that_were_read_and_found_good() -> None:
    """UPDATE_GOLDEN=1 writes the file anew; then read what changed."""
    text = "\n".join(rights()) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_no_role_has_wildcards_or_reaches_for_what_would_be_the_whole_cluster() -> None:
    dangerous = {"escalate", "bind", "impersonate", "deletecollection", "*"}
    for role in of_kind("ClusterRole", "Role"):
        for rule in role["rules"]:
            assert not dangerous & set(rule["verbs"])
            assert "*" not in rule["resources"] + rule["apiGroups"]
            assert "nonResourceURLs" not in rule
            if "secrets" in rule["resources"]:
                assert role["kind"] == "Role"
                assert rule["resourceNames"]


def test_no_part_may_write_anothers_record() -> None:
    """Agents claim, the operator confirms, the webhook writes nothing of Berth's."""

    def written(name: str) -> set[str]:
        reading = {"get", "list", "watch"}
        rules = [rule for rule in named("ClusterRole", name)["rules"] if rule["apiGroups"] == ["ipam.berth.dev"]]
        return {each for rule in rules for each in rule["resources"] if set(rule["verbs"]) - reading}

    assert written("berth-agent") == {"endpoints"}
    statuses = {"endpoints/status", "ippools/status", "reservedips/status"}
    assert written("berth-operator") == {"endpoints", "ippools", *statuses}  # of pools the finalizer
    assert written("berth-webhook") == set()
    assert written("berth-editor") == {"ippools", "reservedips"}


def test_the_policy_knows_the_accounts_that_are_installed() -> None:
    policy = json.dumps(named("ValidatingAdmissionPolicy", "berth-endpoints"))
    for part in ("agent", "operator"):
        account = named("ServiceAccount", f"berth-{part}")["metadata"]
        assert f"system:serviceaccount:{account['namespace']}:{account['name']}" in policy


# --- how each part runs ----------------------------------------------------------------------------------------------


@BY_NAME
def test_a_container_can_change_nothing_but_its_volumes(workload: Manifest) -> None:
    container, pod = container_of(workload), pod_of(workload)
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostPID", "hostIPC"} & set(pod)
    assert "privileged" not in context


@BY_NAME
def test_only_the_agent_is_root_and_only_it_sees_folders_of_the_host(workload: Manifest) -> None:
    pod = pod_of(workload)
    folders = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    if workload["metadata"]["name"] == "berth-agent":
        assert folders == {"/run/berth", "/var/lib/berth", "/opt/cni/bin"}
    else:
        assert folders == set()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0


@BY_NAME
def test_it_runs_before_there_is_a_pod_network_and_on_nodes_that_are_not_ready(workload: Manifest) -> None:
    pod = pod_of(workload)
    assert pod["hostNetwork"] is True
    assert pod["priorityClassName"] in ("system-cluster-critical", "system-node-critical")
    assert any(
        each.get("operator") == "Exists" and each.get("key") in (None, "node.kubernetes.io/not-ready")
        for each in pod["tolerations"]
    )


@BY_NAME
def test_it_is_probed_limited_and_of_a_version(workload: Manifest) -> None:
    container = container_of(workload)
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    name, _, tag = container["image"].partition(":")
    assert name == "berth"
    assert tag not in ("", "latest")


@BY_NAME
def test_its_command_line_is_one_that_berth_takes(workload: Manifest) -> None:
    parsed = _parser().parse_args(container_of(workload)["args"])
    assert parsed.kubeconfig is None, "in a cluster the service account is the way"


@BY_NAME
def test_selector_labels_and_account_belong_together(workload: Manifest) -> None:
    template = workload["spec"]["template"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    name = workload["metadata"]["name"]
    assert template["spec"]["serviceAccountName"] == name
    assert named("ServiceAccount", name)["metadata"]["namespace"] == "berth-system"


def test_no_two_parts_want_the_same_port_of_a_node() -> None:
    ports = [port["containerPort"] for workload in workloads() for port in container_of(workload)["ports"]]
    assert len(ports) == len(set(ports))


def test_two_replicas_never_want_one_node_and_an_update_takes_the_old_one_first() -> None:
    for deployment in of_kind("Deployment"):
        assert deployment["spec"]["replicas"] == 2
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        (term,) = pod_of(deployment)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"] == deployment["spec"]["selector"]


def test_an_agent_is_never_ended_because_the_api_is_away() -> None:
    """Its /healthz says whether the API is reached; while it is not, the agent keeps what is to be released."""
    container = container_of(named("DaemonSet", "berth-agent"))
    assert container["livenessProbe"]["httpGet"]["path"] == "/metrics"
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"


# --- samples ---------------------------------------------------------------------------------------------------------


def test_the_sample_conflist_is_read_by_old_and_new_runtimes() -> None:
    conflist = json.loads((CONFIG / "samples" / "10-berth-macvlan.conflist").read_text())
    assert conflist["cniVersion"] == "1.0.0", "containerd 1.7 refuses the whole file when this is newer"
    assert conflist["cniVersion"] in conflist["cniVersions"]
    (plugin,) = conflist["plugins"]
    assert plugin["ipam"] == {"type": "berth"}


def test_sample_pools_and_reservations_fit_each_other() -> None:
    def spec(name: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((CONFIG / "samples" / f"{name}.yaml").read_text())["spec"]
        return found

    for name in ("ippool-v4", "ippool-v6"):
        subnet = ip_network(spec(name)["subnet"])
        for entry in spec(name)["ips"]:
            assert all(ip_address(end) in subnet for end in entry.split("-"))
    subnet = ip_network(spec("ippool-v4")["subnet"])
    assert all(ip_address(end) in subnet for entry in spec("reservedip")["ips"] for end in entry.split("-"))
