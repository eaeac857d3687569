"""One real cluster for all end-to-end stories: two nodes, Berth in it as Pods, nothing left behind afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster, leftovers
from e2e.install import install

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    conflist = json.loads((ROOT / "config" / "samples" / "10-berth-macvlan.conflist").read_text())
    with Cluster(directory, nodes=2) as cluster:
        for node in cluster.nodes.values():
            node.configure_cni(conflist)
        install(cluster)
        yield cluster
    assert leftovers(directory) == []
