"""A Kubernetes control plane on one address of this machine: etcd and kube-apiserver, and the controllers if wanted.

Each instance has its own folder, certificate authority and free ports, so several run side by side. Every component is
a `Process` that a fault test can kill, freeze and restart, on the same port with the same data.
"""

import random
import socket
import ssl
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster import binaries
from e2e.cluster.pki import Authority, Credential, write_kubeconfig
from e2e.cluster.process import Process, Warden, kill_marked
from e2e.cluster.shell import run, wait_for

SERVICES = "10.96.0.0/16"
SERVICE_OF_API_SERVER = "10.96.0.1"
_TOOLS = ("etcd", "kube-apiserver", "kubectl")
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True, slots=True)
class Options:
    """What a control plane is started with."""

    controllers: bool = True
    """kube-controller-manager and kube-scheduler too; without them nothing makes or places Pods."""
    address: str = "127.0.0.1"
    """Where all listen; nodes need one that they can reach."""
    controller_qps: int = 1000
    """Requests a second for each controller: Kubernetes' own default holds 1000 Pods up for a minute."""
    fsync: bool = True
    """Whether etcd waits for the disk. Without it a killed process still loses nothing; a killed machine may."""
    api_server_flags: Sequence[str] = ()
    etcd_flags: Sequence[str] = ()
    controller_manager_flags: Sequence[str] = ()
    scheduler_flags: Sequence[str] = ()


