"""A control plane of etcd and kube-apiserver: what integration and fault tests stand on."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import CommandError, ControlPlane, Options, StartError, leftovers
from e2e.cluster.errors import last_lines
from e2e.cluster.shell import run

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("plane")
    with ControlPlane(directory, options=Options(controllers=False, fsync=False)) as plane:
        yield plane
    assert leftovers(directory) == []


def test_the_administrator_may_do_everything(plane: ControlPlane) -> None:
    assert plane.kubectl("auth", "can-i", "*", "*").strip() == "yes"


def test_a_user_of_ones_own_has_the_name_and_groups_of_the_certificate_and_no_rights(plane: ControlPlane) -> None:
    kubeconfig = plane.kubeconfig_for("alice", ["developers"])
    who = plane.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo}", f"--kubeconfig={kubeconfig}")
    assert '"username":"alice"' in who
    assert "developers" in who
    with pytest.raises(CommandError, match="Forbidden"):
        plane.kubectl("get", "nodes", f"--kubeconfig={kubeconfig}")


def test_a_killed_api_server_comes_back_on_the_same_port_with_the_same_data(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "survivor")
    server, url = plane.processes["kube-apiserver"], plane.url
    server.kill()
    assert not server.running
    server.start()
    plane.wait_ready()
    assert plane.url == url
    assert "survivor" in plane.kubectl("get", "namespaces", "-o", "name")


def test_a_killed_etcd_loses_nothing_that_was_written(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "written")
    plane.processes["etcd"].restart()
    plane.wait_ready()
    assert "written" in plane.kubectl("get", "namespaces", "-o", "name")


def test_writes_wait_while_etcd_is_frozen_and_go_on_after(plane: ControlPlane) -> None:
    etcd = plane.processes["etcd"]
    etcd.pause()
    try:
        with pytest.raises(CommandError):
            plane.kubectl("create", "namespace", "frozen", "--request-timeout=500ms")
    finally:
        etcd.resume()
    plane.wait_ready()
    plane.kubectl("create", "namespace", "thawed")


def test_two_control_planes_run_side_by_side(plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane(tmp_path, options=Options(controllers=False, fsync=False)) as other:
        other.kubectl("create", "namespace", "elsewhere")
        assert "elsewhere" not in plane.kubectl("get", "namespaces", "-o", "name")
    assert leftovers(tmp_path) == []


def test_a_component_that_dies_at_start_says_why(tmp_path: Path) -> None:
    options = Options(controllers=False, api_server_flags=["--no-such-flag"])
    with pytest.raises(StartError, match=r"kube-apiserver died with status 1.*\n(.*\n)*.*no-such-flag"):
        ControlPlane(tmp_path, options=options).__enter__()
    assert leftovers(tmp_path) == []


def test_with_controllers_deployments_make_pods(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as plane:
        plane.kubectl("create", "deployment", "web", "--image=none", "--replicas=3")
        made = "jsonpath={.status.replicas}"
        end = time.monotonic() + 20
        while plane.kubectl("get", "deployment", "web", "-o", made) != "3" and time.monotonic() < end:
            time.sleep(0.1)
        assert plane.kubectl("get", "deployment", "web", "-o", made) == "3"


def test_nothing_outlives_a_test_run_that_is_killed(tmp_path: Path) -> None:
    story = f"""
import time
from e2e.cluster import ControlPlane
with ControlPlane({str(tmp_path)!r}, controllers=False):
    print("up", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", story], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "up\n", last_lines(tmp_path / "logs" / "kube-apiserver.log")
        assert leftovers(tmp_path, bound=0) != []
        owner.kill()
    assert leftovers(tmp_path, bound=5) == []


def test_a_command_that_fails_says_its_status_and_words() -> None:
    with pytest.raises(CommandError, match=r"ls /nowhere ended with status 2: .*No such file"):
        run("ls", "/nowhere")
