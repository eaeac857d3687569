"""`CLUSTER=kind`: the same cluster from kind, for machines that have docker."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster.network import bridge_of
from e2e.cluster.shell import require, run


def wanted() -> bool:
    return os.environ.get("CLUSTER") == "kind"


class KindCluster:
    """What `Cluster` offers, as far as kind can: start, stop, kubectl, import_image."""

    def __init__(self, directory: Path | str, nodes: int = 2, *, owned: bool = True) -> None:
        self.directory = Path(directory).absolute()
        self._name = bridge_of(self.directory)
        self._nodes, self._owned = nodes, owned

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "admin.kubeconfig"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            self.stop()

    def start(self) -> Path:
        """Starts it, without a CNI of its own, and returns the administrator's kubeconfig."""
        require(["kind", "docker", "kubectl"])
        self.directory.mkdir(parents=True, exist_ok=True)
        nodes = [{"role": "control-plane"}, *({"role": "worker"} for _ in range(self._nodes))]
        config = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"disableDefaultCNI": True},
            "nodes": nodes,
        }
        argv = ["kind", "create", "cluster", "--name", self._name, "--kubeconfig", str(self.kubeconfig)]
        run(*argv, "--config", "-", stdin=json.dumps(config), timeout=600)
        return self.kubeconfig

    def stop(self) -> None:
        run("kind", "delete", "cluster", "--name", self._name)
        self.kubeconfig.unlink(missing_ok=True)

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        return run("kubectl", f"--kubeconfig={self.kubeconfig}", *argv, stdin=stdin, check=check, timeout=timeout)

    def import_image(self, archive: Path) -> None:
        run("kind", "load", "image-archive", archive, "--name", self._name, timeout=600)
