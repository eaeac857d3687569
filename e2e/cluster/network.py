"""The cluster's own network: one bridge in this machine's namespace, and a veth pair from it to each node.

Nothing leaves the machine: forwarding between the bridge and other links is the kernel's default, off. All names
come from the cluster's folder, so whoever cleans up knows them without being told.
"""

import hashlib
import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError, CommandError
from e2e.cluster.shell import run

LINKS = Path("/sys/class/net")
PREFIX = "bcl-"  # berth cluster: a link has 15 letters for its name


def identity(directory: Path) -> str:
    """A short name for a cluster, the same whoever asks."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:6]


def bridge_of(directory: Path) -> str:
    return PREFIX + identity(directory)


def free_subnet() -> ipaddress.IPv4Network:
    """The first /24 of 172.30.0.0/16 that this machine has no route into, so clusters run side by side."""
    for subnet in ipaddress.IPv4Network("172.30.0.0/16").subnets(new_prefix=24):
        if _route_into(subnet) is None:
            return subnet
    raise ClusterError("this machine has routes into all of 172.30.0.0/16: choose another subnet with --subnet")


def _route_into(subnet: ipaddress.IPv4Network) -> str | None:
    """A route of this machine, other than the default one, that overlaps a subnet."""
    for route in run("ip", "-4", "route", "show", "table", "main").splitlines():
        target = route.split()[0]
        if target[0].isdigit() and ipaddress.ip_network(target, strict=False).overlaps(subnet):
            return route.strip()
    return None


@dataclass(frozen=True, slots=True)
class Network:
    """The bridge, and the addresses of those on it: .1 is this machine, .11 the first node, .12 the second …"""

    directory: Path
    subnet: ipaddress.IPv4Network

    @property
    def bridge(self) -> str:
        return bridge_of(self.directory)

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge, where the API server listens."""
        return str(self.subnet[1])

    def address(self, node: int) -> str:
        return str(self.subnet[10 + node])

    def pod_subnet(self, node: int) -> str:
        """A range for Pods of one node, routed on all others: for IPAM that gives each node its own."""
        return f"10.244.{node}.0/24"

    def link(self, node: int) -> str:
        """The end of a node's veth pair that is on the bridge."""
        return f"{self.bridge}-{node}"

    def create(self) -> None:
        """Makes the bridge; refuses a subnet that this machine already reaches some other way."""
        if route := _route_into(self.subnet):
            raise ClusterError(f"{self.subnet} overlaps the route `{route}`: choose another with --subnet")
        run("ip", "link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        run("ip", "address", "add", f"{self.gateway}/{self.subnet.prefixlen}", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")

    def attach(self, node: int, namespace: int, nodes: int) -> None:
        """Joins the network namespace of a process to the bridge as its eth0, with routes to the other nodes' Pods."""
        outer = self.link(node)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", str(namespace))
        run("ip", "link", "set", outer, "master", self.bridge, "up")
        inside = ["nsenter", "-t", str(namespace), "-n", "ip"]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{self.address(node)}/{self.subnet.prefixlen}", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        # Service addresses need some route, or the kernel gives up before kube-proxy's rules see the packet.
        run(*inside, "route", "add", "default", "via", self.gateway)
        for other in range(1, nodes + 1):
            if other != node:
                run(*inside, "route", "add", self.pod_subnet(other), "via", self.address(other))


def links(directory: Path | None = None) -> list[str]:
    """The links in this machine's namespace that belong to one cluster, or to any."""
    prefix = bridge_of(directory) if directory else PREFIX
    names = [link.name for link in LINKS.iterdir()]
    return sorted(name for name in names if name.startswith(prefix))


def remove_links(directory: Path) -> None:
    for link in links(directory):
        with suppress(CommandError):  # a veth goes with its peer, perhaps just now
            run("ip", "link", "delete", link)
