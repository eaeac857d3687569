"""A node: a real kubelet, containerd and kube-proxy in mount, network and UTS namespaces of their own.

A node sees this machine's files, but what it writes below /etc, /opt, /run, /var/lib and /var/log is its own, in
memory, and gone with it. So a DaemonSet finds the paths that it finds on any node (/opt/cni/bin, /etc/cni/net.d),
and nodes don't meet. A process that sleeps holds the namespaces. A node whose power is off is its disk alone: what a
machine keeps in memory (/run, mounts, networks) is gone when it is on again.
"""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import binaries, cgroups, images
from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.errors import ClusterError
from e2e.cluster.network import LINKS, Network
from e2e.cluster.process import Process
from e2e.cluster.shell import run, wait_for

TOOLS = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr")
MACHINE_TOOLS = ("ip", "unshare", "nsenter", "mount", "nft", "runc", "gcc")
PLUGINS = ("bridge", "host-local", "loopback", "macvlan", "portmap", "ptp")
SOCKET = "/run/containerd/containerd.sock"

_OWN = ("etc", "opt", "var/lib", "var/log")
# containerd can't stack its layers on an overlay, nor kubelet its volumes: these are plain memory.
_PLAIN = ("/run", "/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods")
# kubelet tunes the kernel of the whole machine. It gets files of its own to write to.
_TUNED = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
          "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")  # fmt: skip