class ControlPlane:
    """`with ControlPlane(folder) as plane:` starts it, waits until it serves, and ends it.

    Its data and logs stay in the folder. `owned=False` leaves it running when this process dies; then only
    `python3 -m e2e.cluster down --dir FOLDER` ends it.
    """

    def __init__(
        self, directory: Path | str, controllers: bool = True, *, options: Options | None = None, owned: bool = True
    ) -> None:
        self.directory = Path(directory).absolute()
        self.options = options or Options(controllers=controllers)
        self.authority = Authority(self.directory / "pki")
        self.processes: dict[str, Process] = {}
        self._ports = dict(zip(_PORTS, free_ports(self.options.address, len(_PORTS)), strict=True))
        self._warden = Warden(self.directory) if owned else None
        self._bin = Path()

    @property
    def url(self) -> str:
        return f"https://{self.options.address}:{self._ports['kube-apiserver']}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / "admin.kubeconfig"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts all and returns when the API server is ready (and, with controllers, when Pods can be made)."""
        self._bin = binaries.ensure(*_TOOLS, *(_CONTROLLERS if self.options.controllers else ()))
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._warden:
            self._warden.watch()
        self._write_credentials()
        self._launch("etcd", self._etcd_flags())
        self._launch("kube-apiserver", self._api_server_flags())
        if self.options.controllers:
            self._launch("kube-controller-manager", self._controller_manager_flags())
            self._launch("kube-scheduler", self._scheduler_flags())
        self.wait_ready()

    def stop(self) -> None:
        """Ends all processes. The data is throw-away, so nobody is waited for long."""
        for process in reversed(self.processes.values()):
            process.stop(bound=1)
        kill_marked(self.directory)
        if self._warden:
            self._warden.dismiss()

    def wait_ready(self, bound: float = 60) -> None:
        """Waits until the API server answers ready; the log of a component that died is in the error."""
        client = self._client(self._credential("admin"))
        self._await("a ready kube-apiserver", f"{self.url}/readyz", client, bound)
        if self.options.controllers:
            for name in _CONTROLLERS:
                place = f"https://{self.options.address}:{self._ports[name]}/healthz"
                self._await(f"a healthy {name}", place, client, bound)
            account = f"{self.url}/api/v1/namespaces/default/serviceaccounts/default"
            self._await("the default service account", account, client, bound)

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Runs kubectl as the administrator and returns its standard output."""
        own = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.directory / 'kubectl'}"]
        return run(self._bin / "kubectl", *own, *argv, stdin=stdin, check=check, timeout=timeout)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), file: Path | None = None) -> Path:
        """A kubeconfig with a client certificate for a user; give RBAC rights to the user or the groups."""
        name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in user)
        client = self.authority.issue(name, user, groups)
        return write_kubeconfig(file or self.directory / f"{name}.kubeconfig", self.url, self.authority, client)

    def _launch(self, name: str, flags: Sequence[str]) -> None:
        process = self.processes[name] = Process(name, [str(self._bin / name), *flags], self.directory)
        process.start()

    def _write_credentials(self) -> None:
        authority, address = self.authority, self.options.address
        authority.create()
        inside = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        hosts = [*inside, "localhost", *dict.fromkeys(["127.0.0.1", address, SERVICE_OF_API_SERVER])]
        authority.issue("api-server", "kube-apiserver", hosts=hosts)
        authority.issue("kubelet-client", "kube-apiserver", ["system:masters"])
        admin = authority.issue("admin", "admin", ["system:masters"])
        write_kubeconfig(self.kubeconfig, self.url, authority, admin)
        for name in _CONTROLLERS if self.options.controllers else ():
            self.kubeconfig_for(f"system:{name}", file=self.directory / f"{name}.kubeconfig")

    def _etcd_flags(self) -> list[str]:
        client, peer = self._etcd_url("etcd"), self._etcd_url("etcd-peer")
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            *([] if self.options.fsync else ["--unsafe-no-fsync"]),
            *self.options.etcd_flags,
        ]

    def _etcd_url(self, port: str) -> str:
        """etcd is for the API server alone: always on loopback."""
        return f"http://127.0.0.1:{self._ports[port]}"

    def _api_server_flags(self) -> list[str]:
        address, tokens = self.options.address, self.authority.token_key
        kubelet = self._credential("kubelet-client")
        loopback = address.startswith("127.")
        return [
            f"--etcd-servers={self._etcd_url('etcd')}",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={self._ports['kube-apiserver']}",
            *self._serving_flags(),
            f"--client-ca-file={self.authority.cert}",
            f"--kubelet-client-certificate={kubelet.cert}",
            f"--kubelet-client-key={kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={tokens.cert}",
            f"--service-account-signing-key-file={tokens.key}",
            f"--service-cluster-ip-range={SERVICES}",
            # The `kubernetes` Service can't point at loopback.
            f"--endpoint-reconciler-type={'none' if loopback else 'lease'}",
            # Webhooks are called at their Pods' addresses: the API server has no kube-proxy beside it.
            "--enable-aggregator-routing=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--delete-collection-workers=10",
            "--profiling=false",
            *self.options.api_server_flags,
        ]

    def _controller_manager_flags(self) -> list[str]:
        return [
            *self._controller_flags("kube-controller-manager"),
            f"--service-account-private-key-file={self.authority.token_key.key}",
            f"--root-ca-file={self.authority.cert}",
            "--use-service-account-credentials=true",
            *self.options.controller_manager_flags,
        ]

    def _scheduler_flags(self) -> list[str]:
        return [*self._controller_flags("kube-scheduler"), *self.options.scheduler_flags]

    def _controller_flags(self, name: str) -> list[str]:
        qps = self.options.controller_qps
        return [
            f"--kubeconfig={self.directory / name}.kubeconfig",
            f"--bind-address={self.options.address}",
            f"--secure-port={self._ports[name]}",
            *self._serving_flags(),
            f"--kube-api-qps={qps}",
            f"--kube-api-burst={2 * qps}",
            "--leader-elect=false",
            "--profiling=false",
        ]

    def _serving_flags(self) -> list[str]:
        serving = self._credential("api-server")
        return [f"--tls-cert-file={serving.cert}", f"--tls-private-key-file={serving.key}"]

    def _credential(self, name: str) -> Credential:
        return Credential(self.authority.folder / f"{name}.crt", self.authority.folder / f"{name}.key")

    def _client(self, credential: Credential) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        context.load_cert_chain(credential.cert, credential.key)
        return context

    def _await(self, what: str, url: str, client: ssl.SSLContext, bound: float) -> None:
        wait_for(what, lambda: self._answers(url, client), bound)

    def _answers(self, url: str, client: ssl.SSLContext) -> bool:
        """Whether a component answers 200; a dead component ends the waiting."""
        for process in self.processes.values():
            process.check()
        try:
            with urllib.request.urlopen(url, context=client, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


_PORTS = ("etcd", "etcd-peer", "kube-apiserver", *_CONTROLLERS)


def free_ports(address: str, count: int) -> list[int]:
    """Free ports below the range that the kernel gives to clients, so a restarted server finds its port free."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports
