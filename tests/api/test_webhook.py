"""The webhook as the API server calls it: two replicas of `berth webhook` behind a real kube-apiserver."""

import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import ControlPlane, Process, binaries
from e2e.cluster.controlplane import free_ports
from e2e.cluster.shell import run, wait_for

pytestmark = pytest.mark.api

ROOT = Path(__file__).parents[2]
BERTH = ROOT / ".venv" / "bin" / "berth"
Object = dict[str, Any]


@dataclass
class Webhooks:
    """Two replicas, and a configuration that calls both: the second is asked only of what the first has let pass."""

    plane: ControlPlane
    replicas: list[Process]
    ports: list[int]
    made: list[tuple[str, str]] = field(default_factory=list)

    def apply(self, kind: str, name: str, spec: Object) -> tuple[int, str]:
        """Exit code and everything printed, as at a terminal."""
        self.made.append((kind, name))
        thing = {"apiVersion": "ipam.berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(thing))

    def kubectl(self, *argv: str, stdin: str | None = None) -> tuple[int, str]:
        command = [str(binaries.ensure("kubectl") / "kubectl"), f"--kubeconfig={self.plane.kubeconfig}", *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def hold(self, pool: str, *addresses: str) -> None:
        """Write the pool's status as the operator would."""
        status = {"ledger": {"sequence": 1, "pending": {each: f"claim-{each}" for each in addresses}}}
        patch = ["--subresource=status", "--type=merge", "-p", json.dumps({"status": status})]
        self.plane.kubectl("patch", "ipp", pool, *patch)


def configuration(ports: Sequence[int], bundle: bytes) -> Object:
    """Ours, from config/webhook, but with an address in place of the Service."""
    content: Object = yaml.safe_load((ROOT / "config/webhook/configuration.yaml").read_text())
    [webhook] = content["webhooks"]
    ca = base64.b64encode(bundle).decode()
    content["webhooks"] = [
        {
            **webhook,
            "name": f"w{port}.berth.dev",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/validate", "caBundle": ca},
        }
        for port in ports
    ]
    return content


def launch(plane: ControlPlane, *arguments: str, name: str) -> Process:
    process = Process(name, [str(BERTH), "webhook", "--kubeconfig", str(plane.kubeconfig), *arguments], plane.directory)
    process.start()
    return process


def listening(process: Process, port: int) -> bool:
    process.check()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def running(api_server: ControlPlane) -> Iterator[Webhooks]:
    serving = api_server.authority.issue("webhook", "webhook", hosts=["127.0.0.1"])
    ports = free_ports("127.0.0.1", 2)
    replicas = [
        launch(
            api_server,
            "--cert",
            str(serving.cert),
            "--key",
            str(serving.key),
            "--port",
            str(port),
            name=f"webhook-{port}",
        )
        for port in ports
    ]
    for process, port in zip(replicas, ports, strict=True):
        wait_for("a webhook", lambda process=process, port=port: listening(process, port), 30)  # type: ignore[misc]
    api_server.kubectl(
        "apply", "-f", "-", stdin=json.dumps(configuration(ports, api_server.authority.cert.read_bytes()))
    )
    both = Webhooks(api_server, replicas, ports)
    # The API server takes a moment to learn of a configuration.
    wait_for(
        "the webhook to be asked",
        lambda: both.apply("IPPool", "probe", {"subnet": "10.9.0.0/24", "gateway": "1.2.3.4"})[0] != 0,
        30,
    )
    yield both
    api_server.kubectl("delete", "validatingwebhookconfiguration", "berth")
    for process in replicas:
        process.stop()


@pytest.fixture
def webhooks(running: Webhooks) -> Iterator[Webhooks]:
    yield running
    for kind, name in running.made:
        path = ["patch", kind.lower(), name, "--subresource=status", "--type=merge", "-p", '{"status": null}']
        running.plane.kubectl(*path, check=False)
        running.plane.kubectl("delete", kind.lower(), name, "--ignore-not-found")
    running.made.clear()


BLUE = {"subnet": "10.77.0.0/24", "ips": ["10.77.0.10-10.77.0.19"], "gateway": "10.77.0.1"}


def test_an_overlapping_pool_is_refused_at_the_terminal_with_what_to_do(webhooks: Webhooks) -> None:
    assert webhooks.apply("IPPool", "blue", BLUE) == (0, "ippool.ipam.berth.dev/blue created\n")
    code, said = webhooks.apply("IPPool", "green", {"subnet": "10.77.0.0/24", "ips": ["10.77.0.15-10.77.0.30"]})
    assert code != 0
    assert said == (
        'The IPPool "green" is invalid: spec.ips: overlaps IPPool blue: both hand out 10.77.0.15-10.77.0.19'
        " (5 addresses): exclude them with spec.excludeIPs or shrink spec.ips\n"
    )
    assert webhooks.kubectl("get", "ipp", "green")[0] != 0


def test_a_pool_that_passes_the_schema_may_still_be_refused_field_by_field(webhooks: Webhooks) -> None:
    code, said = webhooks.apply("IPPool", "far", {**BLUE, "ips": ["10.78.0.5"], "gateway": "10.78.0.1"})
    assert code != 0
    assert said.splitlines() == [
        'The IPPool "far" is invalid: ',
        '* spec.ips[0]: "10.78.0.5" is outside of spec.subnet 10.77.0.0/24',
        '* spec.gateway: "10.78.0.1" is outside of spec.subnet 10.77.0.0/24: a gateway is on the link',
    ]


def test_a_dry_run_is_judged_as_the_real_thing(webhooks: Webhooks) -> None:
    webhooks.apply("IPPool", "blue", BLUE)
    thing = {"apiVersion": "ipam.berth.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "green"}, "spec": BLUE}
    code, said = webhooks.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(thing))
    assert code != 0
    assert "overlaps IPPool blue" in said


def test_warnings_are_shown_and_the_pool_is_made(webhooks: Webhooks) -> None:
    code, said = webhooks.apply("IPPool", "blue", {**BLUE, "podSelector": {}})
    assert code == 0
    assert "Warning: IPPool blue: spec.podSelector: is empty and so selects everything" in said


def test_a_pool_in_use_keeps_its_addresses_and_stays(webhooks: Webhooks) -> None:
    webhooks.apply("IPPool", "blue", BLUE)
    webhooks.hold("blue", "10.77.0.10", "10.77.0.11")
    code, said = webhooks.apply("IPPool", "blue", {**BLUE, "excludeIPs": ["10.77.0.11"]})
    assert code != 0
    assert "spec.excludeIPs: takes away 1 address in use: 10.77.0.11:" in said
    code, said = webhooks.kubectl("delete", "ipp", "blue")
    assert code != 0
    assert "IPPool blue: 2 addresses are in use: set spec.disabled" in said
    code, said = webhooks.apply("IPPool", "blue", {**BLUE, "disabled": True})
    assert code == 0
    assert "2 addresses in use stay with their Pods" in said
    webhooks.hold("blue")
    webhooks.plane.kubectl("patch", "ipp", "blue", "--subresource=status", "--type=merge", "-p", '{"status": null}')
    assert webhooks.kubectl("delete", "ipp", "blue")[0] == 0


def test_a_reservation_of_an_address_in_use_is_accepted_with_a_warning(webhooks: Webhooks) -> None:
    webhooks.apply("IPPool", "blue", BLUE)
    webhooks.hold("blue", "10.77.0.10")
    code, said = webhooks.apply("ReservedIP", "printers", {"ips": ["10.77.0.10"]})
    assert code == 0
    assert "Warning: ReservedIP printers: in use from IPPool blue: 10.77.0.10" in said
    code, said = webhooks.apply("ReservedIP", "backwards", {"ips": ["10.77.0.9-10.77.0.8"]})
    assert code != 0
    assert "spec.ips[0]" in said


def test_a_broken_pool_can_be_labelled_repaired_and_deleted(webhooks: Webhooks) -> None:
    """It came to be while no webhook was there."""
    plane = webhooks.plane
    saved = plane.kubectl("get", "validatingwebhookconfiguration", "berth", "-o", "json")
    plane.kubectl("delete", "validatingwebhookconfiguration", "berth")
    webhooks.apply("IPPool", "blue", BLUE)
    broken = {**BLUE, "gateway": "10.99.0.1"}
    wait_for("the API server to forget the webhook", lambda: webhooks.apply("IPPool", "broken", broken)[0] == 0, 20)
    again = json.loads(saved)
    again["metadata"] = {"name": "berth", "labels": again["metadata"]["labels"]}
    plane.kubectl("create", "-f", "-", stdin=json.dumps(again))
    wait_for("the webhook to be asked", lambda: webhooks.apply("IPPool", "worse", broken)[0] != 0, 30)

    assert webhooks.kubectl("label", "ipp", "broken", "a=b")[0] == 0
    webhooks.hold("broken")
    code, said = webhooks.apply("IPPool", "broken", {**broken, "default": True})
    assert code == 0
    assert 'still wrong: spec.gateway: "10.99.0.1" is outside of spec.subnet' in said
    code, said = webhooks.apply("IPPool", "broken", {**BLUE, "ips": ["10.77.0.20"]})
    assert code == 0, said
    plane.kubectl("patch", "ipp", "broken", "--type=merge", "-p", '{"metadata": {"finalizers": ["berth.test/wait"]}}')
    plane.kubectl("delete", "ipp", "broken", "--wait=false")
    assert (
        webhooks.kubectl("patch", "ipp", "broken", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')[0] == 0
    )


def test_of_many_equal_pools_made_at_once_nearly_all_are_refused(webhooks: Webhooks) -> None:
    """The race that no webhook can close; the operator does. Those that got through overlap, and nothing else is."""
    names = [f"race-{number}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(lambda name: webhooks.apply("IPPool", name, BLUE)[0], names))
    assert codes.count(0) >= 1
    assert webhooks.apply("IPPool", "late", BLUE)[0] != 0


def test_status_and_labels_pass_while_no_webhook_is_there_and_specs_do_not(webhooks: Webhooks) -> None:
    webhooks.apply("IPPool", "blue", BLUE)
    webhooks.replicas[1].kill()
    try:
        webhooks.hold("blue", "10.77.0.10")
        assert webhooks.kubectl("label", "ipp", "blue", "a=b")[0] == 0
        code, said = webhooks.apply("IPPool", "blue", {**BLUE, "default": True})
        assert code != 0
        assert "failed calling webhook" in said
    finally:
        webhooks.replicas[1].restart()
        wait_for("the webhook", lambda: listening(webhooks.replicas[1], webhooks.ports[1]), 30)


def test_the_operators_finalizer_comes_and_goes_with_the_webhook_there_and_away(webhooks: Webhooks) -> None:
    plane = webhooks.plane
    command = [str(BERTH), "operator", "--kubeconfig", str(plane.kubeconfig), "--namespace", "default"]
    operator = Process("operator-of-webhooks", command, plane.directory)
    operator.start()
    try:
        for name in ("blue", "green"):
            webhooks.apply("IPPool", name, {"subnet": f"10.{len(name)}.77.0/24"})
            finalizers = ["get", "ipp", name, "-o", "jsonpath={.metadata.finalizers}"]
            wait_for("the finalizer", lambda argv=finalizers: "in-use" in plane.kubectl(*argv), 20)  # type: ignore[misc]
        assert webhooks.kubectl("delete", "ipp", "blue", "--timeout=20s")[0] == 0, "the webhook is there"
        operator.stop()
        assert webhooks.kubectl("delete", "ipp", "green", "--wait=false")[0] == 0
        assert webhooks.kubectl("get", "ipp", "green")[0] == 0
        webhooks.replicas[1].kill()
        operator.start()
        assert webhooks.kubectl("wait", "ipp", "green", "--for=delete", "--timeout=30s")[0] == 0, "it is away"
    finally:
        operator.stop()
        if not webhooks.replicas[1].running:
            webhooks.replicas[1].restart()
            wait_for("the webhook", lambda: listening(webhooks.replicas[1], webhooks.ports[1]), 30)


def test_without_a_right_to_read_pools_it_refuses_and_says_why(webhooks: Webhooks) -> None:
    plane = webhooks.plane
    serving = plane.authority.issue("webhook-3", "webhook-3", hosts=["127.0.0.1"])
    [port] = free_ports("127.0.0.1", 1)
    stranger = plane.kubeconfig_for("stranger")
    argv = ["webhook", "--kubeconfig", str(stranger), "--cert", str(serving.cert), "--key", str(serving.key)]
    process = Process("webhook-stranger", [str(BERTH), *argv, "--port", str(port)], plane.directory)
    process.start()
    try:
        wait_for("a webhook", lambda: listening(process, port), 30)
        asked = {"uid": "1", "operation": "CREATE", "object": {"metadata": {"name": "a"}, "spec": BLUE}}
        asked["resource"] = {"group": "ipam.berth.dev", "version": "v1alpha1", "resource": "ippools"}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}
        url = f"https://127.0.0.1:{port}/validate"
        said = run("curl", "-s", "--cacert", plane.authority.cert, "-d", json.dumps(review), url)
        assert "could not be read" in said
        assert "forbidden" in said
    finally:
        process.stop()


@pytest.fixture(scope="module")
def installed(api_server: ControlPlane) -> Iterator[ControlPlane]:
    """What config/webhook installs but for Pods: rights, Secret, configuration."""
    # Without controllers a namespace that was deleted stays: others may have left it.
    api_server.kubectl("create", "namespace", "berth-system", check=False)
    built = api_server.kubectl("kustomize", str(ROOT / "config/webhook"))
    parts = [each for each in yaml.safe_load_all(built) if each["kind"] not in ("Deployment", "PodDisruptionBudget")]
    for each in parts:
        if each["kind"] == "ValidatingWebhookConfiguration":
            each["metadata"]["name"] = "berth-unused"
            for webhook in each["webhooks"]:
                webhook["matchConditions"] = [{"name": "never", "expression": "false"}]
        if each["kind"] == "ClusterRole":
            for rule in each["rules"]:
                if "resourceNames" in rule:
                    rule["resourceNames"] = ["berth-unused"]
    manifest = yaml.safe_dump_all(parts)
    api_server.kubectl("apply", "-f", "-", stdin=manifest)
    yield api_server
    api_server.kubectl("delete", "-f", "-", stdin=manifest)


def test_two_replicas_with_the_rights_of_the_installation_share_one_certificate(installed: ControlPlane) -> None:
    """As the service account: from the empty Secret to a trusted Service name, and the CA in the configuration."""
    token = installed.kubectl("create", "token", "berth-webhook", "-n", "berth-system").strip()
    config = json.loads(installed.kubeconfig.read_text())
    config["users"] = [{"name": "berth", "user": {"token": token}}]
    kubeconfig = installed.directory / "webhook-account.kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    ports = free_ports("127.0.0.1", 2)
    replicas = [
        Process(
            f"webhook-account-{port}",
            [
                str(BERTH),
                "webhook",
                "--kubeconfig",
                str(kubeconfig),
                "--configuration",
                "berth-unused",
                "--port",
                str(port),
            ],
            installed.directory,
        )
        for port in ports
    ]
    for process in replicas:
        process.start()
    try:
        path = [
            "get",
            "validatingwebhookconfiguration",
            "berth-unused",
            "-o",
            "jsonpath={.webhooks[0].clientConfig.caBundle}",
        ]
        wait_for("the CA in the configuration", lambda: bool(installed.kubectl(*path)), 30)
        bundle = installed.directory / "bundle.pem"
        bundle.write_bytes(base64.b64decode(installed.kubectl(*path)))
        host = "berth-webhook.berth-system.svc"
        for process, port in zip(replicas, ports, strict=True):
            wait_for("a webhook", lambda process=process, port=port: listening(process, port), 30)  # type: ignore[misc]
            resolve = f"{host}:{port}:127.0.0.1"
            assert (
                run("curl", "-s", "--cacert", bundle, "--resolve", resolve, f"https://{host}:{port}/readyz") == "ok\n"
            )
        # What is applied again, as after an upgrade, takes neither the certificate nor the CA away.
        installed.kubectl("apply", "-f", str(ROOT / "config/webhook/secret.yaml"), "-n", "berth-system")
        assert "tls.key" in installed.kubectl("get", "secret", "berth-webhook", "-n", "berth-system", "-o", "json")
        began = time.monotonic()
        replicas[0].stop(bound=15)
        assert time.monotonic() - began < 12
    finally:
        for process in replicas:
            process.kill()


def test_it_may_not_do_more_than_it_must(installed: ControlPlane) -> None:
    account = "--as=system:serviceaccount:berth-system:berth-webhook"
    for verb, what, answer in [
        ("list", "ippools.ipam.berth.dev", "yes"),
        ("list", "endpoints.ipam.berth.dev", "yes"),
        ("update", "ippools.ipam.berth.dev", "no"),
        ("patch", "ippools.ipam.berth.dev/status", "no"),
        ("list", "pods", "no"),
        ("create", "secrets", "no"),
        ("list", "secrets", "no"),
        ("get", "secrets/berth-webhook", "yes"),
        ("patch", "validatingwebhookconfigurations/another", "no"),
        ("patch", "validatingwebhookconfigurations/berth-unused", "yes"),
    ]:
        said = installed.kubectl("auth", "can-i", verb, what, account, "-n", "berth-system", check=False).strip()
        assert said.splitlines()[-1] == answer, (verb, what)
