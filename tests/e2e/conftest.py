"""One real cluster for all end-to-end stories: two nodes, Berth in it as Pods, nothing left behind afterwards.

What Berth's own Pods said is shown beside a story that fails: the cluster and its logs are gone when somebody reads.
"""

import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster, Options, leftovers
from e2e.install import NAMESPACE, install

ROOT = Path(__file__).parents[2]

# A node that is away is NotReady after 30 s, not after 50: kubelet renews its Lease every ten.
OPTIONS = Options(controller_manager_flags=["--node-monitor-grace-period=30s"])

TELLING = [
    ["get", "lease,pods", "-n", NAMESPACE, "-o", "wide"],
    ["get", "ippools,reservedips,ipe", "-A", "-o", "wide"],
    ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--tail=120", "--prefix"],
]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    conflist = json.loads((ROOT / "config" / "samples" / "10-berth-macvlan.conflist").read_text())
    with Cluster(directory, nodes=2, options=OPTIONS) as cluster:
        for node in cluster.nodes.values():
            node.configure_cni(conflist)
        install(cluster)
        yield cluster
    assert leftovers(directory) == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    running = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(running, Cluster):
        report.sections += [(" ".join(each), running.kubectl(*each, check=False)) for each in TELLING]
    return report
