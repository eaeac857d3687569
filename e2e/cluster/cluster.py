"""A whole cluster: a control plane on a bridge, and nodes that are joined to it."""

import ipaddress
import os
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster import binaries, cleanup, images
from e2e.cluster.controlplane import ControlPlane, Options
from e2e.cluster.errors import ClusterError, CommandError
from e2e.cluster.network import Network, free_subnet
from e2e.cluster.node import MACHINE_TOOLS, Node
from e2e.cluster.process import Process, Warden
from e2e.cluster.shell import require, wait_for


class Cluster:
    """`with Cluster(folder) as cluster:` starts control plane and nodes, and leaves nothing behind but the logs.

    Nodes start without a CNI configuration and so are NotReady: put one there with `cluster.use_bridge_cni()` or
    `node.configure_cni(...)`, or let a DaemonSet do it.
    """

    def __init__(
        self,
        directory: Path | str,
        nodes: int = 2,
        *,
        subnet: str | None = None,
        options: Options | None = None,
        max_pods: int = 250,
        owned: bool = True,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.network = Network(self.directory, ipaddress.IPv4Network(subnet) if subnet else free_subnet())
        if not 1 <= nodes <= 99:
            raise ClusterError(f"{nodes} nodes can't be made on one machine: ask for 1 to 99")
        self._count, self._max_pods = nodes, max_pods
        self._options = replace(options or Options(), address=self.network.gateway)
        self._warden = Warden(self.directory) if owned else None
        self._plane: ControlPlane | None = None
        self.nodes: dict[str, Node] = {}

    @property
    def plane(self) -> ControlPlane:
        if self._plane is None:
            raise ClusterError("the cluster was not started: call start(), or use it in a with statement")
        return self._plane

    @property
    def kubeconfig(self) -> Path:
        return self.plane.kubeconfig

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Runs kubectl as the administrator and returns its standard output."""
        return self.plane.kubectl(*argv, stdin=stdin, check=check, timeout=timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts everything and returns when all nodes are registered; a start that fails leaves nothing behind."""
        if os.geteuid() != 0:
            raise ClusterError("nodes need namespaces, mounts and cgroups of their own: run this as root")
        require([*MACHINE_TOOLS, "openssl", "go"])
        binaries.ensure(*binaries.names())
        cleanup.write_state(self.directory, {"nodes": self._count, "subnet": str(self.network.subnet)})
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything; certificates, data and logs stay in the folder."""
        cleanup.end(self.directory)
        for process in self.processes():
            process.kill()  # dead by now; this collects it
        if self._warden:
            self._warden.dismiss()

    def processes(self) -> list[Process]:
        """Every process of the control plane and the nodes."""
        holders = [self._plane, *self.nodes.values()]
        return [process for holder in holders if holder for process in holder.processes.values()]

    def use_bridge_cni(self) -> None:
        """Gives each node a bridge and addresses of its own: Pods without Berth."""
        for node in self.nodes.values():
            node.configure_cni(node.bridge_cni())

    def import_image(self, archive: Path) -> None:
        """Gives all nodes an image."""
        for node in self.nodes.values():
            node.import_image(archive)

    def wait_nodes_ready(self, bound: float = 60) -> None:
        """Waits until every node is Ready: it has a CNI configuration and a running kubelet."""
        for process in self.processes():
            process.check()
        self.kubectl("wait", "--for=condition=Ready", "node", "--all", f"--timeout={bound:.0f}s", timeout=bound + 10)

    def exec_in_pod(self, namespace: str, pod: str, *argv: str) -> str:
        """Runs a command of this machine in a Pod's network namespace; the image needs to hold nothing."""
        fields = "jsonpath={.spec.nodeName} {.status.containerStatuses[0].containerID}"
        node, container = self.kubectl("get", "pod", "-n", namespace, pod, "-o", fields).split()
        return self.nodes[node].in_container(container, *argv)

    def _start(self) -> None:
        if self._warden:
            self._warden.watch()
        self.network.create()
        self._plane = ControlPlane(self.directory, options=self._options, owned=False)
        self._plane.start()
        pause = images.write_pause(self.directory / "images" / "pause.tar")
        for index in range(1, self._count + 1):
            node = Node(index, self._count, self._plane, self.network, self._max_pods)
            self.nodes[node.name] = node
            node.create()
            node.start(pause)
        wait_for("every kubelet's Node object", self._registered, 60)

    def _registered(self) -> bool:
        for process in self.processes():
            process.check()
        try:
            listed = self.kubectl("get", "nodes", "-o", "name").split()
        except CommandError:
            return False
        return {f"node/{name}" for name in self.nodes} <= set(listed)