@dataclass(slots=True)
class Node:
    """One node of a cluster; `index` counts from 1 and gives its name and addresses."""

    index: int
    count: int
    """Of the nodes of the cluster."""
    plane: ControlPlane
    network: Network
    max_pods: int = 250
    processes: dict[str, Process] = field(default_factory=dict)
    """kubelet, containerd, kube-proxy, and `namespaces`, the sleeper."""

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def address(self) -> str:
        return self.network.address(self.index)

    @property
    def folder(self) -> Path:
        return self.plane.directory / self.name

    def create(self) -> None:
        """Makes the namespaces, the private file systems and the link to the bridge."""
        binary = binaries.ensure(*PLUGINS)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sleep(["unshare", "-m", "-n", "-u", "--propagation", "private"])
        self.run("sh", "-euc", self._mounts())
        self._attach()
        self.run("mkdir", "-p", "/opt/cni/bin", "/etc/cni/net.d")
        self.run("cp", "-L", *(str(binary / plugin) for plugin in PLUGINS), "/opt/cni/bin/")

    def start(self, pause: Path) -> None:
        """Starts containerd, gives it the pause image, then starts kubelet and kube-proxy."""
        self._start_containerd()
        self.import_image(pause)
        self._start_kubelet()

    def power_off(self) -> None:
        """Ends it at once: every process, Pods' too, its networks, its mounts and /run. What lies on its disk stays."""
        before = self.processes.pop("namespaces")
        mounts = os.readlink(f"/proc/{before.pid}/ns/mnt")
        self._sleep(["nsenter", "-t", str(before.pid), "-m", "-u", "unshare", "-n"])  # holds the disk meanwhile
        disk = self.processes["namespaces"].pid
        while running := [pid for pid in _sharing(mounts) if pid != disk]:
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            cgroups.remove(self.plane.directory, self.name)
            for process in (before, *self.processes.values()):
                if process.pid != disk:
                    process.kill()  # dead; this collects it
        self.run("sh", "-euc", _FORGET)

    def power_on(self) -> None:
        """Starts it again after `power_off`, with a new link to the bridge."""
        link = LINKS / self.network.link(self.index)
        wait_for(f"the end of {link.name}", lambda: not link.exists(), 30)  # its other end was in the lost network
        self._attach()
        self._start_containerd()
        self._start_kubelet()

    def run(self, *argv: str, timeout: float = 120) -> str:
        """Runs a command of this machine inside the node and returns its standard output."""
        return run(*self._inside(), *argv, timeout=timeout)

    def import_image(self, archive: Path) -> None:
        """Gives the node an image (a docker or OCI archive); Pods that use it say `imagePullPolicy: Never`."""
        self._ctr("images", "import", str(archive.absolute()))

    def configure_cni(self, conflist: Mapping[str, object], name: str = "10-test.conflist") -> None:
        """Puts a CNI configuration in place; the node turns Ready when it has one."""
        text = json.dumps(conflist, indent=2)
        self.run("sh", "-euc", 'printf %s "$1" > "$2.new" && mv "$2.new" "$2"', "sh", text, f"/etc/cni/net.d/{name}")

    def bridge_cni(self) -> dict[str, object]:
        """A CNI configuration that needs nothing but this node: a bridge, and addresses from a range of its own."""
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": self.network.pod_subnet(self.index)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        plugin = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
        return {"cniVersion": "1.0.0", "name": "bridge", "plugins": [plugin]}

    def containers(self) -> dict[str, int]:
        """The process of each container that runs, sandboxes too, by its ID: what containerd says of them."""
        listed = (line.split() for line in self._ctr("tasks", "ls").splitlines()[1:])
        return {identifier: int(pid) for identifier, pid, status in listed if status == "RUNNING"}

    def in_container(self, container: str, *argv: str) -> str:
        """Runs a command of this machine in the network namespace of a container, named by its ID."""
        pid = self.containers().get(container.rsplit("/", 1)[-1])
        if pid is None:
            raise ClusterError(f"{self.name} runs no container {container}: look at `ctr tasks ls`")
        return run("nsenter", "-t", str(pid), "-n", *argv)

    def _sleep(self, inside: list[str]) -> None:
        """Starts the process that holds the node's namespaces, which the given command makes or enters."""
        self._start("namespaces", [*inside, "sleep", "infinity"])
        comm = Path(f"/proc/{self.processes['namespaces'].pid}/comm")
        wait_for(f"the namespaces of {self.name}", lambda: comm.read_text() == "sleep\n", 10, pause=0.005)

    def _attach(self) -> None:
        self.network.attach(self.index, self.processes["namespaces"].pid, self.count)
        self.run("sh", "-euc", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def _start_containerd(self) -> None:
        binary = binaries.ensure(*TOOLS)
        self._write("containerd.toml", _containerd_config())
        self._enter("containerd", [str(binary / "containerd"), "--config", str(self.folder / "containerd.toml")])
        wait_for(f"containerd of {self.name}", self._containerd_answers, 30)

    def _start_kubelet(self) -> None:
        """kubelet, and kube-proxy beside it."""
        binary = binaries.ensure(*TOOLS)
        self._enter("kubelet", self._kubelet(binary))
        self._enter("kube-proxy", self._kube_proxy(binary))

    def _ctr(self, *argv: str) -> str:
        binary = binaries.ensure("ctr")
        return self.run(str(binary / "ctr"), "--address", SOCKET, "--namespace", "k8s.io", *argv, timeout=300)

    def _containerd_answers(self) -> bool:
        self.processes["containerd"].check()
        return run(*self._inside(), "sh", "-c", f"test -S {SOCKET} && echo yes", check=False) == "yes\n"

    def _inside(self) -> list[str]:
        return ["nsenter", "-t", str(self.processes["namespaces"].pid), "-m", "-n", "-u", "--"]

    def _enter(self, name: str, argv: list[str]) -> None:
        self._start(name, [*self._inside(), *argv])

    def _start(self, name: str, argv: list[str]) -> None:
        path = f"{binaries.ensure()}:{os.environ['PATH']}"
        process = Process(f"{self.name}-{name}", argv, self.plane.directory, {"PATH": path})
        self.processes[name] = process
        process.start()

    def _mounts(self) -> str:
        """The script that gives the node its own file systems, then lets mounts spread inside it as on a real one."""
        own = self.folder / "own"
        lines = [f"hostname {self.name}", f"mkdir -p {own}", f"mount -t tmpfs -o mode=755 tmpfs {own}"]
        for place in _OWN:
            upper, work = own / place, own / ".work" / place
            layers = f"lowerdir=/{place},upperdir={upper},workdir={work}"
            lines += [f"mkdir -p {upper} {work}", f"mount -t overlay -o {layers} overlay /{place}"]
        lines += [f"mkdir -p {place} && mount -t tmpfs -o mode=755 tmpfs {place}" for place in _PLAIN]
        for knob in _TUNED:
            copy = own / knob.replace("/", ".")
            lines.append(f"cat /proc/sys/{knob} > {copy} && mount --bind {copy} /proc/sys/{knob}")
        return "\n".join([*lines, "mount --make-rshared /"])

    def _write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        return file

    def _kubelet(self, binary: Path) -> list[str]:
        user = f"system:node:{self.name}"
        kubeconfig = self.plane.kubeconfig_for(user, ["system:nodes"], self.folder / "kubelet.kubeconfig")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"x509": {"clientCAFile": str(self.plane.authority.cert)}},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroups.create(self.plane.directory, self.name),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "enforceNodeAllocatable": [],
            "evictionHard": {},  # the disk of a developer's machine may well be nearly full
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "maxPods": self.max_pods,
            "oomScoreAdj": 0,  # lowering it needs a right that containers and small machines lack
            "registerWithTaints": [],
            "resolvConf": "/dev/null",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }
        file = self._write("kubelet.json", json.dumps(config, indent=2))
        own = [f"--hostname-override={self.name}", f"--node-ip={self.address}"]
        return [str(binary / "kubelet"), f"--config={file}", f"--kubeconfig={kubeconfig}", *own]

    def _kube_proxy(self, binary: Path) -> list[str]:
        file = self.folder / "kube-proxy.kubeconfig"
        kubeconfig = self.plane.kubeconfig_for("system:kube-proxy", file=file)
        # The limits of conntrack belong to the whole machine: 0 leaves them alone.
        limits = ["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"]
        limits += ["--conntrack-tcp-timeout-close-wait=0"]
        own = [f"--hostname-override={self.name}", "--proxy-mode=nftables"]
        return [str(binary / "kube-proxy"), f"--kubeconfig={kubeconfig}", *own, *limits]


# What the kernel mounted for Pods goes with the kernel; and /run is memory.
_FORGET = """\
awk '$5 ~ "^/(run|var/lib/kubelet|var/lib/containerd)/" {print $5}' /proc/self/mountinfo |
    tac | xargs -r -n 1 umount -l 2>/dev/null || :  # one that went with another is no error
find /run -mindepth 1 -delete
"""


def _sharing(mounts: str) -> list[int]:
    """The processes of this machine in one mount namespace."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(folder / "ns" / "mnt") == mounts:
                found.append(int(folder.name))
    return found


def _containerd_config() -> str:
    """Local images only; the machine may refuse a negative oom_score_adj, and then no sandbox would start."""
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{images.PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{shutil.which("runc")}"
"""
