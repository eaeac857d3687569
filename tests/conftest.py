"""What all tests share: how long hypothesis searches (`HYPOTHESIS_PROFILE=long`: minutes), and a real API server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from e2e.cluster import ControlPlane, Options

settings.register_profile("default", deadline=None, max_examples=60, stateful_step_count=40)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=3000,
    stateful_step_count=120,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver with Berth's kinds; no controllers. All tests marked `api` share it: each uses names and
    subnets of its own, and takes away what would hinder others."""
    with ControlPlane(tmp_path_factory.mktemp("plane"), options=Options(controllers=False, fsync=False)) as plane:
        plane.kubectl("apply", "-f", str(Path(__file__).parents[1] / "crds"))
        plane.kubectl(
            "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "app.kubernetes.io/part-of=berth"
        )
        yield plane
